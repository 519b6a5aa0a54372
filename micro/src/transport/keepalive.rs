//! When to send a PING, and when to give a connection up.

use std::time::Duration;

use tokio::time::Instant;

/// PINGs between two HEADERS or DATA of the peer. grpc-go's servers count PINGs that come sooner
/// than five minutes after another, start over when they send HEADERS or DATA (the PING after that
/// counts for nothing), and close the connection at the third they count as too many.
const MOST_PINGS: u8 = 2;

/// Once these are spent, one more for the sake of calls that began after the last of them: a peer
/// that froze while nothing but a quiet stream was open is found out by the next call.
const LAST_PING: u8 = 3;

/// When that is spent too, or no call began, the next PING comes this long after the last, and counts
/// for nothing: five minutes, and a little for the way.
const SLOWLY: Duration = Duration::from_secs(310);

/// The PING rule of one connection, without IO.
///
/// With calls outstanding and no byte for `after`, a PING, as far as the peer bears them; with no
/// byte for `timeout` after that, the connection is dead. Any byte is an answer: a peer that is
/// sending a large message is alive, though its acknowledgement stands in line behind it. No PING
/// without calls.
#[derive(Debug)]
pub(super) struct Keepalive {
    after: Duration,
    timeout: Duration,
    /// When a byte last came.
    heard: Instant,
    /// Since when calls are outstanding.
    busy: Option<Instant>,
    /// When the PING that waits for an answer was sent.
    asked: Option<Instant>,
    /// PINGs since HEADERS or DATA last came, when the last was, and the newest call's stream then.
    pings: u8,
    pinged: Instant,
    pinged_stream: u32,
    /// Since when there is a call that began after the last PING.
    begun: Option<Instant>,
    /// Whether the next PING was put off by [`SLOWLY`].
    is_slow: bool,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing, until something happens.
    Rest,
    /// Ask again then, at the latest.
    Wait(Instant),
    /// Send a PING, then ask again.
    Ping,
    /// Give the connection up.
    Dead,
}

impl Keepalive {
    pub(super) fn new(after: Duration, timeout: Duration, now: Instant) -> Self {
        Self {
            after,
            timeout,
            heard: now,
            busy: None,
            asked: None,
            pings: 0,
            pinged: now,
            pinged_stream: 0,
            begun: None,
            is_slow: false,
        }
    }

    /// Bytes came; `is_progress` if HEADERS or DATA were among them.
    pub(super) fn received(&mut self, now: Instant, is_progress: bool) {
        self.heard = now;
        self.asked = None;
        if is_progress {
            self.pings = 0;
        }
    }

    /// Whether the next step comes sooner than it was said to, since the peer made progress or a
    /// call began, its stream being `newest`. All else only makes it later.
    pub(super) fn is_hastened(&self, newest: u32) -> bool {
        let has_begun = newest != self.pinged_stream;
        self.is_slow && (self.pings < MOST_PINGS || self.pings < LAST_PING && has_begun)
    }

    /// To be asked when calls begin or end to be outstanding, after [`received`](Self::received),
    /// when it [is hastened](Self::is_hastened), and at the time it named. `newest` is the stream of
    /// the call that began last.
    pub(super) fn next(&mut self, now: Instant, has_calls: bool, newest: u32) -> Step {
        self.busy = if has_calls { self.busy.or(Some(now)) } else { None };
        if newest != self.pinged_stream {
            self.begun = self.begun.or(Some(now));
        }
        if let Some(asked) = self.asked {
            let until = asked + self.timeout;
            return if now < until { Step::Wait(until) } else { Step::Dead };
        }
        let Some(busy) = self.busy else {
            return Step::Rest;
        };
        let due = match self.begun {
            _ if self.pings < MOST_PINGS => Some(self.heard.max(busy) + self.after),
            Some(begun) if self.pings < LAST_PING => Some(self.heard.max(begun) + self.after),
            _ => None,
        };
        self.is_slow = due.is_none();
        let due = due.unwrap_or(self.pinged + SLOWLY.max(self.after));
        if now < due {
            return Step::Wait(due);
        }
        self.asked = Some(now);
        self.pings += u8::from(!self.is_slow);
        (self.pinged, self.pinged_stream, self.begun) = (now, newest, None);
        Step::Ping
    }

    /// How long the peer has been silent, for the text of a failure.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.heard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What happens at a time (in milliseconds), and the step then due.
    enum Event {
        /// The machine is asked, with or without calls outstanding.
        Calls(bool),
        /// One more call begins.
        Begins,
        /// Bytes that are neither HEADERS nor DATA, then asked with calls.
        Bytes,
        /// HEADERS or DATA, then asked with calls.
        Progress,
    }
    use Event::*;

    /// Steps with times in milliseconds.
    #[derive(Debug, PartialEq)]
    enum Then {
        Rest,
        Wait(u64),
        Ping,
        Dead,
    }
    use Then::{Dead, Ping, Rest, Wait};

    fn run(table: &[(u64, Event, Then)]) {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut keepalive = Keepalive::new(second, second, start);
        let mut newest = 1;
        for (index, (millis, event, expected)) in table.iter().enumerate() {
            let now = start + Duration::from_millis(*millis);
            let has_calls = match event {
                Calls(has_calls) => *has_calls,
                Begins => {
                    newest += 2;
                    true
                }
                Bytes => {
                    keepalive.received(now, false);
                    true
                }
                Progress => {
                    keepalive.received(now, true);
                    true
                }
            };
            let then = match keepalive.next(now, has_calls, newest) {
                Step::Rest => Rest,
                Step::Wait(until) => Wait((until - start).as_millis().try_into().unwrap()),
                Step::Ping => Ping,
                Step::Dead => Dead,
            };
            assert_eq!(then, *expected, "row {index}");
        }
    }

    #[test]
    fn an_idle_connection_is_never_pinged() {
        run(&[(0, Calls(false), Rest), (60_000, Calls(false), Rest)]);
    }

    #[test]
    fn a_silent_peer_is_dead_two_seconds_after_the_call() {
        run(&[
            (0, Calls(false), Rest),
            (500, Calls(true), Wait(1500)),
            (1499, Calls(true), Wait(1500)),
            (1500, Calls(true), Ping),
            (1500, Calls(true), Wait(2500)),
            (2500, Calls(true), Dead),
        ]);
    }

    #[test]
    fn a_call_after_a_long_pause_has_its_full_second() {
        run(&[
            (0, Calls(true), Wait(1000)),
            (100, Progress, Wait(1100)),
            (1100, Calls(false), Rest),
            (60_000, Calls(true), Wait(61_000)),
            (61_000, Calls(true), Ping),
        ]);
    }

    #[test]
    fn any_byte_puts_the_ping_off() {
        run(&[
            (0, Calls(true), Wait(1000)),
            (900, Bytes, Wait(1900)),
            (1800, Progress, Wait(2800)),
            (2800, Calls(true), Ping),
        ]);
    }

    #[test]
    fn any_byte_answers_a_ping() {
        run(&[
            (0, Calls(true), Wait(1000)),
            (1000, Calls(true), Ping),
            (1999, Bytes, Wait(2999)),
            (2999, Calls(true), Ping),
            (3998, Progress, Wait(4998)),
        ]);
    }

    #[test]
    fn two_pings_are_the_most_until_headers_or_data_come() {
        run(&[
            (0, Calls(true), Wait(1000)),
            (1000, Calls(true), Ping),
            (1001, Bytes, Wait(2001)),
            (2001, Calls(true), Ping),
            (2002, Bytes, Wait(312_001)),
            (60_000, Calls(true), Wait(312_001)),
            (60_001, Calls(false), Rest),
            (60_002, Calls(true), Wait(312_001)),
            (61_000, Progress, Wait(62_000)),
            (62_000, Calls(true), Ping),
        ]);
    }

    #[test]
    fn a_call_that_begins_when_they_are_spent_has_one_more() {
        run(&[
            (0, Calls(true), Wait(1000)),
            (1000, Calls(true), Ping),
            (1001, Bytes, Wait(2001)),
            (2001, Calls(true), Ping),
            (2002, Bytes, Wait(312_001)),
            (60_000, Begins, Wait(61_000)),
            (60_500, Begins, Wait(61_000)),
            (61_000, Calls(true), Ping),
            (61_001, Bytes, Wait(371_000)),
            (62_000, Begins, Wait(371_000)),
        ]);
        run(&[
            (0, Calls(true), Wait(1000)),
            (1000, Calls(true), Ping),
            (1001, Bytes, Wait(2001)),
            (2001, Calls(true), Ping),
            (2002, Bytes, Wait(312_001)),
            (60_000, Begins, Wait(61_000)),
            (60_001, Progress, Wait(61_001)),
            (61_001, Calls(true), Ping),
            (61_002, Bytes, Wait(62_002)),
        ]);
    }

    #[test]
    fn a_quiet_stream_is_asked_after_every_five_minutes() {
        run(&[
            (0, Calls(true), Wait(1000)),
            (1000, Calls(true), Ping),
            (1001, Bytes, Wait(2001)),
            (2001, Calls(true), Ping),
            (2002, Bytes, Wait(312_001)),
            (312_001, Calls(true), Ping),
            (312_002, Bytes, Wait(622_001)),
            (400_000, Begins, Wait(401_000)),
            (401_000, Calls(true), Ping),
            (401_001, Bytes, Wait(711_000)),
            (711_000, Calls(true), Ping),
            (712_000, Calls(true), Dead),
        ]);
    }

    #[test]
    fn an_unanswered_ping_counts_though_the_calls_are_gone() {
        run(&[
            (0, Calls(true), Wait(1000)),
            (1000, Calls(true), Ping),
            (1100, Calls(false), Wait(2000)),
            (2000, Calls(false), Dead),
        ]);
    }

    #[test]
    fn a_late_look_still_asks_before_it_gives_up() {
        run(&[(0, Calls(true), Wait(1000)), (30_000, Calls(true), Ping)]);
    }
}
