//! The calls in flight on a whole set, which a bounded `consistent_hash` takes the mean of.

use std::sync::Arc;

use super::both;
use crate::in_flight::{Counted, InFlight};

fn call(all: &Arc<InFlight>) -> Counted {
    Counted::new(all.clone())
}

/// What calls beside each other have counted, they have taken back.
pub fn none_is_left_when_all_have_ended() {
    loom::model(|| {
        let all = Arc::new(InFlight::default());
        let calls = |all: &Arc<InFlight>| {
            drop(call(all));
            call(all)
        };
        // What the threads share is a handle, as calls do.
        let left = both(&Arc::new(all.clone()), calls, calls);
        assert_eq!(all.get(), 2, "those that have not ended");
        drop(left);
        assert_eq!(all.get(), 0);
    });
}

/// Who asks while others begin and end is told of no fewer than are there all the time, and no more than
/// there are at all.
pub fn a_call_that_is_under_way_is_counted() {
    loom::model(|| {
        let all = Arc::new(InFlight::default());
        let _under_way = call(&all);
        let (told, ()) =
            both(&Arc::new(all.clone()), |all| [all.get(), all.get()], |all| drop(call(all)));
        assert!(told.iter().all(|told| (1..=2).contains(told)), "{told:?}");
        assert_eq!(all.get(), 1);
    });
}
