//! Which attempts of a hedged call are made, and when.

use std::time::Duration;

use tokio::time::Instant;
use tonic::{Code, Status};

use super::{
    hedge::Hedging,
    policy::RetryPolicy,
    retry::{Purse, Pushback, Retry, growing_pause, is_shed},
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
    ) -> Self {
        let attempts_left = hedging.others.max_attempts.min(max_attempts).saturating_sub(1);
        Self {
            policy: hedging.others,
            is_strict: hedging.is_strict,
            purse,
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
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::client::{budget::Budget, hedge::Delay, policy::Backoff};

    const DELAY: Duration = Duration::from_millis(500);

    /// The hedgingPolicy of gRFC A6's example.
    fn a6(budget: &Arc<Budget>, now: Instant) -> Race {
        let codes = [Code::Unavailable, Code::Internal, Code::Aborted];
        let at_once = Backoff { initial: Duration::ZERO, max: Duration::ZERO, multiplier: 1.0 };
        let others = RetryPolicy { backoff: Some(at_once), ..RetryPolicy::on(codes) };
        let hedging = Hedging {
            delay: Delay::Fixed(DELAY),
            timed: 3,
            others: others.max_attempts(4),
            is_strict: true,
        };
        let mut race = Race::new(hedging, Some(DELAY), 5, Purse::Budget(budget.clone()));
        race.sent(now);
        race
    }

    fn a_call_hedged_once(budget: &Arc<Budget>, now: Instant) -> Race {
        let others = RetryPolicy::default();
        let hedging = Hedging { delay: Delay::Fixed(DELAY), timed: 1, others, is_strict: false };
        let mut race = Race::new(hedging, Some(DELAY), 5, Purse::Budget(budget.clone()));
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
}
