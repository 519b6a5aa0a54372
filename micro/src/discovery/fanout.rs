//! One service's nodes, handed to all who subscribed.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_core::Stream;
use tokio::{
    runtime,
    sync::{Notify, watch},
    task::AbortHandle,
    time::{Instant, sleep_until},
};

use super::{Discover, Discovery, Neighbours, Status, Update};
use crate::registry::Node;

/// How many updates a subscriber may be behind: with one more he gets them as one `Reset`.
const QUEUE_LIMIT: usize = 1024;

/// How long a service is followed after its last subscriber: whoever makes a client a call finds
/// its nodes there, also while the registry is away.
pub(super) const KEPT: Duration = Duration::from_secs(60);

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
    /// Where the drivers run.
    runtime: runtime::Handle,
    /// Until when this is kept though nobody is subscribed; none while it is not.
    kept_until: Mutex<Option<Instant>>,
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
        let (runtime, kept_until) = (runtime::Handle::current(), Mutex::default());
        Self { fanout, status, drivers, doubts, service, discovery, runtime, kept_until }
    }

    /// Whether nobody is subscribed, and the registry has refused it.
    pub(super) fn is_over(&self) -> bool {
        self.status.borrow().refused && self.fanout.lock().queues.is_empty()
    }

    /// Keeps this for [`KEPT`] from now, unless as many others are kept as may be. One whom the
    /// registry has refused is not: who subscribes next asks again.
    fn keep(self: &Arc<Self>) {
        if self.status.borrow().refused {
            return;
        }
        let mut kept_until = self.kept_until.lock().unwrap_or_else(PoisonError::into_inner);
        if kept_until.is_none() {
            let Some(place) = self.discovery.place_to_keep() else { return };
            let shared = self.clone();
            // A runtime that is shutting down drops it at once.
            self.runtime.spawn(async move {
                while let Some(until) = shared.keeps_until() {
                    sleep_until(until).await;
                }
                drop(place);
            });
        }
        *kept_until = Some(Instant::now() + KEPT);
    }

    /// None once it is over.
    fn keeps_until(&self) -> Option<Instant> {
        let mut kept_until = self.kept_until.lock().unwrap_or_else(PoisonError::into_inner);
        kept_until.take_if(|until| *until <= Instant::now());
        *kept_until
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
/// their place. A minute after the last subscription of a service was dropped its watch ends, unless
/// there is another by then.
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
        let mut inner = self.shared.fanout.lock();
        inner.queues.remove(&self.queue);
        let is_last = inner.queues.is_empty();
        drop(inner);
        if is_last {
            self.shared.keep();
        }
    }
}
