//! Ejected nodes whose time is over, each for one call to try.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{EndpointId, Request, request::Asked, snapshot::Endpoint};

/// How long a probe is kept for a call that can be made again elsewhere if it fails. A service may
/// have no others, and its nodes are to come back all the same.
const KEPT_FOR_CALLS_THAT_CAN_MOVE: Duration = Duration::from_secs(5);

/// How long one call may take to answer for its node until another is asked: a stream may have nothing
/// to say for hours, and one that was given up, overtaken or turned away never has.
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(10);

const NEVER: u64 = u64::MAX;

/// The nodes to be probed, in the order in which their time was over.
#[derive(Debug)]
pub(super) struct Probes<C> {
    born: Instant,
    /// When the first may be tried, in milliseconds since birth: what calls read, most of which find
    /// none.
    due: AtomicU64,
    /// Each from when on it may be.
    waiting: Mutex<VecDeque<(Instant, Arc<Endpoint<C>>)>>,
}

impl<C> Probes<C> {
    pub(super) fn new(now: Instant) -> Self {
        Self { born: now, due: AtomicU64::new(NEVER), waiting: Mutex::default() }
    }

    /// Adds a node, or replaces the one of the same id: a record that is rewritten puts its probe off
    /// no more than it brings another.
    pub(super) fn insert(&self, endpoint: Arc<Endpoint<C>>, now: Instant) {
        let mut waiting = self.lock();
        match waiting.iter_mut().find(|(_, it)| it.id == endpoint.id) {
            Some((_, known)) => *known = endpoint,
            None => waiting.push_back((now, endpoint)),
        }
        self.set_due(&waiting);
    }

    /// Its fate is known.
    pub(super) fn remove(&self, id: EndpointId) {
        let mut waiting = self.lock();
        waiting.retain(|(_, it)| it.id != id);
        self.set_due(&waiting);
    }

    /// The node that this call is to try, if one waits and it is for such a call: not for one that
    /// has failed before, is pinned to a node, or whose method the node does not serve; nor for one that
    /// the policy would not give it (`is_for`).
    pub(super) fn take(
        &self,
        request: &Request<'_>,
        serving: bool,
        is_for: impl Fn(&Endpoint<C>) -> bool,
        now: Instant,
    ) -> Option<Arc<Endpoint<C>>> {
        let is_free = request.tried.is_empty() && request.node.is_none();
        if self.since_birth(now) < self.due.load(Relaxed) || !is_free {
            return None;
        }
        let kept = if request.can_move { Duration::ZERO } else { KEPT_FOR_CALLS_THAT_CAN_MOVE };
        let asked = Asked { request, tried: &[], serving };
        // Whoever has it looks for the same: calls do not wait for each other.
        let mut waiting = self.waiting.try_lock().ok()?;
        let place = waiting
            .iter()
            .position(|(from, it)| *from + kept <= now && asked.admits(it) && is_for(it))?;
        let (_, endpoint) = waiting.remove(place)?;
        waiting.push_back((now + ASKED_AGAIN_AFTER, endpoint.clone()));
        self.set_due(&waiting);
        Some(endpoint)
    }

    fn set_due(&self, waiting: &VecDeque<(Instant, Arc<Endpoint<C>>)>) {
        let first = waiting.iter().map(|(from, _)| self.since_birth(*from)).min();
        self.due.store(first.unwrap_or(NEVER), Relaxed);
    }

    fn since_birth(&self, at: Instant) -> u64 {
        // Some hundred million years.
        at.saturating_duration_since(self.born).as_millis().try_into().unwrap_or(NEVER)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Instant, Arc<Endpoint<C>>)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
