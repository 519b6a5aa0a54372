//! What the URL says of ZooKeeper.

use std::fmt;

use zookeeper_client::{Acl, AuthId, Client, Connector, Permission};

use super::{
    super::{format::Format, url::Url},
    path::Root,
};
use crate::Error;

const DEFAULT_PORT: u16 = 2181;

/// The formats that records have in ZooKeeper.
const FORMATS: [Format; 3] = [Format::Micro, Format::Kratos, Format::Kitex];

/// Members, chroot and credentials of a registry. `Debug` shows no password.
#[derive(Clone)]
pub(super) struct Options {
    /// `zookeeper://h1:2181,h2:2181/chroot`, and a `format` other than go-micro's.
    pub(super) name: String,
    /// `host:port` of each member.
    pub(super) members: Vec<String>,
    pub(super) root: Root,
    /// Those of the records, the one first that is in force.
    pub(super) formats: Vec<Format>,
    user: Option<(String, String)>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("name", &self.name)
            .field("formats", &self.formats)
            .field("user", &self.user.as_ref().map(|(user, _)| user))
            .finish()
    }
}

impl Options {
    pub(super) fn of(url: &Url) -> Result<Self, Error> {
        url.only_keys(&["format"])?;
        let members = url.addresses(DEFAULT_PORT)?;
        let root = Root::of(&url.path).map_err(|why| url.error(why))?;
        if let Some((user, _)) = &url.user
            && user.contains(':')
        {
            return Err(url.error("the user has a `:`, which no user of ZooKeeper's digests has"));
        }
        Ok(Self {
            name: url.name(
                format_args!("zookeeper://{}{}", members.join(","), root.chroot()),
                &[("format", "micro")],
            ),
            members,
            root,
            formats: Format::of(url, &FORMATS)?,
            user: url.user.clone(),
        })
    }

    /// What two URLs of one registry have in common.
    pub(super) fn identity(&self) -> String {
        format!("zookeeper {:?}", (&self.members, self.root.chroot(), &self.formats, &self.user))
    }

    /// How a session is opened: signed in, if there is a user, and failing once every member has.
    pub(super) fn connector(&self) -> Connector {
        let connector = Client::connector().with_fail_eagerly();
        match &self.user {
            Some((user, password)) => {
                connector.with_auth("digest", format!("{user}:{password}").as_bytes())
            }
            None => connector,
        }
    }

    /// The rights on what we create: everybody's, as go-micro has it; with a user his alone, but
    /// for reading.
    pub(super) fn rights(&self) -> Vec<Acl> {
        let anyone = || AuthId::new("world", "anyone");
        match self.user {
            None => vec![Acl::new(Permission::ALL, anyone())],
            Some(_) => vec![
                Acl::new(Permission::ALL, AuthId::new("auth", "")),
                Acl::new(Permission::READ, anyone()),
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(url: &str) -> Result<Options, String> {
        Url::parse(url).and_then(|url| Options::of(&url)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_url_names_members_a_chroot_and_a_user() {
        let found =
            options("zookeeper://me:s3cret@h1,h2:2182/teams/a?format=micro,kratos").unwrap();
        assert_eq!(found.name, "zookeeper://h1:2181,h2:2182/teams/a?format=micro,kratos");
        assert_eq!(found.members, ["h1:2181", "h2:2182"]);
        assert_eq!(found.formats, [Format::Micro, Format::Kratos]);
        assert!(!format!("{found:?}").contains("s3cret"), "{found:?}");
        assert_eq!(options("zookeeper://h1/").unwrap().name, "zookeeper://h1:2181");
        let identities = [
            "zookeeper://h1",
            "zookeeper://h1/a",
            "zookeeper://h1?format=kitex",
            "zookeeper://me:s3cret@h1",
            "zookeeper://me:another@h1",
        ]
        .map(|url| options(url).unwrap().identity());
        assert_eq!(identities.iter().collect::<std::collections::BTreeSet<_>>().len(), 5);
    }

    #[test]
    fn what_a_url_cannot_say_is_refused() {
        for (url, named) in [
            ("zookeeper://", "write `zookeeper://127.0.0.1:2181`"),
            ("zookeeper://h1?timeout=3", "unknown option `timeout`; zookeeper:// knows format"),
            ("zookeeper://h1?format=go-zero", "zookeeper:// has micro, kratos, kitex"),
            ("zookeeper://h1/a//b", "the chroot has an empty part"),
            ("zookeeper://h1/a/", "the chroot has an empty part"),
            ("zookeeper://h1/../b", "the chroot is `..`"),
            ("zookeeper://a%3Ab:s3cret@h1", "the user has a `:`"),
        ] {
            let error = options(url).unwrap_err();
            assert!(error.contains(named) && !error.contains("s3cret"), "{url}: {error}");
        }
    }
}
