//! Ejected nodes whose time is over, each for one call to try.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{EndpointId, Request, snapshot::Endpoint};

/// How long a probe is kept for a call that can be made again elsewhere if it fails. A service may
/// have no others, and its nodes are to come back all the same.
const KEPT_FOR_CALLS_THAT_CAN_MOVE: Duration = Duration::from_secs(5);

/// The nodes to be probed, in the order in which their time was over.
#[derive(Debug)]
pub(super) struct Probes<C> {
    /// How many wait: what calls read, most of which find none.
    due: AtomicUsize,
    waiting: Mutex<VecDeque<(Instant, Arc<Endpoint<C>>)>>,
}

impl<C> Probes<C> {
    pub(super) fn new() -> Self {
        Self { due: AtomicUsize::new(0), waiting: Mutex::default() }
    }

    /// Adds a node, or replaces the one of the same id.
    pub(super) fn insert(&self, endpoint: Arc<Endpoint<C>>, now: Instant) {
        let mut waiting = self.lock();
        waiting.retain(|(_, it)| it.id != endpoint.id);
        waiting.push_back((now, endpoint));
        self.due.store(waiting.len(), Relaxed);
    }

    pub(super) fn remove(&self, id: EndpointId) {
        let mut waiting = self.lock();
        waiting.retain(|(_, it)| it.id != id);
        self.due.store(waiting.len(), Relaxed);
    }

    /// The node that this call is to try, if one waits and it is for such a call: not for one that
    /// has failed before, or is pinned to a node.
    pub(super) fn take(&self, request: &Request<'_>, now: Instant) -> Option<Arc<Endpoint<C>>> {
        let is_free = request.tried.is_empty() && request.node.is_none();
        if self.due.load(Relaxed) == 0 || !is_free {
            return None;
        }
        let mut waiting = self.lock();
        let (since, _) = waiting.front()?;
        if !request.can_move && now < *since + KEPT_FOR_CALLS_THAT_CAN_MOVE {
            return None;
        }
        let (_, endpoint) = waiting.pop_front()?;
        self.due.store(waiting.len(), Relaxed);
        Some(endpoint)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Instant, Arc<Endpoint<C>>)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
