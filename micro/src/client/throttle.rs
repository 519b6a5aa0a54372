//! `retryThrottling` of gRFC A6.

use std::sync::atomic::Ordering::Relaxed;

use crate::sync::AtomicU32;

/// Holds attempts beyond a call's first back while too many calls fail
/// ([gRFC A6](https://github.com/grpc/proposal/blob/master/A6-client-retries.md#throttling-retry-attempts-and-hedged-rpcs)).
///
/// All in thousandths of a token, since the ratio has three decimals.
#[derive(Debug)]
pub(super) struct Throttle {
    max: u32,
    ratio: u32,
    tokens: AtomicU32,
}

const TOKEN: u32 = 1000;

impl Throttle {
    /// In thousandths, both over 0 and `max` at most a million. What was left of an earlier one is
    /// left of this, as in gRPC's core: a new configuration is no reason to forget failures.
    pub(super) fn new(max: u32, ratio: u32, earlier: Option<&Self>) -> Self {
        let tokens = earlier.map_or(max, |earlier| {
            let left = u64::from(earlier.tokens.load(Relaxed)) * u64::from(max);
            u32::try_from(left / u64::from(earlier.max)).unwrap_or(max)
        });
        Self { max, ratio, tokens: AtomicU32::new(tokens) }
    }

    /// A call went well.
    pub(super) fn succeeded(&self) {
        // Nearly always, and then no call writes what the others read.
        if self.tokens.load(Relaxed) == self.max {
            return;
        }
        let more = |tokens: u32| Some(tokens.saturating_add(self.ratio).min(self.max));
        let _ = self.tokens.fetch_update(Relaxed, Relaxed, more);
    }

    /// An attempt failed in a way that is worth another, or the server asked for none.
    pub(super) fn failed(&self) {
        let less = |tokens: u32| Some(tokens.saturating_sub(TOKEN));
        let _ = self.tokens.fetch_update(Relaxed, Relaxed, less);
    }

    /// How many more failures it bears before it holds attempts back: the tokens over half of them.
    pub(super) fn left(&self) -> f64 {
        let over = self.tokens.load(Relaxed).saturating_sub(self.max / 2);
        f64::from(over) / f64::from(TOKEN)
    }

    /// Whether another attempt may be made now.
    pub(super) fn permits(&self) -> bool {
        self.tokens.load(Relaxed) > self.max / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_stop_at_half_of_the_tokens_and_come_back_with_successes() {
        let throttle = Throttle::new(10_000, 100, None);
        for _ in 0..4 {
            throttle.failed();
            assert!(throttle.permits());
        }
        throttle.failed();
        assert!(!throttle.permits(), "five of ten are not over the half");
        throttle.succeeded();
        assert!(throttle.permits());
    }

    #[test]
    fn the_tokens_stay_between_none_and_the_most() {
        let throttle = Throttle::new(2_000, 500, None);
        (0..10).for_each(|_| throttle.failed());
        (0..2).for_each(|_| throttle.succeeded());
        assert!(!throttle.permits(), "one of two, from none");
        (0..10).for_each(|_| throttle.succeeded());
        throttle.failed();
        assert!(!throttle.permits(), "one of two, from two");
    }

    #[test]
    fn a_new_one_begins_where_the_earlier_stood() {
        let earlier = Throttle::new(10_000, 100, None);
        (0..5).for_each(|_| earlier.failed());
        assert!(!Throttle::new(100_000, 100, Some(&earlier)).permits());
        earlier.succeeded();
        assert!(Throttle::new(100_000, 100, Some(&earlier)).permits());
    }
}
