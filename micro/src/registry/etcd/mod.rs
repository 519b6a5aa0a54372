//! `etcd://`: go-micro's keys and records in etcd, one lease and one key a node.

mod key;
mod lease;
mod members;
mod options;
mod watch;

use std::{sync::Arc, time::Duration};

use etcd_client::{Compare, CompareOp, GetOptions, PutOptions, Txn, TxnOp};
use futures_util::FutureExt;

use self::{key::Record, lease::KeepAlives, members::Members, options::Options};
use super::{
    BoxFuture, Entry, Lease, Listing, Malformed, Node, Registry, RenewError, Watch,
    format::gomicro, open, url::Url,
};
use crate::Error;

/// etcd's leases count in whole seconds.
const MIN_TTL: Duration = Duration::from_secs(1);

/// How long a removal may take to reach the watchers of all members.
const SPREAD: Duration = Duration::from_secs(1);

/// Records read in one request: some 650 kB of go-micro's usual ones, which a link of 6 Mbit/s
/// brings within an exchange's second. Where they are over the 4 MiB that a gRPC message may have,
/// pages get smaller.
const PAGE: i64 = 250;

/// Records decoded in one turn: a service of ten thousand nodes is read beside calls under way.
const TURN: usize = 16;

/// A registry in etcd, as go-micro keeps its own: a node's record is the key
/// `/micro/registry/SERVICE/ID` with go-micro's JSON as its value, written under a lease of its
/// own in a revision of its own, never without a lease.
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
        Ok(open::share(options.identity(), || Self {
            members: Arc::new(Members::new(options)),
            keep_alives: KeepAlives::default(),
        }))
    }

    /// The node's key and what stands there.
    fn record(&self, node: &Node) -> Result<(String, Vec<u8>), Error> {
        let record = key::of(node).and_then(|key| Ok((key, gomicro::encode(node)?)));
        record.map_err(|why| self.refuse(node, &why))
    }

    fn refuse(&self, node: &Node, why: &str) -> Error {
        let (name, id, service) = (self.name(), &node.id, &node.service);
        Error::config(format!("{name}: cannot register {id} of service {service}: {why}"))
    }

    /// The records whose keys begin with `prefix`, all of one revision, page by page.
    async fn scan(&self, prefix: &str, what: &str) -> Result<(u64, Vec<Record>), Error> {
        let mut page = PAGE;
        let mut revision = 0;
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
                _ => return Ok((u64::try_from(revision).unwrap_or(0), records)),
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
        self.record(node).map(drop)
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
            let (key, value) = self.record(node)?;
            let what = format!("register {} of service {}", node.id, node.service);
            let write = |connection: members::Connection| {
                let (key, value) = (key.clone(), value.clone());
                async move {
                    let lease = connection.client.lease_client().grant(seconds, None).await?.id();
                    // Lease 0 is none: the record would outlive its node for ever.
                    if lease == 0 {
                        let why = "the lease granted has no id".to_owned();
                        return Err(etcd_client::Error::LeaseKeepAliveError(why));
                    }
                    let options = PutOptions::new().with_lease(lease);
                    connection.client.kv_client().put(key, value, Some(options)).await?;
                    Ok(Lease(lease))
                }
            };
            Ok(self.members.call(&what, write).await?)
        }
        .boxed()
    }

    fn renew<'a>(&'a self, node: &'a Node, lease: Lease) -> BoxFuture<'a, Result<(), RenewError>> {
        async move {
            let (key, value) = self.record(node).map_err(RenewError::Failed)?;
            let what = format!("renew {} of service {}", node.id, node.service);
            let exchange = |connection: members::Connection| {
                let key = key.clone();
                async move {
                    let mut kv = connection.client.kv_client();
                    tokio::try_join!(self.keep_alives.renew(&connection, lease), kv.get(key, None))
                }
            };
            let (is_alive, response) = self
                .members
                .call(&what, exchange)
                .await
                .map_err(|error| RenewError::Failed(error.into()))?;
            let lost = |why: &str| Err(RenewError::Lost(why.to_owned()));
            if !is_alive {
                return lost("etcd has no such lease any more: it expired or was revoked");
            }
            match response.kvs().first() {
                None => lost("the key was deleted"),
                Some(kv) if kv.lease() == lease.0 && kv.value() == value => Ok(()),
                Some(kv) => Err(match gomicro::decode(kv.value()) {
                    Ok(other) => RenewError::taken_by(node, &other),
                    Err(why) => RenewError::Taken(format!(
                        "the key was overwritten with what is no record: {why}"
                    )),
                }),
            }
        }
        .boxed()
    }

    fn deregister<'a>(&'a self, node: &'a Node, lease: Lease) -> BoxFuture<'a, Result<(), Error>> {
        async move {
            self.keep_alives.forget(lease);
            let (key, value) = self.record(node)?;
            let what = format!("deregister {} of service {}", node.id, node.service);
            let exchange = |connection: members::Connection| {
                // A revoked lease takes along the keys that still hang on it: ours, unless another
                // has overwritten it, which took it off.
                let mut kv = connection.client.kv_client();
                let revoke = async move {
                    match connection.client.lease_client().revoke(lease.0).await {
                        Err(error) if members::is_not_found(&error) => Ok(()),
                        revoked => revoked.map(drop),
                    }
                };
                // Written back by somebody's hand, the very same record has no lease and would
                // outlive its node for ever.
                let rewritten = [
                    Compare::value(key.clone(), CompareOp::Equal, value.clone()),
                    Compare::lease(key.clone(), CompareOp::Equal, 0),
                ];
                let delete =
                    Txn::new().when(rewritten).and_then([TxnOp::delete(key.clone(), None)]);
                async move { tokio::try_join!(revoke, kv.txn(delete)) }
            };
            self.members.call(&what, exchange).await?;
            Ok(())
        }
        .boxed()
    }

    fn read<'a>(&'a self, service: &'a str) -> BoxFuture<'a, Result<Listing, Error>> {
        async move {
            let prefix = key::prefix(service).map_err(Error::config)?;
            let (revision, records) =
                self.scan(&prefix, &format!("read service {service}")).await?;
            let mut listing = Listing { revision, ..Listing::default() };
            for (index, record) in records.into_iter().enumerate() {
                if index % TURN == TURN - 1 {
                    tokio::task::yield_now().await;
                }
                match record.read(service) {
                    Ok(Some(entry)) => listing.entries.push(entry),
                    Ok(None) => {}
                    Err(malformed) => listing.malformed.push(malformed),
                }
            }
            Ok(listing)
        }
        .boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<String>, Error>> {
        async move {
            // The key spells `/` as `-`: only the records know the names.
            let (_, records) = self.scan(key::ROOT, "list services").await?;
            let mut services: Vec<_> =
                records.iter().filter_map(|record| record.service().ok()).collect();
            services.sort();
            services.dedup();
            Ok(services)
        }
        .boxed()
    }

    fn watch(&self, service: &str, after: u64) -> Watch {
        watch::watch(self.members.clone(), service.to_owned(), after)
    }
}

impl Record {
    /// The record as an entry of this service; none if it is of another service whose name has
    /// the same spelling in keys (`team/pay` and `team-pay`).
    fn read(self, service: &str) -> Result<Option<Entry>, Malformed> {
        let fail = |reason| Malformed { key: self.key.clone(), reason };
        let node = gomicro::decode(&self.value).map_err(fail)?;
        if node.service == service {
            return Ok(Some(Entry {
                key: self.key,
                revision: self.revision,
                rank: 0,
                node: Arc::new(node),
            }));
        }
        if key::escape(&node.service) == key::escape(service) {
            return Ok(None);
        }
        Err(fail(format!("the record is of service {:?}", node.service)))
    }

    fn service(&self) -> Result<String, String> {
        gomicro::decode(&self.value).map(|node| node.service)
    }
}
