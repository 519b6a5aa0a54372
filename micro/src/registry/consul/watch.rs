//! Watching a service by blocking queries.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use futures_util::{StreamExt, stream};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    super::{Batch, Entry, Event, Listing, Watch, WatchError},
    agent::{ALIVE_EVERY, Agent, EXCHANGE, Place},
    health::{self, Blocking},
    known::Known,
};
use crate::Error;

/// How long Consul is asked to wait for a change, at most; up to a quarter less, so that a fleet
/// that was started at once does not come back at once.
const WAIT: Duration = Duration::from_secs(60);

/// What Consul adds to that at most, by its own jitter.
const CONSULS_JITTER: u32 = 16;

/// No more than one query in this time: where changes follow each other, each answer is the whole
/// list.
const GAP: Duration = Duration::from_millis(100);

/// Watches a service from `after`.
///
/// # Recovery
/// None of its own: every trouble ends the stream. `Compacted` when Consul's index went back, or has
/// yet to reach `after`, since then it is another's or was restored; all else is `Disconnected`,
/// also an agent that no longer answers while a query waits, or whose cluster has no leader.
pub(super) fn watch(agent: Arc<Agent>, service: String, after: u64) -> Watch {
    let cursor = Cursor::after(after);
    let (known, rng) = (Known::default(), Rng::new());
    let watcher = Watcher { place: Place::of(agent), service, cursor, known, asked: None, rng };
    stream::unfold(Some(watcher), |watcher| async {
        let mut watcher = watcher?;
        let next = watcher.next().await;
        let watcher = next.is_ok().then_some(watcher);
        Some((next, watcher))
    })
    .boxed()
}

struct Watcher {
    place: Place,
    service: String,
    cursor: Cursor,
    known: Known,
    asked: Option<Instant>,
    rng: Rng,
}

impl Watcher {
    async fn next(&mut self) -> Result<Batch, WatchError> {
        if let Some(asked) = self.asked {
            sleep_until(asked + GAP).await;
        }
        self.asked = Some(Instant::now());
        let listing = self.ask().await.map_err(WatchError::Disconnected)?;
        self.cursor.answered(listing)
    }

    async fn ask(&mut self) -> Result<Listing, Error> {
        let blocking = self.cursor.index().map(|index| {
            let wait = WAIT.mul_f64(0.75 + 0.25 * self.rng.f64());
            Blocking { index, wait, lane: self.place.lane }
        });
        let what = format!("watch service {}", self.service);
        let longest = blocking.map_or(Duration::ZERO, |it| it.wait + it.wait / CONSULS_JITTER);
        let begins = Instant::now() + longest + EXCHANGE;
        let (agent, service, known) = (&self.place.agent, &self.service, &mut self.known);
        let query = health::read(agent, &what, service, blocking, begins, known);
        tokio::select! {
            biased;
            answer = query => answer,
            error = death(agent) => Err(error),
        }
    }
}

/// Ends when the agent is found not to answer, or not to know what is going on. Neither a stopped
/// agent nor one without a leader ends a query.
async fn death(agent: &Agent) -> Error {
    loop {
        sleep(ALIVE_EVERY).await;
        if let Err(error) = agent.is_alive().await {
            return error;
        }
    }
}

/// How far a watch has come, without IO.
#[derive(Debug)]
struct Cursor {
    /// The revision told last.
    seen: u64,
    /// The last answer; none before the first.
    last: Option<Listing>,
}

impl Cursor {
    fn after(seen: u64) -> Self {
        Self { seen, last: None }
    }

    /// The index to wait at. The first query does not: Consul would wait in silence for an index
    /// that it has yet to reach.
    fn index(&self) -> Option<u64> {
        self.last.as_ref().map(|last| last.revision)
    }

    /// What there is to tell of an answer: all, unless nothing has changed but the index.
    fn answered(&mut self, listing: Listing) -> Result<Batch, WatchError> {
        let revision = listing.revision;
        if revision < self.seen {
            return Err(WatchError::Compacted);
        }
        let is_known = match &self.last {
            Some(last) => is_same(last, &listing),
            None => revision == self.seen,
        };
        let events = if is_known { Vec::new() } else { vec![Event::Reset(listing.clone())] };
        self.seen = revision;
        self.last = Some(listing);
        Ok(Batch { revision, events })
    }
}

fn is_same(one: &Listing, other: &Listing) -> bool {
    if one.malformed != other.malformed || one.entries.len() != other.entries.len() {
        return false;
    }
    let is_same = |(one, other): (&Entry, &Entry)| {
        (&one.key, one.revision, &one.node) == (&other.key, other.revision, &other.node)
    };
    in_order(one).into_iter().zip(in_order(other)).all(is_same)
}

/// With `near` the order changes with the round trips.
fn in_order(listing: &Listing) -> Vec<&Entry> {
    let mut entries: Vec<_> = listing.entries.iter().collect();
    entries.sort_by(|one, other| one.key.cmp(&other.key));
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Malformed, Node};

    fn listing(revision: u64, ids: &[&str]) -> Listing {
        let entry = |id: &&str| Entry {
            key: format!("n1/{id}"),
            revision: 5,
            rank: 0,
            node: Arc::new(Node::new("a", *id, "127.0.0.1:1")),
        };
        Listing { revision, entries: ids.iter().map(entry).collect(), malformed: Vec::new() }
    }

    /// `rREVISION` and the number of nodes told; `!` for the end.
    fn told(cursor: &mut Cursor, listing: Listing) -> String {
        match cursor.answered(listing) {
            Ok(Batch { revision, events }) => match &events[..] {
                [] => format!("r{revision}"),
                [Event::Reset(listing)] => format!("r{revision}={}", listing.entries.len()),
                other => panic!("a reset alone is told: {other:?}"),
            },
            Err(WatchError::Compacted) => "!".to_owned(),
            Err(error) => panic!("{error:?}"),
        }
    }

    #[test]
    fn the_first_answer_is_told_if_it_is_later_than_what_was_seen() {
        let mut cursor = Cursor::after(7);
        assert_eq!(cursor.index(), None, "Consul would wait for what it has yet to reach");
        assert_eq!(told(&mut cursor, listing(7, &["a"])), "r7");
        assert_eq!(cursor.index(), Some(7));
        assert_eq!(told(&mut Cursor::after(7), listing(8, &["a"])), "r8=1");
        assert_eq!(told(&mut Cursor::after(7), listing(8, &[])), "r8=0");
    }

    #[test]
    fn an_index_that_went_back_ends_the_watch() {
        assert_eq!(told(&mut Cursor::after(7), listing(6, &["a"])), "!");
        let mut cursor = Cursor::after(7);
        assert_eq!(told(&mut cursor, listing(9, &["a"])), "r9=1");
        assert_eq!(told(&mut cursor, listing(8, &["a", "b"])), "!");
    }

    #[test]
    fn what_has_not_changed_is_not_told_again() {
        let mut cursor = Cursor::after(1);
        assert_eq!(told(&mut cursor, listing(2, &["a", "b"])), "r2=2");
        assert_eq!(told(&mut cursor, listing(2, &["a", "b"])), "r2", "the wait was over");
        assert_eq!(told(&mut cursor, listing(3, &["b", "a"])), "r3", "the order is no change");
        assert_eq!(told(&mut cursor, listing(4, &["b"])), "r4=1");
        let mut rewritten = listing(5, &["b"]);
        rewritten.entries[0].revision = 6;
        assert_eq!(told(&mut cursor, rewritten), "r5=1");
        let mut broken = listing(6, &[]);
        broken.malformed = vec![Malformed { key: "n1/b".into(), reason: "why".into() }];
        assert_eq!(told(&mut cursor, broken), "r6=0");
        assert_eq!(cursor.index(), Some(6));
    }
}
