//! How many of a channel's calls may be in flight, in all and on each node.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use tokio::sync::Notify;

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
    limits: Limits,
    in_flight: AtomicU32,
    /// Woken when a call has ended.
    pub(super) freed: Notify,
}

/// A call's place in it, until this is dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<Room>);

impl Room {
    /// `None` where nothing is limited.
    pub(super) fn new(limits: Limits) -> Option<Arc<Self>> {
        let is_limited = limits.in_all.is_some() || limits.per_node.is_some();
        let room = || Self { limits, in_flight: AtomicU32::new(0), freed: Notify::new() };
        is_limited.then(|| Arc::new(room()))
    }

    /// Takes a place, if there is one.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Place> {
        take(&self.in_flight, self.in_all()).then(|| Place(self.clone()))
    }

    /// Whether there is none.
    pub(super) fn is_full(&self) -> bool {
        self.in_flight.load(Relaxed) >= self.in_all()
    }

    pub(super) fn fails(&self) -> bool {
        self.limits.fails
    }

    pub(super) fn in_all(&self) -> u32 {
        self.limits.in_all.unwrap_or(u32::MAX)
    }

    pub(super) fn per_node(&self) -> Option<u32> {
        self.limits.per_node
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
        self.0.freed.notify_waiters();
    }
}

/// Counts one more, if that is within the limit.
pub(super) fn take(counter: &AtomicU32, limit: u32) -> bool {
    counter.fetch_update(Relaxed, Relaxed, |count| (count < limit).then_some(count + 1)).is_ok()
}
