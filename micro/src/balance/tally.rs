//! What a node's calls have come to: the counts that it is ejected by.

use std::sync::atomic::Ordering::Relaxed;

use super::members::Key;
use crate::sync::AtomicU32;

/// The debt at which a node is ejected.
const LIMIT: u32 = 30;

/// What a call adds to a node's debt that got no answer by the node's fault: three in a row eject it,
/// or some more of which every second one is answered.
const BROKEN: u32 = 10;

/// What one adds that the node failed: five in a row, as Envoy's `consecutive_5xx` has it.
const FAILED: u32 = 6;

/// What one takes off that it answered. Of a node that breaks every third call, or fails four in ten,
/// the debt does not grow: that is for the outlier rules to judge, beside the other nodes.
const ANSWERED: u32 = 5;

/// One endpoint's counts, whichever connection its calls went by.
#[derive(Debug)]
pub(super) struct Tally {
    key: Key,
    answered: AtomicU32,
    failed: AtomicU32,
    debt: AtomicU32,
}

impl Tally {
    pub(super) fn new(key: Key) -> Self {
        let zero = || AtomicU32::new(0);
        Self { key, answered: zero(), failed: zero(), debt: zero() }
    }

    /// Whose they are.
    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// A call was answered, and not by a failure.
    pub(super) fn answered(&self) {
        self.answered.fetch_add(1, Relaxed);
        // Most nodes owe nothing: their calls are spared the write.
        if self.debt.load(Relaxed) > 0 {
            let paid = |debt: u32| Some(debt.saturating_sub(ANSWERED));
            let _ = self.debt.fetch_update(Relaxed, Relaxed, paid);
        }
    }

    /// The node failed a call; true if that is one too many.
    pub(super) fn failed(&self) -> bool {
        self.failed.fetch_add(1, Relaxed);
        self.owes(FAILED)
    }

    /// A call got no answer by the fault of the node or of the way to it; true if that is one too
    /// many.
    pub(super) fn broke(&self) -> bool {
        self.failed.fetch_add(1, Relaxed);
        self.owes(BROKEN)
    }

    /// The connection was lost under a call; true if that is one too many. One that never answered any
    /// counts twice: a node that accepts and says nothing takes seconds to be found out.
    pub(super) fn lost(&self, has_answered: bool) -> bool {
        self.failed.fetch_add(1, Relaxed);
        self.owes(if has_answered { BROKEN } else { 2 * BROKEN })
    }

    /// A call failed, and what it says of the node was counted with another.
    pub(super) fn failed_with_others(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    /// Whether it has answered all calls of late; `None` if there were none.
    pub(super) fn is_well(&self) -> Option<bool> {
        let (answered, failed) = (self.answered.load(Relaxed), self.failed.load(Relaxed));
        (answered > 0 || failed > 0).then(|| answered > 0 && self.debt.load(Relaxed) == 0)
    }

    /// Takes the calls answered and failed since the last time.
    pub(super) fn take(&self) -> (u32, u32) {
        (self.answered.swap(0, Relaxed), self.failed.swap(0, Relaxed))
    }

    /// Begins anew.
    pub(super) fn clear(&self) {
        self.take();
        self.debt.store(0, Relaxed);
    }

    /// True once each time that the limit is reached: the debt then begins anew, should the node not be
    /// ejected.
    fn owes(&self, more: u32) -> bool {
        let added = |debt: u32| Some(if debt >= LIMIT { more } else { debt + more });
        let before = self.debt.fetch_update(Relaxed, Relaxed, added).unwrap_or(0);
        before < LIMIT && before + more >= LIMIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After which call of a sequence that goes on for ever the node is ejected: `.` is answered, `f`
    /// failed, `b` broken, `l` lost with its connection, `L` with one that never answered.
    fn ejected(calls: &str) -> Option<usize> {
        let tally = Tally::new(Key { id: "a".into(), address: "a:1".into() });
        calls.chars().cycle().take(1_000).position(|call| match call {
            '.' => {
                tally.answered();
                false
            }
            'f' => tally.failed(),
            'b' => tally.broke(),
            'l' => tally.lost(true),
            'L' => tally.lost(false),
            other => unreachable!("{other}"),
        })
    }

    #[test]
    fn a_node_is_ejected_by_what_goes_wrong_in_a_row_or_nearly_so() {
        for (calls, expected) in [
            ("b", Some(3)),
            ("l", Some(3)),
            ("L", Some(2)),
            ("f", Some(5)),
            ("bbf", Some(4)),
            ("b.", Some(9)),
            ("f.", Some(49)),
            ("b..", None),
            ("bb.", Some(5)),
            ("ff...", None),
            ("fff..", Some(13)),
        ] {
            assert_eq!(ejected(calls).map(|place| place + 1), expected, "{calls}");
        }
    }

    #[test]
    fn who_is_not_ejected_is_told_of_again() {
        let tally = Tally::new(Key { id: "a".into(), address: "a:1".into() });
        let told = (1..=12).filter(|_| tally.broke()).count();
        assert_eq!(told, 4);
    }
}
