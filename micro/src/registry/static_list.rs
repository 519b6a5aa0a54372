//! `static://`: nodes that the URL itself lists.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, future, stream};
use percent_encoding::percent_decode_str;

use super::{
    BoxFuture, Entry, Lease, Listing, Node, Registry, RenewError, Watch,
    share::share,
    url::{Url, host_and_port, redact_hosts},
};
use crate::{Error, ErrorKind};

/// The one revision of a list that never changes.
const REVISION: u64 = 1;

/// A fixed list of nodes, as `static://greeter=127.0.0.1:3456,127.0.0.1:3457;other=10.0.0.1:80`
/// writes it: for tests, for fixed machines, and for peers that register nowhere.
///
/// It only reads: registering is refused as `Unsupported`, and a watch never brings anything.
/// A service's name is percent-decoded.
#[derive(Debug)]
pub struct StaticList {
    name: String,
    services: BTreeMap<String, Vec<Entry>>,
}

impl StaticList {
    pub(super) fn open(url: &Url) -> Result<Arc<dyn Registry>, Error> {
        url.without_user()?;
        url.without_path()?;
        url.only_keys(&[])?;
        let mut services = BTreeMap::new();
        for part in url.hosts.split(';') {
            let Some((service, addresses)) = part.split_once('=') else {
                let part = redact_hosts(part);
                return Err(url.error(format_args!(
                    "`{part}` is not `service=host:port,..`; write \
                     `static://greeter=127.0.0.1:3456,127.0.0.1:3457`"
                )));
            };
            let service = percent_decode_str(service).decode_utf8().map_err(|_| {
                let service = redact_hosts(service);
                url.error(format_args!("the name `{service}` is not UTF-8"))
            })?;
            if service.is_empty() {
                let part = redact_hosts(part);
                return Err(url.error(format_args!("`{part}` has no service's name")));
            }
            let entries = entries(&service, addresses).map_err(|why| url.error(why))?;
            if services.insert(service.clone().into_owned(), entries).is_some() {
                let service = redact_hosts(&service);
                return Err(url.error(format_args!("`{service}` is there twice")));
            }
        }
        let name = format!("static://{}", url.hosts);
        Ok(share(name.clone(), || Self { name, services }))
    }

    fn refusal(&self, what: &str, node: &Node) -> Error {
        Error::new(
            ErrorKind::Unsupported,
            format!(
                "{}: cannot {what} {} of service {}: static:// only reads, its nodes are those in \
                 the URL; name the node there, or use another registry",
                self.name, node.id, node.service
            ),
        )
    }
}

fn entries(service: &str, addresses: &str) -> Result<Vec<Entry>, String> {
    let mut entries: Vec<Entry> = Vec::new();
    for address in addresses.split(',') {
        let Some((_, Some(_))) = host_and_port(address) else {
            let service = redact_hosts(service);
            // A password with a `=` in it goes on behind.
            let is_secret = matches!(service, Cow::Owned(_));
            let address = if is_secret { "***".into() } else { redact_hosts(address) };
            return Err(format!("`{address}` of `{service}` is not `host:port`"));
        };
        if entries.iter().any(|entry| entry.key == address) {
            let service = redact_hosts(service);
            return Err(format!("`{address}` of `{service}` is there twice"));
        }
        entries.push(Entry {
            key: address.to_owned(),
            revision: REVISION,
            rank: 0,
            node: Arc::new(Node::new(service, format!("{service}-{address}"), address)),
        });
    }
    Ok(entries)
}

impl Registry for StaticList {
    fn name(&self) -> &str {
        &self.name
    }

    fn spread(&self) -> Duration {
        Duration::ZERO
    }

    fn min_ttl(&self) -> Duration {
        Duration::ZERO
    }

    fn register<'a>(&'a self, node: &'a Node, _: Duration) -> BoxFuture<'a, Result<Lease, Error>> {
        future::ready(Err(self.refusal("register", node))).boxed()
    }

    fn renew<'a>(&'a self, node: &'a Node, _: Lease) -> BoxFuture<'a, Result<(), RenewError>> {
        future::ready(Err(RenewError::Failed(self.refusal("renew", node)))).boxed()
    }

    fn deregister<'a>(&'a self, node: &'a Node, _: Lease) -> BoxFuture<'a, Result<(), Error>> {
        future::ready(Err(self.refusal("deregister", node))).boxed()
    }

    fn read<'a>(&'a self, service: &'a str) -> BoxFuture<'a, Result<Listing, Error>> {
        let entries = self.services.get(service).cloned().unwrap_or_default();
        let listing = Listing { revision: REVISION, entries, malformed: Vec::new() };
        future::ready(Ok(listing)).boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<String>, Error>> {
        future::ready(Ok(self.services.keys().cloned().collect())).boxed()
    }

    fn watch(&self, _: &str, _: u64) -> Watch {
        stream::pending().boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(url: &str) -> Result<Arc<dyn Registry>, Error> {
        StaticList::open(&Url::parse(url)?)
    }

    #[tokio::test]
    async fn the_url_lists_the_nodes() {
        let registry = open("static://greeter=127.0.0.1:1,[::1]:2;team%2Fpay=host:3").unwrap();
        assert_eq!(registry.list().await.unwrap(), ["greeter", "team/pay"]);
        let listing = registry.read("greeter").await.unwrap();
        let addresses: Vec<_> = listing.entries.iter().map(|e| e.node.address.as_str()).collect();
        assert_eq!(addresses, ["127.0.0.1:1", "[::1]:2"]);
        assert!(listing.entries.iter().all(|entry| entry.node.is_grpc()));
        assert_eq!(registry.read("team/pay").await.unwrap().entries[0].node.service, "team/pay");
        assert!(registry.read("nobody").await.unwrap().entries.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_stays_open_and_brings_nothing() {
        let mut watch = open("static://a=b:1").unwrap().watch("a", REVISION);
        let next = tokio::time::timeout(Duration::from_secs(3600), watch.next()).await;
        assert!(next.is_err(), "{next:?}");
    }

    #[tokio::test]
    async fn it_says_why_it_does_not_register() {
        let registry = open("static://a=b:1").unwrap();
        let node = Node::new("a", "a-1", "b:2");
        let error = registry.register(&node, Duration::from_secs(15)).await.unwrap_err();
        assert!(error.is_unsupported());
        assert_eq!(
            error.to_string(),
            "static://a=b:1: cannot register a-1 of service a: static:// only reads, its nodes are \
             those in the URL; name the node there, or use another registry"
        );
        let renewed = registry.renew(&node, Lease(1)).await;
        assert!(matches!(renewed, Err(RenewError::Failed(error)) if error.is_unsupported()));
        assert!(registry.deregister(&node, Lease(1)).await.unwrap_err().is_unsupported());
    }

    #[test]
    fn malformed_lists_are_refused() {
        for (url, named) in [
            ("static://", "`` is not `service=host:port,..`"),
            ("static://greeter", "`greeter` is not `service=host:port,..`"),
            ("static://127.0.0.1:1", "`127.0.0.1:1` is not `service=host:port,..`"),
            ("static://=a:1", "has no service's name"),
            ("static://a=", "`` of `a` is not `host:port`"),
            ("static://a=b", "`b` of `a` is not `host:port`"),
            ("static://a=b:1,", "`` of `a` is not `host:port`"),
            ("static://a=b:1,b:1", "`b:1` of `a` is there twice"),
            ("static://a=b:1;a=b:2", "`a` is there twice"),
            ("static://a=b:1;", "`` is not `service=host:port,..`"),
            ("static://a=b:1/c", "takes no path"),
            ("static://a=b:1?c=d", "unknown option `c`; static:// takes none"),
            ("static://me@a=b:1", "takes no user"),
        ] {
            let error = open(url).unwrap_err();
            assert!(error.is_config() && error.to_string().contains(named), "{url}: {error}");
        }
    }

    #[test]
    fn no_error_shows_what_may_be_a_password() {
        for url in [
            "static://a=1.1.1.1:1,root:s3cret",
            "static://a=root:s3cret",
            "static://a=root:s3,cret",
            "static://a=root:s3;cret",
            "static://a=root:s3/cret",
            "static://root:s3cret",
            "static://=root:s3cret",
            "static://root:s3cret%ff=1.1.1.1:1",
            "static://root:s3=cret",
            "static://a=1.1.1.1:1;root:s3cret=b",
            "static://root:s3cret=b:1,b:1",
            "static://root:s3cret=b:1;root:s3cret=b:1",
            "static://s3cret@greeter",
            "static://s3cret@a=1.1.1.1:1",
        ] {
            let error = open(url).unwrap_err().to_string();
            assert!(!error.contains("s3") && !error.contains("cret"), "{url}: {error}");
        }
    }
}
