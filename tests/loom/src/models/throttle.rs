//! `retryThrottling`: every call's end moves its tokens.

use std::sync::Arc;

use super::both;
use crate::throttle::Throttle;

/// Two failures at once are two: of four tokens, half are left.
pub fn no_failure_is_lost() {
    loom::model(|| {
        let throttle = Arc::new(Throttle::new(4_000, 1_000, None));
        both(&throttle, Throttle::failed, Throttle::failed);
        assert!(!throttle.permits());
    });
}

/// A failure and a success at once come to nothing, whichever is first.
pub fn a_failure_and_a_success_come_to_nothing() {
    loom::model(|| {
        let throttle = Arc::new(Throttle::new(4_000, 1_000, None));
        (0..2).for_each(|_| throttle.failed());
        both(&throttle, Throttle::failed, Throttle::succeeded);
        assert!(!throttle.permits(), "two of four are not over the half");
        throttle.succeeded();
        assert!(throttle.permits(), "three are");
    });
}

/// Successes beside a failure do not take the tokens over the most that there may be.
pub fn the_tokens_never_exceed_their_most() {
    loom::model(|| {
        let throttle = Arc::new(Throttle::new(4_000, 1_500, None));
        both(&throttle, Throttle::failed, |throttle| {
            throttle.succeeded();
            throttle.succeeded();
        });
        (0..2).for_each(|_| throttle.failed());
        assert!(!throttle.permits(), "of four at most");
    });
}
