//! From the nodes of a service to the one that a call goes to: connections to all of them, what
//! each costs, and an immutable snapshot that calls pick from without a lock or a queue.
//!
//! - [`Balancer`] is the handle; its `driver` task alone changes anything.
//! - `members` decides what is to be done, node by node with `endpoint` (when to connect) and
//!   `standing` (what the registry's word is worth): without IO.
//! - `ewma` is what a node costs, `outcome` what a call's end says of it, `snapshot` the choice.
//!
//! This room knows nothing of requests, deadlines and retries, nor of any registry.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use futures_core::Stream;
use futures_util::StreamExt as _;
use tokio::{
    sync::{Notify, oneshot, watch},
    time::Instant,
};

use crate::{
    discovery::{Doubts, Neighbours, Status, Subscription, Update},
    registry::Node,
    transport,
};

mod connect;
mod driver;
mod endpoint;
mod ewma;
mod members;
mod outcome;
mod snapshot;
mod standing;
#[cfg(test)]
mod tests;

use connect::{Connect, Transport};
pub(crate) use outcome::Outcome;
use snapshot::{Endpoint, Snapshot};

/// What a balancer is made with.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// How connections are made.
    pub(crate) transport: transport::Config,
    /// How long a node that the registry removed stays connected; three times that if no other is
    /// listed. 15 s, as the registration's.
    pub(crate) ttl: Duration,
    /// How long a failure is held against a node, unless it is outweighed by successes: the time
    /// constant with which it fades. 5 s, the unary deadline; at most a minute.
    pub(crate) penalty: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            transport: transport::Config::default(),
            ttl: Duration::from_secs(15),
            penalty: Duration::from_secs(5),
        }
    }
}

/// A node as a balancer knows it, in whichever connection: what a call's further attempts avoid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EndpointId(u64);

/// The ready nodes of one service, to pick from. Cheap to clone; its task ends with the last clone,
/// and the connections then close when their calls have finished.
pub(crate) struct Balancer<C = transport::Connection> {
    handle: Arc<Handle<C>>,
}

struct Handle<C> {
    shared: Arc<Shared<C>>,
    /// Tells the driver, by being dropped, that nobody is left to pick.
    _last: oneshot::Sender<()>,
}

/// How far the driver has come with what the registry lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// It has no list yet.
    Unread,
    /// Of some node it is not known yet whether it can be connected to; or, where none is listed,
    /// what the registry has instead.
    Trying,
    /// Each was tried once: what is not ready now, none knows when it will be.
    Tried,
}

/// What the driver publishes and the handles read.
struct Shared<C> {
    snapshot: ArcSwap<Snapshot<C>>,
    /// Woken, in the order they came, when there is something to pick again.
    ready: Notify,
    /// How many calls wait for that.
    waiting: AtomicUsize,
    /// Tells the driver that one began to.
    wanted: Notify,
    progress: watch::Sender<Progress>,
    listed: AtomicUsize,
    last_error: ArcSwapOption<String>,
    neighbours: Neighbours,
    /// What those last said.
    found: ArcSwapOption<String>,
    /// Whether a call has failed for want of a node since they were asked.
    missed: AtomicBool,
    registry: watch::Receiver<Status>,
    /// Where the driver says that a node is not to be reached.
    doubts: Doubts,
}

impl Balancer {
    /// Balances over the nodes of a subscription, in a task of its own. `tap` sees each update before
    /// that.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn new(
        updates: Subscription,
        tap: impl FnMut(&Update) + Send + 'static,
        options: Options,
    ) -> Self {
        let (registry, neighbours) = (updates.status(), updates.neighbours());
        let doubts = updates.doubts();
        let Options { transport, ttl, penalty } = options;
        let connector = Transport::new(transport);
        let updates = updates.inspect(tap);
        Self::with_connector(updates, registry, neighbours, doubts, connector, ttl, penalty)
    }
}

impl<C: Clone + Send + Sync + 'static> Balancer<C> {
    fn with_connector(
        updates: impl Stream<Item = Update> + Unpin + Send + 'static,
        registry: watch::Receiver<Status>,
        neighbours: Neighbours,
        doubts: Doubts,
        connector: impl Connect<Connection = C>,
        ttl: Duration,
        penalty: Duration,
    ) -> Self {
        let shared = Arc::new(Shared {
            snapshot: ArcSwap::from_pointee(Snapshot::empty()),
            ready: Notify::new(),
            waiting: AtomicUsize::new(0),
            wanted: Notify::new(),
            progress: watch::Sender::new(Progress::Unread),
            listed: AtomicUsize::new(0),
            last_error: ArcSwapOption::empty(),
            neighbours,
            found: ArcSwapOption::empty(),
            missed: AtomicBool::new(false),
            registry,
            doubts,
        });
        let (last, gone) = oneshot::channel();
        tokio::spawn(driver::run(updates, connector, shared.clone(), ttl, penalty, gone));
        Self { handle: Arc::new(Handle { shared, _last: last }) }
    }

    /// The cheaper of two ready nodes drawn at random; those in `tried`, a call's earlier attempts,
    /// only when no other is ready. `None` when none is.
    pub(crate) fn pick(&self, tried: &[EndpointId]) -> Option<Pick<C>> {
        let started = Instant::now();
        let snapshot = self.handle.shared.snapshot.load();
        let endpoint = snapshot.pick(tried, started, &mut fastrand::Rng::new())?.clone();
        endpoint.load.begin();
        Some(Pick { endpoint, started, is_sampled: false })
    }

    /// Waits until there is something to pick, first come first served, or until the registry has
    /// [refused](Self::refused) the service. While a call waits, nodes are dialled at once, no more
    /// than once a second each, whatever their backoff.
    ///
    /// Never ends by itself when nothing becomes ready: the caller's deadline does that. One that
    /// fails fast ends, with false, once the registry has answered or failed, and each node that it
    /// lists was tried once, with nothing ready: gRPC's `wait_for_ready=false` waits as long.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue and nothing else.
    pub(crate) async fn ready(&self, fail_fast: bool) -> bool {
        let shared = &*self.handle.shared;
        let mut registry = shared.registry.clone();
        tokio::select! {
            biased;
            // First, so that a call that fails at once does not count as waiting.
            () = shared.tried(), if fail_fast => shared.is_ready(),
            () = shared.ready() => true,
            _ = registry.wait_for(|status| status.refused) => true,
        }
    }

    /// Whether the runtime that kept the set has shut down, and its connections with it.
    pub(crate) fn is_over(&self) -> bool {
        self.handle.shared.registry.has_changed().is_err()
    }

    /// Why nothing ever will be ready, if that is so: the registry cannot hold the service's name.
    pub(crate) fn refused(&self) -> Option<Arc<str>> {
        let status = self.handle.shared.registry.borrow();
        status.error.clone().filter(|_| status.refused)
    }

    /// Why nothing is ready, for people: the last connect or registry error.
    pub(crate) fn why_not_ready(&self) -> String {
        let shared = &*self.handle.shared;
        let listed = shared.listed.load(Relaxed);
        let status = shared.registry.borrow();
        match (&status.error, shared.last_error.load_full()) {
            (Some(error), _) if listed == 0 => error.to_string(),
            _ if *shared.progress.borrow() == Progress::Unread => {
                format!("{} has not answered yet", shared.neighbours.registry())
            }
            _ if listed == 0 => self.none_registered(&status),
            (_, Some(error)) => format!("none of {listed} nodes is connected: {error}"),
            (_, None) => format!("none of {listed} nodes is connected yet"),
        }
    }
}

impl<C: Send + Sync + 'static> Balancer<C> {
    /// Why the registry's answer has no node in it, with what it has instead if that is known by
    /// now. If not, the next call to fail will say it.
    fn none_registered(&self, status: &Status) -> String {
        let shared = &*self.handle.shared;
        let registry = shared.neighbours.registry();
        let left_out = status.malformed + status.not_grpc;
        if left_out > 0 {
            return format!(
                "{registry} has {left_out} records of it and none that can be used: {} of nodes \
                 that do not speak gRPC, {} that cannot be decoded",
                status.not_grpc, status.malformed,
            );
        }
        shared.missed.store(true, Relaxed);
        shared.wanted.notify_one();
        let why = match shared.found.load_full() {
            Some(found) => found.to_string(),
            None => shared.neighbours.no_idea(),
        };
        format!("none is registered in {registry}; {why}")
    }
}

impl<C> Clone for Balancer<C> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone() }
    }
}

impl<C> fmt::Debug for Balancer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = &self.handle.shared;
        f.debug_struct("Balancer")
            .field("listed", &shared.listed.load(Relaxed))
            .field("ready", &shared.snapshot.load().len())
            .finish_non_exhaustive()
    }
}

impl<C> Shared<C> {
    fn is_ready(&self) -> bool {
        self.snapshot.load().len() > 0
    }

    /// Waits until there is no more to wait for than what was tried, and failed.
    async fn tried(&self) {
        let (mut progress, mut registry) = (self.progress.subscribe(), self.registry.clone());
        // What is refused, or over, is for others to see.
        let failed = |status: &Status| status.error.is_some() && !status.synced && !status.refused;
        tokio::select! {
            _ = progress.wait_for(|progress| *progress == Progress::Tried) => {}
            Ok(_) = registry.wait_for(failed) => {}
        }
    }

    async fn ready(&self) {
        if self.is_ready() {
            return;
        }
        let _waiting = Waiting::new(self);
        loop {
            let mut woken = std::pin::pin!(self.ready.notified());
            // In the queue before the second look: a set published in between is not missed.
            woken.as_mut().enable();
            if self.is_ready() {
                return;
            }
            woken.await;
        }
    }
}

/// A call in the queue for something to pick.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new<C>(shared: &'a Shared<C>) -> Self {
        if shared.waiting.fetch_add(1, SeqCst) == 0 {
            shared.wanted.notify_one();
        }
        Self(&shared.waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// A node picked for one call, which counts as in flight there until this is dropped. Dropped
/// without a [report](Self::report), the call was cancelled and says nothing of the node.
#[derive(Debug)]
pub(crate) struct Pick<C = transport::Connection> {
    endpoint: Arc<Endpoint<C>>,
    started: Instant,
    is_sampled: bool,
}

impl<C> Pick<C> {
    /// The connection to send the call on.
    pub(crate) fn connection(&self) -> &C {
        &self.endpoint.connection
    }

    /// The node it leads to.
    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.endpoint.node
    }

    /// What to avoid in further attempts of the same call.
    pub(crate) fn endpoint(&self) -> EndpointId {
        self.endpoint.id
    }

    /// Reports how the call goes, while it stays in flight: a stream is sampled at its headers.
    /// A success counts once, with the time since the pick; a failure counts whenever it comes.
    pub(crate) fn report(&mut self, outcome: Outcome) {
        let (load, now) = (&self.endpoint.load, Instant::now());
        match outcome {
            Outcome::Success if !self.is_sampled => load.succeeded(now - self.started, now),
            Outcome::Failure => load.failed(now),
            Outcome::Success | Outcome::Cancelled => return,
        }
        self.is_sampled = true;
    }

    /// Reports how the call went, and ends it.
    pub(crate) fn finish(mut self, outcome: Outcome) {
        self.report(outcome);
    }
}

impl<C> Drop for Pick<C> {
    fn drop(&mut self) {
        self.endpoint.load.end();
    }
}
