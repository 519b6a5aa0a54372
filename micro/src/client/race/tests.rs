use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::client::{budget::Budget, hedge::Delay, policy::Backoff};

const DELAY: Duration = Duration::from_millis(500);

/// The hedgingPolicy of gRFC A6's example.
fn a6(budget: &Arc<Budget>, now: Instant) -> Race {
    a6_until(None, budget, now)
}

fn a6_until(deadline: Option<Instant>, budget: &Arc<Budget>, now: Instant) -> Race {
    let codes = [Code::Unavailable, Code::Internal, Code::Aborted];
    let at_once = Backoff { initial: Duration::ZERO, max: Duration::ZERO, multiplier: 1.0 };
    let others = RetryPolicy { backoff: Some(at_once), ..RetryPolicy::on(codes) };
    let hedging = Hedging {
        delay: Delay::Fixed(DELAY),
        timed: 3,
        others: others.max_attempts(4),
        is_strict: true,
    };
    let mut race = Race::new(hedging, Some(DELAY), 5, Purse::Budget(budget.clone()), deadline);
    race.sent(now);
    race
}

fn a_call_hedged_once(budget: &Arc<Budget>, now: Instant) -> Race {
    let others = RetryPolicy::default();
    let hedging = Hedging { delay: Delay::Fixed(DELAY), timed: 1, others, is_strict: false };
    let mut race = Race::new(hedging, Some(DELAY), 5, Purse::Budget(budget.clone()), None);
    race.sent(now);
    race
}

fn with_pushback(value: &'static str) -> Status {
    let mut status = Status::unavailable("busy");
    status.metadata_mut().insert("grpc-retry-pushback-ms", value.parse().expect("a value"));
    status
}

#[test]
fn without_an_answer_there_is_another_after_each_delay_up_to_the_most() {
    let start = Instant::now();
    let budget = Arc::new(Budget::new(start));
    let mut race = a6(&budget, start);
    for nth in 1..=3 {
        let due = start + DELAY * nth;
        assert_eq!(race.due(), Some(due));
        assert!(race.is_due(due));
        assert_eq!(race.due(), None, "it has no node yet");
        race.sent(due);
        assert_eq!(race.previous_attempts(), nth);
    }
    assert_eq!(race.due(), None);
}

#[test]
fn a_status_that_is_not_fatal_sends_the_next_at_once_and_the_delay_begins_anew() {
    let start = Instant::now();
    let budget = Arc::new(Budget::new(start));
    let mut race = a6(&budget, start);
    let later = start + DELAY / 5;
    let then = race.after_status(&Status::internal("it"), later);
    assert!(matches!(then, Then::Attempt(_)), "{then:?}");
    assert_eq!(race.due(), None, "nobody has it");
    race.sent(later);
    assert_eq!(race.due(), Some(later + DELAY));
}

#[test]
fn any_other_status_ends_the_call() {
    let start = Instant::now();
    let budget = Arc::new(Budget::new(start));
    let mut race = a6(&budget, start);
    assert!(race.is_due(start + DELAY));
    assert_eq!(race.after_status(&Status::not_found("it"), start + DELAY), Then::Fail);
}

#[test]
fn what_a_node_fails_with_does_not_end_the_other_attempt_of_a_call_that_is_hedged_by_itself() {
    let start = Instant::now();
    let budget = Arc::new(Budget::new(start));
    let due = start + DELAY;
    for (status, then) in [
        (Status::internal("it"), Then::Wait),
        (Status::data_loss("it"), Then::Wait),
        (Status::deadline_exceeded("it"), Then::Wait),
        (Status::not_found("it"), Then::Fail),
        (Status::unknown("it"), Then::Fail),
    ] {
        let mut race = a_call_hedged_once(&budget, start);
        assert!(race.is_due(due));
        race.sent(due);
        assert_eq!(race.after_status(&status, due), then, "{status}");
        assert_eq!(race.after_status(&status, due), Then::Fail, "the last");
        let mut alone = a_call_hedged_once(&budget, start);
        assert_eq!(alone.after_status(&status, start), Then::Fail, "{status}");
    }
}

#[test]
fn the_call_fails_when_the_last_one_under_way_has() {
    let start = Instant::now();
    let budget = Arc::new(Budget::new(start));
    let mut race = a6(&budget, start);
    let busy = Status::unavailable("busy");
    for nth in 1..=3 {
        assert!(race.is_due(start + DELAY * nth));
    }
    for _ in 0..3 {
        assert_eq!(race.after_status(&busy, start + DELAY * 4), Then::Wait);
    }
    assert_eq!(race.after_status(&busy, start + DELAY * 4), Then::Fail);
}

#[test]
fn a_server_that_asks_for_no_more_is_sent_no_more_and_others_go_on() {
    let start = Instant::now();
    let budget = Arc::new(Budget::new(start));
    let mut race = a6(&budget, start);
    assert!(race.is_due(start + DELAY));
    assert_eq!(race.after_status(&with_pushback("-1"), start + DELAY), Then::Wait);
    assert_eq!(race.due(), None);
    assert_eq!(race.after_status(&Status::unavailable(""), start + DELAY), Then::Fail);
}

#[test]
fn a_server_that_asks_for_a_pause_is_given_it_and_the_delay_begins_after_that() {
    let start = Instant::now();
    let budget = Arc::new(Budget::new(start));
    let mut race = a6(&budget, start);
    let asked = Duration::from_millis(700);
    assert_eq!(race.after_status(&with_pushback("700"), start), Then::Wait);
    assert_eq!(race.due(), Some(start + asked));
    race.sent(start);
    assert_eq!(race.due(), Some(start + asked), "whatever else is sent");
    assert!(race.is_due(start + asked));
    race.sent(start + asked);
    assert_eq!(race.due(), Some(start + asked + DELAY));
}

#[test]
fn a_pause_that_the_call_would_not_outlive_is_not_begun() {
    let start = Instant::now();
    let budget = Arc::new(Budget::new(start));
    let mut race = a6_until(Some(start + DELAY * 2), &budget, start);
    assert!(race.is_due(start + DELAY));
    race.sent(start + DELAY);
    assert_eq!(
        race.after_status(&with_pushback("700"), start + DELAY),
        Then::Wait,
        "for the other"
    );
    assert_eq!(race.due(), None);
    assert_eq!(race.after_status(&with_pushback("700"), start + DELAY), Then::Fail);
}

#[test]
fn what_no_handler_has_seen_is_replaced_and_not_counted() {
    let start = Instant::now();
    let budget = Arc::new(Budget::new(start));
    while budget.withdraw(start) {}
    let mut race = a6(&budget, start);
    let refused = Failure::unavailable(FailureKind::Refused, "node:1", "gone");
    for nth in 1..=20 {
        let then = race.after_failure(&refused, start);
        match then {
            Then::Attempt(Pause::IfTried(_)) => assert!(nth < 4, "{nth}"),
            Then::Attempt(Pause::Always(_)) => assert!(nth >= 4, "{nth}"),
            _ => panic!("{then:?}"),
        }
        assert_eq!(race.due(), None, "nobody has it");
    }
    assert_eq!(race.previous_attempts(), 0);
}

#[test]
fn without_a_budget_there_is_the_first_alone() {
    let start = Instant::now();
    let budget = Arc::new(Budget::new(start));
    while budget.withdraw(start) {}
    let mut race = a6(&budget, start);
    assert!(!race.is_due(start));
    assert_eq!(race.due(), None);
    assert_eq!(race.after_status(&Status::unavailable("busy"), start), Then::Fail);
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Event {
    Sent,
    Due,
    Busy,
    Lost,
    Refused,
    Nothing,
    NoMore,
    Fatal,
}

fn event() -> impl Strategy<Value = Event> {
    use Event::{Busy, Due, Fatal, Lost, NoMore, Nothing, Refused, Sent};
    prop_oneof![
        16 => prop::sample::select(vec![Sent, Due, Busy, Lost, Refused, Nothing]),
        1 => prop::sample::select(vec![NoMore, Fatal]),
    ]
}

proptest! {
    #[test]
    fn no_sequence_of_events_makes_more_attempts_than_allowed_or_ends_with_one_under_way(
        events in prop::collection::vec(event(), 1..60),
        paid in 0..6_usize,
    ) {
        let mut now = Instant::now();
        let budget = Arc::new(Budget::new(now));
        (0..100 - paid).for_each(|_| assert!(budget.withdraw(now)));
        let mut race = a6(&budget, now);
        let (mut running, mut further, mut is_over) = (1, 0, false);
        for event in events {
            let failure = |kind| Failure::unavailable(kind, "node:1", "gone");
            let then = match event {
                Event::Sent => {
                    if running > 0 {
                        race.sent(now);
                    }
                    continue;
                }
                Event::Due => {
                    let Some(due) = race.due() else { continue };
                    prop_assert!(!is_over, "the server asked for no more");
                    // The budget grows by less than one within them.
                    now = now.max(due.min(now + Duration::from_micros(1)));
                    if race.is_due(now) {
                        (running, further) = (running + 1, further + 1);
                    }
                    Then::Wait
                }
                _ if running == 0 => continue,
                Event::Busy => race.after_status(&Status::unavailable("busy"), now),
                Event::Lost => race.after_failure(&failure(FailureKind::Lost), now),
                Event::Refused => {
                    let then = race.after_failure(&failure(FailureKind::Refused), now);
                    prop_assert!(matches!(then, Then::Attempt(_)), "nobody has seen it");
                    continue;
                }
                Event::Nothing => race.after_nothing(),
                Event::NoMore => {
                    is_over = true;
                    race.after_status(&with_pushback("-1"), now)
                }
                Event::Fatal => {
                    let then = race.after_status(&Status::not_found("it"), now);
                    prop_assert_eq!(then, Then::Fail, "nobody would say otherwise");
                    return Ok(());
                }
            };
            match (event, then) {
                (Event::Due, _) => {}
                (_, Then::Attempt(_)) => {
                    prop_assert!(!is_over, "the server asked for no more");
                    further += 1;
                }
                (_, Then::Wait) => running -= 1,
                (_, Then::Fail) => {
                    prop_assert_eq!(running, 1, "others may yet be answered");
                    return Ok(());
                }
            }
            prop_assert!(further <= 3 && further <= paid, "{further} of {paid}");
            prop_assert_eq!(race.previous_attempts() as usize, further);
        }
    }
}

#[test]
fn a_call_hedged_once_is_tried_again_after_failures_all_the_same() {
    let start = Instant::now();
    let budget = Arc::new(Budget::new(start));
    let mut race = a_call_hedged_once(&budget, start);
    assert!(race.is_due(start + DELAY));
    race.sent(start + DELAY);
    assert_eq!(race.due(), None, "once");
    for _ in 0..3 {
        let then = race.after_status(&Status::unavailable("busy"), start + DELAY);
        assert!(matches!(then, Then::Attempt(_)), "{then:?}");
    }
    assert_eq!(race.after_status(&Status::unavailable("busy"), start + DELAY), Then::Wait);
    assert_eq!(race.after_status(&Status::unavailable("busy"), start + DELAY), Then::Fail);
}
