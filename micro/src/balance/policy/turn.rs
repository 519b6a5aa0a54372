//! Whose turn it is, where calls on several threads take turns.

use std::sync::atomic::Ordering::Relaxed;

use crate::sync::AtomicU64;

/// Numbers one after the other, each for one call.
#[derive(Debug)]
pub(super) struct Turn(AtomicU64);

impl Turn {
    pub(super) fn new(first: u64) -> Self {
        Self(AtomicU64::new(first))
    }

    /// The next one.
    pub(super) fn take(&self) -> u64 {
        self.0.fetch_add(1, Relaxed)
    }
}
