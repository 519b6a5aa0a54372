//! The machine by script: what it asks for, tells and notes, and when.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use super::{event, short};
use crate::{
    Error,
    discovery::{
        Status,
        state::{Action, Event, Note, State},
    },
    registry::{self, Batch, Listing, WatchError},
};

mod records;
mod silence;

/// A machine and its clock. Each method hands in an event and returns what follows, in short.
struct World {
    now: Instant,
    state: State,
}

impl World {
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        Self { now, state: State::new(now, None, Rng::with_seed(seed)) }
    }

    /// One whose registry may be silent for so long.
    fn bounded(max_stale: Duration) -> Self {
        let now = Instant::now();
        Self { now, state: State::new(now, Some(max_stale), Rng::with_seed(7)) }
    }

    /// One that has read these records at this revision, and watches.
    fn with(revision: u64, records: &[&str]) -> Self {
        let mut world = Self::new(7);
        assert_eq!(world.wake(), "read");
        let outcome = world.listing(revision, records);
        assert!(outcome.starts_with("=[") && outcome.ends_with(&format!("watch>{revision}")));
        world
    }

    fn hand(&mut self, event: Event) -> String {
        let step = self.state.handle(self.now, event);
        let notes = step.notes.iter().filter_map(|note| match note {
            Note::Malformed(malformed) => Some(format!("malformed:{}", malformed.key)),
            Note::Trouble(error) => Some(format!("trouble:{error}")),
            Note::Recovered => Some("recovered".to_owned()),
            Note::Remembered => Some("remembered".to_owned()),
            Note::GivenUp(_) => Some("given-up".to_owned()),
            Note::Refused(error) => Some(format!("refused:{error}")),
            Note::Changed(_) => None, // as the updates say
        });
        let action = step.action.iter().map(|action| match action {
            Action::Read => "read".to_owned(),
            Action::Watch { after } => format!("watch>{after}"),
            Action::Rest => "rest".to_owned(),
        });
        notes.chain(step.updates.iter().map(short)).chain(action).collect::<Vec<_>>().join(" ")
    }

    fn pass(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    /// How long the machine waits for its next own move.
    fn waits(&self) -> Duration {
        self.state.wake_at().expect("there is a move to come") - self.now
    }

    /// Lets the clock run to the machine's next own move.
    fn wake(&mut self) -> String {
        self.now += self.waits();
        self.hand(Event::Elapsed)
    }

    fn listing(&mut self, revision: u64, records: &[&str]) -> String {
        self.hand(Event::Read(Ok(listed(revision, records))))
    }

    /// What a registry's watch says that never tells what has changed.
    fn reset(&mut self, revision: u64, records: &[&str]) -> String {
        let events = vec![registry::Event::Reset(listed(revision, records))];
        self.hand(Event::Watched(Ok(Batch { revision, events })))
    }

    /// What the cache has.
    fn remembered(&mut self, records: &[&str], age: Duration) -> String {
        let nodes = listed(0, records).entries.into_iter().map(|entry| entry.node).collect();
        self.hand(Event::Remembered(nodes, age))
    }

    fn read_fails(&mut self) -> String {
        self.hand(Event::Read(Err(Error::registry("down"))))
    }

    fn batch(&mut self, revision: u64, events: &[&str]) -> String {
        let events = events.iter().map(|it| event(it, revision)).collect();
        self.hand(Event::Watched(Ok(Batch { revision, events })))
    }

    fn broken(&mut self, error: WatchError) -> String {
        self.hand(Event::Watched(Err(error)))
    }

    fn disconnected(&mut self) -> String {
        self.broken(WatchError::Disconnected(Error::registry("cut")))
    }

    fn status(&self) -> Status {
        self.state.status()
    }

    fn error(&self) -> Option<String> {
        self.status().error.map(|error| error.to_string())
    }
}

fn listed(revision: u64, records: &[&str]) -> Listing {
    let mut listing = Listing { revision, ..Listing::default() };
    for record in records {
        match event(record, revision) {
            registry::Event::Put(entry) => listing.entries.push(entry),
            registry::Event::Malformed(malformed) => listing.malformed.push(malformed),
            other => panic!("{other:?} is not there to be listed"),
        }
    }
    listing
}

#[test]
fn all_is_read_and_then_watched_from_there() {
    let mut world = World::new(7);
    assert_eq!(world.status(), Status::default());
    assert_eq!(world.waits(), Duration::ZERO);
    assert_eq!(world.wake(), "read");
    assert_eq!(world.listing(5, &["b@y", "a@x"]), "=[a@x b@y] watch>5");
    assert!(world.status().synced);
    assert_eq!(world.batch(6, &["c@z"]), "+c@z");
    assert_eq!(world.batch(7, &["-a", "d@x", "-c"]), "+d@x -a -c");
}

#[test]
fn of_a_registry_that_tells_how_all_stands_subscribers_see_what_has_changed() {
    let mut world = World::with(5, &["a@x", "b@y"]);
    assert_eq!(world.reset(6, &["a@x#5", "c@z#6", "!d"]), "malformed:d +c@z -b");
    assert_eq!(world.reset(7, &["a@x#5", "c@z#6", "!d"]), "", "told once");
    assert_eq!(world.status().malformed, 1);
    assert_eq!(world.reset(8, &["a@w#8", "c@z#6"]), "+a@w");
    assert_eq!(world.status().malformed, 0);
    assert_eq!(world.broken(WatchError::Ended), "");
    assert_eq!(world.wake(), "watch>8");
}

#[test]
fn a_service_without_nodes_is_told_too() {
    let mut world = World::new(7);
    world.wake();
    assert_eq!(world.listing(5, &[]), "=[] watch>5");
    assert_eq!(world.batch(6, &["a@x"]), "+a@x");
}

#[test]
fn a_watch_that_ended_is_resumed_after_the_last_revision_seen() {
    let mut world = World::with(5, &["a@x"]);
    world.batch(6, &["b@y"]);
    // As etcd's progress notifications: nothing has changed up to here.
    assert_eq!(world.batch(90, &[]), "");
    assert_eq!(world.broken(WatchError::Ended), "");
    assert!(world.waits() <= Duration::from_millis(100));
    assert_eq!(world.wake(), "watch>90");
    assert_eq!(world.batch(91, &["-a"]), "-a");
    assert_eq!(world.error(), None);
}

#[test]
fn after_a_gap_all_is_read_and_compared() {
    let gaps: [fn(&mut World) -> String; 2] =
        [|world| world.broken(WatchError::Compacted), World::disconnected];
    for gap in gaps {
        let mut world = World::with(5, &["a@x", "b@y"]);
        gap(&mut world);
        assert!(world.waits() <= Duration::from_millis(100));
        assert_eq!(world.wake(), "read");
        let outcome = world.listing(50, &["b@y#5", "c@z#9"]);
        assert_eq!(outcome.trim_start_matches("recovered "), "+c@z -a watch>50");
    }
}

#[test]
fn errors_keep_every_node_and_are_noted_once() {
    let mut world = World::with(5, &["a@x"]);
    world.pass(10_000);
    assert_eq!(world.disconnected(), "trouble:cut");
    assert_eq!(world.error().as_deref(), Some("cut"));
    for _ in 0..100 {
        assert_eq!(world.wake(), "read");
        assert_eq!(world.read_fails(), "");
        assert!(world.waits() <= Duration::from_secs(3));
        assert_eq!(world.error().as_deref(), Some("down"));
    }
    assert!(world.status().synced);
    world.wake();
    assert_eq!(world.listing(5, &["a@x"]), "recovered watch>5", "no node went or came");
    assert_eq!(world.error(), None);
}

#[test]
fn a_name_that_the_registry_cannot_hold_is_asked_for_once() {
    let mut world = World::new(7);
    assert_eq!(world.wake(), "read");
    let error = Error::config("`.` is no name");
    assert_eq!(world.hand(Event::Read(Err(error))), "refused:`.` is no name rest");
    assert_eq!(world.state.wake_at(), None, "time heals nothing");
    let Status { synced, error, refused, .. } = world.status();
    assert_eq!((synced, error.as_deref(), refused), (false, Some("`.` is no name"), true));
}

#[test]
fn a_registry_that_refuses_to_be_read_again_is_watched_no_more() {
    let mut world = World::with(5, &["a@x"]);
    assert_eq!(world.wake(), "read");
    let error = Error::config("no multicast");
    assert_eq!(world.hand(Event::Read(Err(error))), "refused:no multicast rest");
    assert_eq!(world.batch(6, &["b@y"]), "", "its nodes are no longer followed");
    assert_eq!(world.disconnected(), "");
    assert_eq!(world.state.wake_at(), None);
    let Status { refused, stale, .. } = world.status();
    assert_eq!((refused, stale), (true, Some(world.now)));
}

#[test]
fn a_watch_that_never_holds_is_tried_ever_more_slowly_and_noted_once() {
    let mut world = World::with(5, &["a@x"]);
    assert_eq!(world.disconnected(), "trouble:cut");
    world.wake();
    assert_eq!(world.listing(5, &["a@x"]), "recovered watch>5");
    let mut waited = Duration::ZERO;
    for _ in 0..20 {
        assert_eq!(world.disconnected(), "", "known trouble");
        waited += world.waits();
        assert_eq!(world.wake(), "read");
        assert_eq!(world.listing(5, &["a@x"]), "watch>5");
    }
    assert!(waited > Duration::from_secs(10), "{waited:?} for 20 attempts");

    world.pass(3001);
    assert_eq!(world.disconnected(), "trouble:cut", "the watch had held");
    assert!(world.waits() <= Duration::from_millis(100));
}

#[test]
fn a_registry_that_was_wiped_or_restored_is_read_anew() {
    let mut world = World::with(50, &["a@x", "b@y"]);
    assert_eq!(world.batch(3, &["c@z"]), "", "a revision from another history");
    assert_eq!(world.wake(), "read");
    assert_eq!(world.batch(51, &["d@w"]), "", "its watch is of no use either");
    assert_eq!(world.listing(3, &["b@y#2", "c@z#3"]), "+b@y +c@z -a watch>3");
    assert_eq!(world.batch(4, &["a@x"]), "+a@x");

    // Found out by the re-read, with a watch that waits for a revision far off.
    world.wake();
    assert_eq!(world.listing(2, &["b@y#2"]), "-a -c watch>2");

    // What its old watch still had in store counts for nothing then.
    world.wake();
    assert_eq!(world.batch(9, &["d@w"]), "+d@w");
    assert_eq!(world.listing(1, &["b@y#1"]), "+b@y -d watch>1");
}

#[test]
fn all_is_read_again_every_five_minutes_give_or_take_a_fifth() {
    let mut waits = Vec::new();
    for seed in 0..200 {
        let mut world = World::new(seed);
        world.wake();
        world.listing(5, &["a@x"]);
        waits.push(world.waits().as_secs());
        assert_eq!(world.wake(), "read");
        assert_eq!(world.listing(9, &["b@y"]), "+b@y -a watch>9", "the watch had died silently");
    }
    let (low, high) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
    assert!((240..=245).contains(low) && (355..=360).contains(high), "{low} s to {high} s");
}

#[test]
fn the_watch_goes_on_while_all_is_read_again() {
    let mut world = World::with(5, &["a@x"]);
    assert_eq!(world.wake(), "read");
    assert_eq!(world.batch(6, &["b@y"]), "+b@y");
    assert_eq!(world.batch(7, &["-a"]), "-a");
    // Answered between the two: newer than the first, older than the second.
    assert_eq!(world.listing(6, &["a@x#5", "b@y#6"]), "watch>7");
}

#[test]
fn what_the_watch_resets_takes_the_place_of_an_older_listing() {
    let mut world = World::with(5, &["a@x"]);
    assert_eq!(world.wake(), "read");
    assert_eq!(world.batch(6, &["b@y"]), "+b@y");
    assert_eq!(world.reset(8, &["a@x#5", "b@y#6", "c@z#8"]), "+c@z");
    assert_eq!(world.batch(9, &["-a"]), "-a");
    // From the moment before the reset.
    assert_eq!(world.listing(7, &["a@x#5", "d@v#7"]), "watch>9");

    assert_eq!(world.wake(), "read");
    assert_eq!(world.reset(10, &["b@y#6"]), "-c");
    assert_eq!(world.batch(12, &["e@u"]), "+e@u");
    assert_eq!(world.batch(13, &["-e"]), "-e");
    // From between the reset and what came after.
    assert_eq!(world.listing(12, &["b@y#6", "d@v#11", "e@u#12"]), "+d@v watch>13");

    assert_eq!(world.wake(), "read");
    assert_eq!(world.reset(14, &["b@y#6"]), "-d");
    // Wiped meanwhile: what was reset is of another history.
    assert_eq!(world.listing(2, &["f@t"]), "+f@t -b watch>2");
}

#[test]
fn a_read_beside_which_too_much_changes_is_given_up_and_begun_anew() {
    let mut world = World::with(5, &["a@x"]);
    assert_eq!(world.wake(), "read");
    let events = ["b@y", "-b"].repeat(1024);
    world.batch(6, &events);
    world.batch(7, &events);
    assert_eq!(world.batch(8, &["c@z"]), "+c@z", "what is not held is taken in all the same");
    assert_eq!(world.listing(5, &["a@x"]), "", "and not taken back");
    assert_eq!(world.waits(), Duration::from_secs(3));
    assert_eq!(world.wake(), "read");
    assert_eq!(world.listing(8, &["a@x#5", "c@z#8"]), "watch>8");
}

#[test]
fn a_re_read_that_fails_leaves_the_watch_on_and_is_tried_again() {
    let mut world = World::with(5, &["a@x"]);
    world.wake();
    assert_eq!(world.read_fails(), "trouble:down");
    assert_eq!(world.batch(6, &["b@y"]), "+b@y");
    assert_eq!(world.error().as_deref(), Some("down"), "reads still fail");
    assert_eq!(world.broken(WatchError::Ended), "");
    assert_eq!([world.wake(), world.wake()].join(" "), "read watch>6");
    assert_eq!(world.batch(7, &["c@z"]), "+c@z");
    assert_eq!(world.listing(7, &["a@x#5", "b@y#6", "c@z#7"]), "recovered watch>7");
}

#[test]
fn an_answer_from_before_the_connection_was_lost_is_not_taken() {
    let mut world = World::with(5, &["a@x"]);
    world.wake();
    world.disconnected();
    assert_eq!(world.listing(5, &[]), "", "asked before");
    assert_eq!(world.wake(), "read");
    assert_eq!(world.listing(5, &["a@x"]), "recovered watch>5");
}

#[test]
fn a_doubt_reads_at_once_and_no_more_than_once_a_second() {
    let mut world = World::with(5, &["a@x"]);
    world.pass(300);
    assert_eq!(world.hand(Event::Doubted), "");
    assert_eq!(world.waits(), Duration::from_millis(700), "all was read a moment ago");
    assert_eq!(world.hand(Event::Doubted), "");
    assert_eq!(world.wake(), "read");
    assert_eq!(world.hand(Event::Doubted), "", "that is under way");
    assert_eq!(world.listing(6, &["b@y"]), "+b@y -a watch>6");
    assert!(world.waits() >= Duration::from_secs(4 * 60), "nothing is left of it");
    world.pass(5_000);
    world.hand(Event::Doubted);
    assert_eq!(world.waits(), Duration::ZERO);
    assert_eq!(world.wake(), "read");
    assert_eq!(world.listing(6, &["b@y#6"]), "watch>6");
}

#[test]
fn a_doubt_brings_no_attempt_forward_by_more_than_that() {
    let mut world = World::with(5, &["a@x"]);
    world.disconnected();
    let mut last = None;
    for _ in 0..50 {
        world.hand(Event::Doubted);
        assert_eq!(world.wake(), "read");
        world.read_fails();
        if let Some(last) = last.replace(world.now) {
            assert!(world.now - last <= Duration::from_secs(1), "sooner than the backoff says");
        }
    }
}

#[test]
fn a_doubt_does_not_ask_a_registry_that_has_refused() {
    let mut world = World::new(7);
    world.wake();
    world.hand(Event::Read(Err(Error::config("`.` is no name"))));
    assert_eq!(world.hand(Event::Doubted), "");
    assert_eq!(world.state.wake_at(), None);
}
