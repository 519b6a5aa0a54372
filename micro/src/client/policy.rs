//! After which failures a call is made again, and after how long.

use std::{fmt, time::Duration};

use tonic::Code;

use super::{Settings, builder::MOST_ATTEMPTS};
use crate::transport::{Failure, FailureKind};

/// After which statuses a call is made again, how often, and after how long.
///
/// ```
/// # use std::time::Duration;
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doc/greeter.v1.rs"));
/// use micro::{Code, client::RetryPolicy};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), micro::Error> {
/// # let client = micro::Client::builder().without_env().registry("memory://retry-docs").build()?;
/// # let greeter = GreeterClient::new("greeter", &client);
/// let policy = RetryPolicy::on([Code::Unavailable, Code::Aborted]).max_attempts(3);
/// let call = greeter.hello(HelloRequest { name: "world".into() });
/// # let call = call.timeout(Duration::from_millis(10));
/// let reply = call.retry(policy).await;
/// # assert!(reply.is_err(), "there is no greeter");
/// # Ok(())
/// # }
/// ```
///
/// A connection or a stream that broke counts as `Unavailable`. What no handler can have seen is made again whatever
/// the policy, and is not counted. All within the call's deadline, the channel's budget (20% of its
/// calls and 10 a second, or the `retryThrottling` of its service config), and
/// [`ClientBuilder::retries`](super::ClientBuilder::retries).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    pub(super) codes: Codes,
    pub(super) max_attempts: u32,
    pub(super) backoff: Option<Backoff>,
}

/// The pause before the nth attempt but one: `initial * multiplier^(n-1)`, at most `max`, +-20%.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Backoff {
    pub(super) initial: Duration,
    pub(super) max: Duration,
    pub(super) multiplier: f64,
}

impl RetryPolicy {
    /// Makes a call again after these statuses: up to five attempts in all, on a node that the call
    /// has not tried at once, else after 10 ms that double up to 1 s, +-20%.
    pub fn on(codes: impl IntoIterator<Item = Code>) -> Self {
        Self { codes: codes.into_iter().collect(), max_attempts: MOST_ATTEMPTS, backoff: None }
    }

    /// How many attempts there are in all, the first included. Default: 5, and over 5 counts as 5, as
    /// [gRFC A6] has it. 0 and 1: only what no handler can have seen is tried again.
    ///
    /// [gRFC A6]: https://github.com/grpc/proposal/blob/master/A6-client-retries.md
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts.min(MOST_ATTEMPTS);
        self
    }

    /// Pauses before each attempt after the first, on whichever node: `initial`, doubled with every
    /// attempt up to `max`, +-20%. Zero: no pause. A server that asks for another one is heard.
    #[must_use]
    pub fn backoff(mut self, initial: Duration, max: Duration) -> Self {
        self.backoff = Some(Backoff { initial, max, multiplier: 2.0 });
        self
    }
}

impl RetryPolicy {
    /// Whether there is anything after which another attempt is made.
    pub(super) fn may_retry(&self, settings: &Settings) -> bool {
        self.max_attempts.min(settings.max_attempts) > 1 && !self.codes.is_empty()
    }

    /// What an attempt counts as that ended without a status of the server's. The codes of a stream
    /// that was reset, and of an answer that is none of gRPC's, are words for what the node did, and no
    /// handler's: as a lost connection does, it counts as `Unavailable`, unless the policy lists them.
    pub(super) fn code_of(&self, failure: &Failure) -> Code {
        let code = failure.to_status().code();
        let is_broken = match failure.kind() {
            // h2 resets with CANCEL what a handler has dropped: one that panicked, say.
            FailureKind::Reset | FailureKind::Undecodable => true,
            // A proxy's 401, 403 or 404 is an answer.
            FailureKind::Malformed => matches!(code, Code::Internal | Code::Unknown),
            _ => false,
        };
        if is_broken && !self.codes.contains(code) { Code::Unavailable } else { code }
    }
}

impl Default for RetryPolicy {
    /// After `Unavailable` and `ResourceExhausted`, since another node may have what this one lacks:
    /// how methods that their `.proto` declares idempotent are tried again.
    fn default() -> Self {
        Self::on([Code::Unavailable, Code::ResourceExhausted])
    }
}

impl Backoff {
    /// The pause after `before` others.
    pub(super) fn pause(&self, before: u32) -> Duration {
        let exponent = i32::try_from(before).unwrap_or(i32::MAX);
        let grown = self.initial.as_secs_f64() * self.multiplier.powi(exponent);
        let pause = grown.min(self.max.as_secs_f64());
        jittered(Duration::try_from_secs_f64(pause).unwrap_or(self.max))
    }
}

/// +-20%, as gRPC spreads all its pauses.
pub(super) fn jittered(pause: Duration) -> Duration {
    Duration::try_from_secs_f64(pause.as_secs_f64() * (0.8 + 0.4 * fastrand::f64()))
        .unwrap_or(pause)
}

/// A set of status codes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Codes(u32);

impl Codes {
    fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn contains(self, code: Code) -> bool {
        self.0 & bit(code) != 0
    }
}

impl FromIterator<Code> for Codes {
    fn from_iter<I: IntoIterator<Item = Code>>(codes: I) -> Self {
        // What went well is not made again.
        Self(codes.into_iter().map(bit).fold(0, |set, bit| set | bit) & !bit(Code::Ok))
    }
}

impl fmt::Debug for Codes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let codes = (0..=16).map(Code::from_i32).filter(|code| self.contains(*code));
        f.debug_set().entries(codes).finish()
    }
}

fn bit(code: Code) -> u32 {
    1 << i32::from(code)
}

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::*;

    #[test]
    fn pauses_grow_by_the_multiplier_up_to_the_maximum() {
        let ms = Duration::from_millis;
        let backoff = Backoff { initial: ms(100), max: ms(1000), multiplier: 3.0 };
        for (before, middle) in [(0, 100), (1, 300), (2, 900), (3, 1000), (u32::MAX, 1000)] {
            let pauses: Vec<_> = (0..1000).map(|_| backoff.pause(before)).collect();
            let (low, high) = (pauses.iter().min().unwrap(), pauses.iter().max().unwrap());
            assert!(*low >= ms(middle * 8 / 10) && *low < ms(middle * 82 / 100), "{low:?}");
            assert!(*high <= ms(middle * 12 / 10) && *high > ms(middle * 118 / 100), "{high:?}");
        }
        let endless = Backoff { initial: ms(1), max: Duration::MAX, multiplier: 1e300 };
        assert!(endless.pause(3) > Duration::from_secs(1 << 40), "no panic either");
    }

    #[test]
    fn every_code_but_ok_can_be_listed() {
        for code in (0..=16).map(Code::from_i32) {
            let policy = RetryPolicy::on([code]);
            let listed = (0..=16).map(Code::from_i32).filter(|it| policy.codes.contains(*it));
            let expected = (code != Code::Ok).then_some(code);
            assert!(listed.eq(expected), "{code:?}");
        }
        assert!(
            format!("{:?}", RetryPolicy::default()).contains("{ResourceExhausted, Unavailable}")
        );
    }

    #[test]
    fn a_stream_that_was_reset_counts_as_a_lost_connection_unless_its_code_is_listed() {
        let reset = |code| Failure::new(FailureKind::Reset, Status::new(code, "the peer reset it"));
        for (policy, code, expected) in [
            (RetryPolicy::default(), Code::Internal, Code::Unavailable),
            (RetryPolicy::on([Code::Internal]), Code::Internal, Code::Internal),
            (RetryPolicy::default(), Code::ResourceExhausted, Code::ResourceExhausted),
            (RetryPolicy::on([]), Code::ResourceExhausted, Code::Unavailable),
            (RetryPolicy::default(), Code::Cancelled, Code::Unavailable),
            (RetryPolicy::default(), Code::PermissionDenied, Code::Unavailable),
            (RetryPolicy::on([Code::Cancelled]), Code::Cancelled, Code::Cancelled),
        ] {
            assert_eq!(policy.code_of(&reset(code)), expected, "{policy:?}, {code:?}");
        }
        for (code, expected) in [
            (Code::Internal, Code::Unavailable),
            (Code::Unknown, Code::Unavailable),
            (Code::Unimplemented, Code::Unimplemented),
            (Code::PermissionDenied, Code::PermissionDenied),
        ] {
            let garbage = Failure::new(FailureKind::Malformed, Status::new(code, "no gRPC"));
            assert_eq!(RetryPolicy::default().code_of(&garbage), expected, "{code:?}");
        }
    }
}
