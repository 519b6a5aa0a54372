//! One node's connection over time, without IO: when to connect.
//!
//! ```text
//! Idle -> Connecting -> Ready -> Draining -> Connecting ..
//!             |  ^        |        (at once, or at the next second)
//!             v  |        v
//!            Backoff <- (closed) -> Connecting
//! ```
//! Draining is the old connection's state: its streams finish on it while the endpoint has no
//! connection to pick and makes the next.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Backoff;

/// The least time between two attempts that do not follow the backoff: an attempt that someone
/// waits for is made at once, but a node that accepts and closes is not dialled in a loop.
pub(super) const AT_ONCE_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Where an endpoint stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Never dialled.
    Idle,
    /// An attempt is under way.
    Connecting,
    /// There is a connection to pick.
    Ready,
    /// The node asked to leave the connection; the next attempt is at this time.
    Draining(Instant),
    /// The last attempt failed or the connection was lost; the next attempt is at this time.
    Backoff(Instant),
}

/// What happened to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// The node is listed, its record was written anew, or a call waits with nothing ready: an
    /// endpoint without a connection makes one at once.
    Wanted,
    /// The attempt succeeded.
    Connected,
    /// The attempt failed.
    Failed,
    /// It was not made: the node was gone when its turn came.
    NotMade,
    /// The node sent GOAWAY on the connection.
    GoAway,
    /// The connection is gone.
    Closed,
    /// Time has passed.
    Tick,
}

/// The state of one endpoint.
#[derive(Debug)]
pub(super) struct EndpointState {
    phase: Phase,
    backoff: Backoff,
    dialled: Option<Instant>,
}

impl EndpointState {
    pub(super) fn new(backoff: Backoff) -> Self {
        Self { phase: Phase::Idle, backoff, dialled: None }
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether there is a connection to pick.
    pub(super) fn is_connected(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// When to send the next [`Event::Tick`].
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        match self.phase {
            Phase::Draining(at) | Phase::Backoff(at) => Some(at),
            Phase::Idle | Phase::Connecting | Phase::Ready => None,
        }
    }

    /// Takes what happened; true means: dial now.
    #[must_use]
    pub(super) fn handle(&mut self, event: Event, now: Instant) -> bool {
        self.note(event, now);
        let due = self.wakes_at().is_some_and(|at| at <= now);
        if due {
            self.phase = Phase::Connecting;
            self.dialled = Some(now);
        }
        due
    }

    /// Takes what happened to a node that is not to be dialled.
    pub(super) fn note(&mut self, event: Event, now: Instant) {
        let soon = self.dialled.map_or(now, |dialled| now.max(dialled + AT_ONCE_AGAIN_AFTER));
        self.phase = match (event, self.phase) {
            (Event::Wanted, Phase::Idle) => Phase::Backoff(soon),
            (Event::Wanted, Phase::Backoff(at)) => Phase::Backoff(at.min(soon)),
            (Event::Connected, Phase::Connecting) => {
                self.backoff.reset();
                Phase::Ready
            }
            (Event::Failed, Phase::Connecting) => Phase::Backoff(now + self.backoff.next()),
            (Event::NotMade, Phase::Connecting) => Phase::Idle,
            (Event::GoAway, Phase::Ready) => Phase::Draining(soon),
            (Event::Closed, Phase::Ready) => Phase::Backoff(soon),
            (_, phase) => phase,
        };
    }

    /// Until when an endpoint made anew would dial sooner than this one.
    pub(super) fn rests_until(&self) -> Option<Instant> {
        self.wakes_at().max(self.dialled.map(|dialled| dialled + AT_ONCE_AGAIN_AFTER))
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;
    use proptest::prelude::*;

    use super::{Event::*, *};

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    fn endpoint() -> EndpointState {
        EndpointState::new(Backoff::connect().with_rng(Rng::with_seed(7)))
    }

    /// Runs events at milliseconds; a row says whether it dials and when it then wakes at the
    /// earliest and the latest (`None`: not by itself).
    type Row = (u64, Event, bool, Option<(u64, u64)>);

    fn run(rows: &[Row]) {
        let start = Instant::now();
        let mut endpoint = endpoint();
        for (index, &(ms, event, dials, wakes)) in rows.iter().enumerate() {
            assert_eq!(
                endpoint.handle(event, at(start, ms)),
                dials,
                "row {index}, {event:?}: dials? now {:?}",
                endpoint.phase()
            );
            match (endpoint.wakes_at(), wakes) {
                (None, None) => {}
                (Some(woken), Some((least, most))) => assert!(
                    at(start, least) <= woken && woken <= at(start, most),
                    "row {index}, {event:?}: wakes after {:?}, not {least}..{most} ms",
                    woken - start
                ),
                (woken, _) => panic!("row {index}, {event:?}: wakes at {woken:?}, not {wakes:?}"),
            }
        }
    }

    #[test]
    fn a_listed_node_is_dialled_at_once_and_only_once() {
        run(&[
            (0, Wanted, true, None),
            (1, Wanted, false, None),
            (2, Tick, false, None),
            (9, Connected, false, None),
            (10, Wanted, false, None),
        ]);
    }

    #[test]
    fn an_attempt_that_was_not_made_is_no_failure() {
        run(&[
            (0, Wanted, true, None),
            (300, NotMade, false, None),
            (400, Wanted, false, Some((1000, 1000))),
            (1000, Tick, true, None),
            (1000, Failed, false, Some((1160, 1240))),
        ]);
    }

    #[test]
    fn failures_back_off_from_200_ms_by_1_6_within_a_fifth() {
        run(&[
            (0, Wanted, true, None),
            (10, Failed, false, Some((170, 250))),
            (169, Tick, false, Some((170, 250))),
            (250, Tick, true, None),
            (250, Failed, false, Some((506, 634))),
            (634, Tick, true, None),
            (634, Failed, false, Some((1043, 1249))),
        ]);
    }

    #[test]
    fn the_backoff_ends_at_five_seconds_and_starts_over_after_a_success() {
        let start = Instant::now();
        let mut endpoint = endpoint();
        let mut now = start;
        assert!(endpoint.handle(Wanted, now));
        for _ in 0..20 {
            assert!(!endpoint.handle(Failed, now));
            let wait = endpoint.wakes_at().expect("backs off") - now;
            assert!(wait <= Duration::from_secs(6), "5 s and a fifth at most: {wait:?}");
            now += wait;
            assert!(endpoint.handle(Tick, now), "the wait is over");
        }
        assert!(!endpoint.handle(Connected, now));
        now += Duration::from_secs(60);
        assert!(endpoint.handle(Closed, now));
        assert!(!endpoint.handle(Failed, now));
        let wait = endpoint.wakes_at().expect("backs off") - now;
        assert!(wait <= Duration::from_millis(240), "the first wait again: {wait:?}");
    }

    #[test]
    fn a_lost_connection_is_made_again_at_once_but_once_a_second() {
        run(&[
            (0, Wanted, true, None),
            (5, Connected, false, None),
            (400, Closed, false, Some((1000, 1000))),
            (1000, Tick, true, None),
            (1005, Connected, false, None),
            (9000, Closed, true, None),
        ]);
    }

    #[test]
    fn goaway_drains_and_connects_anew_at_once_but_once_a_second() {
        run(&[
            (0, Wanted, true, None),
            (5, Connected, false, None),
            (400, GoAway, false, Some((1000, 1000))),
            (500, Closed, false, Some((1000, 1000))),
            (1000, Tick, true, None),
            (1005, Connected, false, None),
            (5000, GoAway, true, None),
            // The old connection closes when its streams have finished: no news.
            (5001, Closed, false, None),
        ]);
    }

    #[test]
    fn a_waiting_call_cuts_a_long_backoff_short_but_dials_once_a_second() {
        run(&[
            (0, Wanted, true, None),
            (0, Failed, false, Some((160, 240))),
            (240, Tick, true, None),
            (240, Failed, false, Some((496, 624))),
            (624, Tick, true, None),
            (624, Failed, false, Some((1033, 1239))),
            (1239, Tick, true, None),
            (1239, Failed, false, Some((1894, 2223))),
            (2223, Tick, true, None),
            (2300, Failed, false, Some((3348, 3873))),
            (2400, Wanted, false, Some((3223, 3223))),
            (3223, Tick, true, None),
            (3300, Failed, false, Some((4977, 5817))),
            (4400, Wanted, true, None),
        ]);
    }

    /// An event, and how long after the one before.
    fn happening() -> impl Strategy<Value = (Event, Duration)> {
        let event =
            prop::sample::select(vec![Wanted, Connected, Failed, NotMade, GoAway, Closed, Tick]);
        (event, prop_oneof![0..50_u64, 0..8_000_u64].prop_map(Duration::from_millis))
    }

    proptest! {
        #[test]
        fn no_sequence_of_events_dials_twice_at_once_or_too_soon_or_never_again(
            happenings in prop::collection::vec(happening(), 1..150),
            seed: u64,
        ) {
            let first = Duration::from_millis(200);
            let backoff = Backoff::connect().with_rng(Rng::with_seed(seed));
            let (mut endpoint, mut now) = (EndpointState::new(backoff), Instant::now());
            // What is known without it.
            let (mut is_wanted, mut is_dialling, mut is_connected) = (false, false, false);
            let (mut ceiling, mut dialled, mut backed_off) = (first, None, None);
            for (event, later) in happenings {
                now += later;
                match event {
                    Wanted => is_wanted = true,
                    Connected if is_dialling => {
                        (is_dialling, is_connected, ceiling) = (false, true, first);
                    }
                    Failed if is_dialling => {
                        is_dialling = false;
                        backed_off = Some(now + ceiling.mul_f64(0.8));
                        ceiling = ceiling.mul_f64(1.6).min(Duration::from_secs(5));
                    }
                    GoAway | Closed => is_connected = false,
                    // Who is listed again wants it again.
                    NotMade if is_dialling => (is_dialling, is_wanted) = (false, false),
                    Connected | Failed | NotMade | Tick => {}
                }
                let soon = dialled.map(|at| at + AT_ONCE_AGAIN_AFTER);
                if endpoint.handle(event, now) {
                    prop_assert!(is_wanted && !is_dialling && !is_connected, "one at a time");
                    let earliest = soon.into_iter().chain(backed_off).min();
                    prop_assert!(earliest.is_none_or(|at| at <= now), "too soon");
                    (is_dialling, dialled, backed_off) = (true, Some(now), None);
                }
                prop_assert_eq!(endpoint.phase() == Phase::Ready, is_connected);
                let rests = !is_wanted || is_dialling || is_connected;
                prop_assert_eq!(endpoint.wakes_at().is_none(), rests);
                if let Some(at) = endpoint.wakes_at() {
                    prop_assert!(now < at && at <= now + Duration::from_secs(6));
                    prop_assert!(event != Wanted || Some(at) <= soon, "someone waits for it");
                }
            }
            if let Some(at) = endpoint.wakes_at() {
                prop_assert!(endpoint.handle(Tick, at), "it wakes for that");
            }
        }
    }

    #[test]
    fn events_that_do_not_fit_the_phase_change_nothing() {
        for event in [Connected, Failed, NotMade, GoAway, Closed, Tick] {
            let mut endpoint = endpoint();
            assert!(!endpoint.handle(event, Instant::now()), "{event:?} on an idle endpoint");
            assert_eq!(endpoint.phase(), Phase::Idle);
        }
    }
}
