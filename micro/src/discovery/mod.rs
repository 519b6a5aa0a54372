//! From a registry to the nodes of a service: one watch a service name, however many ask.
//!
//! Clients follow the nodes that they call by themselves. Who wants to see them too, say to show
//! them, asks [`Client::discovery`](crate::Client::discovery), or a [`Discovery`] of his own, to
//! [`subscribe`](Discovery::subscribe) to a service, and gets [`Update`]s.
//! [`Subscription::into_discover`] makes them what tower's balancers take, and `tonic_channel` (with
//! the feature `tonic-channel`) puts them beneath tonic's own channel. What is registered is told
//! here; which of the nodes can be reached, a client finds out.
//!
//! # Recovery
//! What happens when the registry fails, and what a subscriber sees of it:
//!
//! | failure | what follows | subscribers see |
//! |---|---|---|
//! | a read fails, or takes over 30 s | it is tried again for ever, after a wait drawn from nothing to a ceiling that grows from 100 ms to 3 s | nothing; [`Status::error`] |
//! | the registry cannot hold a service of this name, or not work on this machine at all (an error of kind `Config`) | it is not asked again | nothing; [`Status::refused`] |
//! | the watch ends in good order | it is resumed after the last revision *seen* | nothing |
//! | the revisions after that are compacted | all is read, and compared with what is known | the differences |
//! | the connection is lost, or is a new one | as above | the differences; [`Status::error`] |
//! | the revision went back: the registry was wiped or restored | as above | the differences |
//! | a node cannot be reached, and the registry tells of changes only when asked ([DNS](crate::guide::registries::dns)) | all is read, at most once a second | the differences |
//! | a watch that says nothing, wrongly | all is read every 5 min +-20%, and the watch begun anew | the differences |
//! | the registry is down when a client starts, and its URL has a `cache` | what was known last is read from that file | these nodes; [`Status::stale`] |
//! | the registry has not answered for longer than its URL's `max_stale` allows | all its nodes are given up, until it answers | [`Update::Forget`]; [`Status::error`] |
//! | a record cannot be decoded | the last good one under its key stays; one log line a key | nothing |
//!
//! A service that nobody is subscribed to any more is followed for another minute: who makes a client
//! a call has its nodes also while the registry is down.
//!
//! An error never removes a node, unless `max_stale` is set, which it is not by default.

// `State` decides when to read and when to watch (a machine without IO), `Records` which of the
// records are in force, the driver does the IO and the fan-out hands updates to subscribers, and
// `Neighbours` say what else is registered where a service has no node. This room knows the registry
// and nothing of connections, which are `balance`'s, above.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::{
    runtime,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use crate::{
    Error,
    registry::{self, Follow, Node, Registry},
};

mod cache;
mod discover;
mod driver;
mod fanout;
mod merge;
mod neighbours;
mod records;
mod state;
#[cfg(test)]
mod tests;
#[cfg(feature = "tonic-channel")]
mod tonic;

pub(crate) use self::fanout::Doubts;
use self::fanout::Shared;
pub(crate) use self::neighbours::Neighbours;
#[cfg(feature = "tonic-channel")]
pub use self::tonic::tonic_channel;
pub use self::{discover::Discover, fanout::Subscription};

/// A change in the set of nodes of a service, to be applied in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// These are all the nodes there are. The first update of a subscription, and the one that a
    /// subscriber gets who has fallen behind.
    Reset(Vec<Arc<Node>>),
    /// This node is there. If its id is known, its record was written anew: with a change, or as it
    /// was, which is what a restart under a fixed id and address looks like.
    Insert(Arc<Node>),
    /// The node of this id is gone.
    Remove(Arc<str>),
    /// No node is to be called any more, connected or not: the registry has been silent for longer
    /// than `max_stale` allows.
    Forget,
}

/// How the watch on a service fares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Whether all nodes have been read once: before that, an empty set means nothing.
    pub synced: bool,
    /// The last error of the registry, its causes included; cleared by the next success.
    pub error: Option<Arc<str>>,
    /// Whether that error is for good: the registry cannot hold a service of this name, or not work
    /// on this machine at all, and is not asked again.
    pub refused: bool,
    /// Since when the registry's word is not to be had, so that the nodes are those known then; of
    /// several registries the first to fall silent counts. `None` while all is followed.
    pub stale: Option<Instant>,
    /// The registry's last revision that was seen: 0 before the first, and the least of several
    /// registries', each of which counts in its own way.
    pub revision: u64,
    /// Records left out since they cannot be decoded (or, where an earlier one under the same key
    /// could, not followed).
    pub malformed: usize,
    /// Records left out since their nodes do not speak gRPC, as go-micro's default ones.
    pub not_grpc: usize,
}

/// Finds the nodes of services in one registry, or in several at once. All that a process has on one
/// registry share their watches, however they came by it: clones, a second [`new`](Self::new), a
/// client or a service built with the same URL.
#[derive(Clone, Debug)]
pub struct Discovery(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registries: Vec<Arc<dyn Registry>>,
    /// How each of them is followed.
    follow: Vec<Follow>,
    /// The watches under way, by service name and by the runtime that runs them. Weak, so that
    /// they end some time after their last subscriber.
    services: Mutex<HashMap<(String, runtime::Id), Weak<Shared>>>,
    /// Places for those without one.
    kept: Arc<Semaphore>,
}

/// Services followed for a while without a subscriber: whoever asks for ever new ones must not have
/// as many watches.
const MOST_KEPT: usize = 64;

impl Discovery {
    /// Asks nothing of the registry before the first [`subscribe`](Self::subscribe).
    pub fn new(registry: Arc<dyn Registry>) -> Self {
        Self::merged(vec![registry])
    }

    /// Finds nodes in the registry that a URL names, or in several, as its options `cache` and
    /// `max_stale` say.
    ///
    /// # Errors
    /// `Config` as [`registry::open_all`].
    pub fn open(url: &str) -> Result<Self, Error> {
        let (registries, follow) = registry::open_followed(url)?.into_iter().unzip();
        Ok(Self::following(registries, follow))
    }

    /// Follows the nodes of several registries as one set, as a fleet that moves from one to another
    /// needs it: a node is there while one of them has it, with the record of the first that has it.
    /// One that fails does not disturb the others.
    ///
    /// # Panics
    /// When there is none.
    pub fn merged(registries: Vec<Arc<dyn Registry>>) -> Self {
        let follow = vec![Follow::default(); registries.len()];
        Self::following(registries, follow)
    }

    fn following(registries: Vec<Arc<dyn Registry>>, follow: Vec<Follow>) -> Self {
        /// By the registries' addresses, which are nobody else's while a discovery holds them.
        type Opened = BTreeMap<(Vec<usize>, Vec<Follow>), Weak<Inner>>;
        static OPENED: Mutex<Opened> = Mutex::new(BTreeMap::new());
        assert!(!registries.is_empty(), "nodes are found in a registry");
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        opened.retain(|_, inner| inner.strong_count() > 0);
        let addresses: Vec<_> = registries.iter().map(|it| Arc::as_ptr(it).addr()).collect();
        let key = (addresses, follow.clone());
        if let Some(inner) = opened.get(&key).and_then(Weak::upgrade) {
            return Self(inner);
        }
        let kept = Arc::new(Semaphore::new(MOST_KEPT));
        let inner = Arc::new(Inner { registries, follow, services: Mutex::default(), kept });
        opened.insert(key, Arc::downgrade(&inner));
        Self(inner)
    }

    /// The registries that are asked: one, unless they are [`merged`](Self::merged).
    pub fn registries(&self) -> &[Arc<dyn Registry>] {
        &self.0.registries
    }

    /// For a service without a subscriber, while there is one.
    fn place_to_keep(&self) -> Option<OwnedSemaphorePermit> {
        self.0.kept.clone().try_acquire_owned().ok()
    }

    fn follow(&self) -> &[Follow] {
        &self.0.follow
    }

    /// The registries for people: `etcd://127.0.0.1:2379`, or several with commas.
    pub(crate) fn name(&self) -> String {
        let names: Vec<_> = self.registries().iter().map(|registry| registry.name()).collect();
        names.join(",")
    }

    /// Follows the nodes of a service.
    ///
    /// All subscriptions to one service in one runtime share one watch, which ends a minute after
    /// the last of them (at once if 64 other services are kept that way), or with the runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn subscribe(&self, service: &str) -> Subscription {
        let key = (service.to_owned(), runtime::Handle::current().id());
        let mut services = self.0.services.lock().unwrap_or_else(PoisonError::into_inner);
        let known = services.get(&key).and_then(Weak::upgrade);
        // One that was refused since its last subscriber left asks no more.
        let shared = known.filter(|shared| !shared.is_over()).unwrap_or_else(|| {
            services.retain(|_, shared| shared.strong_count() > 0);
            let shared = driver::start(self.clone(), service);
            services.insert(key, Arc::downgrade(&shared));
            shared
        });
        Subscription::new(shared)
    }
}
