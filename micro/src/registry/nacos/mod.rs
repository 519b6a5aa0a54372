//! `nacos://`: ephemeral instances in Nacos, through its own SDK, in the words of go-micro and, if asked
//! for, of Kratos and Kitex.

// `record` and `found` know the words, `fate` what became of a record, `known` the revisions and
// `clients` when there is to be another client, all without IO. `server` finds one that answers, `login`
// signs in there, and `connection` is one of the SDK's; a `client` is that with what is registered and
// `followed` through it. `pool` has the clients, and `lease` what is registered.

mod client;
mod clients;
mod connection;
mod failure;
mod fate;
mod followed;
mod found;
#[cfg(test)]
mod fuzz;
mod known;
mod lease;
mod login;
mod options;
mod pool;
mod record;
mod server;
mod watch;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::time::{Instant, sleep_until};

use self::{
    client::Client,
    failure::Failure,
    fate::Fate,
    known::Known,
    lease::{Held, Leases, over},
    options::Options,
    pool::Pool,
    record::{Record, nameable, records, service_of, services},
    server::answering,
};
use super::{BoxFuture, Lease, Listing, Node, Registry, RenewError, Watch, share::share, url::Url};
use crate::Error;

/// The bound of an exchange.
const EXCHANGE: Duration = Duration::from_secs(1);

/// What of it a renewal waits for its own connection, before it finds out whether Nacos is there at all;
/// with a short TTL, a quarter of that, so that another connection is had before it is over. The least
/// is long enough to find that the connection is of no use.
const RENEWAL: Duration = Duration::from_millis(700);
const SHORT_RENEWAL: Duration = Duration::from_millis(550);

/// No server keeps it: it is this process that takes its record back.
const MIN_TTL: Duration = Duration::from_secs(1);

/// How long a removal may take to reach the watchers: Nacos gathers what it tells for half a second, and
/// its servers tell one another as lazily.
const SPREAD: Duration = Duration::from_secs(2);

/// A registry in Nacos, over its SDK's gRPC connection: a node is an ephemeral instance of the service's
/// name, in go-micro's words, with the rest of ours in its metadata. With the URL's option `format`
/// nodes are kept as Kratos and Kitex have them, instead or as well.
///
/// # Time
/// An ephemeral instance lives as long as the connection that registered it: Nacos is told no TTL. A
/// killed process's records go at once, with its connection; those of one that is cut off go after some
/// 20 s, whatever the TTL is. It is this process that takes a record back that was not renewed within
/// its TTL, as soon as Nacos can be reached.
///
/// # Connections
/// One for all that a process does with a URL, and one more for each further node of the same service:
/// Nacos has one instance of a service for each. A connection on which an exchange found no answer, in
/// half a second at least, is given up; what it has registered stays with it until that is renewed
/// elsewhere or over. Another is made at once if it was in use for a minute, else after a pause of up to
/// a second that doubles up to 60 s, and meanwhile it is asked on. No connection can be closed: of one
/// server up to 8 that were given up, or have a record yet to take back, are kept, and then the one
/// given up first is used again; if none of them can take a record, registering fails.
///
/// # Watches
/// A service that is watched is subscribed to: on each word of Nacos's how it stands is read, and every
/// 5 s without one. Nacos has no revisions, and those here are this process's own: one for each change
/// that a read found.
#[derive(Debug)]
pub struct Nacos {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pool: Pool,
    leases: Leases,
    known: Mutex<Known>,
}

impl Nacos {
    pub(super) fn open(url: &Url) -> Result<Arc<dyn Registry>, Error> {
        let options = Options::of(url)?;
        Ok(share(options.identity(), || Self {
            inner: Arc::new(Inner {
                pool: Pool::new(options),
                leases: Leases::default(),
                known: Mutex::new(Known::new()),
            }),
        }))
    }

    fn options(&self) -> &Options {
        self.inner.pool.options()
    }

    fn records(&self, node: &Node, lease: Lease) -> Result<Vec<Record>, Error> {
        let Options { formats, cluster, .. } = self.options();
        records(node, formats, cluster.as_deref(), lease).map_err(|why| self.refuse(node, &why))
    }

    fn refuse(&self, node: &Node, why: &str) -> Error {
        let (name, id, service) = (self.name(), &node.id, &node.service);
        Error::config(format!("{name}: cannot register {id} of service {service}: {why}"))
    }
}

impl Inner {
    fn failed(&self, what: &str, why: &str) -> Error {
        Error::registry(format!("{}: cannot {what}: {why}", self.pool.options().name))
    }

    /// How a service stands, as this client is told.
    async fn read(
        &self,
        what: &str,
        client: &Arc<Client>,
        service: &str,
        deadline: Instant,
    ) -> Result<Listing, Error> {
        let Options { formats, cluster, .. } = self.pool.options();
        let asked = self.known().ask();
        let (mut nodes, mut malformed) = (Vec::new(), Vec::new());
        for under in services(service, formats) {
            let instances = client.connection().instances(&under, deadline).await;
            let instances = instances
                .map_err(|failure| self.failed(what, &self.pool.failed(client, &failure)))?;
            let (found, broken) =
                found::nodes(service, &under, &instances, formats, cluster.as_deref());
            nodes.extend(found);
            malformed.extend(broken);
        }
        Ok(self.known().answer(asked, service, nodes, malformed))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds what was registered, until it is over. What another client has of the node is taken back
    /// only now, so that there is one of the two at any time: a client that was given up may connect
    /// again at any moment, and would write the earlier record over this one.
    fn hold(self: &Arc<Self>, held: Held) {
        let (node, lease) = (held.node.clone(), held.lease);
        let client = held.client.clone();
        if let Some(earlier) = self.leases.hold(held)
            && !Arc::ptr_eq(&earlier.client, &client)
        {
            self.pool.abandon(&earlier.client, &earlier.records);
        }
        let inner = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                let Some(inner) = inner.upgrade() else { return };
                let Some(expires) = inner.leases.expiry(&node, lease) else { return };
                if expires <= Instant::now() {
                    if let Some(held) = inner.leases.take(&node, lease) {
                        let _ = inner.end(&held).await;
                    }
                    return;
                }
                drop(inner);
                sleep_until(expires).await;
            }
        });
    }

    async fn end(&self, held: &Held) -> Result<(), String> {
        self.pool.take_back(&held.client, &held.records, Instant::now() + EXCHANGE).await
    }

    /// Whether the node's records stand.
    async fn judge(&self, what: &str, held: &Held) -> Result<(), RenewError> {
        let deadline = Instant::now() + EXCHANGE;
        let asked = Instant::now() + (held.ttl / 4).clamp(SHORT_RENEWAL, RENEWAL);
        let options = self.pool.options();
        for record in &held.records {
            let instances = match held.client.connection().instances(&record.service, asked).await {
                Ok(instances) => instances,
                Err(failure) => {
                    let why = self.pool.failed(&held.client, &failure);
                    let is_broken = matches!(failure, Failure::Broken(_));
                    // The SDK takes its time until it connects again: up to a minute. With no other
                    // connection to be had, this one may yet be well.
                    if is_broken
                        && self.pool.may_make(deadline)
                        && answering(options, deadline).await.is_ok()
                    {
                        return Err(RenewError::Lost(format!(
                            "the connection that keeps it is gone, although Nacos answers: {why}"
                        )));
                    }
                    return Err(RenewError::Failed(self.failed(what, &why)));
                }
            };
            match record.fate(&held.node, &instances, &options.formats) {
                Fate::Stands => {}
                Fate::Gone => {
                    return Err(RenewError::Lost(
                        "Nacos does not have the record any more: it was deleted, or Nacos was \
                         wiped or lost the connection"
                            .to_owned(),
                    ));
                }
                Fate::Taken(Ok(other)) => return Err(RenewError::taken_by(&held.node, &other)),
                Fate::Taken(Err(why)) => {
                    return Err(RenewError::Taken(format!(
                        "the record was overwritten with what is no node: {why}"
                    )));
                }
            }
        }
        Ok(())
    }
}

impl Registry for Nacos {
    fn name(&self) -> &str {
        &self.options().name
    }

    /// Unless every server is on this machine.
    fn is_shared(&self) -> bool {
        !self.options().are_local()
    }

    fn spread(&self) -> Duration {
        SPREAD
    }

    fn min_ttl(&self) -> Duration {
        MIN_TTL
    }

    fn validate(&self, node: &Node) -> Result<(), Error> {
        self.records(node, Lease(0)).map(drop)
    }

    fn register<'a>(
        &'a self,
        node: &'a Node,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Lease, Error>> {
        async move {
            if ttl < MIN_TTL {
                let why = format!("a TTL of {ttl:?} is under the least, {MIN_TTL:?}");
                return Err(self.refuse(node, &why));
            }
            let deadline = Instant::now() + EXCHANGE;
            let Inner { pool, leases, .. } = &*self.inner;
            let lease = leases.next();
            let records = self.records(node, lease)?;
            let what = format!("register {} of service {}", node.id, node.service);
            let again =
                leases.take_if(node, |held| pool.has_places(&held.client, &records, deadline));
            let placed = match again {
                Some(held) => pool.placed(held.client, &records),
                None => pool
                    .place(&records, deadline)
                    .await
                    .map_err(|why| self.inner.failed(&what, &why))?,
            };
            for record in &records {
                let Err(failure) = placed.client().register(record, deadline).await else {
                    continue;
                };
                let why = pool.failed(placed.client(), &failure);
                if failure.is_refusal() {
                    placed.take_back(deadline).await;
                }
                return Err(self.inner.failed(&what, &why));
            }
            let client = placed.keep();
            self.inner.hold(Held::new(lease, node, records.clone(), client, ttl));
            Ok(lease)
        }
        .boxed()
    }

    fn renew<'a>(&'a self, node: &'a Node, lease: Lease) -> BoxFuture<'a, Result<(), RenewError>> {
        async move {
            let held = self.inner.leases.get(node, lease)?;
            let what = format!("renew {} of service {}", node.id, node.service);
            self.inner.judge(&what, &held).await?;
            // Its TTL may have been over while Nacos was asked, and it taken back.
            if self.inner.leases.extend(node, lease) { Ok(()) } else { Err(over()) }
        }
        .boxed()
    }

    fn deregister<'a>(&'a self, node: &'a Node, lease: Lease) -> BoxFuture<'a, Result<(), Error>> {
        async move {
            let Some(held) = self.inner.leases.take(node, lease) else { return Ok(()) };
            let what = format!("deregister {} of service {}", node.id, node.service);
            // To its end also for a caller that is gone: nobody else has what was held.
            let inner = self.inner.clone();
            let ended = tokio::spawn(async move { inner.end(&held).await }).await;
            let ended = ended.unwrap_or_else(|error| Err(error.to_string()));
            ended.map_err(|why| self.inner.failed(&what, &why))
        }
        .boxed()
    }

    fn read<'a>(&'a self, service: &'a str) -> BoxFuture<'a, Result<Listing, Error>> {
        async move {
            let what = format!("read service {service}");
            nameable(service)
                .map_err(|why| Error::config(format!("{}: cannot {what}: {why}", self.name())))?;
            let deadline = Instant::now() + EXCHANGE;
            let client = self.inner.pool.any(deadline).await;
            let client = client.map_err(|why| self.inner.failed(&what, &why))?;
            self.inner.read(&what, &client, service, deadline).await
        }
        .boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<String>, Error>> {
        async move {
            let what = "list services";
            let pool = &self.inner.pool;
            let client = pool.any(Instant::now() + EXCHANGE).await;
            let client = client.map_err(|why| self.inner.failed(what, &why))?;
            let names = client.connection().services(EXCHANGE).await;
            let names = names
                .map_err(|failure| self.inner.failed(what, &pool.failed(&client, &failure)))?;
            let formats = &self.options().formats;
            let services: BTreeSet<_> =
                names.iter().filter_map(|name| service_of(name, formats)).collect();
            Ok(services.into_iter().map(str::to_owned).collect())
        }
        .boxed()
    }

    fn watch(&self, service: &str, after: u64) -> Watch {
        watch::watch(self.inner.clone(), service.to_owned(), after)
    }
}
