//! A second attempt before the first has failed.

use std::time::Duration;

use super::policy::RetryPolicy;

/// When a call is made a second time though the first attempt has not failed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hedge {
    pub(super) delay: Delay,
}

/// What a further attempt waits for, beside a failure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Delay {
    Fixed(Duration),
    /// What 19 of 20 first attempts of the method need less than.
    P95,
}

/// How one call is hedged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Hedging {
    pub(super) delay: Delay,
    /// How many attempts may be made for the delay.
    pub(super) timed: u32,
    /// After which failures another is made at once, and how many there may be in all.
    pub(super) others: RetryPolicy,
}

impl Hedge {
    /// A second attempt, on another node while there is one, when the first is not answered within
    /// this time. Zero: both at once.
    pub fn after(delay: Duration) -> Self {
        Self { delay: Delay::Fixed(delay) }
    }

    /// A second attempt when the first takes longer than 95% of this method's calls on this channel
    /// do of late: about one call in twenty is made twice. None until 20 calls of the method that
    /// are hedged so have been answered.
    pub fn at_p95() -> Self {
        Self { delay: Delay::P95 }
    }
}
