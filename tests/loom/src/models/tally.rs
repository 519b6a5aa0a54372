//! The counts that a node is ejected by.

use std::sync::Arc;

use super::both;
use crate::{
    members::Key,
    tally::{Tally, TooMuch},
};

fn after_broken(calls: u32) -> Arc<Tally> {
    let tally = Tally::new(Key);
    for _ in 0..calls {
        assert_eq!(tally.broke(), None);
    }
    Arc::new(tally)
}

/// Of calls that break at once, one says that it was too many, and by those alone.
pub fn one_too_many_is_told_once() {
    for before in [1, 2] {
        loom::model(move || {
            let tally = after_broken(before);
            let (one, other) = both(&tally, Tally::broke, Tally::broke);
            assert!(one.is_some() ^ other.is_some(), "{one:?} {other:?}");
            assert_eq!(one.or(other), Some(TooMuch::Broken));
        });
    }
}

/// An answer takes its part off the debt, though another call adds to it.
pub fn an_answer_beside_a_failure_is_not_lost() {
    loom::model(|| {
        let tally = after_broken(1);
        let ((), told) = both(&tally, Tally::answered, Tally::failed);
        assert_eq!(told, None);
        // 10 - 5 + 6, or the other way round.
        assert_eq!(tally.broke(), None, "it owes 21");
        assert_eq!(tally.broke(), Some(TooMuch::Broken), "and 31, 30 of that by those");
    });
}

/// Each call is counted in one interval.
pub fn the_sweep_takes_each_call_once() {
    loom::model(|| {
        let tally = after_broken(0);
        let calls = |tally: &Tally| {
            tally.answered();
            tally.failed_with_others();
            tally.answered();
        };
        let ((), taken) = both(&tally, calls, Tally::take);
        let left = tally.take();
        let both = taken + left;
        assert_eq!((both.answered, both.failed), (2, 1));
    });
}
