//! The machine that keeps up with a registry, without IO.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use tokio::time::Instant;

use super::{
    Status, Update,
    records::{Changes, Records},
};
use crate::{
    Error,
    backoff::Backoff,
    metrics::Found,
    registry::{self, Batch, Entry, Listing, Malformed, Node, WatchError},
};

/// How often all is read again though the watch says nothing is wrong, give or take a fifth.
const REREAD: Duration = Duration::from_secs(5 * 60);

/// How often all is read again since a node cannot be reached, at most.
const DOUBTED: Duration = Duration::from_secs(1);

/// Changes held beside a read under way. With more the read is given up, and begun anew later.
const MOST_HELD: usize = 4096;

/// The ceilings of the waits between attempts. A watch that lived longer than the last was well.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(3);

/// What happened.
#[derive(Debug)]
pub(super) enum Event {
    /// [`State::wake_at`] has come; also the first event of all.
    Elapsed,
    /// The read asked for last has come to an end.
    Read(Result<Listing, Error>),
    /// The watch asked for last brought this.
    Watched(Result<Batch, WatchError>),
    /// What the registry had when it was last heard of, and how long ago that was: from the cache.
    Remembered(Vec<Arc<Node>>, Duration),
    /// A node that is listed was not to be reached, and the registry tells of no change unasked.
    Doubted,
}

/// What is to be done. Each replaces what it asked for before.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    Read,
    Watch {
        after: u64,
    },
    /// No more of either, also of what is under way.
    Rest,
}

/// What is worth a log line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// The first record under its key that cannot be decoded.
    Malformed(Malformed),
    /// The first failure since things went well. Those that follow are silent.
    Trouble(Arc<str>),
    /// The nodes are those of the cache.
    Remembered,
    /// The nodes are given up.
    GivenUp(Arc<str>),
    /// The first success after that.
    Recovered,
    /// The registry cannot hold the service's name: the last note of all.
    Refused(Arc<str>),
    /// The set of nodes is another one.
    Changed(Changes),
}

/// What follows from an event.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) action: Option<Action>,
    pub(super) updates: Vec<Update>,
    pub(super) notes: Vec<Note>,
}

/// One service's place in its registry.
#[derive(Debug)]
pub(super) struct State {
    records: Records,
    /// The last revision seen, from a read or from the watch.
    seen: u64,
    synced: bool,
    error: Option<Arc<str>>,
    refused: bool,
    /// Since when the registry's word is not to be had.
    stale: Option<Instant>,
    /// How long that may last.
    max_stale: Option<Duration>,
    /// Whether it has lasted too long, and all nodes were given up.
    forgotten: bool,
    /// What the cache has, until it is needed or the registry answers.
    remembered: Option<(Vec<Arc<Node>>, Instant)>,
    reading: Option<Reading>,
    /// When the last read began.
    read_began: Option<Instant>,
    /// Since when the watch has been on.
    watching: Option<Instant>,
    read_at: Option<Instant>,
    watch_at: Option<Instant>,
    backoff: Backoff,
    rng: Rng,
    trouble: Trouble,
}

/// A read under way, beside which the watch goes on.
#[derive(Debug)]
struct Reading {
    /// A listing older than this was written by a registry that has lost its history.
    seen_before: u64,
    /// What the watch brought meanwhile: the listing may be from before it.
    held: Vec<Batch>,
    /// The revision of the last [`Reset`](registry::Event::Reset) that it brought. It held the place
    /// of all before it, and it holds that of a listing that is older.
    reset: Option<u64>,
}

impl Reading {
    /// Takes in what the watch brought; false when that has become too much.
    fn hold(&mut self, batch: &Batch) -> bool {
        if batch.events.iter().any(|event| matches!(event, registry::Event::Reset(_))) {
            self.held.clear();
            self.reset = Some(batch.revision);
            return true;
        }
        self.held.push(batch.clone());
        self.held.iter().map(|batch| batch.events.len().max(1)).sum::<usize>() <= MOST_HELD
    }

    /// Whether all that stood at a later revision than this one is known already.
    fn is_overtaken(&self, revision: u64) -> bool {
        revision >= self.seen_before && self.reset.is_some_and(|reset| reset > revision)
    }
}

/// How much of a failure has been noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    Noted,
    /// A read has succeeded since, and no watch has held yet.
    Over,
}

impl State {
    pub(super) fn new(now: Instant, max_stale: Option<Duration>, mut rng: Rng) -> Self {
        let backoff = Backoff::full_jitter(FIRST_RETRY, LAST_RETRY).with_rng(rng.fork());
        Self {
            records: Records::default(),
            seen: 0,
            synced: false,
            error: None,
            refused: false,
            stale: None,
            max_stale,
            forgotten: false,
            remembered: None,
            reading: None,
            read_began: None,
            watching: None,
            read_at: Some(now),
            watch_at: None,
            backoff,
            rng,
            trouble: Trouble::None,
        }
    }

    pub(super) fn handle(&mut self, now: Instant, event: Event) -> Step {
        let mut step = Step::default();
        match event {
            Event::Elapsed => {
                self.give_up_if_too_stale(now, &mut step);
                step.action = self.elapsed(now);
            }
            Event::Remembered(nodes, age) if !self.synced && !nodes.is_empty() => {
                let then = now.checked_sub(age).unwrap_or(now);
                self.remembered = Some((nodes, then));
                if self.error.is_some() {
                    self.remember(&mut step);
                }
            }
            Event::Remembered(..) => {}
            Event::Read(outcome) => {
                // Without a place to put it, it is the answer to a question withdrawn.
                if let Some(reading) = self.reading.take() {
                    match outcome {
                        Ok(listing) => self.listed(now, reading, listing, &mut step),
                        Err(error) if error.is_config() => self.refused(now, &error, &mut step),
                        Err(error) => {
                            self.failed(now, &error, &mut step);
                            self.read_at = Some(now + self.backoff.next());
                        }
                    }
                }
            }
            Event::Watched(outcome) => {
                if let Some(since) = self.watching {
                    match outcome {
                        Ok(batch) if batch.revision >= self.seen => {
                            self.changed(now, batch, &mut step);
                        }
                        // The revision went back.
                        Ok(_) => self.broken(now, since, &WatchError::Compacted, &mut step),
                        Err(error) => self.broken(now, since, &error, &mut step),
                    }
                }
            }
            Event::Doubted => self.doubted(now),
        }
        step
    }

    /// When to hand in [`Event::Elapsed`]; never while there is only an answer to wait for.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        [self.read_at, self.watch_at, self.gives_up_at()].into_iter().flatten().min()
    }

    /// When the nodes are too old to be called, unless the registry answers.
    fn gives_up_at(&self) -> Option<Instant> {
        let known = !self.forgotten && !self.refused;
        self.stale.filter(|_| known)?.checked_add(self.max_stale?)
    }

    fn give_up_if_too_stale(&mut self, now: Instant, step: &mut Step) {
        if self.gives_up_at().is_none_or(|at| now < at) {
            return;
        }
        self.forgotten = true;
        self.remembered = None;
        self.records.replace(Listing::default());
        let (_, changes) = self.records.settle();
        step.updates = vec![Update::Forget];
        let max_stale = self.max_stale.unwrap_or_default();
        let last = self.error.as_deref().unwrap_or("it is silent");
        let error: Arc<str> = format!(
            "the registry's nodes were given up: it has not answered for {max_stale:?}, its \
             max_stale: {last}"
        )
        .into();
        step.notes.push(Note::GivenUp(error.clone()));
        step.notes.extend(changes.map(Note::Changed));
        self.error = Some(error);
    }

    /// Calls the nodes of the cache into being, for want of the registry's own word.
    fn remember(&mut self, step: &mut Step) {
        let Some((nodes, then)) = self.remembered.take() else {
            return;
        };
        self.stale = Some(then);
        let entries = nodes.into_iter().map(|node| Entry {
            // No registry's, so that its own records take their place.
            key: format!("cache/{}", node.id),
            revision: 0,
            rank: 0,
            node,
        });
        self.records.replace(Listing { entries: entries.collect(), ..Listing::default() });
        let (_, changes) = self.records.settle();
        step.notes.push(Note::Remembered);
        step.notes.extend(changes.map(Note::Changed));
        step.updates = vec![Update::Reset(self.records.nodes())];
    }

    pub(super) fn status(&self) -> Status {
        Status {
            synced: self.synced,
            error: self.error.clone(),
            refused: self.refused,
            stale: self.stale,
            revision: self.seen,
            malformed: self.records.malformed(),
            not_grpc: self.records.not_grpc(),
        }
    }

    /// How it stands, in numbers.
    pub(super) fn found(&self) -> Found {
        Found {
            revision: self.seen,
            nodes: self.records.len(),
            synced: self.synced,
            stale: self.stale,
            malformed: self.records.malformed(),
            not_grpc: self.records.not_grpc(),
        }
    }

    /// All nodes, if they are what the registry has now.
    pub(super) fn confirmed(&self) -> Option<Vec<Arc<Node>>> {
        (self.synced && self.stale.is_none()).then(|| self.records.nodes())
    }

    fn elapsed(&mut self, now: Instant) -> Option<Action> {
        let due = |at: &mut Option<Instant>| at.take_if(|at| *at <= now).is_some();
        if due(&mut self.read_at) {
            self.read_began = Some(now);
            self.reading = Some(Reading { seen_before: self.seen, held: Vec::new(), reset: None });
            return Some(Action::Read);
        }
        due(&mut self.watch_at).then(|| self.watch(now))
    }

    fn doubted(&mut self, now: Instant) {
        // Of a read under way it is not known whether it was answered before or after; if the node
        // stays away, the next attempt to connect to it doubts again.
        if self.refused || self.reading.is_some() {
            return;
        }
        let at = self.read_began.map_or(now, |began| now.max(began + DOUBTED));
        self.read_at = Some(self.read_at.map_or(at, |planned| planned.min(at)));
    }

    fn watch(&mut self, now: Instant) -> Action {
        self.watch_at = None;
        self.watching = Some(now);
        Action::Watch { after: self.seen }
    }

    fn listed(&mut self, now: Instant, reading: Reading, listing: Listing, step: &mut Step) {
        if !reading.is_overtaken(listing.revision) {
            self.replace(reading, listing, step);
        }
        self.settle(step);
        if !std::mem::replace(&mut self.synced, true) {
            step.updates = vec![Update::Reset(self.records.nodes())];
        }
        self.error = None;
        self.stale = None;
        self.forgotten = false;
        self.remembered = None;
        if self.trouble == Trouble::Noted {
            self.trouble = Trouble::Over;
            step.notes.push(Note::Recovered);
        }
        self.read_at = Some(now + REREAD.mul_f64(0.8 + 0.4 * self.rng.f64()));
        // Anew even if one is on: it may be one of those that have died without a word.
        step.action = Some(self.watch(now));
    }

    fn replace(&mut self, reading: Reading, listing: Listing, step: &mut Step) {
        let revision = listing.revision;
        let mut malformed = self.records.replace(listing);
        self.seen = revision;
        if revision >= reading.seen_before {
            for batch in reading.held.into_iter().filter(|batch| batch.revision > revision) {
                self.seen = batch.revision;
                malformed.extend(batch.events.into_iter().flat_map(|it| self.records.apply(it)));
            }
        }
        step.notes.extend(malformed.into_iter().map(Note::Malformed));
    }

    fn changed(&mut self, now: Instant, batch: Batch, step: &mut Step) {
        if self.reading.as_mut().is_some_and(|reading| !reading.hold(&batch)) {
            self.reading = None;
            self.read_at = Some(now + LAST_RETRY);
        }
        self.seen = batch.revision;
        let malformed = batch.events.into_iter().flat_map(|event| self.records.apply(event));
        step.notes.extend(malformed.map(Note::Malformed));
        self.settle(step);
        self.well();
    }

    fn settle(&mut self, step: &mut Step) {
        let (updates, changes) = self.records.settle();
        step.updates = updates;
        step.notes.extend(changes.map(Note::Changed));
    }

    fn broken(&mut self, now: Instant, since: Instant, error: &WatchError, step: &mut Step) {
        self.watching = None;
        if now - since > LAST_RETRY {
            self.well();
        }
        if let WatchError::Disconnected(error) = error {
            self.failed(now, error, step);
        }
        let retry = Some(now + self.backoff.next());
        match error {
            WatchError::Ended => self.watch_at = retry,
            WatchError::Compacted | WatchError::Disconnected(_) => {
                // A read under way may have been answered from before.
                self.reading = None;
                self.watch_at = None;
                self.read_at = retry;
            }
        }
    }

    fn failed(&mut self, now: Instant, error: &Error, step: &mut Step) {
        let error: Arc<str> = format!("{error:?}").into();
        if self.trouble == Trouble::None {
            self.trouble = Trouble::Noted;
            step.notes.push(Note::Trouble(error.clone()));
        }
        // What was given up is said until the registry answers.
        if !self.forgotten {
            self.error = Some(error);
        }
        self.stale.get_or_insert(now);
        if !self.synced {
            self.remember(step);
        }
    }

    /// Nothing that time could heal: neither reads nor watches any more.
    fn refused(&mut self, now: Instant, error: &Error, step: &mut Step) {
        let error: Arc<str> = format!("{error:?}").into();
        step.notes.push(Note::Refused(error.clone()));
        self.error = Some(error);
        self.refused = true;
        if self.synced {
            self.stale.get_or_insert(now);
        }
        self.read_at = None;
        self.watch_at = None;
        self.watching = None;
        step.action = Some(Action::Rest);
    }

    /// The watch holds: the next failure is the first of its kind, unless reads fail beside it.
    fn well(&mut self) {
        if self.trouble != Trouble::Noted {
            self.error = None;
            self.backoff.reset();
            self.trouble = Trouble::None;
        }
    }
}
