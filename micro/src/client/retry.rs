//! Whether a failed attempt is followed by another, and when.

use std::{sync::Arc, time::Duration};

use http::HeaderName;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::{
    budget::Budget,
    policy::{RetryPolicy, jittered},
    throttle::Throttle,
};
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
/// but the deadline; and *declared*, after what the call's policy lists, up to its number of
/// attempts and as long as the channel's purse pays. A call has a policy when it was given one, when
/// its method's service config has one, or when its `.proto` gives an `idempotency_level`.
///
/// A call that a GOAWAY for an error has thrown out is retried transparently once, which is what
/// [gRFC A6](https://github.com/grpc/proposal/blob/master/A6-client-retries.md#transparent-retries)
/// grants any call that has reached a peer: if it is what the peer complained of, it would
/// otherwise cost node after node the connection until its deadline.
#[derive(Debug)]
pub(super) struct Retry<'a> {
    policy: Option<RetryPolicy>,
    purse: Purse<'a>,
    attempts_left: u32,
    /// Declared retries so far: `grpc-previous-rpc-attempts`.
    previous: u32,
    /// Pauses by the policy since the call's start, or since the server asked for one.
    backed_off: u32,
    pauses: u32,
    /// Whether a GOAWAY for an error has thrown it out before.
    is_suspect: bool,
    is_unpaid: bool,
}

/// What pays for a channel's declared retries.
#[derive(Debug, Clone)]
pub(super) enum Purse<'a> {
    Budget(&'a Budget),
    /// The service config's `retryThrottling`, which takes the budget's place.
    Throttle(Arc<Throttle>),
}

/// What follows a failed attempt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Another attempt, on a node not tried yet if there is one.
    Attempt,
    /// Another attempt after the time that the server or the policy asks for.
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

impl Purse<'_> {
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

    /// Whether there is another attempt in it, which is then spent.
    pub(super) fn pays(&self, now: Instant) -> bool {
        match self {
            Self::Budget(budget) => budget.withdraw(now),
            Self::Throttle(throttle) => throttle.permits(),
        }
    }
}

impl<'a> Retry<'a> {
    /// A call that begins, with at most so many attempts whatever its policy says.
    pub(super) fn new(policy: Option<RetryPolicy>, max_attempts: u32, purse: Purse<'a>) -> Self {
        purse.called();
        let attempts = policy.map_or(1, |policy| policy.max_attempts.min(max_attempts));
        Self {
            policy,
            purse,
            attempts_left: attempts.saturating_sub(1),
            previous: 0,
            backed_off: 0,
            pauses: 0,
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

    /// The attempt ended without a gRPC status.
    pub(super) fn after_failure(&mut self, failure: &Failure, now: Instant) -> Next {
        let is_suspect = failure.kind() == FailureKind::Suspect;
        let is_suspect_again = is_suspect && std::mem::replace(&mut self.is_suspect, true);
        if failure.is_unprocessed() && !is_suspect_again {
            return Next::Attempt;
        }
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

    /// The pause before an attempt on a node that was tried already.
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
        if !self.purse.pays(now) {
            self.is_unpaid = true;
            return Next::Fail;
        }
        self.attempts_left -= 1;
        self.previous += 1;
        match (pushback, &policy.backoff) {
            (Some(Pushback::After(pause)), _) => {
                self.backed_off = 0;
                Next::AttemptAfter(pause)
            }
            (_, Some(backoff)) => {
                let pause = backoff.pause(self.backed_off);
                self.backed_off += 1;
                Next::AttemptAfter(pause)
            }
            (_, None) => Next::Attempt,
        }
    }
}

/// The pause after `before` others.
pub(super) fn growing_pause(before: &mut u32) -> Duration {
    let longest = FIRST_PAUSE.saturating_mul(1 << (*before).min(16)).min(LONGEST_PAUSE);
    *before += 1;
    jittered(longest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn busy_with_pushback(value: &'static str) -> Status {
        let mut status = Status::unavailable("busy");
        status.metadata_mut().insert("grpc-retry-pushback-ms", value.parse().expect("a value"));
        status
    }

    fn undeclared(budget: &Budget) -> Retry<'_> {
        Retry::new(None, 5, Purse::Budget(budget))
    }

    fn declared(budget: &Budget) -> Retry<'_> {
        Retry::new(Some(RetryPolicy::default()), 5, Purse::Budget(budget))
    }

    #[test]
    fn a_status_is_retried_only_where_the_call_has_a_policy() {
        let now = Instant::now();
        let budget = Budget::new(now);
        let unavailable = Status::unavailable("busy");
        assert_eq!(undeclared(&budget).after_status(&unavailable, now), Next::Fail);
        let mut retry = declared(&budget);
        for _ in 0..4 {
            assert_eq!(retry.after_status(&unavailable, now), Next::Attempt);
        }
        assert_eq!(retry.after_status(&unavailable, now), Next::Fail, "five attempts in all");
        assert_eq!(retry.previous_attempts(), 4);
    }

    #[test]
    fn only_what_the_policy_lists_is_worth_another_attempt() {
        let now = Instant::now();
        let budget = Budget::new(now);
        for status in [Status::not_found(""), Status::internal(""), Status::deadline_exceeded("")] {
            let next = declared(&budget).after_status(&status, now);
            assert_eq!(next, Next::Fail, "{:?}", status.code());
            let policy = RetryPolicy::on([status.code()]);
            let mut retry = Retry::new(Some(policy), 5, Purse::Budget(&budget));
            assert_eq!(retry.after_status(&status, now), Next::Attempt, "{:?}", status.code());
            let next = retry.after_status(&Status::unavailable(""), now);
            assert_eq!(next, Next::Fail, "the policy is all there is");
        }
    }

    #[test]
    fn the_client_bounds_what_a_policy_asks_for() {
        let now = Instant::now();
        let budget = Budget::new(now);
        let unavailable = Status::unavailable("busy");
        for (asked, bound, retries) in [(3, 5, 2), (3, 2, 1), (3, 1, 0), (0, 5, 0), (9, 9, 4)] {
            let policy = RetryPolicy::default().max_attempts(asked);
            let mut retry = Retry::new(Some(policy), bound, Purse::Budget(&budget));
            let attempts =
                (0..).take_while(|_| retry.after_status(&unavailable, now) == Next::Attempt);
            assert_eq!(attempts.count(), retries, "{asked} attempts, at most {bound}");
        }
    }

    #[test]
    fn a_call_is_thrown_out_by_a_goaway_for_an_error_once_and_refused_without_end() {
        let now = Instant::now();
        let budget = Budget::new(now);
        let failure = |kind| Failure::unavailable(kind, "node:1", "gone");
        let (suspect, refused) = (failure(FailureKind::Suspect), failure(FailureKind::Refused));
        let mut retry = undeclared(&budget);
        for _ in 0..200 {
            assert_eq!(retry.after_failure(&refused, now), Next::Attempt, "it costs no budget");
        }
        assert_eq!(retry.after_failure(&suspect, now), Next::Attempt);
        assert_eq!(retry.after_failure(&refused, now), Next::Attempt);
        assert_eq!(retry.after_failure(&suspect, now), Next::Fail, "the second time");

        let mut retry = declared(&budget);
        let attempts = (0..100).take_while(|_| retry.after_failure(&suspect, now) == Next::Attempt);
        assert_eq!(attempts.count(), 5, "one, and then as many as after any failure");
    }

    #[test]
    fn the_servers_pushback_is_honoured() {
        let now = Instant::now();
        let budget = Budget::new(now);
        let next = |value| declared(&budget).after_status(&busy_with_pushback(value), now);
        assert_eq!(next("250"), Next::AttemptAfter(Duration::from_millis(250)));
        assert_eq!(next("0"), Next::AttemptAfter(Duration::ZERO));
        assert_eq!(next("-1"), Next::Fail, "negative: do not retry");
        assert_eq!(next("soon"), Next::Fail, "unreadable: do not retry");
        let mut twice = busy_with_pushback("250");
        twice.metadata_mut().append("grpc-retry-pushback-ms", "250".parse().expect("a value"));
        assert_eq!(declared(&budget).after_status(&twice, now), Next::Fail, "unreadable too");
    }

    #[test]
    fn a_pushback_begins_the_policys_pauses_anew() {
        let now = Instant::now();
        let budget = Budget::new(now);
        let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3600));
        let policy = RetryPolicy::default().backoff(second, hour);
        let mut retry = Retry::new(Some(policy), 5, Purse::Budget(&budget));
        let mut pause = |status: &Status| match retry.after_status(status, now) {
            Next::AttemptAfter(pause) => pause.as_millis(),
            next => panic!("{next:?}"),
        };
        let busy = Status::unavailable("busy");
        assert!((800..=1200).contains(&pause(&busy)));
        assert!((1600..=2400).contains(&pause(&busy)));
        assert_eq!(pause(&busy_with_pushback("7")), 7);
        assert!((800..=1200).contains(&pause(&busy)));
    }

    #[test]
    fn without_a_budget_a_declared_call_fails_and_a_transparent_retry_goes_on() {
        let now = Instant::now();
        let budget = Budget::new(now);
        while budget.withdraw(now) {}
        let mut retry = declared(&budget);
        assert_eq!(retry.after_status(&Status::unavailable("busy"), now), Next::Fail);
        let refused = Failure::unavailable(FailureKind::Refused, "node:1", "gone");
        assert_eq!(retry.after_failure(&refused, now), Next::Attempt);
    }

    #[test]
    fn a_throttle_counts_what_is_worth_another_attempt_and_refusals_of_one() {
        let now = Instant::now();
        let throttle = Arc::new(Throttle::new(4_000, 1_000, None));
        let retry =
            || Retry::new(Some(RetryPolicy::default()), 5, Purse::Throttle(throttle.clone()));
        let busy = Status::unavailable("busy");
        for _ in 0..10 {
            retry().after_status(&Status::not_found("it"), now);
        }
        assert_eq!(retry().after_status(&busy, now), Next::Attempt, "no failures before: 3 of 4");
        assert_eq!(retry().after_status(&busy_with_pushback("-1"), now), Next::Fail);
        retry().succeeded();
        assert_eq!(retry().after_status(&busy, now), Next::Fail, "2 of 4 are not over the half");
        (0..9).for_each(|_| retry().succeeded());
        assert_eq!(retry().after_status(&busy, now), Next::Attempt);
    }

    #[derive(Debug, Clone)]
    enum Event {
        Status(Code, Option<&'static str>),
        Failure(FailureKind),
    }

    fn event() -> impl Strategy<Value = Event> {
        use FailureKind::{Body, Lost, Malformed, NotSent, Refused, Reset, Suspect, TooLarge};
        let code = (1..=16).prop_map(Code::from_i32);
        let pushback = prop::option::of(prop::sample::select(vec!["-1", "0", "70", "x"]));
        let kinds = vec![Body, Lost, Malformed, NotSent, Refused, Reset, Suspect, TooLarge];
        prop_oneof![
            (code, pushback).prop_map(|(code, pushback)| Event::Status(code, pushback)),
            prop::sample::select(kinds).prop_map(Event::Failure),
        ]
    }

    /// What befalls the attempts of one call, and what was declared of it: its attempts, if anything.
    type Befalls = (Vec<Event>, Option<u32>);

    fn befalls() -> impl Strategy<Value = Befalls> {
        (prop::collection::vec(event(), 0..30), prop::option::of(0..9_u32))
    }

    proptest! {
        #[test]
        fn no_sequence_of_failures_sends_twice_what_a_handler_may_have_seen_and_nobody_declared(
            calls in prop::collection::vec(befalls(), 1..12),
            most in 1..6_u32,
            paid in 0..9_usize,
        ) {
            let now = Instant::now();
            let budget = Budget::new(now);
            (0..100 - paid).for_each(|_| assert!(budget.withdraw(now)));
            let (mut begun, mut spent) = (0.0, 0.0);
            for (events, attempts) in calls {
                let policy = attempts.map(|attempts| RetryPolicy::default().max_attempts(attempts));
                let mut retry = Retry::new(policy, most, Purse::Budget(&budget));
                begun += 1.0;
                let (mut declared, mut suspect) = (0, 0);
                for event in events {
                    let (next, is_unseen) = follow(&mut retry, &event, &mut suspect, now);
                    if next == Next::Fail {
                        prop_assert!(!is_unseen, "what nobody has seen goes on");
                        break;
                    }
                    if is_unseen {
                        continue;
                    }
                    let is_refused = matches!(event, Event::Status(_, Some("-1" | "x")));
                    prop_assert!(attempts.is_some() && !is_refused, "sent twice: {event:?}");
                    (declared, spent) = (declared + 1, spent + 1.0);
                    prop_assert_eq!(retry.previous_attempts(), declared);
                    prop_assert!(declared < attempts.unwrap_or(0).min(most));
                    prop_assert!(spent <= paid as f64 + 0.2 * begun + 1e-6, "it is paid for");
                }
            }
        }
    }

    /// What follows an event, and whether no handler can have seen the attempt: at the second GOAWAY for
    /// an error that throws the call out, one passes for having done so.
    fn follow(
        retry: &mut Retry<'_>,
        event: &Event,
        suspect: &mut u32,
        now: Instant,
    ) -> (Next, bool) {
        match *event {
            Event::Status(code, pushback) => {
                let mut status = Status::new(code, "");
                if let Some(pushback) = pushback {
                    let pushback = pushback.parse().expect("a value");
                    status.metadata_mut().insert("grpc-retry-pushback-ms", pushback);
                }
                (retry.after_status(&status, now), false)
            }
            Event::Failure(kind) => {
                *suspect += u32::from(kind == FailureKind::Suspect);
                let is_unseen = match kind {
                    FailureKind::NotSent | FailureKind::Refused => true,
                    FailureKind::Suspect => *suspect == 1,
                    _ => false,
                };
                let failure = Failure::unavailable(kind, "node:1", "gone");
                (retry.after_failure(&failure, now), is_unseen)
            }
        }
    }

    #[test]
    fn pauses_grow_to_a_second() {
        let budget = Budget::new(Instant::now());
        let mut retry = undeclared(&budget);
        let pauses: Vec<_> = (0..12).map(|_| retry.pause()).collect();
        assert!(pauses[0] <= Duration::from_millis(12), "{:?}", pauses[0]);
        assert!(pauses[11] >= Duration::from_millis(800), "{:?}", pauses[11]);
        assert!(pauses.iter().all(|pause| *pause <= Duration::from_millis(1200)));
    }

    #[test]
    fn another_node_may_answer_where_one_is_unavailable_or_exhausted_and_no_differently_else() {
        let now = Instant::now();
        let budget = Budget::new(now);
        for code in (0..=16).map(Code::from_i32) {
            let next = declared(&budget).after_status(&Status::new(code, ""), now);
            let is_tried = matches!(code, Code::Unavailable | Code::ResourceExhausted);
            assert_eq!(next, if is_tried { Next::Attempt } else { Next::Fail }, "{code:?}");
        }
    }

    #[test]
    fn a_stream_that_broke_is_tried_again_where_the_call_is_declared_idempotent() {
        use FailureKind::{Malformed, Reset, TooLarge};
        let now = Instant::now();
        let budget = Budget::new(now);
        for (kind, code, expected) in [
            (Reset, Code::Internal, Next::Attempt),
            (Reset, Code::ResourceExhausted, Next::Attempt),
            (Reset, Code::Cancelled, Next::Fail),
            (Reset, Code::PermissionDenied, Next::Fail),
            (Malformed, Code::Internal, Next::Fail),
            (TooLarge, Code::ResourceExhausted, Next::Fail),
        ] {
            let failure = Failure::new(kind, Status::new(code, ""));
            let next = declared(&budget).after_failure(&failure, now);
            assert_eq!(next, expected, "{kind:?} {code:?}");
            let next = Retry::new(None, 5, Purse::Budget(&budget)).after_failure(&failure, now);
            assert_eq!(next, Next::Fail, "{kind:?} {code:?}");
        }
    }
}
