//! The peer's MAX_CONCURRENT_STREAMS, which it may change while calls end.

use std::{pin::pin, sync::Arc};

use super::{both, interrupted, is_over};
use crate::slots::Slots;

/// Takes a slot, if there is one.
fn take(slots: &Slots) -> bool {
    is_over(pin!(slots.take()))
}

fn taken(of: usize) -> Arc<Slots> {
    let slots = Slots::new();
    slots.set_limit(of);
    assert!((0..of).all(|_| take(&slots)) && !take(&slots));
    Arc::new(slots)
}

/// So many calls end while the peer changes what it allows.
fn ends_within(before: usize, limits: &'static [usize]) {
    interrupted(3, move || {
        let slots = taken(before);
        let change = move |slots: &Slots| limits.iter().for_each(|limit| slots.set_limit(*limit));
        both(&slots, change, move |slots| (0..before).for_each(|_| slots.release()));
        assert_eq!(slots.taken(), 0);
        let free = (0..10).take_while(|_| take(&slots)).count();
        assert_eq!(Some(&free), limits.last(), "as many as the peer now allows");
    });
}

/// A limit that is lowered while calls end is the limit afterwards.
pub fn a_lowered_limit_holds() {
    ends_within(2, &[1]);
    ends_within(2, &[0]);
}

/// So is one that is raised.
pub fn a_raised_limit_holds() {
    ends_within(1, &[3]);
}

/// And one that is lowered and raised again.
pub fn a_limit_that_comes_and_goes_holds() {
    ends_within(2, &[0, 1]);
    ends_within(2, &[1, 3]);
}

/// Who asks while a call ends is not told of fewer calls than there are: a connection that is closing
/// is closed when none is left.
pub fn a_call_that_is_under_way_is_counted() {
    loom::model(|| {
        let slots = taken(2);
        let (counted, ()) = both(&slots, Slots::taken, Slots::release);
        assert!((1..=2).contains(&counted), "{counted}");
        let (counted, ()) = both(&slots, Slots::taken, |slots| slots.set_limit(0));
        assert!(counted >= 1, "{counted}");
    });
}
