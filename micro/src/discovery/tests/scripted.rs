//! A registry in memory that hangs, refuses and goes deaf on command.

use std::{
    collections::BTreeMap,
    future::pending,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures_util::stream;
use tokio::{
    sync::mpsc::{UnboundedSender, unbounded_channel},
    time::sleep,
};

use super::event;
use crate::{
    Error,
    registry::{
        Batch, BoxFuture, Entry, Event, Lease, Listing, Node, Registry, RenewError, Watch,
        WatchError,
    },
};

#[derive(Debug, Default)]
pub(super) struct Scripted(Mutex<Inner>);

#[derive(Debug, Default)]
pub(super) struct Inner {
    revision: u64,
    entries: BTreeMap<String, Entry>,
    log: Vec<Batch>,
    watchers: Vec<UnboundedSender<Result<Batch, WatchError>>>,
    /// Refuses to be read.
    pub(super) down: bool,
    /// Says that there can be no such service.
    pub(super) denies: bool,
    /// Does not answer.
    pub(super) silent: bool,
    /// How long it takes to be read.
    pub(super) read_takes: Duration,
    /// Sends its watchers nothing.
    pub(super) mute: bool,
    reads: usize,
    /// After which revision each watch was asked for.
    pub(super) watches: Vec<u64>,
}

impl Scripted {
    pub(super) fn new(records: &[&str]) -> Arc<Self> {
        let registry = Arc::new(Self::default());
        for record in records {
            registry.write(&[record]);
        }
        registry
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// One revision with these changes.
    pub(super) fn write(&self, changes: &[&str]) {
        let mut inner = self.lock();
        inner.revision += 1;
        let revision = inner.revision;
        let events: Vec<_> = changes.iter().map(|it| event(it, revision)).collect();
        for event in &events {
            match event {
                Event::Put(entry) => drop(inner.entries.insert(entry.key.clone(), entry.clone())),
                Event::Delete(key) => drop(inner.entries.remove(key)),
                Event::Malformed(_) | Event::Reset(_) => {}
            }
        }
        let batch = Batch { revision, events };
        inner.log.push(batch.clone());
        if !inner.mute {
            inner.watchers.retain(|watcher| watcher.send(Ok(batch.clone())).is_ok());
        }
    }

    pub(super) fn cut(&self) {
        for watcher in self.lock().watchers.drain(..) {
            let _ = watcher.send(Err(WatchError::Disconnected(Error::registry("cut"))));
        }
    }

    /// How often it was asked for all.
    pub(super) fn reads(&self) -> usize {
        self.lock().reads
    }

    /// How many watches are being listened to.
    pub(super) fn watchers(&self) -> usize {
        self.lock().watchers.iter().filter(|watcher| !watcher.is_closed()).count()
    }
}

impl Registry for Scripted {
    fn name(&self) -> &str {
        "scripted://"
    }

    fn spread(&self) -> Duration {
        Duration::ZERO
    }

    fn min_ttl(&self) -> Duration {
        Duration::ZERO
    }

    fn register<'a>(&'a self, _: &'a Node, _: Duration) -> BoxFuture<'a, Result<Lease, Error>> {
        unreachable!("discovery only reads")
    }

    fn renew<'a>(&'a self, _: &'a Node, _: Lease) -> BoxFuture<'a, Result<(), RenewError>> {
        unreachable!("discovery only reads")
    }

    fn deregister<'a>(&'a self, _: &'a Node, _: Lease) -> BoxFuture<'a, Result<(), Error>> {
        unreachable!("discovery only reads")
    }

    fn read<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Listing, Error>> {
        Box::pin(async {
            let (silent, takes) = {
                let mut inner = self.lock();
                inner.reads += 1;
                (inner.silent, inner.read_takes)
            };
            if silent {
                pending::<()>().await;
            }
            sleep(takes).await;
            let inner = self.lock();
            if inner.denies {
                return Err(Error::config("there can be no such service"));
            }
            if inner.down {
                return Err(Error::registry("connection refused"));
            }
            let entries = inner.entries.values().cloned().collect();
            Ok(Listing { revision: inner.revision, entries, malformed: Vec::new() })
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<String>, Error>> {
        Box::pin(async {
            if self.lock().silent {
                pending::<()>().await;
            }
            match self.lock().down {
                true => Err(Error::registry("scripted://: cannot list services: refused")),
                false => Ok(vec!["gretel".to_owned()]),
            }
        })
    }

    fn watch(&self, _: &str, after: u64) -> Watch {
        let (sender, receiver) = unbounded_channel();
        let mut inner = self.lock();
        inner.watches.push(after);
        for batch in inner.log.iter().filter(|batch| batch.revision > after) {
            let _ = sender.send(Ok(batch.clone()));
        }
        inner.watchers.push(sender);
        Box::pin(stream::unfold(receiver, |mut receiver| async {
            let next = receiver.recv().await;
            next.map(|next| (next, receiver))
        }))
    }
}
