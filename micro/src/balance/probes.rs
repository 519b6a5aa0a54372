//! Ejected nodes whose time is over, each for one call to try.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    EndpointId, Request,
    request::Asked,
    snapshot::{Endpoint, Snapshot},
};
use crate::sync::{ArcSwap, AtomicU64, Mutex, MutexGuard};

/// How long a probe is kept for a call that can be made again elsewhere if it fails. A service may
/// have no others, and its nodes are to come back all the same.
const KEPT_FOR_CALLS_THAT_CAN_MOVE: Duration = Duration::from_secs(5);

/// How long one call may take to answer for its node until another is asked: a stream may have nothing
/// to say for hours, and one that was given up, overtaken or turned away never has.
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// How long calls pass by nodes that the policy has for none, unless there is something else to pick
/// from: a change that comes as one looks is seen by then.
const PASSED_BY_FOR: Duration = Duration::from_secs(1);

const NEVER: u64 = u64::MAX;

/// The nodes to be probed, in the order in which their time was over.
#[derive(Debug)]
pub(super) struct Probes<C> {
    born: Instant,
    /// When the first may be tried, in milliseconds since birth: what calls read, most of which find
    /// none.
    due: AtomicU64,
    /// Until when no call need look that goes by the policy, which has those that wait for none.
    passed_by: AtomicU64,
    /// Each from when on it may be.
    waiting: Mutex<VecDeque<(Instant, Arc<Endpoint<C>>)>>,
}

impl<C> Probes<C> {
    pub(super) fn new(now: Instant) -> Self {
        let (due, passed_by) = (AtomicU64::new(NEVER), AtomicU64::new(0));
        Self { born: now, due, passed_by, waiting: Mutex::default() }
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

    /// What the policy goes by has changed.
    pub(super) fn look_again(&self) {
        self.passed_by.store(0, Relaxed);
    }

    /// The node that this call is to try, if one waits and it is for such a call: not for one that
    /// has failed before, is pinned to a node, or whose method the node does not serve; nor for one to
    /// which the `policy` would not give the node, if it goes by that.
    pub(super) fn take(
        &self,
        request: &Request<'_>,
        serving: bool,
        policy: Option<&ArcSwap<Snapshot<C>>>,
        now: Instant,
    ) -> Option<Arc<Endpoint<C>>> {
        let is_free = request.tried.is_empty() && request.node.is_none();
        let at = self.since_birth(now);
        if at < self.due.load(Relaxed) || !is_free {
            return None;
        }
        if policy.is_some() && at < self.passed_by.load(Relaxed) {
            return None;
        }
        let kept = if request.can_move { Duration::ZERO } else { KEPT_FOR_CALLS_THAT_CAN_MOVE };
        let asked = Asked::new(request, &[], serving);
        // Whoever has it looks for the same: calls do not wait for each other.
        let mut waiting = self.waiting.try_lock().ok()?;
        let policy = policy.map(ArcSwap::load);
        let is_for = |it: &Endpoint<C>| policy.as_ref().is_none_or(|by| by.is_for(request, it));
        let place = waiting
            .iter()
            .position(|(from, it)| *from + kept <= now && asked.admits(it) && is_for(it));
        let Some(place) = place else {
            let is_called = |it: &Endpoint<C>| policy.as_ref().is_none_or(|by| by.is_called(it));
            if !waiting.iter().any(|(_, it)| is_called(it)) {
                self.passed_by.store(self.since_birth(now + PASSED_BY_FOR), Relaxed);
            }
            return None;
        };
        let (_, endpoint) = waiting.remove(place)?;
        waiting.push_back((now + ASKED_AGAIN_AFTER, endpoint.clone()));
        self.set_due(&waiting);
        Some(endpoint)
    }

    fn set_due(&self, waiting: &VecDeque<(Instant, Arc<Endpoint<C>>)>) {
        let first = waiting.iter().map(|(from, _)| self.since_birth(*from)).min();
        self.due.store(first.unwrap_or(NEVER), Relaxed);
        self.look_again();
    }

    fn since_birth(&self, at: Instant) -> u64 {
        // Some hundred million years.
        at.saturating_duration_since(self.born).as_millis().try_into().unwrap_or(NEVER)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Instant, Arc<Endpoint<C>>)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        balance::{Balancing, ewma::Load, snapshot::Picked},
        registry::Node,
    };

    fn endpoint(id: u64, weight: u32, now: Instant) -> Arc<Endpoint<()>> {
        let mut node = Node::new("greeter", id.to_string(), "host:1");
        node.metadata.insert("weight".to_owned(), weight.to_string());
        let load = Load::new(None, Duration::from_secs(5), now);
        Endpoint::of(Arc::new(node), EndpointId(id), (), load)
    }

    #[test]
    fn nobody_looks_again_for_a_second_at_nodes_that_no_call_goes_to() {
        let now = Instant::now();
        let probes = Probes::new(now);
        let mut picked = Picked::new(&Balancing::weighted(), false);
        picked.insert(endpoint(1, 1, now));
        let policy = ArcSwap::from_pointee(picked.snapshot());
        let take = |ms| {
            let request = Request { can_move: true, ..Request::default() };
            let now = now + Duration::from_millis(ms);
            probes.take(&request, false, Some(&policy), now).map(|endpoint| endpoint.id)
        };
        probes.insert(endpoint(2, 0, now), now);
        assert_eq!(take(1), None, "it has no weight, and another has");
        // It is all there is from then on.
        picked.remove(EndpointId(1));
        policy.store(Arc::new(picked.snapshot()));
        assert_eq!(take(1_000), None, "nobody looks");
        assert_eq!(take(1_001), Some(EndpointId(2)), "a second is over");

        picked.insert(endpoint(1, 1, now));
        policy.store(Arc::new(picked.snapshot()));
        assert_eq!(take(12_000), None);
        probes.insert(endpoint(3, 5, now), now);
        assert_eq!(take(12_000), Some(EndpointId(3)), "another waits");
        probes.remove(EndpointId(3));
        assert_eq!(take(12_000), None);
        picked.remove(EndpointId(1));
        policy.store(Arc::new(picked.snapshot()));
        assert_eq!(take(12_000), None, "nobody looks");
        probes.look_again();
        assert_eq!(take(12_000), Some(EndpointId(2)), "but where it was told to");
    }
}
