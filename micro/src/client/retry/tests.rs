use proptest::prelude::*;

use super::*;

fn busy_with_pushback(value: &'static str) -> Status {
    let mut status = Status::unavailable("busy");
    status.metadata_mut().insert("grpc-retry-pushback-ms", value.parse().expect("a value"));
    status
}

fn undeclared(budget: &Arc<Budget>) -> Retry {
    Retry::new(None, 5, Purse::Budget(budget.clone()), None)
}

fn declared(budget: &Arc<Budget>) -> Retry {
    Retry::new(Some(RetryPolicy::default()), 5, Purse::Budget(budget.clone()), None)
}

#[test]
fn a_status_is_retried_only_where_the_call_has_a_policy() {
    let now = Instant::now();
    let budget = Arc::new(Budget::new(now));
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
    let budget = Arc::new(Budget::new(now));
    for status in [Status::not_found(""), Status::internal(""), Status::deadline_exceeded("")] {
        let next = declared(&budget).after_status(&status, now);
        assert_eq!(next, Next::Fail, "{:?}", status.code());
        let policy = RetryPolicy::on([status.code()]);
        let mut retry = Retry::new(Some(policy), 5, Purse::Budget(budget.clone()), None);
        assert_eq!(retry.after_status(&status, now), Next::Attempt, "{:?}", status.code());
        let next = retry.after_status(&Status::unavailable(""), now);
        assert_eq!(next, Next::Fail, "the policy is all there is");
    }
}

#[test]
fn the_client_bounds_what_a_policy_asks_for() {
    let now = Instant::now();
    let budget = Arc::new(Budget::new(now));
    let unavailable = Status::unavailable("busy");
    for (asked, bound, retries) in [(3, 5, 2), (3, 2, 1), (3, 1, 0), (0, 5, 0), (9, 9, 4)] {
        let policy = RetryPolicy::default().max_attempts(asked);
        let mut retry = Retry::new(Some(policy), bound, Purse::Budget(budget.clone()), None);
        let attempts = (0..).take_while(|_| retry.after_status(&unavailable, now) == Next::Attempt);
        assert_eq!(attempts.count(), retries, "{asked} attempts, at most {bound}");
    }
}

#[test]
fn a_call_is_thrown_out_by_a_goaway_for_an_error_once_and_left_behind_without_end() {
    let now = Instant::now();
    let budget = Arc::new(Budget::new(now));
    let failure = |kind| Failure::unavailable(kind, "node:1", "gone");
    let (suspect, left) = (failure(FailureKind::Suspect), failure(FailureKind::LeftBehind));
    let mut retry = undeclared(&budget);
    for _ in 0..200 {
        assert_eq!(retry.after_failure(&left, now), Next::Attempt, "it costs no budget");
    }
    assert_eq!(retry.after_failure(&suspect, now), Next::Attempt);
    assert_eq!(retry.after_failure(&left, now), Next::Attempt);
    assert_eq!(retry.after_failure(&suspect, now), Next::Fail, "the second time");

    let mut retry = declared(&budget);
    let attempts = (0..100).take_while(|_| retry.after_failure(&suspect, now) == Next::Attempt);
    assert_eq!(attempts.count(), 5, "one, and then as many as after any failure");
}

#[test]
fn a_call_that_is_refused_pauses_from_the_fourth_time_on_whichever_node_is_next() {
    let now = Instant::now();
    let budget = Arc::new(Budget::new(now));
    let failure = |kind| Failure::unavailable(kind, "node:1", "gone");
    let mut retry = undeclared(&budget);
    let mut waited = Duration::ZERO;
    for nth in 1..=200 {
        for kind in [FailureKind::NotSent, FailureKind::LeftBehind] {
            assert_eq!(retry.after_failure(&failure(kind), now), Next::Attempt, "{kind:?}");
        }
        match retry.after_failure(&failure(FailureKind::Refused), now) {
            Next::Attempt => assert!(nth < 4, "{nth}"),
            Next::AttemptAfter(pause) => {
                assert!(nth >= 4, "{nth}");
                waited += pause;
            }
            Next::Fail => panic!("the {nth}th time"),
        }
        let is_over = waited >= Duration::from_secs(5);
        assert!(is_over || nth < 18, "a dozen and a few within five seconds");
        assert!(!is_over || nth > 12);
    }
}

#[test]
fn the_servers_pushback_is_honoured() {
    let now = Instant::now();
    let budget = Arc::new(Budget::new(now));
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
fn a_pause_that_the_call_would_not_outlive_is_neither_slept_nor_paid_for() {
    let now = Instant::now();
    let budget = Arc::new(Budget::new(now));
    let second = Duration::from_secs(1);
    let ten = RetryPolicy::default().backoff(second * 10, second * 10);
    for (policy, status) in [
        (RetryPolicy::default(), busy_with_pushback("1000")),
        (RetryPolicy::default(), busy_with_pushback("60000")),
        (ten, Status::unavailable("busy")),
    ] {
        let purse = Purse::Budget(budget.clone());
        let mut retry = Retry::new(Some(policy), 5, purse, Some(now + second));
        let before = budget.left(now);
        assert_eq!(retry.after_status(&status, now), Next::Fail);
        assert_eq!((retry.previous_attempts(), retry.is_unpaid()), (0, false));
        assert!((budget.left(now) - before).abs() < 0.01, "{} of {before}", budget.left(now));
        let next = retry.after_status(&busy_with_pushback("999"), now);
        assert_eq!(next, Next::AttemptAfter(Duration::from_millis(999)));
    }
}

#[test]
fn a_pushback_begins_the_policys_pauses_anew() {
    let now = Instant::now();
    let budget = Arc::new(Budget::new(now));
    let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3600));
    let policy = RetryPolicy::default().backoff(second, hour);
    let mut retry = Retry::new(Some(policy), 5, Purse::Budget(budget.clone()), None);
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
    let budget = Arc::new(Budget::new(now));
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
        || Retry::new(Some(RetryPolicy::default()), 5, Purse::Throttle(throttle.clone()), None);
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
    /// After its response had begun.
    Broken(FailureKind),
}

fn event() -> impl Strategy<Value = Event> {
    use FailureKind::{
        Body, LeftBehind, Lost, Malformed, NotSent, Refused, Reset, Suspect, TooLarge,
    };
    let code = (1..=16).prop_map(Code::from_i32);
    let pushback = prop::option::of(prop::sample::select(vec!["-1", "0", "70", "x"]));
    let kinds = vec![Body, LeftBehind, Lost, Malformed, NotSent, Refused, Reset, Suspect, TooLarge];
    prop_oneof![
        (code, pushback).prop_map(|(code, pushback)| Event::Status(code, pushback)),
        prop::sample::select(kinds.clone()).prop_map(Event::Failure),
        prop::sample::select(kinds).prop_map(Event::Broken),
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
        let budget = Arc::new(Budget::new(now));
        (0..100 - paid).for_each(|_| assert!(budget.withdraw(now)));
        let (mut begun, mut spent) = (0.0, 0.0);
        for (events, attempts) in calls {
            let policy = attempts.map(|attempts| RetryPolicy::default().max_attempts(attempts));
            let mut retry = Retry::new(policy, most, Purse::Budget(budget.clone()), None);
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
fn follow(retry: &mut Retry, event: &Event, suspect: &mut u32, now: Instant) -> (Next, bool) {
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
                FailureKind::NotSent | FailureKind::Refused | FailureKind::LeftBehind => true,
                FailureKind::Suspect => *suspect == 1,
                _ => false,
            };
            let failure = Failure::unavailable(kind, "node:1", "gone");
            (retry.after_failure(&failure, now), is_unseen)
        }
        Event::Broken(kind) => {
            let failure = Failure::unavailable(kind, "node:1", "gone");
            (retry.after_broken(&failure, now), false)
        }
    }
}

#[test]
fn pauses_grow_to_a_second() {
    let budget = Arc::new(Budget::new(Instant::now()));
    let mut retry = undeclared(&budget);
    let pauses: Vec<_> = (0..12).map(|_| retry.pause()).collect();
    assert!(pauses[0] <= Duration::from_millis(12), "{:?}", pauses[0]);
    assert!(pauses[11] >= Duration::from_millis(800), "{:?}", pauses[11]);
    assert!(pauses.iter().all(|pause| *pause <= Duration::from_millis(1200)));
}

#[test]
fn another_node_may_answer_where_one_is_unavailable_or_exhausted_and_no_differently_else() {
    let now = Instant::now();
    let budget = Arc::new(Budget::new(now));
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
    let budget = Arc::new(Budget::new(now));
    for (kind, code, expected) in [
        (Reset, Code::Internal, Next::Attempt),
        (Reset, Code::ResourceExhausted, Next::Attempt),
        (Reset, Code::Cancelled, Next::Attempt),
        (Reset, Code::PermissionDenied, Next::Attempt),
        (Malformed, Code::Internal, Next::Attempt),
        (Malformed, Code::Unimplemented, Next::Fail),
        (TooLarge, Code::ResourceExhausted, Next::Fail),
    ] {
        let failure = Failure::new(kind, Status::new(code, ""));
        let next = declared(&budget).after_failure(&failure, now);
        assert_eq!(next, expected, "{kind:?} {code:?}");
        let next =
            Retry::new(None, 5, Purse::Budget(budget.clone()), None).after_failure(&failure, now);
        assert_eq!(next, Next::Fail, "{kind:?} {code:?}");
    }
}
