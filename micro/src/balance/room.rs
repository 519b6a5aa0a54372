//! How many of a channel's calls may be in flight, in all and on each node.

use std::sync::Arc;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::Request;

/// The limits; without one there is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) in_all: Option<u32>,
    pub(crate) per_node: Option<u32>,
    /// Whether a call that finds no room fails at once. It waits, else.
    pub(crate) fails: bool,
}

/// The room that the limits leave.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) limits: Limits,
    all: Option<Arc<Semaphore>>,
    /// Woken when a call has ended, where nodes are limited.
    pub(super) freed: Notify,
    /// Whether who waits stands in line: a call for some nodes must not hold up one for others.
    has_lines: bool,
    /// Whoever waits for room on any node stands in line for this: the first alone is woken.
    turn: Arc<Semaphore>,
}

/// A place among all calls, or none where those are not limited.
pub(crate) type Place = Option<OwnedSemaphorePermit>;

impl Room {
    /// `is_picky`: whether calls may go to some nodes and not to others.
    pub(super) fn new(limits: Limits, is_picky: bool) -> Arc<Self> {
        let all = limits.in_all.map(|calls| Arc::new(Semaphore::new(calls as usize)));
        let (freed, turn) = (Notify::new(), Arc::new(Semaphore::new(1)));
        let has_lines = limits.per_node.is_some() && !is_picky;
        Arc::new(Self { limits, all, freed, has_lines, turn })
    }

    /// A place at once.
    pub(super) fn try_enter(&self) -> Option<Place> {
        match &self.all {
            None => Some(None),
            Some(all) => all.clone().try_acquire_owned().ok().map(Some),
        }
    }

    /// A place as soon as there is one, first come first served.
    pub(super) async fn enter(&self) -> Place {
        let permit = self.all.clone()?.acquire_owned().await;
        Some(permit.expect("it is never closed"))
    }

    /// Whether the call, if it has to wait for room on a node, does so in line.
    pub(super) fn queues(&self, request: &Request<'_>) -> bool {
        self.has_lines && request.node.is_none()
    }

    /// Whether there is a line, and the call has to go to its end.
    pub(super) fn has_line(&self, request: &Request<'_>) -> bool {
        self.queues(request) && self.turn.available_permits() == 0
    }

    /// Waits for its turn.
    pub(super) async fn turn(&self) -> OwnedSemaphorePermit {
        self.turn.clone().acquire_owned().await.expect("it is never closed")
    }

    /// A call has ended, and no longer counts at its node.
    pub(super) fn left(&self) {
        if self.limits.per_node.is_some() {
            self.freed.notify_waiters();
        }
    }

    /// For people, that there is none.
    pub(super) fn full_in_all(&self) -> String {
        let calls = self.limits.in_all.unwrap_or_default();
        format!("{calls} of its calls are in flight, as many as max_in_flight allows")
    }

    /// The same of each node.
    pub(super) fn full_on_nodes(&self) -> String {
        let calls = self.limits.per_node.unwrap_or_default();
        format!("each node has {calls} calls in flight, as many as max_in_flight_per_node allows")
    }
}
