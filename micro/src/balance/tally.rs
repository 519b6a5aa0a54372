//! What a node's calls have come to: the counts that it is ejected by.

use std::{
    iter::Sum,
    ops::{Add, Sub},
    sync::atomic::Ordering::Relaxed,
};

use super::members::Key;
use crate::sync::AtomicU32;

/// The debt at which a node is ejected.
const LIMIT: u16 = 30;

/// What a call adds to a node's debt that got no answer by the node's fault: three in a row eject it,
/// or some more of which every second one is answered.
const BROKEN: u16 = 10;

/// What one adds that the node failed: five in a row, as Envoy's `consecutive_5xx` has it.
const FAILED: u16 = 6;

/// What one takes off that it answered. Of a node that breaks every third call, or fails four in ten,
/// the debt does not grow: that is for the outlier rules to judge, beside the other nodes.
const ANSWERED: u16 = 5;

/// So many calls, answered and failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Calls {
    pub(super) answered: u32,
    pub(super) failed: u32,
}

/// One endpoint's counts, whichever connection its calls went by.
#[derive(Debug)]
pub(super) struct Tally {
    key: Key,
    /// In this interval.
    calls: Counts,
    /// In the one before.
    earlier: Counts,
    /// Since it last owed nothing.
    owing: Counts,
    /// As [`Owed`], in one word: the call that is one too many sees what made it so.
    owed: AtomicU32,
}

/// What a node's calls have run up.
#[derive(Debug, Clone, Copy, Default)]
struct Owed {
    debt: u16,
    /// What broken calls alone have added to it, and nothing taken off: up to the limit.
    broken: u16,
}

/// A debt that is too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TooMuch {
    /// By broken calls alone.
    Broken,
    /// By what it answered, too, which may be as bad at all nodes.
    Failed,
}

#[derive(Debug)]
struct Counts {
    answered: AtomicU32,
    failed: AtomicU32,
}

impl Tally {
    pub(super) fn new(key: Key) -> Self {
        let [calls, earlier, owing] = [(); 3].map(|()| Counts::new());
        Self { key, calls, earlier, owing, owed: AtomicU32::new(Owed::default().word()) }
    }

    /// Whose they are.
    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// A call was answered, and not by a failure.
    pub(super) fn answered(&self) {
        self.calls.answered.fetch_add(1, Relaxed);
        // Most nodes owe nothing: their calls are spared the write.
        if !self.is_even() {
            self.owing.answered.fetch_add(1, Relaxed);
            self.change(|owed| Owed { debt: owed.debt.saturating_sub(ANSWERED), ..owed });
        }
    }

    /// The node failed a call, which may be one too many.
    pub(super) fn failed(&self) -> Option<TooMuch> {
        self.calls.failed.fetch_add(1, Relaxed);
        self.owes(FAILED, 0)
    }

    /// A call got no answer by the fault of the node or of the way to it, which may be one too many.
    pub(super) fn broke(&self) -> Option<TooMuch> {
        self.calls.failed.fetch_add(1, Relaxed);
        self.owes(BROKEN, BROKEN)
    }

    /// The connection was lost under a call, which may be one too many. One that never answered any
    /// counts twice: a node that accepts and says nothing takes seconds to be found out.
    pub(super) fn lost(&self, has_answered: bool) -> Option<TooMuch> {
        self.calls.failed.fetch_add(1, Relaxed);
        let more = if has_answered { BROKEN } else { 2 * BROKEN };
        self.owes(more, more)
    }

    /// A call failed, and what it says of the node was counted with another.
    pub(super) fn failed_with_others(&self) {
        self.calls.failed.fetch_add(1, Relaxed);
    }

    /// What calls came to of late: in this interval and the one before.
    pub(super) fn of_late(&self) -> Calls {
        self.earlier.get() + self.calls.get()
    }

    /// What they came to since it last owed nothing.
    pub(super) fn owing(&self) -> Calls {
        self.owing.get()
    }

    /// Whether it owes nothing: it has answered its last calls, if it had any.
    pub(super) fn is_even(&self) -> bool {
        Owed::of(self.owed.load(Relaxed)).debt == 0
    }

    /// An interval is over: what its calls came to.
    pub(super) fn take(&self) -> Calls {
        let calls = self.calls.replace(Calls::default());
        self.earlier.replace(calls);
        calls
    }

    /// Begins anew.
    pub(super) fn clear(&self) {
        for counts in [&self.calls, &self.earlier, &self.owing] {
            counts.replace(Calls::default());
        }
        self.owed.store(Owed::default().word(), Relaxed);
    }

    /// Too much once each time that the limit is reached: the debt then begins anew, should the node not be
    /// ejected.
    fn owes(&self, more: u16, broken: u16) -> Option<TooMuch> {
        let before = self.change(|owed| owed.with(more, broken));
        if before.debt == 0 {
            self.owing.replace(Calls::default());
        }
        self.owing.failed.fetch_add(1, Relaxed);
        let now = before.with(more, broken);
        let is_broken = broken > 0 && now.broken >= LIMIT;
        let by = if is_broken { TooMuch::Broken } else { TooMuch::Failed };
        (now.debt >= LIMIT).then_some(by)
    }

    /// What was owed before.
    fn change(&self, by: impl Fn(Owed) -> Owed) -> Owed {
        let changed = |word| Some(by(Owed::of(word)).word());
        let (Ok(before) | Err(before)) = self.owed.fetch_update(Relaxed, Relaxed, changed);
        Owed::of(before)
    }
}

impl Owed {
    fn of(word: u32) -> Self {
        Self { debt: word as u16, broken: (word >> 16) as u16 }
    }

    fn word(self) -> u32 {
        u32::from(self.broken) << 16 | u32::from(self.debt)
    }

    /// With what one more call adds.
    fn with(self, more: u16, broken: u16) -> Self {
        let begins = self.debt == 0 || self.debt >= LIMIT;
        let before = if begins { Self::default() } else { self };
        Self { debt: before.debt + more, broken: (before.broken + broken).min(LIMIT) }
    }
}

impl Counts {
    fn new() -> Self {
        Self { answered: AtomicU32::new(0), failed: AtomicU32::new(0) }
    }

    fn get(&self) -> Calls {
        Calls { answered: self.answered.load(Relaxed), failed: self.failed.load(Relaxed) }
    }

    fn replace(&self, by: Calls) -> Calls {
        let Calls { answered, failed } = by;
        Calls {
            answered: self.answered.swap(answered, Relaxed),
            failed: self.failed.swap(failed, Relaxed),
        }
    }
}

impl Calls {
    pub(super) fn all(self) -> u32 {
        self.answered.saturating_add(self.failed)
    }

    /// The share of them that failed.
    pub(super) fn failed_share(self) -> f64 {
        f64::from(self.failed) / f64::from(self.all().max(1))
    }

    /// Whether they failed clearly more than those of others: by a tenth of all calls, and so many that
    /// chance would bring that about, were the nodes alike, three times in ten million (Chernoff's bound).
    /// The others have had one more that failed and one more that was answered: of the few calls since
    /// all began, none failing says little.
    pub(super) fn fail_clearly_more_than(self, others: Self) -> bool {
        const EVIDENCE: f64 = 15.0;
        let smoothed = others + Self { answered: 1, failed: 1 };
        let (here, there) = (self.failed_share(), smoothed.failed_share());
        // Relative entropy, in which what never was adds nothing.
        let part =
            |here: f64, there: f64| if here > 0.0 { here * (here / there).ln() } else { 0.0 };
        let surprise = part(here, there) + part(1.0 - here, 1.0 - there);
        here >= there + 0.1 && f64::from(self.all()) * surprise >= EVIDENCE
    }
}

impl Add for Calls {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            answered: self.answered.saturating_add(other.answered),
            failed: self.failed.saturating_add(other.failed),
        }
    }
}

impl Sub for Calls {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            answered: self.answered.saturating_sub(other.answered),
            failed: self.failed.saturating_sub(other.failed),
        }
    }
}

impl Sum for Calls {
    fn sum<I: Iterator<Item = Self>>(calls: I) -> Self {
        calls.fold(Self::default(), Self::add)
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
            'f' => tally.failed().is_some(),
            'b' => tally.broke().is_some(),
            'l' => tally.lost(true).is_some(),
            'L' => tally.lost(false).is_some(),
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
        let told = (1..=12).filter(|_| tally.broke().is_some()).count();
        assert_eq!(told, 4);
    }

    #[test]
    fn broken_calls_alone_are_told_from_those_beside_failures() {
        for (calls, expected) in [
            ("bbb", TooMuch::Broken),
            ("ffffb", TooMuch::Failed),
            ("bbff", TooMuch::Failed),
            ("bbfb", TooMuch::Broken),
            // Those before do not count that were too many themselves, or made good.
            ("bbbffffb", TooMuch::Failed),
            ("bb....ffffb", TooMuch::Failed),
            ("b.b.b.b.b", TooMuch::Broken),
        ] {
            let tally = Tally::new(Key { id: "a".into(), address: "a:1".into() });
            let told = calls.chars().filter_map(|call| match call {
                '.' => {
                    tally.answered();
                    None
                }
                'f' => tally.failed(),
                _ => tally.broke(),
            });
            assert_eq!(told.last(), Some(expected), "{calls}");
        }
    }

    #[test]
    fn what_is_owed_for_is_counted_from_when_nothing_was() {
        let tally = Tally::new(Key { id: "a".into(), address: "a:1".into() });
        let calls = |answered, failed| Calls { answered, failed };
        tally.answered();
        assert_eq!((tally.owing(), tally.is_even()), (calls(0, 0), true));
        tally.failed();
        tally.answered();
        tally.broke();
        assert_eq!((tally.owing(), tally.is_even()), (calls(1, 2), false));
        for _ in 0..3 {
            tally.answered();
        }
        assert_eq!((tally.owing(), tally.is_even()), (calls(4, 2), true));
        tally.failed();
        assert_eq!((tally.owing(), tally.is_even()), (calls(0, 1), false));
        assert_eq!(tally.take(), calls(5, 3));
        tally.failed();
        assert_eq!((tally.of_late(), tally.take()), (calls(5, 4), calls(0, 1)));
        assert_eq!(tally.of_late(), calls(0, 1), "the interval before the last is forgotten");
    }

    #[test]
    fn what_fails_clearly_more_is_no_chance_and_no_trifle() {
        let calls = |answered, failed| Calls { answered, failed };
        for (here, there, expected) in [
            (calls(0, 5), calls(100, 0), true),
            (calls(0, 5), calls(19, 0), true),
            // Little is known of the others.
            (calls(0, 5), calls(18, 0), false),
            (calls(0, 5), calls(0, 0), false),
            // As many as chance brings where one call in five fails anywhere, and more.
            (calls(0, 5), calls(800, 200), false),
            (calls(0, 10), calls(800, 200), true),
            (calls(0, 20), calls(400, 600), false),
            (calls(9_999, 1), calls(40_000, 0), false),
            (calls(95_000, 5_000), calls(400_000, 0), false),
            (calls(88, 12), calls(400, 0), true),
            (calls(100, 0), calls(0, 100), false),
            (calls(0, 0), calls(0, 0), false),
        ] {
            assert_eq!(here.fail_clearly_more_than(there), expected, "{here:?} beside {there:?}");
        }
    }
}
