//! Where nodes are written down and found, behind one URL.
//!
//! A service and a client open theirs by themselves: the URL is given to their builders, or as
//! `MICRO_REGISTRY`. [`open`] has the URLs there are, and gives the [`Registry`] behind one to a
//! program that reads or lists by itself.

// A backend is a plain store: it answers one request at a time and keeps no policy. When to renew,
// retry and re-read is decided above, in `registration` and `discovery`. This room knows nothing of
// connections to nodes.

use std::{fmt, pin::Pin, sync::Arc, time::Duration};

use futures_core::Stream;

use crate::Error;

#[cfg(any(
    feature = "consul",
    feature = "etcd",
    feature = "kubernetes",
    feature = "nacos",
    feature = "nats"
))]
mod causes;
#[cfg(feature = "consul")]
pub mod consul;
#[cfg(feature = "dns")]
pub mod dns;
#[cfg(feature = "etcd")]
pub mod etcd;
#[cfg(feature = "file")]
pub mod file;
mod follow;
mod format;
#[cfg(test)]
mod fuzz;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
#[cfg(any(feature = "mdns", feature = "nats"))]
mod left_out;
#[cfg(feature = "mdns")]
pub mod mdns;
pub mod memory;
#[cfg(feature = "nacos")]
pub mod nacos;
#[cfg(feature = "nats")]
pub mod nats;
mod node;
mod open;
mod share;
mod size;
mod static_list;
mod store;
mod url;
#[cfg(feature = "zookeeper")]
pub mod zookeeper;

pub(crate) use follow::Follow;
pub use node::{Endpoint, Node, Value};
pub(crate) use open::open_followed;
pub use open::{install, open, open_all};
pub use static_list::StaticList;
pub(crate) use url::is_loopback;
pub(crate) use url::redacted;

/// A future without a name, as a trait object's methods return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A watch on a service: batches of changes in the registry's order.
///
/// The stream ends after its first error; what to do then is the error's word.
pub type Watch = Pin<Box<dyn Stream<Item = Result<Batch, WatchError>> + Send>>;

/// A service registry.
///
/// Every method is one bounded exchange with the registry, or for [`read`](Self::read) and
/// [`list`](Self::list) as many as it takes, each bounded: the caller decides on retries, and a
/// dropped future leaves nothing behind that the TTL does not clean up.
pub trait Registry: fmt::Debug + Send + Sync + 'static {
    /// The registry in logs, errors and metrics, without a secret: `consul://127.0.0.1:8500?dc=a`. Two
    /// that may have other nodes have other names: the file of a `cache` goes by them.
    fn name(&self) -> &str;

    /// Whether other machines have nodes here too, to whom a loopback address is of no use. By
    /// default they have not.
    fn is_shared(&self) -> bool {
        false
    }

    /// What to know of this kind of registry when a service is not found in it, as a clause for the
    /// text of an error: `memory:// is within one process`. By default nothing.
    fn hint(&self) -> Option<&str> {
        None
    }

    /// Whether a change may go unseen until somebody asks, as with DNS, whose answer holds for its
    /// TTL. Discovery then reads anew when a connection to a node is lost or cannot be made, no more
    /// than once a second. By default the watch tells in time.
    fn learns_by_asking(&self) -> bool {
        false
    }

    /// How long a removal takes to reach every watcher: the gap between deregistering and
    /// refusing calls.
    fn spread(&self) -> Duration;

    /// The shortest TTL the registry can grant.
    fn min_ttl(&self) -> Duration;

    /// Whether the registry can hold the node's record at all; asks nothing of it. By default it can.
    ///
    /// # Errors
    /// `Config` for a name or size that it cannot hold, with which one and why.
    fn validate(&self, _node: &Node) -> Result<(), Error> {
        Ok(())
    }

    /// Finds out whether the registry can work at all on this machine, where that can be told without
    /// a peer. A service awaits it before it listens. By default nothing is asked.
    ///
    /// # Errors
    /// `Config` where it cannot: trying again does not help.
    fn prepare(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Writes the node's record under a new lease of `ttl`, over whatever is there.
    ///
    /// # Errors
    /// `Registry` when it cannot be reached or refuses; `Config` when the TTL is under
    /// [`min_ttl`](Self::min_ttl), or as [`validate`](Self::validate); `Unsupported` when it only
    /// reads.
    fn register<'a>(&'a self, node: &'a Node, ttl: Duration)
    -> BoxFuture<'a, Result<Lease, Error>>;

    /// Whether a [`register`](Self::register) that is dropped undoes itself, as one over mDNS does:
    /// a node that leaves meanwhile need not await it. By default it does not.
    fn undoes_dropped(&self) -> bool {
        false
    }

    /// Extends the lease by its TTL and checks that the node's own record still stands as written.
    ///
    /// # Errors
    /// [`RenewError::Lost`] and [`RenewError::Taken`] when the node must register anew,
    /// [`RenewError::Failed`] for all else.
    fn renew<'a>(&'a self, node: &'a Node, lease: Lease) -> BoxFuture<'a, Result<(), RenewError>>;

    /// Removes the node's record if it is still the one written under this lease, and gives the
    /// lease back. A record that is gone already is no error, nor is one under another lease, the
    /// node's own next one or another's: it is left alone.
    ///
    /// # Errors
    /// `Registry` when it cannot be reached: the record then goes with its TTL. `Unsupported` when
    /// it only reads.
    fn deregister<'a>(&'a self, node: &'a Node, lease: Lease) -> BoxFuture<'a, Result<(), Error>>;

    /// Every record of a service, and the revision at which that held.
    ///
    /// # Errors
    /// `Registry` when it cannot be reached, `Config` for a name that it cannot hold. A service
    /// without nodes is an empty listing, or `Registry` where nobody can tell it from a failure,
    /// as in DNS.
    fn read<'a>(&'a self, service: &'a str) -> BoxFuture<'a, Result<Listing, Error>>;

    /// The names of all services, sorted.
    ///
    /// # Errors
    /// `Registry` when it cannot be reached.
    fn list(&self) -> BoxFuture<'_, Result<Vec<String>, Error>>;

    /// Watches a service for every change later than revision `after`.
    fn watch(&self, service: &str, after: u64) -> Watch;
}

/// The registry's handle for a node's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease(pub i64);

/// Why a renewal did not succeed.
#[derive(Debug)]
pub enum RenewError {
    /// The entry does not stand any more: the lease is gone, or the key was deleted.
    Lost(String),
    /// Another record stands in its place. Says whose.
    Taken(String),
    /// The registry did not answer, or cannot do this at all: the entry may well stand.
    Failed(Error),
}

impl RenewError {
    /// [`Taken`](Self::Taken) by that node, with what to do about it.
    pub fn taken_by(own: &Node, other: &Node) -> Self {
        Self::Taken(format!(
            "the record of {} at {} was overwritten by a node at {}; two processes with one id take \
             it from each other: an id must be unique in its service; give each its own, or leave the \
             id out for a new one at each start",
            own.id, own.address, other.address
        ))
    }
}

/// What a read found.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// The registry's revision at the read; a watch goes on from here.
    pub revision: u64,
    /// The records that could be decoded.
    pub entries: Vec<Entry>,
    /// The records that could not.
    pub malformed: Vec<Malformed>,
}

/// A record as it stands in the registry.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The record's key: what a removal names.
    pub key: String,
    /// The revision of its last write: of two records with one address and rank the higher is in
    /// force.
    pub revision: u64,
    /// Of two records with one address the lower rank is in force: the place of the record's format
    /// among those that the registry keeps a node in, and 0 where it keeps one alone.
    pub rank: u8,
    /// The node.
    pub node: Arc<Node>,
}

/// A record that could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// The record's key.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

/// One change in the registry.
#[derive(Debug, Clone)]
pub enum Event {
    /// A record was written.
    Put(Entry),
    /// A record that cannot be decoded was written.
    Malformed(Malformed),
    /// The record under this key is gone.
    Delete(String),
    /// These are all records, as of the batch's revision: what is not among them is gone. For
    /// registries that never tell what has changed, but only how all stands now.
    Reset(Listing),
}

/// The changes of one revision.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The revision that these changes brought.
    pub revision: u64,
    /// The changes in their order.
    pub events: Vec<Event>,
}

/// Why a watch ended.
#[derive(Debug)]
pub enum WatchError {
    /// The registry ended the watch in good order: resume from the last revision seen.
    Ended,
    /// The changes after that revision are no longer to be had: read all.
    Compacted,
    /// The connection was lost, or is a new one: read all.
    Disconnected(Error),
}
