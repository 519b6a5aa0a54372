//! Whether a failed attempt is followed by another, and when.

use std::time::Duration;

use http::HeaderName;
use tonic::{Code, Status};

use crate::transport::{Failure, FailureKind};

/// The pause before an attempt on a node that this call has tried before: 10 ms x2 +-20%, at most
/// 1 s. A node not tried yet is tried at once.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Tells the server how many declared retries went before.
pub(super) const PREVIOUS_ATTEMPTS: HeaderName =
    HeaderName::from_static("grpc-previous-rpc-attempts");

/// One call's attempts so far.
///
/// Two kinds of retry: *transparent*, when provably no handler has seen the call, without a limit
/// but the deadline; and *declared*, for methods whose `.proto` gives an `idempotency_level`, up to a
/// number of attempts: after `Unavailable`, after `ResourceExhausted`, since another node may have
/// what this one lacks, and after a connection or a stream that broke.
///
/// A call that a GOAWAY for an error has thrown out is retried transparently once, which is what
/// [gRFC A6](https://github.com/grpc/proposal/blob/master/A6-client-retries.md#transparent-retries)
/// grants any call that has reached a peer: if it is what the peer complained of, it would
/// otherwise cost node after node the connection until its deadline.
#[derive(Debug)]
pub(super) struct Retry {
    is_idempotent: bool,
    attempts_left: u32,
    /// Declared retries so far: `grpc-previous-rpc-attempts`.
    previous: u32,
    pauses: u32,
    /// Whether a GOAWAY for an error has thrown it out before.
    is_suspect: bool,
}

/// What follows a failed attempt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Another attempt, on a node not tried yet if there is one.
    Attempt,
    /// Another attempt after the time the server asked for.
    AttemptAfter(Duration),
    /// The call fails.
    Fail,
}

impl Retry {
    pub(super) fn new(is_idempotent: bool, max_attempts: u32) -> Self {
        Self {
            is_idempotent,
            attempts_left: max_attempts.saturating_sub(1),
            previous: 0,
            pauses: 0,
            is_suspect: false,
        }
    }

    /// Declared retries so far, which the server is told.
    pub(super) fn previous_attempts(&self) -> u32 {
        self.previous
    }

    /// The attempt ended without a gRPC status.
    pub(super) fn after_failure(&mut self, failure: &Failure) -> Next {
        let is_suspect = failure.kind() == FailureKind::Suspect;
        let is_suspect_again = is_suspect && std::mem::replace(&mut self.is_suspect, true);
        if failure.is_unprocessed() && !is_suspect_again {
            return Next::Attempt;
        }
        match (failure.kind(), failure.to_status().code()) {
            (_, Code::Unavailable) => self.declared(),
            // HTTP/2's words for what the node did, and no handler's.
            (FailureKind::Reset, Code::Internal | Code::ResourceExhausted) => self.declared(),
            _ => Next::Fail,
        }
    }

    /// The attempt ended with a status from the server, which may carry `grpc-retry-pushback-ms`
    /// ([gRFC A6](https://github.com/grpc/proposal/blob/master/A6-client-retries.md#pushback)).
    pub(super) fn after_status(&mut self, status: &Status) -> Next {
        if !matches!(status.code(), Code::Unavailable | Code::ResourceExhausted) {
            return Next::Fail;
        }
        let Some(pushback) = status.metadata().get("grpc-retry-pushback-ms") else {
            return self.declared();
        };
        // Negative or unreadable: the server asks for no retry.
        let asked = pushback.to_str().ok().and_then(|text| text.parse::<u32>().ok());
        match (asked, self.declared()) {
            (Some(millis), Next::Attempt) => {
                Next::AttemptAfter(Duration::from_millis(millis.into()))
            }
            _ => Next::Fail,
        }
    }

    /// The pause before an attempt on a node that was tried already.
    pub(super) fn pause(&mut self) -> Duration {
        let longest = FIRST_PAUSE.saturating_mul(1 << self.pauses.min(16)).min(LONGEST_PAUSE);
        self.pauses += 1;
        longest.mul_f64(0.8 + 0.4 * fastrand::f64())
    }

    fn declared(&mut self) -> Next {
        if !self.is_idempotent || self.attempts_left == 0 {
            return Next::Fail;
        }
        self.attempts_left -= 1;
        self.previous += 1;
        Next::Attempt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy_with_pushback(value: &'static str) -> Status {
        let mut status = Status::unavailable("busy");
        status.metadata_mut().insert("grpc-retry-pushback-ms", value.parse().expect("a value"));
        status
    }

    #[test]
    fn a_status_is_retried_only_where_the_method_is_declared_idempotent() {
        let unavailable = Status::unavailable("busy");
        assert_eq!(Retry::new(false, 5).after_status(&unavailable), Next::Fail);
        let mut retry = Retry::new(true, 5);
        for _ in 0..4 {
            assert_eq!(retry.after_status(&unavailable), Next::Attempt);
        }
        assert_eq!(retry.after_status(&unavailable), Next::Fail, "five attempts in all");
        assert_eq!(retry.previous_attempts(), 4);
    }

    #[test]
    fn another_node_may_answer_where_one_is_unavailable_or_exhausted_and_no_differently_else() {
        for code in (0..=16).map(Code::from_i32) {
            let next = Retry::new(true, 5).after_status(&Status::new(code, ""));
            let is_tried = matches!(code, Code::Unavailable | Code::ResourceExhausted);
            assert_eq!(next, if is_tried { Next::Attempt } else { Next::Fail }, "{code:?}");
        }
    }

    #[test]
    fn a_stream_that_broke_is_tried_again_where_the_method_is_declared_idempotent() {
        use FailureKind::{Malformed, Reset, TooLarge};
        for (kind, code, expected) in [
            (Reset, Code::Internal, Next::Attempt),
            (Reset, Code::ResourceExhausted, Next::Attempt),
            (Reset, Code::Cancelled, Next::Fail),
            (Reset, Code::PermissionDenied, Next::Fail),
            (Malformed, Code::Internal, Next::Fail),
            (TooLarge, Code::ResourceExhausted, Next::Fail),
        ] {
            let failure = Failure::new(kind, Status::new(code, ""));
            assert_eq!(Retry::new(true, 5).after_failure(&failure), expected, "{kind:?} {code:?}");
            assert_eq!(
                Retry::new(false, 5).after_failure(&failure),
                Next::Fail,
                "{kind:?} {code:?}"
            );
        }
    }

    #[test]
    fn a_call_is_thrown_out_by_a_goaway_for_an_error_once_and_refused_without_end() {
        let failure = |kind| Failure::unavailable(kind, "node:1", "gone");
        let (suspect, refused) = (failure(FailureKind::Suspect), failure(FailureKind::Refused));
        let mut retry = Retry::new(false, 5);
        for _ in 0..100 {
            assert_eq!(retry.after_failure(&refused), Next::Attempt);
        }
        assert_eq!(retry.after_failure(&suspect), Next::Attempt);
        assert_eq!(retry.after_failure(&refused), Next::Attempt);
        assert_eq!(retry.after_failure(&suspect), Next::Fail, "the second time");

        let mut retry = Retry::new(true, 5);
        let attempts = (0..100).take_while(|_| retry.after_failure(&suspect) == Next::Attempt);
        assert_eq!(attempts.count(), 5, "one, and then as many as after any failure");
    }

    #[test]
    fn the_servers_pushback_is_honoured() {
        let next = |value| Retry::new(true, 5).after_status(&busy_with_pushback(value));
        assert_eq!(next("250"), Next::AttemptAfter(Duration::from_millis(250)));
        assert_eq!(next("-1"), Next::Fail, "negative: do not retry");
        assert_eq!(next("soon"), Next::Fail, "unreadable: do not retry");
    }

    #[test]
    fn pauses_grow_to_a_second() {
        let mut retry = Retry::new(false, 5);
        let pauses: Vec<_> = (0..12).map(|_| retry.pause()).collect();
        assert!(pauses[0] <= Duration::from_millis(12), "{:?}", pauses[0]);
        assert!(pauses[11] >= Duration::from_millis(800), "{:?}", pauses[11]);
        assert!(pauses.iter().all(|pause| *pause <= Duration::from_millis(1200)));
    }
}
