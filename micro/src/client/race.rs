//! Which attempts of a hedged call are made, and when.

use std::time::Duration;

use tokio::time::Instant;
use tonic::{Code, Status};

use super::{
    hedge::Hedging,
    policy::RetryPolicy,
    retry::{Purse, Pushback, Retry, growing_pause, is_shed, is_too_long},
};
use crate::{
    balance::Outcome,
    transport::{Failure, FailureKind},
};

/// One hedged call's attempts so far, by
/// [gRFC A6](https://github.com/grpc/proposal/blob/master/A6-client-retries.md#hedging-policy). The
/// first is made with it.
#[derive(Debug)]
pub(super) struct Race {
    policy: RetryPolicy,
    is_strict: bool,
    purse: Purse,
    /// No pause that ends later is begun.
    deadline: Option<Instant>,
    /// From one attempt's sending to another. None: never for the time that others take.
    delay: Option<Duration>,
    attempts_left: u32,
    timed_left: u32,
    /// Further attempts so far: `grpc-previous-rpc-attempts`.
    previous: u32,
    running: u32,
    /// When another is made if none is answered, and as long as any has been sent.
    timed: Option<Instant>,
    /// When another is made since one has failed.
    again: Option<Instant>,
    backed_off: u32,
    pauses: u32,
    refusals: u32,
    is_suspect: bool,
    is_unpaid: bool,
}

/// What follows a failed attempt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// Another, after this pause.
    Attempt(Pause),
    /// Others are under way, or will be.
    Wait,
    /// The call fails, and what is under way is given up.
    Fail,
}

/// What goes before an attempt that is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pause {
    None,
    /// If its node was tried before.
    IfTried(Duration),
    /// Whichever node it has.
    Always(Duration),
}

impl Race {
    /// `delay` is what the hedging's comes to. The purse has been told of the call.
    pub(super) fn new(
        hedging: Hedging,
        delay: Option<Duration>,
        max_attempts: u32,
        purse: Purse,
        deadline: Option<Instant>,
    ) -> Self {
        let attempts_left = hedging.others.max_attempts.min(max_attempts).saturating_sub(1);
        Self {
            policy: hedging.others,
            is_strict: hedging.is_strict,
            purse,
            deadline,
            delay,
            attempts_left,
            timed_left: hedging.timed,
            previous: 0,
            running: 1,
            timed: None,
            again: None,
            backed_off: 0,
            pauses: 0,
            refusals: 0,
            is_suspect: false,
            is_unpaid: false,
        }
    }

    /// An attempt is sent: it has a node. Until then it is no node's delay that it waits for.
    pub(super) fn sent(&mut self, now: Instant) {
        let is_left = self.timed_left > 0 && self.attempts_left > 0;
        // What a server asks for comes first.
        let delay = self.delay.filter(|_| is_left && self.again.is_none());
        self.timed = delay.and_then(|delay| now.checked_add(delay));
    }

    /// Attempts that went before the one that is made now.
    pub(super) fn previous_attempts(&self) -> u32 {
        self.previous
    }

    /// Whether another attempt was not made, since nothing was left to pay for it, after this was
    /// last asked.
    pub(super) fn take_unpaid(&mut self) -> bool {
        std::mem::take(&mut self.is_unpaid)
    }

    /// When to ask for another attempt, if ever.
    pub(super) fn due(&self) -> Option<Instant> {
        self.timed.into_iter().chain(self.again).min()
    }

    /// Whether one is made now that it is due.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        if self.again.is_some_and(|at| at <= now) {
            self.again = None;
        } else {
            self.timed_left = self.timed_left.saturating_sub(1);
        }
        self.start(now)
    }

    /// An attempt has won, of whose answer not all is there. What follows should it break off.
    pub(super) fn into_retry(self) -> Retry {
        Retry {
            policy: Some(self.policy),
            purse: self.purse,
            deadline: self.deadline,
            attempts_left: self.attempts_left,
            previous: self.previous,
            backed_off: self.backed_off,
            pauses: self.pauses,
            refusals: self.refusals,
            is_suspect: self.is_suspect,
            is_unpaid: false,
        }
    }

    /// An attempt ended without a status from the server.
    pub(super) fn after_failure(&mut self, failure: &Failure, now: Instant) -> Then {
        let is_suspect = failure.kind() == FailureKind::Suspect;
        let is_suspect_again = is_suspect && std::mem::replace(&mut self.is_suspect, true);
        if failure.is_unprocessed() && !is_suspect_again {
            // Neither counted nor paid for: it takes the place of the one that nobody has seen.
            if self.running == 1 {
                self.timed = None;
            }
            let pause = growing_pause(&mut self.pauses);
            return Then::Attempt(match is_shed(failure, &mut self.refusals) {
                true => Pause::Always(pause),
                false => Pause::IfTried(pause),
            });
        }
        match failure.kind() {
            FailureKind::TooLarge | FailureKind::Body => Then::Fail,
            _ => self.failed(self.policy.code_of(failure), None, now),
        }
    }

    /// An attempt ended with a status from the server.
    pub(super) fn after_status(&mut self, status: &Status, now: Instant) -> Then {
        self.failed(status.code(), Pushback::of(status), now)
    }

    /// An attempt found no node in time.
    pub(super) fn after_nothing(&mut self) -> Then {
        self.running -= 1;
        self.wait()
    }

    fn failed(&mut self, code: Code, pushback: Option<Pushback>, now: Instant) -> Then {
        self.running -= 1;
        let is_listed = self.policy.codes.contains(code);
        if is_listed || pushback == Some(Pushback::Never) {
            self.purse.failed();
        }
        if !is_listed {
            let is_nodes = !self.is_strict && Outcome::of_code(code, "") == Outcome::Failure;
            return if is_nodes && self.running > 0 { Then::Wait } else { Then::Fail };
        }
        let pause = match (pushback, &self.policy.backoff) {
            (Some(Pushback::Never), _) => {
                self.attempts_left = 0;
                (self.timed, self.again) = (None, None);
                return self.wait();
            }
            (Some(Pushback::After(pause)), _) => pause,
            (None, Some(backoff)) => {
                self.backed_off += 1;
                backoff.pause(self.backed_off - 1)
            }
            (None, None) => Duration::ZERO,
        };
        if self.attempts_left == 0 {
            return self.wait();
        }
        if is_too_long(pause, now, self.deadline) {
            // Nor is one made for the time that others take, as during a pause that is not too long.
            (self.timed, self.again) = (None, None);
            return self.wait();
        }
        if !pause.is_zero() {
            self.again = now.checked_add(pause);
            self.timed = None;
            return self.wait();
        }
        if self.start(now) {
            return Then::Attempt(Pause::IfTried(growing_pause(&mut self.pauses)));
        }
        self.wait()
    }

    fn start(&mut self, now: Instant) -> bool {
        let is_left = self.attempts_left > 0;
        let may_start = is_left && self.purse.pays(now);
        self.is_unpaid |= is_left && !may_start;
        self.timed = None;
        if may_start {
            self.attempts_left -= 1;
            self.previous += 1;
            self.running += 1;
        } else {
            // Neither retries nor hedges wait for better times.
            self.again = None;
        }
        may_start
    }

    fn wait(&self) -> Then {
        let is_more = self.running > 0 || self.due().is_some();
        if is_more { Then::Wait } else { Then::Fail }
    }
}

#[cfg(test)]
mod tests;
