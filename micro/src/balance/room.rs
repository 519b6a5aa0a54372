//! How many of a channel's calls may be in flight, in all and on each node.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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
}

/// A place among all calls, or none where those are not limited.
pub(crate) type Place = Option<OwnedSemaphorePermit>;

impl Room {
    pub(super) fn new(limits: Limits) -> Self {
        let all = limits.in_all.map(|calls| Arc::new(Semaphore::new(calls as usize)));
        Self { limits, all }
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
