//! The live p95 that hedges wait for.

use std::{sync::Arc, time::Duration};

use super::both;
use crate::p95::P95;

const SHORT: Duration = Duration::from_millis(10);
const LONG: Duration = Duration::from_millis(50);
const LONGER: Duration = Duration::from_millis(90);

fn after(calls: u32) -> P95 {
    let p95 = P95::default();
    (0..calls).for_each(|_| p95.took(SHORT));
    p95
}

/// Who is told of the first twenty calls is told of the second longest of them.
pub fn it_begins_with_the_second_longest_of_twenty() {
    loom::model(|| {
        let p95 = Arc::new(after(18));
        p95.took(LONGER);
        let ((), told) = both(&p95, |p95| p95.took(LONG), P95::get);
        assert!(told.is_none_or(|told| told == LONG), "{told:?}");
        assert_eq!(p95.get(), Some(LONG));
    });
}

/// The same where the last two of them end at once.
pub fn of_two_that_end_at_once_the_shorter_counts() {
    loom::model(|| {
        let p95 = Arc::new(after(18));
        both(&p95, |p95| p95.took(LONG), |p95| p95.took(LONGER));
        assert_eq!(p95.get(), Some(LONG));
    });
}

/// Each call moves it by its step.
pub fn no_step_is_lost() {
    let twice = |step: fn(&P95)| {
        let p95 = after(20);
        step(&p95);
        step(&p95);
        p95.get()
    };
    loom::model(move || {
        let slower: fn(&P95) = |p95| p95.took(LONG);
        let given_up: fn(&P95) = |p95| p95.lasted(LONG);
        let p95 = Arc::new(after(20));
        both(&p95, slower, given_up);
        assert_eq!(p95.get(), twice(slower));
    });
}

/// Who is told of a step is told of the calls before it.
pub fn a_step_is_known_with_what_went_before() {
    loom::model(|| {
        let p95 = Arc::new(after(18));
        p95.took(LONGER);
        let began_and_stepped = |p95: &P95| {
            p95.took(LONG);
            p95.took(LONGER);
        };
        let ((), told) = both(&p95, began_and_stepped, P95::get);
        assert!(told.is_none_or(|told| told >= LONG), "{told:?}");
    });
}
