//! `memory://`: a registry within the process.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future, stream};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    Batch, BoxFuture, Lease, Listing, Node, Registry, RenewError, Watch, WatchError,
    store::{Since, Store},
    url::Url,
};
use crate::Error;

/// How many changes a watch may lag behind, or resume over, before it must read all.
const HISTORY: usize = 1024;

/// tokio's timers count in milliseconds.
const MIN_TTL: Duration = Duration::from_millis(1);

/// Thirty years: what tokio's timers take for never, and what a clock can still add.
const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// A registry within the process: for tests, and for a fleet in one process.
///
/// It behaves as a real one does. Leases expire on tokio's clock, which tests can pause; every
/// change has a revision; and a watch that lags or resumes more than 1024 changes behind is told
/// so ([`WatchError::Compacted`]).
///
/// `memory://` is one registry for the whole process, `memory://NAME` another for each name.
/// A clone is the same registry.
#[derive(Debug, Clone)]
pub struct Memory(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    name: String,
    store: Mutex<Store>,
    /// The store's revision, for the watches that wait.
    changed: watch::Sender<u64>,
}

impl Default for Memory {
    fn default() -> Self {
        Self::named("", HISTORY)
    }
}

impl Memory {
    /// A registry of its own, which no URL leads to.
    pub fn new() -> Self {
        Self::default()
    }

    /// As [`Memory::new`], but a watch may lag no more than `history` changes. With 0 it is told to
    /// read all at each change; with `usize::MAX` every change is kept for ever.
    pub fn with_history(history: usize) -> Self {
        Self::named("", history)
    }

    fn named(name: &str, history: usize) -> Self {
        Self(Arc::new(Shared {
            name: format!("memory://{name}"),
            store: Mutex::new(Store::new(history)),
            changed: watch::channel(0).0,
        }))
    }

    pub(super) fn open(url: &Url) -> Result<Arc<dyn Registry>, Error> {
        static BY_NAME: OnceLock<Mutex<HashMap<String, Arc<Memory>>>> = OnceLock::new();
        url.without_user()?;
        url.without_path()?;
        url.only_keys(&[])?;
        let by_name = BY_NAME.get_or_init(Mutex::default);
        let memory = by_name
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(url.hosts.clone())
            .or_insert_with(|| Arc::new(Self::named(&url.hosts, HISTORY)))
            .clone();
        Ok(memory)
    }

    /// The store as it stands now: what has expired is gone.
    fn store(&self) -> MutexGuard<'_, Store> {
        let mut store = self.0.store.lock().unwrap_or_else(PoisonError::into_inner);
        store.expire(Instant::now());
        store
    }

    /// Runs `change` on the store and wakes the watches if anything came of it.
    fn change<T>(&self, change: impl FnOnce(&mut Store, Instant) -> T) -> T {
        let mut store = self.store();
        let result = change(&mut store, Instant::now());
        let revision = store.revision();
        drop(store);
        self.0.changed.send_if_modified(|known| {
            // Two changes may get here in either order: the revision never goes back.
            let is_newer = revision > *known;
            *known = revision.max(*known);
            is_newer
        });
        result
    }
}

impl Registry for Memory {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn hint(&self) -> Option<&str> {
        Some("memory:// is within one process")
    }

    fn spread(&self) -> Duration {
        Duration::ZERO
    }

    fn min_ttl(&self) -> Duration {
        MIN_TTL
    }

    fn register<'a>(
        &'a self,
        node: &'a Node,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Lease, Error>> {
        async move {
            if ttl < MIN_TTL {
                let name = self.name();
                return Err(Error::config(format!(
                    "{name}: a TTL of {ttl:?} is under {MIN_TTL:?}"
                )));
            }
            Ok(self.change(|store, now| store.put(node, ttl.min(NEVER), now)))
        }
        .boxed()
    }

    fn renew<'a>(&'a self, node: &'a Node, lease: Lease) -> BoxFuture<'a, Result<(), RenewError>> {
        async move { self.change(|store, now| store.renew(node, lease, now)) }.boxed()
    }

    fn deregister<'a>(&'a self, node: &'a Node, lease: Lease) -> BoxFuture<'a, Result<(), Error>> {
        async move {
            self.change(|store, _| store.delete(node, lease));
            Ok(())
        }
        .boxed()
    }

    fn read<'a>(&'a self, service: &'a str) -> BoxFuture<'a, Result<Listing, Error>> {
        async move {
            let store = self.store();
            let (revision, entries) = (store.revision(), store.entries(service));
            Ok(Listing { revision, entries, malformed: Vec::new() })
        }
        .boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<String>, Error>> {
        async { Ok(self.store().services()) }.boxed()
    }

    fn watch(&self, service: &str, after: u64) -> Watch {
        let watcher = Watcher {
            changed: self.0.changed.subscribe(),
            memory: self.clone(),
            service: service.to_owned(),
            seen: after,
            ready: Vec::new().into_iter(),
        };
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
    memory: Memory,
    changed: watch::Receiver<u64>,
    service: String,
    seen: u64,
    ready: std::vec::IntoIter<Batch>,
}

impl Watcher {
    async fn next(&mut self) -> Result<Batch, WatchError> {
        loop {
            if let Some(batch) = self.ready.next() {
                return Ok(batch);
            }
            self.changed.mark_unchanged();
            let expiry = {
                let store = self.memory.store();
                match store.since(&self.service, self.seen) {
                    Since::Compacted => return Err(WatchError::Compacted),
                    Since::Batches(batches) => self.ready = batches.into_iter(),
                }
                self.seen = store.revision();
                store.next_expiry()
            };
            if self.ready.len() > 0 {
                continue;
            }
            // A lease that runs out changes the store without anyone's call: the watch itself
            // wakes for it, so nothing needs to run in the background.
            let expired = async {
                match expiry {
                    Some(at) => sleep_until(at).await,
                    None => future::pending().await,
                }
            };
            tokio::select! {
                biased;
                changed = self.changed.changed() => changed.map_err(|_| WatchError::Ended)?,
                () = expired => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
