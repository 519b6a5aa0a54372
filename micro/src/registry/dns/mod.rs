//! `dns://`: nodes that DNS knows, asked for again when its answer has expired.
//!
//! `target` is what the URL says, `ask` the questions, `known` what has been said and for how long
//! it holds. It keeps no policy: what is not told is an error, and `discovery` keeps what it has.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future, stream};
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    Batch, BoxFuture, Event, Lease, Listing, Node, Registry, RenewError, Watch, WatchError,
    share::share, url::Url,
};
use crate::{Error, ErrorKind};

mod ask;
mod known;
mod target;

use known::{Known, LEAST};
use target::Target;

/// How long a read may take, all its questions together.
const READ: Duration = Duration::from_secs(5);

/// How many services that nobody follows are remembered: for how long their last answer holds.
const REMEMBERED: usize = 1024;

/// Nodes that DNS knows: the A and AAAA records of a name, or its SRV records where the URL has no
/// port. For headless services of Kubernetes, and whatever else keeps DNS true.
///
/// It only reads: registering is refused as `Unsupported`. The guide has
/// [a page](crate::guide::registries::dns) on names and on how soon a change is seen.
#[derive(Debug)]
pub struct Dns(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    target: Target,
    revision: AtomicU64,
    services: Mutex<HashMap<String, Service>>,
}

/// What is known of a service, for one at a time: the next finds what it asked.
type Service = Arc<tokio::sync::Mutex<Known>>;

impl Dns {
    pub(super) fn open(url: &Url) -> Result<Arc<dyn Registry>, Error> {
        let target = Target::of(url)?;
        Ok(share(target.identity(), || {
            Self(Arc::new(Inner {
                target,
                revision: AtomicU64::new(0),
                services: Mutex::default(),
            }))
        }))
    }

    fn refusal(&self, what: &str) -> Error {
        let name = &self.0.target.name;
        Error::new(
            ErrorKind::Unsupported,
            format!(
                "{name}: cannot {what}: dns:// only reads, and one name at a time; add records where \
                 the zone is kept, or use another registry"
            ),
        )
    }

    fn refusal_of(&self, what: &str, node: &Node) -> Error {
        self.refusal(&format!("{what} {} of service {}", node.id, node.service))
    }
}

impl Inner {
    fn service(&self, service: &str) -> Service {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        if services.len() >= REMEMBERED && !services.contains_key(service) {
            services.retain(|_, known| Arc::strong_count(known) > 1);
        }
        let new = || Arc::new(tokio::sync::Mutex::new(Known::new(service, fastrand::Rng::new())));
        services.entry(service.to_owned()).or_insert_with(new).clone()
    }

    /// Asks, unless that was done a moment ago.
    async fn ask(&self, service: &str, known: &mut Known) -> Result<Listing, Error> {
        let question = self.target.question(service)?;
        let listing = match known.recent(Instant::now()) {
            Some(recent) => recent,
            None => {
                let asked = timeout(READ, ask::ask(&self.target, &question, known.kinds())).await;
                let answer = asked.unwrap_or_else(|_| Err(format!("no answer within {READ:?}")));
                known.take(Instant::now(), answer, || self.revision.fetch_add(1, Relaxed) + 1)
            }
        };
        let name = &self.target.name;
        listing.map_err(|why| {
            Error::registry(format!("{name}: cannot resolve service {service}: {why}"))
        })
    }
}

impl Registry for Dns {
    fn name(&self) -> &str {
        &self.0.target.name
    }

    fn spread(&self) -> Duration {
        LEAST
    }

    fn min_ttl(&self) -> Duration {
        Duration::ZERO
    }

    fn register<'a>(&'a self, node: &'a Node, _: Duration) -> BoxFuture<'a, Result<Lease, Error>> {
        future::ready(Err(self.refusal_of("register", node))).boxed()
    }

    fn renew<'a>(&'a self, node: &'a Node, _: Lease) -> BoxFuture<'a, Result<(), RenewError>> {
        future::ready(Err(RenewError::Failed(self.refusal_of("renew", node)))).boxed()
    }

    fn deregister<'a>(&'a self, node: &'a Node, _: Lease) -> BoxFuture<'a, Result<(), Error>> {
        future::ready(Err(self.refusal_of("deregister", node))).boxed()
    }

    fn read<'a>(&'a self, service: &'a str) -> BoxFuture<'a, Result<Listing, Error>> {
        async move {
            let known = self.0.service(service);
            let mut known = known.lock().await;
            self.0.ask(service, &mut known).await
        }
        .boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<String>, Error>> {
        future::ready(Err(self.refusal("list services"))).boxed()
    }

    fn learns_by_asking(&self) -> bool {
        true
    }

    fn watch(&self, service: &str, after: u64) -> Watch {
        let known = self.0.service(service);
        let registry = self.0.clone();
        let watcher = Watcher { registry, known, service: service.to_owned(), seen: after };
        stream::unfold(Some(watcher), |watcher| async {
            let mut watcher = watcher?;
            let next = watcher.next().await;
            let watcher = next.is_ok().then_some(watcher);
            Some((next, watcher))
        })
        .boxed()
    }
}

struct Watcher {
    registry: Arc<Inner>,
    known: Service,
    service: String,
    seen: u64,
}

impl Watcher {
    async fn next(&mut self) -> Result<Batch, WatchError> {
        loop {
            let mut known = self.known.lock().await;
            // Without an answer that stands there is nothing to go on from.
            let Some((listing, until)) = known.standing() else {
                return Err(WatchError::Compacted);
            };
            if listing.revision < self.seen {
                return Err(WatchError::Compacted);
            }
            if listing.revision > self.seen {
                let listing = listing.clone();
                self.seen = listing.revision;
                let revision = listing.revision;
                return Ok(Batch { revision, events: vec![Event::Reset(listing)] });
            }
            if Instant::now() >= until {
                let asked = self.registry.ask(&self.service, &mut known).await;
                asked.map_err(WatchError::Disconnected)?;
                continue;
            }
            drop(known);
            sleep_until(until).await;
        }
    }
}
