//! `etcd://`: keys and records as go-micro and other fleets have them in etcd. A node has one lease,
//! and a key in each format of the URL.

mod key;
mod lease;
mod members;
mod merge;
mod options;
mod record;
mod watch;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use etcd_client::{Compare, CompareOp, GetOptions, PutOptions, Txn, TxnOp, TxnOpResponse};
use futures_util::FutureExt;
use tokio::time::timeout;

use self::{
    lease::KeepAlives,
    members::Members,
    options::Options,
    record::{Own, Range, Record, key_of, service_of},
};
use super::{
    BoxFuture, Lease, Listing, Node, Registry, RenewError, Watch, format::Format, share::share,
    url::Url,
};
use crate::Error;

/// etcd's leases count in whole seconds.
const MIN_TTL: Duration = Duration::from_secs(1);

/// How long a removal may take to reach the watchers of all members.
const SPREAD: Duration = Duration::from_secs(1);

/// How long giving a lease back may take beside an attempt that has failed.
const REVOKE: Duration = Duration::from_millis(200);

/// Records read in one request: some 650 kB of go-micro's usual ones, which a link of 6 Mbit/s
/// brings within an exchange's second. Where they are over the 4 MiB that a gRPC message may have,
/// pages get smaller.
const PAGE: i64 = 250;

/// Records decoded in one turn: a service of ten thousand nodes is read beside calls under way.
const TURN: usize = 16;

/// A registry in etcd, as go-micro keeps its own: a node's record is the key
/// `/micro/registry/SERVICE/ID` with go-micro's JSON as its value, written under a lease of its
/// own in a revision of its own, never without a lease. With the URL's option `format` records are
/// kept as other fleets have them, instead or as well: see
/// [formats](crate::guide::registries#formats). All that a node has hang on its one lease: they come
/// in one revision, and go in one.
///
/// Every exchange is bounded by 1 s, members tried in turn as long as they fail at once; one that
/// does not answer in time is left, with its connection, for the next exchange to begin at
/// another. Connections send a PING every 10 s, also when idle, and are given up 3 s after one
/// that went unanswered: so a watch on a stopped etcd ends, and does not wait for ever.
///
/// One URL opened several times in a process (and runtime) is one registry: its exchanges,
/// keep-alives and watches share a connection.
#[derive(Debug)]
pub struct Etcd {
    members: Arc<Members>,
    keep_alives: KeepAlives,
}

impl Etcd {
    pub(super) fn open(url: &Url) -> Result<Arc<dyn Registry>, Error> {
        let options = Options::of(url)?;
        Ok(share(options.identity(), || Self {
            members: Arc::new(Members::new(options)),
            keep_alives: KeepAlives::default(),
        }))
    }

    fn formats(&self) -> &[Format] {
        &self.members.options().formats
    }

    /// The node's keys under this lease and what stands there.
    fn records(&self, node: &Node, lease: Lease) -> Result<Vec<Own>, Error> {
        Own::all(self.members.options(), node, lease).map_err(|why| self.refuse(node, &why))
    }

    fn refuse(&self, node: &Node, why: &str) -> Error {
        let (name, id, service) = (self.name(), &node.id, &node.service);
        Error::config(format!("{name}: cannot register {id} of service {service}: {why}"))
    }

    /// The records whose keys begin with `prefix`, all of one revision, page by page: of this one,
    /// or the latest if it is 0.
    async fn scan(
        &self,
        prefix: &str,
        mut revision: i64,
        what: &str,
    ) -> Result<(i64, Vec<Record>), Error> {
        let mut page = PAGE;
        let mut from = prefix.as_bytes().to_vec();
        let end = key::prefix_end(prefix);
        let mut records = Vec::new();
        loop {
            let options =
                GetOptions::new().with_range(end.clone()).with_limit(page).with_revision(revision);
            let get = |connection: members::Connection| {
                let (from, options) = (from.clone(), options.clone());
                async move { connection.client.kv_client().get(from, Some(options)).await }
            };
            let response = match self.members.call(what, get).await {
                Ok(response) => response,
                Err(error) if error.is_too_large() && page > 1 => {
                    page /= 4;
                    page = page.max(1);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            if revision == 0 {
                revision = response.header().map_or(0, |header| header.revision());
            }
            records.extend(response.kvs().iter().map(Record::of));
            match response.kvs().last() {
                Some(last) if response.more() => {
                    from = last.key().to_vec();
                    from.push(0);
                }
                _ => return Ok((revision, records)),
            }
        }
    }
}

impl Registry for Etcd {
    fn name(&self) -> &str {
        self.members.name()
    }

    /// Unless every member is on this machine.
    fn is_shared(&self) -> bool {
        !self.members.are_local()
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
                let why = format!("a TTL of {ttl:?} is under etcd's least, 1 s");
                return Err(self.refuse(node, &why));
            }
            let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
            let seconds = i64::try_from(seconds).map_err(|_| {
                self.refuse(node, &format!("a TTL of {ttl:?} is beyond what etcd can count"))
            })?;
            self.validate(node)?;
            let what = format!("register {} of service {}", node.id, node.service);
            let write = |connection: members::Connection| async move {
                let lease = connection.client.lease_client().grant(seconds, None).await?.id();
                // Lease 0 is none: the record would outlive its node for ever.
                if lease == 0 {
                    let why = "the lease granted has no id".to_owned();
                    return Err(etcd_client::Error::LeaseKeepAliveError(why));
                }
                let records = Own::all(self.members.options(), node, Lease(lease))
                    .map_err(etcd_client::Error::InvalidArgs)?;
                // In one revision: nobody sees the node as a later format has it, and a try that
                // fails leaves nothing of it. go-micro's watchers, who take in but the first change
                // of a revision, have one key in it.
                let puts = records.into_iter().map(|Own { key, value, .. }| {
                    TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease)))
                });
                let puts = Txn::new().and_then(puts.collect::<Vec<_>>());
                if let Err(error) = connection.client.kv_client().txn(puts).await {
                    // Every try would leave one for its TTL. Where etcd is away, so is this, and
                    // the next member is to have its turn.
                    let mut leases = connection.client.lease_client();
                    let _ = timeout(REVOKE, leases.revoke(lease)).await;
                    return Err(error);
                }
                Ok(Lease(lease))
            };
            Ok(self.members.call(&what, write).await?)
        }
        .boxed()
    }

    fn renew<'a>(&'a self, node: &'a Node, lease: Lease) -> BoxFuture<'a, Result<(), RenewError>> {
        async move {
            let records = self.records(node, lease).map_err(RenewError::Failed)?;
            let what = format!("renew {} of service {}", node.id, node.service);
            let exchange = |connection: members::Connection| {
                let gets = records.iter().map(|own| TxnOp::get(own.key.clone(), None));
                let gets = Txn::new().and_then(gets.collect::<Vec<_>>());
                async move {
                    let mut kv = connection.client.kv_client();
                    tokio::try_join!(self.keep_alives.renew(&connection, lease), kv.txn(gets))
                }
            };
            let (is_alive, response) = self
                .members
                .call(&what, exchange)
                .await
                .map_err(|error| RenewError::Failed(error.into()))?;
            if !is_alive {
                let why = "etcd has no such lease any more: it expired or was revoked";
                return Err(RenewError::Lost(why.to_owned()));
            }
            let mut answers = response.op_responses().into_iter();
            records.iter().try_for_each(|own| stands(own, node, lease, answers.next()))
        }
        .boxed()
    }

    fn deregister<'a>(&'a self, node: &'a Node, lease: Lease) -> BoxFuture<'a, Result<(), Error>> {
        async move {
            self.keep_alives.forget(lease);
            let records = self.records(node, lease)?;
            let what = format!("deregister {} of service {}", node.id, node.service);
            let exchange = |connection: members::Connection| {
                // A revoked lease takes along the keys that still hang on it: ours, unless another
                // has overwritten one, which took it off. All go in one revision, so that no watcher
                // ever takes the node for one that is left in some of its formats.
                let mut kv = connection.client.kv_client();
                let revoke = async move {
                    match connection.client.lease_client().revoke(lease.0).await {
                        Err(error) if members::is_not_found(&error) => Ok(()),
                        revoked => revoked.map(drop),
                    }
                };
                let delete = records.clone().into_iter().map(|Own { key, value, .. }| {
                    // Written back by somebody's hand, the very same record has no lease and would
                    // outlive its node for ever.
                    let rewritten = [
                        Compare::value(key.clone(), CompareOp::Equal, value),
                        Compare::lease(key.clone(), CompareOp::Equal, 0),
                    ];
                    Txn::new().when(rewritten).and_then([TxnOp::delete(key, None)])
                });
                let delete = delete.collect::<Vec<_>>();
                let delete = async move {
                    for txn in delete {
                        kv.txn(txn).await?;
                    }
                    Ok(())
                };
                async move { tokio::try_join!(revoke, delete) }
            };
            self.members.call(&what, exchange).await?;
            Ok(())
        }
        .boxed()
    }

    fn read<'a>(&'a self, service: &'a str) -> BoxFuture<'a, Result<Listing, Error>> {
        async move {
            let ranges = Range::all(self.formats(), service).map_err(Error::config)?;
            let what = format!("read service {service}");
            let (mut listing, mut revision) = (Listing::default(), 0);
            for range in ranges {
                let (at, records) = self.scan(&range.prefix, revision, &what).await?;
                revision = at;
                for (index, record) in records.into_iter().enumerate() {
                    if index % TURN == TURN - 1 {
                        tokio::task::yield_now().await;
                    }
                    match range.read(service, record) {
                        Ok(Some(entry)) => listing.entries.push(entry),
                        Ok(None) => {}
                        Err(malformed) => listing.malformed.push(malformed),
                    }
                }
            }
            listing.revision = u64::try_from(revision).unwrap_or(0);
            Ok(listing)
        }
        .boxed()
    }

    /// The services of those formats whose keys tell them from anything else in etcd: not go-zero's,
    /// nor those of etcd's naming.
    fn list(&self) -> BoxFuture<'_, Result<Vec<String>, Error>> {
        async move {
            let mut services = BTreeSet::new();
            for &format in self.formats() {
                let Some(root) = key::root(format) else { continue };
                // The key may spell a name in another way: only the records know it.
                let (_, records) = self.scan(root, 0, "list services").await?;
                services.extend(records.iter().filter_map(|record| service_of(format, record)));
            }
            Ok(services.into_iter().collect())
        }
        .boxed()
    }

    fn watch(&self, service: &str, after: u64) -> Watch {
        watch::watch(self.members.clone(), service.to_owned(), after)
    }
}

/// Whether a node's own record stands as written under this lease.
fn stands(
    own: &Own,
    node: &Node,
    lease: Lease,
    answer: Option<TxnOpResponse>,
) -> Result<(), RenewError> {
    let Some(TxnOpResponse::Get(found)) = answer else {
        let why = format!("etcd does not say what stands at {}", own.key);
        return Err(RenewError::Failed(Error::registry(why)));
    };
    match found.kvs().first() {
        None => Err(RenewError::Lost(format!("the key {} was deleted", own.key))),
        Some(kv) if kv.lease() == lease.0 && kv.value() == own.value => Ok(()),
        Some(kv) => Err(match record::other(own.format, node, kv.value()) {
            Ok(other) => RenewError::taken_by(node, &other),
            Err(why) => RenewError::Taken(format!(
                "the key {} was overwritten with what is no record: {why}",
                key_of(kv)
            )),
        }),
    }
}
