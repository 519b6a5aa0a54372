//! Whether a failed attempt is followed by another, and when.

use std::{sync::Arc, time::Duration};

use http::HeaderName;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::{
    budget::Budget,
    live_config::LiveConfig,
    policy::{RetryPolicy, jittered},
    throttle::Throttle,
};
use crate::transport::{Failure, FailureKind};

/// The pause before an attempt on a node that this call has tried before: 10 ms x2 +-20%, at most
/// 1 s. A node not tried yet is tried at once, but for a call that was refused time and again.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How often a call that nodes refuse goes on to another at once. Then it pauses as if each had been
/// tried: a large fleet that sheds load would else be asked by each call, node after node, without end.
const REFUSED_AT_ONCE: u32 = 3;

/// Tells the server how many declared retries went before.
pub(super) const PREVIOUS_ATTEMPTS: HeaderName =
    HeaderName::from_static("grpc-previous-rpc-attempts");

/// One call's attempts so far.
///
/// Two kinds of retry: *transparent*, when provably no handler has seen the call, without a limit
/// but the deadline, though from the fourth REFUSED_STREAM on not without a pause; and *declared*, after
/// what the call's policy lists, up to its number of attempts, as long as the channel's purse pays, and
/// where the pause before it ends sooner than the call. A call has a policy when it was given one, when its method's service config has one, or when its
/// `.proto` gives an `idempotency_level`.
///
/// A call that a GOAWAY for an error has thrown out is retried transparently once, which is what
/// [gRFC A6](https://github.com/grpc/proposal/blob/master/A6-client-retries.md#transparent-retries)
/// grants any call that has reached a peer: if it is what the peer complained of, it would
/// otherwise cost node after node the connection until its deadline.
#[derive(Debug)]
pub(super) struct Retry {
    pub(super) policy: Option<RetryPolicy>,
    pub(super) purse: Purse,
    /// No pause that ends later is begun: nothing could come of it.
    pub(super) deadline: Option<Instant>,
    pub(super) attempts_left: u32,
    /// Declared retries so far: `grpc-previous-rpc-attempts`.
    pub(super) previous: u32,
    /// Pauses by the policy since the call's start, or since the server asked for one.
    pub(super) backed_off: u32,
    pub(super) pauses: u32,
    pub(super) refusals: u32,
    /// Whether a GOAWAY for an error has thrown it out before.
    pub(super) is_suspect: bool,
    pub(super) is_unpaid: bool,
}

/// What pays for a channel's declared retries.
#[derive(Debug, Clone)]
pub(super) enum Purse {
    Budget(Arc<Budget>),
    /// The service config's `retryThrottling`, which takes the budget's place.
    Throttle(Arc<Throttle>),
}

/// What follows a failed attempt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Another attempt, on a node not tried yet if there is one.
    Attempt,
    /// Another attempt after this time, on whichever node.
    AttemptAfter(Duration),
    /// The call fails.
    Fail,
}

/// What a server asks for with `grpc-retry-pushback-ms`
/// ([gRFC A6](https://github.com/grpc/proposal/blob/master/A6-client-retries.md#pushback)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pushback {
    /// The next attempt after this time.
    After(Duration),
    /// No further attempt. Negative or unreadable values ask for that too.
    Never,
}

impl Pushback {
    pub(super) fn of(status: &Status) -> Option<Self> {
        let mut values = status.metadata().get_all("grpc-retry-pushback-ms").iter();
        let value = values.next()?;
        let millis = value.to_str().ok().and_then(|text| text.parse::<u32>().ok());
        match (millis, values.next()) {
            (Some(millis), None) => Some(Self::After(Duration::from_millis(millis.into()))),
            _ => Some(Self::Never),
        }
    }
}

impl Purse {
    /// What pays by this config; where it says nothing of it, the budget.
    pub(super) fn of(config: &LiveConfig, budget: &Arc<Budget>) -> Self {
        match config.load().as_ref().and_then(|live| live.throttle.clone()) {
            Some(throttle) => Self::Throttle(throttle),
            None => Self::Budget(budget.clone()),
        }
    }

    /// A call has begun.
    pub(super) fn called(&self) {
        if let Self::Budget(budget) = self {
            budget.deposit();
        }
    }

    pub(super) fn succeeded(&self) {
        if let Self::Throttle(throttle) = self {
            throttle.succeeded();
        }
    }

    /// An attempt failed in a way that is worth another, or the server asked for none.
    pub(super) fn failed(&self) {
        if let Self::Throttle(throttle) = self {
            throttle.failed();
        }
    }

    /// How much is in it: attempts, or failures that it bears before it holds them back.
    pub(super) fn left(&self, now: Instant) -> f64 {
        match self {
            Self::Budget(budget) => budget.left(now),
            Self::Throttle(throttle) => throttle.left(),
        }
    }

    /// Whether there is another attempt in it, which is then spent.
    pub(super) fn pays(&self, now: Instant) -> bool {
        match self {
            Self::Budget(budget) => budget.withdraw(now),
            Self::Throttle(throttle) => throttle.permits(),
        }
    }
}

impl Retry {
    /// A call that begins, with at most so many attempts whatever its policy says.
    pub(super) fn new(
        policy: Option<RetryPolicy>,
        max_attempts: u32,
        purse: Purse,
        deadline: Option<Instant>,
    ) -> Self {
        purse.called();
        let attempts = policy.map_or(1, |policy| policy.max_attempts.min(max_attempts));
        Self {
            policy,
            purse,
            deadline,
            attempts_left: attempts.saturating_sub(1),
            previous: 0,
            backed_off: 0,
            pauses: 0,
            refusals: 0,
            is_suspect: false,
            is_unpaid: false,
        }
    }

    /// Declared retries so far, which the server is told.
    pub(super) fn previous_attempts(&self) -> u32 {
        self.previous
    }

    /// Whether the call failed only since nothing was left to pay for another attempt.
    pub(super) fn is_unpaid(&self) -> bool {
        self.is_unpaid
    }

    /// The call went well.
    pub(super) fn succeeded(&self) {
        self.purse.succeeded();
    }

    /// Whether an attempt that a handler has seen may be followed by another.
    pub(super) fn may_follow(&self) -> bool {
        self.policy.is_some() && self.attempts_left > 0
    }

    /// The call has its first message, or cannot be sent again: how it ends counts, and nothing follows.
    pub(super) fn commit(&mut self) {
        self.attempts_left = 0;
    }

    /// The attempt ended without a gRPC status, before its response began.
    pub(super) fn after_failure(&mut self, failure: &Failure, now: Instant) -> Next {
        let is_suspect = failure.kind() == FailureKind::Suspect;
        let is_suspect_again = is_suspect && std::mem::replace(&mut self.is_suspect, true);
        if failure.is_unprocessed() && !is_suspect_again {
            if is_shed(failure, &mut self.refusals) {
                return Next::AttemptAfter(self.pause());
            }
            return Next::Attempt;
        }
        self.after_broken(failure, now)
    }

    /// The attempt ended without a gRPC status after its response had begun: a handler has seen it,
    /// whatever the peer says.
    pub(super) fn after_broken(&mut self, failure: &Failure, now: Instant) -> Next {
        match (failure.kind(), self.policy) {
            // What is wrong with the call here is wrong with it on every node.
            (FailureKind::TooLarge | FailureKind::Body, _) | (_, None) => Next::Fail,
            (_, Some(policy)) => self.declared(policy.code_of(failure), None, now),
        }
    }

    /// The attempt ended with a status from the server.
    pub(super) fn after_status(&mut self, status: &Status, now: Instant) -> Next {
        self.declared(status.code(), Pushback::of(status), now)
    }

    /// The pause before an attempt on a node that was tried already, or of a call refused time and again.
    pub(super) fn pause(&mut self) -> Duration {
        growing_pause(&mut self.pauses)
    }

    fn declared(&mut self, code: Code, pushback: Option<Pushback>, now: Instant) -> Next {
        let Some(policy) = &self.policy else {
            return Next::Fail;
        };
        let is_listed = policy.codes.contains(code);
        let is_refused = pushback == Some(Pushback::Never);
        if is_listed || is_refused {
            self.purse.failed();
        }
        if !is_listed || is_refused || self.attempts_left == 0 {
            return Next::Fail;
        }
        let (next, backed_off) = match (pushback, &policy.backoff) {
            (Some(Pushback::After(pause)), _) => (Next::AttemptAfter(pause), 0),
            (_, Some(backoff)) => {
                (Next::AttemptAfter(backoff.pause(self.backed_off)), self.backed_off + 1)
            }
            (_, None) => (Next::Attempt, self.backed_off),
        };
        if matches!(next, Next::AttemptAfter(pause) if is_too_long(pause, now, self.deadline)) {
            return Next::Fail;
        }
        if !self.purse.pays(now) {
            self.is_unpaid = true;
            return Next::Fail;
        }
        self.attempts_left -= 1;
        self.previous += 1;
        self.backed_off = backed_off;
        next
    }
}

/// Whether the call's deadline comes before the pause's end.
pub(super) fn is_too_long(pause: Duration, now: Instant, deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| deadline.saturating_duration_since(now) <= pause)
}

/// Whether the call has been refused so often that it pauses whichever node is next.
pub(super) fn is_shed(failure: &Failure, refusals: &mut u32) -> bool {
    let is_refused = failure.kind() == FailureKind::Refused;
    *refusals += u32::from(is_refused);
    is_refused && *refusals > REFUSED_AT_ONCE
}

/// The pause after `before` others.
pub(super) fn growing_pause(before: &mut u32) -> Duration {
    let longest = FIRST_PAUSE.saturating_mul(1 << (*before).min(16)).min(LONGEST_PAUSE);
    *before += 1;
    jittered(longest)
}

#[cfg(test)]
mod tests;
