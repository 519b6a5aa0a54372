//! One service's nodes, handed to all who subscribed.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use futures_core::Stream;
use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
};

use super::{Discover, Discovery, Neighbours, Status, Update};
use crate::registry::Node;

/// How many updates a subscriber may be behind: with one more he gets them as one `Reset`.
const QUEUE_LIMIT: usize = 1024;

/// What the subscriptions of one service share: the nodes, and the tasks that follow the registries.
#[derive(Debug)]
pub(super) struct Shared {
    fanout: Arc<Fanout>,
    status: watch::Receiver<Status>,
    drivers: Vec<AbortHandle>,
    doubts: Doubts,
    service: String,
    /// Whoever asks the same registries next is to find this.
    discovery: Discovery,
}

impl Shared {
    pub(super) fn new(
        fanout: Arc<Fanout>,
        status: watch::Receiver<Status>,
        drivers: Vec<AbortHandle>,
        doubts: Doubts,
        service: String,
        discovery: Discovery,
    ) -> Self {
        Self { fanout, status, drivers, doubts, service, discovery }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.drivers.iter().for_each(AbortHandle::abort);
    }
}

/// Whether what the registries said last is doubted: of several doubts one is left. Those listen that
/// learn by asking.
#[derive(Debug, Clone, Default)]
pub(crate) struct Doubts(Vec<Arc<Notify>>);

impl Doubts {
    /// A node that is listed was not to be reached.
    pub(crate) fn raise(&self) {
        self.0.iter().for_each(|listener| listener.notify_one());
    }

    /// Of which each raised doubt is told, once for those raised since the last look.
    pub(crate) fn listener(&mut self) -> Arc<Notify> {
        let listener = Arc::<Notify>::default();
        self.0.push(listener.clone());
        listener
    }
}

/// The nodes as published last, and a queue for each subscriber.
#[derive(Debug, Default)]
pub(super) struct Fanout(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    nodes: BTreeMap<Arc<str>, Arc<Node>>,
    /// Whether `nodes` is what the registry holds, not merely what there is before the first read.
    synced: bool,
    queues: HashMap<u64, Queue>,
    last_queue: u64,
}

#[derive(Debug, Default)]
struct Queue {
    /// All nodes come first; they are looked up when asked for.
    reset: bool,
    updates: VecDeque<Update>,
    waker: Option<Waker>,
}

impl Fanout {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn publish(&self, updates: Vec<Update>) {
        if updates.is_empty() {
            return;
        }
        let mut inner = self.lock();
        let Inner { nodes, synced, queues, .. } = &mut *inner;
        for update in updates {
            match &update {
                Update::Reset(all) => {
                    *nodes =
                        all.iter().map(|node| (node.id.as_str().into(), node.clone())).collect();
                    *synced = true;
                }
                Update::Insert(node) => drop(nodes.insert(node.id.as_str().into(), node.clone())),
                Update::Remove(id) => drop(nodes.remove(id)),
                Update::Forget => nodes.clear(),
            }
            for queue in queues.values_mut() {
                queue.push(update.clone());
            }
        }
        let wakers: Vec<_> = queues.values_mut().filter_map(|queue| queue.waker.take()).collect();
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Queue {
    fn push(&mut self, update: Update) {
        if matches!(update, Update::Forget) {
            // Whatever came before is of no interest any more.
            self.reset = false;
            self.updates = VecDeque::from([update]);
            return;
        }
        // What is still to be looked up will have it in.
        if self.reset {
            return;
        }
        if matches!(update, Update::Reset(_)) || self.updates.len() == QUEUE_LIMIT {
            self.updates = VecDeque::new();
            self.reset = true;
        } else {
            self.updates.push_back(update);
        }
    }
}

/// The nodes of one service as they come and go: an endless stream of [`Update`]s.
///
/// The first is a `Reset` with all nodes, as soon as they have been read once: at once for a service
/// that others follow already. A subscriber who falls more than 1024 updates behind gets a `Reset` in
/// their place. Dropping the last subscription of a service ends its watch.
#[derive(Debug)]
pub struct Subscription {
    shared: Arc<Shared>,
    queue: u64,
}

impl Subscription {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let queue = {
            let mut inner = shared.fanout.lock();
            inner.last_queue += 1;
            let (id, reset) = (inner.last_queue, inner.synced);
            inner.queues.insert(id, Queue { reset, ..Queue::default() });
            id
        };
        Self { shared, queue }
    }

    /// How the watch on the service fares. A node is published before the status that follows from
    /// it.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.shared.status.clone()
    }

    /// Where to say that a node is not to be reached.
    pub(crate) fn doubts(&self) -> Doubts {
        self.shared.doubts.clone()
    }

    /// Who to ask what else is registered.
    pub(crate) fn neighbours(&self) -> Neighbours {
        Neighbours::new(self.shared.discovery.clone(), &self.shared.service)
    }

    /// The same as a [`tower::discover::Discover`].
    pub fn into_discover(self) -> Discover {
        Discover::new(self)
    }
}

impl Stream for Subscription {
    type Item = Update;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Update>> {
        let mut inner = self.shared.fanout.lock();
        let Inner { nodes, queues, .. } = &mut *inner;
        let queue = queues.entry(self.queue).or_default();
        if std::mem::take(&mut queue.reset) {
            return Poll::Ready(Some(Update::Reset(nodes.values().cloned().collect())));
        }
        if let Some(update) = queue.updates.pop_front() {
            return Poll::Ready(Some(update));
        }
        queue.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.shared.fanout.lock().queues.remove(&self.queue);
    }
}
