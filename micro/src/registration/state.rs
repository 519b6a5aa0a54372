//! The machine that keeps a node registered, without IO.

use std::time::Duration;

use tokio::time::Instant;

use super::{LONGEST_TTL, Options, RegistrationState};
use crate::{
    Error,
    backoff::Backoff,
    registry::{Lease, RenewError},
};

/// What happened: the outcome of the [`Work`] asked for, or the wish to leave.
#[derive(Debug)]
pub(super) enum Event {
    /// The wait is over; also the first event of all.
    Elapsed,
    Checked(Result<(), String>),
    Registered(Result<Lease, Error>),
    Renewed(Result<(), RenewError>),
    Deregistered(Result<(), Error>),
    /// The attempt to give an older lease back is over, however it ended.
    Released,
    /// The node shall leave. Whatever was under way was dropped: no `Deregister`, and no `Register`
    /// but where the registry undoes that.
    Leave,
}

/// What is to be done next. One at a time, so that a node's record never has two writers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Work {
    Check,
    Register,
    Renew(Lease),
    Deregister(Lease),
    /// Gives a lease back on which no record hangs any more.
    Release(Lease),
    /// Until then, or until the node leaves.
    Wait(Option<Instant>),
    Done,
}

/// What is worth a log line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// A transition, and what led to it if that is not obvious.
    Entered(RegistrationState, Option<String>),
    /// The first failure since things went well. Those that follow are silent.
    Trouble(String),
    /// Things go well again, in the same state.
    Recovered,
}

/// One node's registration.
#[derive(Debug)]
pub(super) struct State {
    state: RegistrationState,
    interval: Duration,
    /// Where in the interval the first renewal after a registration comes: nodes that were started
    /// together, or have come back together, are not to renew, and find a loss out, together.
    phase: f64,
    /// Whether no round has begun since the last registration.
    is_fresh: bool,
    /// The round in which the record was written last.
    written: Instant,
    has_check: bool,
    /// What the registry calls our entry. Outlives a failed removal, for the next attempt at it, and
    /// the loss of the record, until the next lease is there.
    lease: Option<Lease>,
    /// The registry has said that it only reads.
    read_only: bool,
    backoff: Backoff,
    /// The waits before the record is taken back once more from another process with our id.
    contest: Backoff,
    /// Whether the record was taken since a renewal last found it standing.
    was_taken: bool,
    /// When this round of check and request began: the next one is counted from here, so that slow
    /// answers do not stretch the interval.
    round: Instant,
    /// When the check is due; the rounds of a retry may come more often.
    check_at: Instant,
    /// Whether a failure has been noted since things last went well.
    troubled: bool,
}

impl State {
    /// The `phase` is from 0 to 1, and each node's own.
    pub(super) fn new(
        now: Instant,
        options: &Options,
        backoff: Backoff,
        contest: Backoff,
        phase: f64,
    ) -> Self {
        Self {
            state: RegistrationState::Idle,
            // Nobody waits for longer, and a clock can add it.
            interval: options.interval.min(LONGEST_TTL),
            phase,
            is_fresh: false,
            written: now,
            has_check: options.check.is_some(),
            lease: None,
            read_only: false,
            backoff,
            contest,
            was_taken: false,
            round: now,
            check_at: now,
            troubled: false,
        }
    }

    pub(super) fn handle(&mut self, now: Instant, event: Event) -> (Vec<Note>, Work) {
        let mut notes = Vec::new();
        let work = match event {
            Event::Elapsed => {
                self.round = now;
                self.is_fresh = false;
                if self.has_check && now >= self.check_at {
                    self.check_at = now + self.interval;
                    Work::Check
                } else {
                    self.proceed(&mut notes)
                }
            }
            Event::Checked(Ok(())) => self.proceed(&mut notes),
            Event::Checked(Err(why)) => self.take_out(&why, &mut notes),
            Event::Registered(Ok(lease)) => {
                self.enter(RegistrationState::Registered, None, &mut notes);
                self.is_fresh = true;
                self.written = self.round;
                let wait = self.went_well();
                // Not before: the record that stands is not removed for another to be written.
                self.lease.replace(lease).map_or(wait, Work::Release)
            }
            Event::Registered(Err(error)) if error.is_unsupported() => {
                self.read_only = true;
                self.enter(RegistrationState::ReadOnly, Some(error.to_string()), &mut notes);
                self.went_well()
            }
            Event::Registered(Err(error)) => self.failed(now, &error, &mut notes),
            Event::Renewed(Ok(())) => {
                if self.troubled {
                    notes.push(Note::Recovered);
                }
                // Sooner it says nothing: the other has not had a turn yet.
                if self.round >= self.written + self.interval {
                    self.was_taken = false;
                    self.contest.reset();
                }
                self.went_well()
            }
            Event::Renewed(Err(RenewError::Lost(why))) => {
                self.lose(now, why, &mut notes);
                Work::Register
            }
            Event::Renewed(Err(RenewError::Taken(why))) => {
                self.lose(now, why, &mut notes);
                // Once may be a slip of somebody's hand. Again before a renewal found it standing,
                // and another process has our id: one of the two will hold it for longer and longer.
                if std::mem::replace(&mut self.was_taken, true) {
                    Work::Wait(Some(now + self.contest.next()))
                } else {
                    Work::Register
                }
            }
            Event::Renewed(Err(RenewError::Failed(error))) => self.failed(now, &error, &mut notes),
            Event::Released => self.went_well(),
            Event::Deregistered(outcome) => self.deregistered(outcome, &mut notes),
            Event::Leave => {
                self.enter(RegistrationState::Leaving, None, &mut notes);
                match self.lease {
                    Some(lease) => Work::Deregister(lease),
                    None => self.gone(&mut notes),
                }
            }
        };
        (notes, work)
    }

    /// Whether callers may find the node: by a record of it that may stand, or by other means.
    pub(super) fn is_known(&self) -> bool {
        self.lease.is_some() || self.state == RegistrationState::ReadOnly
    }

    /// The check has passed, or there is none to ask now.
    fn proceed(&mut self, notes: &mut Vec<Note>) -> Work {
        match (self.state, self.lease) {
            (RegistrationState::Registered, Some(lease)) => Work::Renew(lease),
            _ if self.read_only => {
                self.enter(RegistrationState::ReadOnly, None, notes);
                self.went_well()
            }
            _ => {
                self.enter(RegistrationState::Registering, None, notes);
                Work::Register
            }
        }
    }

    /// The record does not stand any more, and is to be written anew.
    fn lose(&mut self, now: Instant, why: String, notes: &mut Vec<Note>) {
        self.backoff.reset();
        self.round = now;
        self.enter(RegistrationState::Lost, Some(why), notes);
        self.enter(RegistrationState::Registering, None, notes);
    }

    /// The check has failed: out, and no attempt to return before it passes.
    fn take_out(&mut self, why: &str, notes: &mut Vec<Note>) -> Work {
        let why = format!("the register check failed: {why}");
        if self.state == RegistrationState::Idle {
            self.trouble(why, notes);
        } else {
            self.backoff.reset();
            self.enter(RegistrationState::Idle, Some(why), notes);
        }
        self.lease.map_or(Work::Wait(Some(self.check_at)), Work::Deregister)
    }

    fn deregistered(&mut self, outcome: Result<(), Error>, notes: &mut Vec<Note>) -> Work {
        match outcome {
            Ok(()) => {
                self.lease = None;
                // The check's failure was noted with the transition.
                self.troubled = true;
            }
            Err(error) => self.trouble(format!("the record goes with its TTL: {error:?}"), notes),
        }
        if self.state == RegistrationState::Leaving {
            return self.gone(notes);
        }
        // A lease that is left is given back when the check has failed again.
        Work::Wait(Some(self.check_at))
    }

    fn went_well(&mut self) -> Work {
        self.backoff.reset();
        self.troubled = false;
        if self.read_only && !self.has_check {
            return Work::Wait(None);
        }
        let mut next = self.round + self.interval;
        if self.is_fresh {
            next = self.round + self.interval.mul_f64(self.phase);
            // The check keeps to the rounds.
            self.check_at = self.check_at.min(next);
        }
        Work::Wait(Some(next))
    }

    fn failed(&mut self, now: Instant, error: &Error, notes: &mut Vec<Note>) -> Work {
        self.trouble(format!("{error:?}; trying on"), notes);
        Work::Wait(Some(now + self.backoff.next()))
    }

    fn trouble(&mut self, why: String, notes: &mut Vec<Note>) {
        if !std::mem::replace(&mut self.troubled, true) {
            notes.push(Note::Trouble(why));
        }
    }

    fn gone(&mut self, notes: &mut Vec<Note>) -> Work {
        self.enter(RegistrationState::Gone, None, notes);
        Work::Done
    }

    fn enter(&mut self, state: RegistrationState, because: Option<String>, notes: &mut Vec<Note>) {
        if std::mem::replace(&mut self.state, state) != state {
            self.troubled = false;
            notes.push(Note::Entered(state, because));
        }
    }
}
