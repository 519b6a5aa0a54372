//! Whatever happens, subscribers end up with what a plain reading of the rules gives.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use fastrand::Rng;
use proptest::{collection::vec, prelude::*};
use tokio::time::Instant;

use crate::{
    Error,
    discovery::{
        Update,
        records::Records,
        state::{Action, Event, State, Step},
    },
    registry::{self, Batch, Entry, Listing, Malformed, Node, WatchError},
};

/// A record as the model has it: (revision, id, address, whether it speaks gRPC). One of id [`BROKEN`]
/// cannot be decoded.
type Record = (u64, u8, u8, bool);
type Content = BTreeMap<u8, Record>;

const BROKEN: u8 = u8::MAX;

fn node(&(_, id, address, is_grpc): &Record) -> Arc<Node> {
    let mut node = Node::new("greeter", format!("id{id}"), format!("host:{address}"));
    if !is_grpc {
        node.metadata.clear();
    }
    Arc::new(node)
}

fn entry(key: u8, record: &Record) -> Entry {
    Entry { key: format!("key{key}"), revision: record.0, rank: rank(key), node: node(record) }
}

fn broken(key: u8) -> Malformed {
    Malformed { key: format!("key{key}"), reason: String::new() }
}

/// A key's format, and so its rank, is always the same.
fn rank(key: u8) -> u8 {
    key / 3
}

/// The rules, as slowly as they read: gRPC only; one an address, of the lowest rank the last written;
/// of those one an id, by the same rule.
fn in_force(content: &Content) -> BTreeMap<String, Arc<Node>> {
    let grpc: Vec<_> = content.iter().filter(|(_, record)| record.3).collect();
    let order = |(key, record): &(&u8, &Record)| (Reverse(rank(**key)), record.0, **key);
    let by_address = grpc
        .iter()
        .filter(|it| !grpc.iter().any(|other| other.1.2 == it.1.2 && order(other) > order(it)));
    let by_address: Vec<_> = by_address.collect();
    let by_id = by_address.iter().filter(|it| {
        !by_address.iter().any(|other| other.1.1 == it.1.1 && order(other) > order(it))
    });
    by_id.map(|(_, record)| (format!("id{}", record.1), node(record))).collect()
}

/// The set that a subscriber has.
#[derive(Default)]
struct Subscriber(BTreeMap<String, Arc<Node>>);

impl Subscriber {
    fn apply(&mut self, updates: &[Update]) {
        for update in updates {
            match update {
                Update::Reset(nodes) => {
                    self.0 = nodes.iter().map(|node| (node.id.clone(), node.clone())).collect();
                }
                Update::Insert(node) => {
                    self.0.insert(node.id.clone(), node.clone());
                }
                Update::Remove(id) => {
                    assert!(self.0.remove(&**id).is_some(), "{id} was not there to go");
                }
                Update::Forget => panic!("there is no bound"),
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Change {
    Put(u8, u8, u8, bool),
    Malformed(u8),
    Delete(u8),
    /// A full read: with a bit a key for whether it is still there.
    Read(u8),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => (0..6u8, 0..4u8, 0..4u8, prop::bool::weighted(0.9))
            .prop_map(|(key, id, address, is_grpc)| Change::Put(key, id, address, is_grpc)),
        1 => (0..6u8).prop_map(Change::Malformed),
        3 => (0..6u8).prop_map(Change::Delete),
        1 => any::<u8>().prop_map(Change::Read),
    ]
}

proptest! {
    #[test]
    fn the_nodes_in_force_follow_from_the_records_alone(changes in vec(change(), 0..60)) {
        let (mut records, mut subscriber) = (Records::default(), Subscriber::default());
        let (mut content, mut malformed) = (Content::new(), BTreeSet::new());
        for (revision, change) in changes.into_iter().enumerate() {
            let revision = revision as u64;
            match change {
                Change::Put(key, id, address, is_grpc) => {
                    let record = (revision, id, address, is_grpc);
                    malformed.remove(&key);
                    content.insert(key, record);
                    records.apply(registry::Event::Put(entry(key, &record)));
                }
                Change::Malformed(key) => {
                    let is_new = malformed.insert(key);
                    // Only what speaks gRPC is worth keeping.
                    content.retain(|it, record| *it != key || record.3);
                    let bad = Malformed { key: format!("key{key}"), reason: String::new() };
                    let noted = records.apply(registry::Event::Malformed(bad)).len() == 1;
                    prop_assert_eq!(noted, is_new);
                }
                Change::Delete(key) => {
                    malformed.remove(&key);
                    content.remove(&key);
                    records.apply(registry::Event::Delete(format!("key{key}")));
                }
                Change::Read(mask) => {
                    content.retain(|key, _| mask & (1 << key) != 0);
                    malformed.retain(|key| mask & (1 << key) != 0);
                    let good = content.iter().filter(|(key, _)| !malformed.contains(*key));
                    let bad = malformed.iter().map(|key| Malformed {
                        key: format!("key{key}"),
                        reason: String::new(),
                    });
                    records.replace(Listing {
                        revision,
                        entries: good.map(|(key, record)| entry(*key, record)).collect(),
                        malformed: bad.collect(),
                    });
                }
            }
            subscriber.apply(&records.settle().0);
            prop_assert_eq!(&subscriber.0, &in_force(&content));
            prop_assert_eq!(records.nodes().len(), subscriber.0.len());
            prop_assert_eq!(records.malformed(), malformed.len());
            prop_assert_eq!(records.not_grpc(), content.values().filter(|it| !it.3).count());
        }
    }
}

#[derive(Debug, Clone)]
enum Move {
    Put(u8, u8, u8),
    /// A record that cannot be decoded is written, under a key that never had another: else whoever
    /// knows the last good one keeps it.
    Break(u8),
    Delete(u8),
    /// The watch hands over its next batch.
    Deliver,
    /// It tells how all stands, and leaves out how that came.
    Reset,
    Ended,
    Compacted,
    Disconnected,
    /// The registry answers the read: with what it held when asked, or holds now.
    Answer {
        late: bool,
    },
    Refuse,
    /// Time passes until the machine moves by itself.
    Wake,
    /// The registry goes back by so many revisions; its watchers may not notice.
    Restore {
        by: usize,
        noticed: bool,
    },
}

fn moves(with_restore: bool) -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        6 => (0..5u8, 0..4u8, 0..4u8).prop_map(|(key, id, at)| Move::Put(key, id, at)),
        1 => (5..7u8).prop_map(Move::Break),
        3 => (0..7u8).prop_map(Move::Delete),
        8 => Just(Move::Deliver),
        2 => Just(Move::Reset),
        3 => prop::sample::select(vec![Move::Ended, Move::Compacted, Move::Disconnected]),
        4 => any::<bool>().prop_map(|late| Move::Answer { late }),
        1 => Just(Move::Refuse),
        4 => Just(Move::Wake),
        u32::from(with_restore) => (1..9usize, any::<bool>())
            .prop_map(|(by, noticed)| Move::Restore { by, noticed }),
    ];
    vec(one, 0..120)
}

/// A registry, the machine that follows it, and a subscriber of the machine.
struct World {
    now: Instant,
    /// What the registry held at each revision; the first is empty.
    history: Vec<Content>,
    state: State,
    subscriber: Subscriber,
    /// What the registry held when the read was asked for.
    reading: Option<Listing>,
    watching_after: Option<u64>,
    has_restored: bool,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            now,
            history: vec![Content::new()],
            state: State::new(now, None, Rng::with_seed(7)),
            subscriber: Subscriber::default(),
            reading: None,
            watching_after: None,
            has_restored: false,
        }
    }

    fn content(&self) -> &Content {
        self.history.last().unwrap()
    }

    /// How many keys hold what cannot be decoded.
    fn broken(&self) -> usize {
        self.content().values().filter(|record| record.1 == BROKEN).count()
    }

    fn revision(&self) -> u64 {
        self.history.len() as u64 - 1
    }

    fn listing(&self) -> Listing {
        let mut listing = Listing { revision: self.revision(), ..Listing::default() };
        for (key, record) in self.content() {
            match record.1 {
                BROKEN => listing.malformed.push(broken(*key)),
                _ => listing.entries.push(entry(*key, record)),
            }
        }
        listing
    }

    fn batch(&self, revision: u64) -> Batch {
        let index = usize::try_from(revision).unwrap();
        let (before, after) = (&self.history[index - 1], &self.history[index]);
        let puts = after.iter().filter(|(key, record)| before.get(key) != Some(record));
        let puts = puts.map(|(key, record)| match record.1 {
            BROKEN => registry::Event::Malformed(broken(*key)),
            _ => registry::Event::Put(entry(*key, record)),
        });
        let deletes = before.keys().filter(|key| !after.contains_key(key));
        let deletes = deletes.map(|key| registry::Event::Delete(format!("key{key}")));
        Batch { revision, events: puts.chain(deletes).collect() }
    }

    fn hand(&mut self, event: Event) -> Step {
        let step = self.state.handle(self.now, event);
        self.subscriber.apply(&step.updates);
        match step.action {
            Some(Action::Read) => self.reading = Some(self.listing()),
            Some(Action::Watch { after }) => {
                self.watching_after = Some(after);
                if !self.has_restored {
                    let then = &self.history[usize::try_from(after).unwrap()];
                    assert_eq!(self.subscriber.0, in_force(then), "nothing up to there is missing");
                }
            }
            Some(Action::Rest) => unreachable!("no name is refused here"),
            None => {}
        }
        step
    }

    fn change(&mut self, change: impl FnOnce(&mut Content, u64)) {
        let mut content = self.content().clone();
        change(&mut content, self.revision() + 1);
        self.history.push(content);
    }

    fn deliver(&mut self) -> bool {
        let next = self.watching_after.map(|after| after + 1);
        let Some(next) = next.filter(|next| *next <= self.revision()) else {
            return false;
        };
        self.watching_after = Some(next);
        self.hand(Event::Watched(Ok(self.batch(next))));
        true
    }

    fn reset(&mut self) {
        if self.watching_after.is_some_and(|after| after <= self.revision()) {
            let (revision, listing) = (self.revision(), self.listing());
            self.watching_after = Some(revision);
            let events = vec![registry::Event::Reset(listing)];
            self.hand(Event::Watched(Ok(Batch { revision, events })));
        }
    }

    fn break_watch(&mut self, error: WatchError) {
        if self.watching_after.take().is_some() {
            let step = self.hand(Event::Watched(Err(error)));
            assert_eq!(step.updates, [], "an error changes nothing");
        }
    }

    fn answer(&mut self, late: bool) -> bool {
        let Some(listing) = self.reading.take() else {
            return false;
        };
        let listing = if late { self.listing() } else { listing };
        self.hand(Event::Read(Ok(listing)));
        true
    }

    fn wake(&mut self) {
        if let Some(at) = self.state.wake_at() {
            self.now = self.now.max(at);
            self.hand(Event::Elapsed);
        }
    }

    fn play(&mut self, it: &Move) {
        match *it {
            Move::Put(key, id, address) => self.change(|content, revision| {
                content.insert(key, (revision, id, address, true));
            }),
            Move::Break(key) => self.change(|content, revision| {
                content.insert(key, (revision, BROKEN, BROKEN, false));
            }),
            Move::Delete(key) => self.change(|content, _| {
                content.remove(&key);
            }),
            Move::Deliver => {
                self.deliver();
            }
            Move::Reset => self.reset(),
            Move::Ended => self.break_watch(WatchError::Ended),
            Move::Compacted => self.break_watch(WatchError::Compacted),
            Move::Disconnected => {
                self.break_watch(WatchError::Disconnected(Error::registry("cut")));
            }
            Move::Answer { late } => {
                self.answer(late);
            }
            Move::Refuse => {
                if self.reading.take().is_some() {
                    let step = self.hand(Event::Read(Err(Error::registry("down"))));
                    assert_eq!(step.updates, [], "an error changes nothing");
                }
            }
            Move::Wake => self.wake(),
            Move::Restore { by, noticed } => {
                self.has_restored = true;
                self.history.truncate(self.history.len().saturating_sub(by).max(1));
                if noticed {
                    self.break_watch(WatchError::Disconnected(Error::registry("restored")));
                }
            }
        }
    }

    /// The registry is well from here on, and long enough for one full read.
    fn heal(&mut self) {
        let mut reads = 0;
        while reads < 2 {
            self.wake();
            while self.deliver() {}
            reads += u32::from(self.answer(true));
        }
        while self.deliver() {}
    }
}

proptest! {
    #[test]
    fn subscribers_end_up_with_what_the_registry_holds(moves in moves(false)) {
        let mut world = World::new();
        moves.into_iter().for_each(|it| world.play(&it));
        world.heal();
        prop_assert_eq!(&world.subscriber.0, &in_force(world.content()));
        prop_assert_eq!(world.state.status().malformed, world.broken());
    }

    #[test]
    fn a_registry_that_loses_its_history_is_followed_all_the_same(moves in moves(true)) {
        let mut world = World::new();
        moves.into_iter().for_each(|it| world.play(&it));
        world.heal();
        prop_assert_eq!(&world.subscriber.0, &in_force(world.content()));
        prop_assert_eq!(world.state.status().malformed, world.broken());
    }
}
