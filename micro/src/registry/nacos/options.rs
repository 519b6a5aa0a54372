//! What the URL says of Nacos.

use std::fmt;

use super::super::{
    format::Format,
    url::{Url, host_and_port, is_loopback},
};
use crate::Error;

const DEFAULT_PORT: u16 = 8848;

/// From the port that the URL names, Nacos's main port, to the one that clients speak gRPC to.
const TO_GRPC: u16 = 1000;

/// The formats that records have in Nacos.
const FORMATS: [Format; 3] = [Format::Micro, Format::Kratos, Format::Kitex];

const DEFAULT_GROUP: &str = "DEFAULT_GROUP";

/// The options that other nodes are found with, and their defaults.
const TELLING: [(&str, &str); 4] =
    [("namespace", ""), ("group", DEFAULT_GROUP), ("cluster", ""), ("format", "micro")];

/// A server of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    /// `host:port` of the main port, where one signs in.
    pub(super) main: String,
    /// `host:port` of the other, where all else is done.
    pub(super) grpc: String,
}

/// The servers, the place in them, and the credentials. `Debug` shows no password.
#[derive(Clone)]
pub(super) struct Options {
    /// `nacos://h1:8848,h2:8848?namespace=dev`, with what is [`TELLING`].
    pub(super) name: String,
    pub(super) servers: Vec<Server>,
    /// Where gRPC is spoken, if not at the main port and 1000.
    pub(super) grpc_port: Option<u16>,
    /// Its id; empty for Nacos's own, `public`.
    pub(super) namespace: String,
    pub(super) group: String,
    /// The cluster that nodes are registered in, and the one whose nodes alone are read.
    pub(super) cluster: Option<String>,
    /// Those of the records, the one first that is in force.
    pub(super) formats: Vec<Format>,
    pub(super) user: Option<(String, String)>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("name", &self.name)
            .field("namespace", &self.namespace)
            .field("group", &self.group)
            .field("cluster", &self.cluster)
            .field("formats", &self.formats)
            .field("user", &self.user.as_ref().map(|(user, _)| user))
            .finish_non_exhaustive()
    }
}

impl Options {
    pub(super) fn of(url: &Url) -> Result<Self, Error> {
        url.without_path()?;
        url.only_keys(&["namespace", "group", "cluster", "grpc_port", "format"])?;
        let given = |key| match url.option(key) {
            Some("") => Err(url.error(format_args!("option `{key}` is empty"))),
            // It stands between group and service in Nacos's own names.
            Some(value) if value.contains("@@") || value.contains(char::is_whitespace) => Err(url
                .error(format_args!(
                    "option `{key}` has a space or `@@`, which no name in Nacos has"
                ))),
            value => Ok(value.map(str::to_owned)),
        };
        let grpc_port = given("grpc_port")?
            .map(|port| port.parse().ok().filter(|port| *port != 0).ok_or(port))
            .transpose()
            .map_err(|port| {
                let port = port.escape_debug();
                url.error(format_args!("option `grpc_port`: `{port}` is no port"))
            })?;
        let addresses = url.addresses(DEFAULT_PORT)?;
        let server = |address: &String| {
            let (host, port) = host_and_port(address)?;
            let grpc = grpc_port.or(port?.checked_add(TO_GRPC))?;
            Some(Server { main: address.clone(), grpc: format!("{host}:{grpc}") })
        };
        let servers = addresses.iter().map(|address| {
            server(address).ok_or_else(|| {
                url.error(format_args!(
                    "gRPC is spoken at the port and {TO_GRPC}, and `{address}` has none so high; \
                     name another with `grpc_port`"
                ))
            })
        });
        Ok(Self {
            name: url.name(format_args!("nacos://{}", addresses.join(",")), &TELLING),
            servers: servers.collect::<Result<_, _>>()?,
            grpc_port,
            namespace: given("namespace")?.unwrap_or_default(),
            group: given("group")?.unwrap_or_else(|| DEFAULT_GROUP.to_owned()),
            cluster: given("cluster")?,
            formats: Format::of(url, &FORMATS)?,
            user: url.user.clone(),
        })
    }

    /// What two URLs of one registry have in common.
    pub(super) fn identity(&self) -> String {
        format!("nacos {self:?} {:?} {:?}", self.user, self.grpc_port)
    }

    /// Whether every server is on this machine.
    pub(super) fn are_local(&self) -> bool {
        self.servers.iter().all(|server| is_loopback(&server.main))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(url: &str) -> Result<Options, String> {
        Url::parse(url).and_then(|url| Options::of(&url)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_url_names_servers_and_a_place_in_them() {
        let found = options(
            "nacos://me:s3cret@h1,[::1]:80?namespace=dev&group=pay&cluster=c1&format=kratos,micro",
        )
        .unwrap();
        assert_eq!(
            found.name,
            "nacos://h1:8848,[::1]:80?namespace=dev&group=pay&cluster=c1&format=kratos,micro"
        );
        let grpc: Vec<_> = found.servers.iter().map(|server| server.grpc.as_str()).collect();
        assert_eq!(grpc, ["h1:9848", "[::1]:1080"]);
        assert_eq!((found.namespace.as_str(), found.group.as_str()), ("dev", "pay"));
        assert_eq!(found.cluster.as_deref(), Some("c1"));
        assert_eq!(found.formats, [Format::Kratos, Format::Micro]);
        assert!(!format!("{found:?}").contains("s3cret"), "{found:?}");
        assert!(!found.are_local());

        let bare = options("nacos://127.0.0.1?grpc_port=5").unwrap();
        assert_eq!(bare.servers[0].grpc, "127.0.0.1:5");
        assert_eq!((bare.group.as_str(), bare.namespace.as_str()), ("DEFAULT_GROUP", ""));
        assert!(bare.are_local());
        let identities = [
            "nacos://h1",
            "nacos://h1?namespace=a",
            "nacos://h1?group=a",
            "nacos://h1?cluster=a",
            "nacos://h1?grpc_port=1",
            "nacos://h1?format=kitex",
            "nacos://me:s3cret@h1",
            "nacos://me:another@h1",
        ]
        .map(|url| options(url).unwrap().identity());
        assert_eq!(identities.iter().collect::<std::collections::BTreeSet<_>>().len(), 8);
    }

    #[test]
    fn what_a_url_cannot_say_is_refused() {
        for (url, named) in [
            ("nacos://", "write `nacos://127.0.0.1:8848`"),
            ("nacos://h1/a", "takes no path"),
            ("nacos://h1?tls=true", "unknown option `tls`; nacos:// knows namespace, group"),
            ("nacos://h1?format=go-zero", "nacos:// has micro, kratos, kitex"),
            ("nacos://h1?group=", "option `group` is empty"),
            ("nacos://h1?group=a@@b", "option `group` has a space or `@@`"),
            ("nacos://h1?cluster=a%20b", "option `cluster` has a space or `@@`"),
            ("nacos://h1?grpc_port=0", "option `grpc_port`: `0` is no port"),
            ("nacos://h1?grpc_port=s3cret", "is no port"),
            ("nacos://h1:65000", "`h1:65000` has none so high"),
        ] {
            let error = options(url).unwrap_err();
            // An `@` behind the hosts may belong to a password.
            let named = if url.contains("@@") { "has an `@` after the hosts" } else { named };
            assert!(error.contains(named), "{url}: {error}");
        }
        let error = options("nacos://me:s3cret@h1?group=a@@b").unwrap_err();
        assert!(error.contains("option `group` has a space or `@@`"), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
}
