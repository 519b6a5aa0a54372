//! The retry budget: calls on any thread pay in and draw.

use std::sync::Arc;

use tokio::time::Instant;

use super::both;
use crate::budget::Budget;

fn left(budget: &Budget, now: Instant) -> usize {
    (0..).take_while(|_| budget.withdraw(now)).count()
}

/// One of two that want it has the last attempt.
pub fn the_last_attempt_is_spent_once() {
    let now = Instant::now();
    loom::model(move || {
        let budget = Budget::new(now);
        (0..99).for_each(|_| assert!(budget.withdraw(now)));
        let withdraw = move |budget: &Budget| budget.withdraw(now);
        let (one, other) = both(&Arc::new(budget), withdraw, withdraw);
        assert!(one ^ other, "{one} {other}");
    });
}

/// What was paid in by calls is there in the end, also where another drew meanwhile.
pub fn no_deposit_is_lost() {
    let now = Instant::now();
    loom::model(move || {
        let budget = Budget::new(now);
        assert_eq!(left(&budget, now), 100);
        // A fifth of an attempt each. One more than makes two of them, since the fifths are rounded.
        (0..8).for_each(|_| budget.deposit());
        let budget = Arc::new(budget);
        let (one, other) = both(
            &budget,
            move |budget| {
                budget.deposit();
                budget.withdraw(now)
            },
            move |budget| {
                budget.deposit();
                budget.deposit();
                budget.withdraw(now)
            },
        );
        let spent = usize::from(one) + usize::from(other) + left(&budget, now);
        assert_eq!(spent, 2, "a fifth of eleven");
    });
}
