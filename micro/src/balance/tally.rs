//! What a node's calls have come to: the counts that it is ejected by.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::members::Key;

/// How many transport failures in a row eject a node.
const IN_A_ROW: u32 = 3;

/// One endpoint's counts, whichever connection its calls went by.
#[derive(Debug)]
pub(super) struct Tally {
    key: Key,
    answered: AtomicU32,
    failed: AtomicU32,
    /// Transport failures since the last answer.
    in_a_row: AtomicU32,
}

impl Tally {
    pub(super) fn new(key: Key) -> Self {
        let zero = || AtomicU32::new(0);
        Self { key, answered: zero(), failed: zero(), in_a_row: zero() }
    }

    /// Whose they are.
    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// A call was answered, and not by a failure.
    pub(super) fn answered(&self) {
        self.answered.fetch_add(1, Relaxed);
        self.responded();
    }

    /// The node answered a call with a failure of its own.
    pub(super) fn failed(&self) {
        self.failed.fetch_add(1, Relaxed);
        self.responded();
    }

    /// A call failed without a word of whether it was the node.
    pub(super) fn unanswered(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    /// A call got no answer by the fault of the node or of the way to it; true when that makes three
    /// in a row, six and so on.
    pub(super) fn broke(&self) -> bool {
        self.failed.fetch_add(1, Relaxed);
        (self.in_a_row.fetch_add(1, Relaxed) + 1).is_multiple_of(IN_A_ROW)
    }

    /// Takes the calls answered and failed since the last time.
    pub(super) fn take(&self) -> (u32, u32) {
        (self.answered.swap(0, Relaxed), self.failed.swap(0, Relaxed))
    }

    /// Begins anew.
    pub(super) fn clear(&self) {
        self.take();
        self.in_a_row.store(0, Relaxed);
    }

    fn responded(&self) {
        // Most nodes' calls never break: they are spared the write.
        if self.in_a_row.load(Relaxed) > 0 {
            self.in_a_row.store(0, Relaxed);
        }
    }
}
