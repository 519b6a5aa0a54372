//! The one that all calls hold on to.

use std::sync::atomic::Ordering::Relaxed;

use crate::sync::{AtomicU64, AtomicUsize};

/// An endpoint.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Its id; none is 0.
    id: AtomicU64,
    /// Where it was seen last: changes of the set move it.
    place: AtomicUsize,
}

impl Held {
    pub(super) fn id(&self) -> u64 {
        self.id.load(Relaxed)
    }

    /// Holds on to another in place of `known`, unless a call beside this one was quicker: all follow that.
    /// Which one is held on to now.
    pub(super) fn replace(&self, known: u64, other: u64) -> u64 {
        match self.id.compare_exchange(known, other, Relaxed, Relaxed) {
            Ok(_) => other,
            Err(quicker) => quicker,
        }
    }

    /// Its place: where it was seen last if it `is_at` that, or else where the search finds it.
    pub(super) fn place(
        &self,
        is_at: impl Fn(usize) -> bool,
        search: impl FnOnce() -> Option<usize>,
    ) -> Option<usize> {
        let seen = self.place.load(Relaxed);
        if is_at(seen) {
            return Some(seen);
        }
        let found = search()?;
        self.place.store(found, Relaxed);
        Some(found)
    }
}
