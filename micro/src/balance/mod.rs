//! Which node a call goes to: a [`Filter`] says which are a channel's at all, [`Balancing`] chooses
//! among those of them that are connected.
//!
//!
//! Both are said by service, in [`ChannelOptions`](crate::ChannelOptions). A policy of your own is a
//! [`Policy`].

// From the nodes of a service to the one that a call goes to: connections to all of them, what each
// costs, and an immutable snapshot that calls pick from without a lock or a queue.
//
// - `Balancer` is the handle; its `driver` task alone changes anything.
// - `filter` leaves nodes out before all else, and `subset` chooses those to connect to, where that
//   is not all.
// - `members` decides what is to be done, node by node with `endpoint` (when to connect) and
//   `standing` (what the registry's word is worth): without IO.
// - `asking` is of which health nodes are asked, `health` what one says of itself.
// - `shared` is what `driver` publishes, and how a call picks from it.
// - `ewma` is what a node costs, by what it has `under_way` and more; `lacking` the methods it has not;
//   `outcome` what a call's end says of it.
// - `tally` counts what calls come to, `ejection` says who is left out for it, and `probes` has those
//   whose time is over, each for one call to try.
// - `lines` has the calls that wait, `room` what the limits leave them.
// - `set` has those that are ready, `snapshot` is it as of a moment, `policy` the choice.
//
// This room knows nothing of messages, deadlines and retries, nor of any registry.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use futures_core::Stream;
use futures_util::StreamExt as _;
use tokio::{
    sync::{Notify, futures::Notified, mpsc, oneshot, watch},
    time::{Instant, sleep},
};

use crate::{
    discovery::{Doubts, Neighbours, Status, Subscription, Update},
    transport,
};

mod asking;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
mod came;
mod connect;
mod driver;
mod ejection;
mod endpoint;
mod ewma;
mod explain;
mod filter;
mod health;
mod lacking;
mod lines;
mod members;
mod outcome;
mod pick;
mod policy;
mod probes;
mod request;
mod room;
mod set;
mod shared;
mod snapshot;
mod stamped;
mod standing;
mod subset;
mod tally;
#[cfg(test)]
mod tests;
mod under_way;
mod why;

use connect::{Connect, Transport};
pub(crate) use ejection::{FailurePercentage, Rules as EjectionRules, SuccessRate};
pub use explain::{Ejection, Explanation, NodeReport, NodeState};
pub use filter::Filter;
use lines::Lines;
pub(crate) use outcome::Outcome;
use pick::News;
pub(crate) use pick::Pick;
pub(crate) use policy::hash_text;
pub use policy::{Balancing, CallInfo, Candidate, Candidates, ConsistentHash, Policy};
use probes::Probes;
pub(crate) use request::Request;
pub(crate) use room::Limits;
use room::Room;
use shared::{Progress, Shared};
use snapshot::Snapshot;

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
    /// How many nodes to connect to, if not to all.
    pub(crate) subset: Option<usize>,
    /// Which nodes are chosen from.
    pub(crate) filter: Filter,
    /// How many calls may be in flight.
    pub(crate) limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            transport: transport::Config::default(),
            ttl: Duration::from_secs(15),
            penalty: Duration::from_secs(5),
            subset: None,
            filter: Filter::default(),
            limits: Limits::default(),
        }
    }
}

/// What a balancer goes by that may change as it runs.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Tuning {
    /// How a node is chosen.
    pub(crate) balancing: Balancing,
    /// When one is left out for what its calls come to.
    pub(crate) ejection: ejection::Rules,
    /// Of which service a node is asked whether it is well, if it is asked: "" is all of it.
    pub(crate) health_check: Option<Arc<str>>,
}

/// A node as a balancer knows it, in whichever connection: what a call's further attempts avoid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EndpointId(u64);

/// How long who waits for room goes without a look: an ejected node whose time is over tells nobody.
const LOOKS_AGAIN: Duration = Duration::from_secs(1);

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

/// Why a call was given no node.
#[derive(Debug)]
pub(crate) enum Unpicked {
    /// There was none for it.
    NotReady,
    /// There was no room, for this reason.
    Full(String),
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
        tuning: watch::Receiver<Tuning>,
    ) -> Self {
        let (registry, neighbours) = (updates.status(), updates.neighbours());
        let doubts = updates.doubts();
        let connector = Transport::new(options.transport.clone());
        let updates = updates.inspect(tap);
        Self::with_connector(updates, registry, neighbours, doubts, connector, options, tuning)
    }
}

impl<C: Clone + Send + Sync + 'static> Balancer<C> {
    fn with_connector(
        updates: impl Stream<Item = Update> + Unpin + Send + 'static,
        registry: watch::Receiver<Status>,
        neighbours: Neighbours,
        doubts: Doubts,
        connector: impl Connect<Connection = C>,
        options: Options,
        tuning: watch::Receiver<Tuning>,
    ) -> Self {
        let (tell, news) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            snapshot: ArcSwap::from_pointee(Snapshot::empty()),
            probes: Probes::new(Instant::now()),
            news: tell,
            room: Room::new(options.limits),
            lines: Lines::new(options.filter.serving, options.limits.per_node.is_some()),
            wanted: Notify::new(),
            progress: watch::Sender::new(Progress::Unread),
            listed: AtomicUsize::new(0),
            unwell: AtomicUsize::new(0),
            left_out: AtomicUsize::new(0),
            filter: options.filter.clone(),
            last_error: ArcSwapOption::empty(),
            neighbours,
            found: ArcSwapOption::empty(),
            missed: AtomicBool::new(false),
            registry,
            doubts,
        });
        let (last, gone) = oneshot::channel();
        tokio::spawn(driver::run(updates, connector, shared.clone(), options, tuning, news, gone));
        Self { handle: Arc::new(Handle { shared, _last: last }) }
    }

    /// A ready node for the call, as the policy has it. `None` when there is none for it, or no room.
    ///
    /// A call's first attempt may be the one that tries an ejected node again, and is so the sooner
    /// if the call can move when that fails; one that the policy would not give it only for want of another.
    pub(crate) fn pick(&self, request: &Request<'_>) -> Option<Pick<C>> {
        let shared = &self.handle.shared;
        if shared.lines.has_line(request) {
            return None;
        }
        let mut place = shared.room.try_enter()?;
        shared.pick(request, &mut place)
    }

    /// Another ready node for a call that has one, and with it a place among all calls; none that it has
    /// tried.
    pub(crate) fn pick_beside(&self, request: &Request<'_>) -> Option<Pick<C>> {
        let shared = &self.handle.shared;
        if request.node.is_some() || shared.lines.has_line(request) {
            return None;
        }
        let pick = shared.pick(request, &mut None)?;
        (!request.tried.contains(&pick.endpoint())).then_some(pick)
    }

    /// Whether all that a further attempt of the call could go to it has tried. A node that has to be
    /// waited for is none: the wait is a pause.
    pub(crate) fn repeats(&self, request: &Request<'_>) -> bool {
        // The one that it is pinned to may be ejected, and is then not found at once.
        request.node.is_some() || self.handle.shared.snapshot.load().repeats(request)
    }

    /// Waits until there is a node for the call, and room on it, first come first served among those that
    /// may go to the same nodes; or until the
    /// registry has [refused](Self::refused) the service, or `struck` ends. While a call waits for a
    /// node, those that it may go to are dialled at once, no more than once a second each, whatever their
    /// backoff: the one that it is pinned to, or those whose record has its method, where that is
    /// asked.
    ///
    /// One that fails fast ends once the registry has answered or failed, and each node that it lists
    /// was tried once, since it last asked a connection to leave, with nothing for it: gRPC's
    /// `wait_for_ready=false` waits as long. For room it waits all the same, unless the limits say
    /// otherwise.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue and nothing else.
    pub(crate) async fn wait_until(
        &self,
        request: &Request<'_>,
        fail_fast: bool,
        struck: impl Future<Output = ()>,
    ) -> Result<Pick<C>, Unpicked> {
        let shared = &*self.handle.shared;
        let room = &shared.room;
        let mut struck = std::pin::pin!(struck);
        let mut place = match room.try_enter() {
            Some(place) => place,
            None if room.limits.fails => return Err(Unpicked::Full(room.full_in_all())),
            None => tokio::select! {
                biased;
                place = room.enter() => place,
                () = &mut struck => return Err(Unpicked::Full(room.full_in_all())),
            },
        };
        let mut registry = shared.registry.clone();
        let seat = shared.lines.seat(request);
        let (mut turn, mut had_turn, mut waiting, mut is_tried) = (None, false, None, false);
        let mut is_aside = false;
        loop {
            let mut changed = std::pin::pin!(seat.changed());
            // In the queue before the look: a set published in between is not missed.
            changed.as_mut().enable();
            // So is the call, before whoever is first in another line later.
            let mut freed = std::pin::pin!(seat.freed());
            freed.as_mut().enable();
            let is_behind = turn.is_none() && !had_turn && !is_aside && seat.is_behind();
            let mut is_out = false;
            if !is_behind {
                if let Some(pick) = shared.pick(request, &mut place) {
                    return Ok(pick);
                }
                let sought = tokio::select! {
                    biased;
                    sought = shared.sought(request) => sought,
                    () = &mut struck => return Err(Unpicked::NotReady),
                };
                is_out = sought.is_some();
                if let Some(pick) = sought.and_then(|endpoint| shared.begin(endpoint, &mut place)) {
                    return Ok(pick);
                }
            }
            if is_behind || is_out || shared.is_full(request) {
                (had_turn, waiting) = (false, None);
                if room.limits.fails {
                    return Err(Unpicked::Full(room.full_on_nodes()));
                }
                // Who wants none of the room that there is holds up nobody who may.
                is_aside |= !is_behind && !is_out && shared.is_choosy(request);
                if is_aside {
                    turn = None;
                }
                let queues = turn.is_none() && !is_aside;
                tokio::select! {
                    biased;
                    mine = seat.turn(), if queues => turn = Some(mine),
                    () = freed, if !queues => {}
                    () = changed, if !queues => {}
                    () = sleep(LOOKS_AGAIN), if !queues => {}
                    () = &mut struck => return Err(Unpicked::Full(room.full_on_nodes())),
                }
                continue;
            }
            // It is a node that it waits for, and no room: the next in line is to see for itself.
            had_turn |= turn.take().is_some();
            if is_tried {
                return Err(Unpicked::NotReady);
            }
            tokio::select! {
                biased;
                // First, so that a call that fails at once does not count as waiting.
                () = shared.tried(), if fail_fast => is_tried = true,
                // Polled before it counts: whoever comes now is behind it.
                () = std::future::ready(()), if waiting.is_none() => {
                    waiting = Some(seat.wait(&shared.wanted));
                }
                () = changed => {}
                _ = registry.wait_for(|status| status.refused) => return Err(Unpicked::NotReady),
                () = &mut struck => return Err(Unpicked::NotReady),
            }
        }
    }

    /// As [`wait_until`](Self::wait_until), for ever.
    pub(crate) async fn wait(&self, request: &Request<'_>, fail_fast: bool) -> Option<Pick<C>> {
        self.wait_until(request, fail_fast, std::future::pending()).await.ok()
    }

    /// Ends when there is something else to pick from.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.handle.shared.lines.changed()
    }

    /// How it stands; `None` once the runtime that kept the set has shut down.
    pub(crate) async fn explain(&self) -> Option<Explanation> {
        let (asked, told) = oneshot::channel();
        let _ = self.handle.shared.news.send(News::Asked(asked));
        told.await.ok()
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
