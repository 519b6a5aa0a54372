//! What the URL says of etcd.

use std::{fmt, fs, path::Path};

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};

use super::super::{format::Format, url::Url};
use crate::Error;

const DEFAULT_PORT: u16 = 2379;

/// The formats that records have in etcd.
const FORMATS: [Format; 5] =
    [Format::Micro, Format::GoZero, Format::Kratos, Format::Kitex, Format::Etcd];

/// Members, credentials and TLS of a registry. `Debug` shows no password.
#[derive(Clone)]
pub(super) struct Options {
    /// `etcd://h1:2379,h2:2379`, and a `format` other than go-micro's.
    pub(super) name: String,
    /// `host:port` of each member.
    pub(super) members: Vec<String>,
    /// Those of the records, the one first that is in force.
    pub(super) formats: Vec<Format>,
    /// With the password.
    pub(super) user: Option<(String, String)>,
    tls: Option<Tls>,
}

/// The files are read anew for each connection: certificates get replaced while a service runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Tls {
    ca: Option<String>,
    identity: Option<(String, String)>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("name", &self.name)
            .field("formats", &self.formats)
            .field("user", &self.user.as_ref().map(|(user, _)| user))
            .field("tls", &self.tls)
            .finish()
    }
}

impl Options {
    pub(super) fn of(url: &Url) -> Result<Self, Error> {
        url.without_path()?;
        url.only_keys(&["tls", "ca", "cert", "key", "format"])?;
        let members = url.addresses(DEFAULT_PORT)?;
        let file = |key| match url.option(key) {
            Some("") => Err(url.error(format_args!("option `{key}` names no file"))),
            file => Ok(file.map(str::to_owned)),
        };
        let tls = Tls {
            ca: file("ca")?,
            identity: match (file("cert")?, file("key")?) {
                (Some(cert), Some(key)) => Some((cert, key)),
                (None, None) => None,
                _ => return Err(url.error("options `cert` and `key` go together")),
            },
        };
        let tls = match url.option("tls") {
            Some("true") => Some(tls),
            None => (tls != Tls::default()).then_some(tls),
            Some("false") if tls == Tls::default() => None,
            Some("false") => {
                return Err(url.error("`tls=false` contradicts the options `ca`, `cert` and `key`"));
            }
            Some(_) => return Err(url.error("option `tls` is `true` or `false`")),
        };
        let options = Self {
            name: url.name(format_args!("etcd://{}", members.join(",")), &[("format", "micro")]),
            members,
            formats: Format::of(url, &FORMATS)?,
            user: url.user.clone(),
            tls,
        };
        // A file that is not there is an error at the start, not at the first use.
        options.tls().map_err(|why| url.error(why))?;
        Ok(options)
    }

    /// What two URLs of one registry have in common.
    pub(super) fn identity(&self) -> String {
        format!("etcd {:?}", (&self.members, &self.formats, &self.user, &self.tls))
    }

    pub(super) fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// How etcd's client is to behave on a connection of ours.
    pub(super) fn client(&self) -> ConnectOptions {
        // A member without a leader refuses, and ends its watches, instead of keeping silent.
        let options = ConnectOptions::new().with_require_leader(true).with_auto_token_refresh(true);
        match &self.user {
            Some((user, password)) => options.with_user(user, password),
            None => options,
        }
    }

    pub(super) fn tls(&self) -> Result<Option<TlsOptions>, String> {
        let Some(tls) = &self.tls else {
            return Ok(None);
        };
        let read = |option: &str, file: &String| {
            fs::read(Path::new(file))
                .map_err(|error| format!("option `{option}`: cannot read {file}: {error}"))
        };
        let mut options = TlsOptions::new();
        options = match &tls.ca {
            Some(ca) => options.ca_certificate(Certificate::from_pem(read("ca", ca)?)),
            None => options.with_native_roots(),
        };
        if let Some((cert, key)) = &tls.identity {
            let identity = Identity::from_pem(read("cert", cert)?, read("key", key)?);
            options = options.identity(identity);
        }
        Ok(Some(options))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(query: &str) -> Result<Options, String> {
        let url = Url::parse(&format!("etcd://127.0.0.1{query}")).unwrap();
        Options::of(&url).map_err(|error| error.to_string())
    }

    #[test]
    fn every_format_is_to_be_had_and_other_formats_are_another_registry() {
        assert_eq!(options("").unwrap().formats, [Format::Micro]);
        let all = options("?format=etcd,kitex,kratos,go-zero,micro").unwrap();
        let mut expected = FORMATS;
        expected.reverse();
        assert_eq!(all.formats, expected);
        let identity = |query| options(query).unwrap().identity();
        assert_eq!(identity(""), identity("?format=micro"));
        assert_ne!(identity("?format=micro,kratos"), identity("?format=kratos,micro"));
        let error = options("?format=dubbo").unwrap_err();
        assert!(error.contains("etcd:// has micro, go-zero, kratos, kitex, etcd"), "{error}");
    }
}
