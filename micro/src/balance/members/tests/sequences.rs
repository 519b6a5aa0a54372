//! Whatever happens to five nodes, in whatever order: what holds after each event.

use std::collections::{BTreeSet, btree_map::Entry};

use fastrand::Rng;
use proptest::{prelude::*, sample::Index};

use super::*;
use crate::balance::{Balancing, snapshot::Picked};

mod serving;

/// What may happen. Which attempt or which node's calls are meant is drawn among those that there are.
#[derive(Debug, Clone)]
enum Event {
    List(Record),
    Remove(&'static str),
    /// One record at most for an id.
    Reset(Vec<Record>),
    Exclude(Vec<&'static str>),
    Forget,
    Connected(Index, bool),
    Failed(Index),
    Draining(Index),
    Closed(Index),
    Told(Index, bool),
    Broke(Index),
    Failing(Index),
    Calls(Index, u32, u32),
    Probed(Index, bool),
    Wanted(bool),
    MostOut(u32),
    Wait(u64),
}

/// A node's id, which of its addresses, and its version, by which it has its methods.
type Record = (&'static str, u8, u8);

const IDS: [&str; 5] = ["a", "b", "c", "d", "e"];

fn record() -> impl Strategy<Value = Record> {
    // Addresses change seldom: most updates write a record anew.
    let place = prop_oneof![5 => Just(0_u8), 1 => Just(1)];
    (prop::sample::select(&IDS), place, 0..3_u8)
}

fn event() -> impl Strategy<Value = Event> {
    let id = || prop::sample::select(&IDS);
    let ids = prop::sample::subsequence(IDS.to_vec(), 0..=IDS.len());
    let places = prop::collection::vec((prop::bool::weighted(0.2), 0..3_u8), IDS.len());
    let records = (ids.clone(), places).prop_map(|(ids, places)| {
        let record = |(id, (moved, version))| (id, u8::from(moved), version);
        ids.into_iter().zip(places).map(record).collect()
    });
    let one = any::<Index>;
    prop_oneof![
        9 => record().prop_map(Event::List),
        4 => id().prop_map(Event::Remove),
        2 => records.prop_map(Event::Reset),
        1 => ids.prop_map(Event::Exclude),
        1 => Just(Event::Forget),
        15 => (one(), prop::bool::weighted(0.8)).prop_map(|(at, well)| Event::Connected(at, well)),
        3 => one().prop_map(Event::Failed),
        2 => one().prop_map(Event::Draining),
        4 => one().prop_map(Event::Closed),
        4 => (one(), any::<bool>()).prop_map(|(at, well)| Event::Told(at, well)),
        9 => one().prop_map(Event::Broke),
        3 => one().prop_map(Event::Failing),
        5 => (one(), 0..200_u32, 0..200_u32).prop_map(|(at, ok, bad)| Event::Calls(at, ok, bad)),
        6 => (one(), any::<bool>()).prop_map(|(at, well)| Event::Probed(at, well)),
        2 => any::<bool>().prop_map(Event::Wanted),
        1 => prop::sample::select(vec![0, 10, 50, 100]).prop_map(Event::MostOut),
        12 => prop_oneof![0..2_000_u64, 2_000..70_000_u64].prop_map(Event::Wait),
    ]
}

fn node_of((id, place, version): Record) -> Arc<Node> {
    let mut node = Node::new("greeter", id, format!("{id}:{place}"));
    node.version = format!("{version}.0.0");
    node.endpoints = serving::endpoints(version);
    Arc::new(node)
}

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Dialling,
    Connected { is_well: bool },
    Over,
}

/// The machine, and beside it what is known without it. A link is the number of its attempt.
struct Run {
    world: World,
    now: u64,
    stages: Vec<Stage>,
    /// What the registry lists.
    listed: BTreeMap<&'static str, Arc<Node>>,
    /// When it took a node's address back.
    removed: BTreeMap<Key, u64>,
    /// The identities of the members that there are, and of all that there ever were.
    endpoints: BTreeMap<Key, (EndpointId, Arc<Tally>)>,
    identities: BTreeSet<EndpointId>,
    /// When each address was last dialled.
    dialled: BTreeMap<Key, u64>,
    /// Until when each is ejected.
    out: BTreeMap<Key, Instant>,
    /// What calls pick from that want a node with their method.
    set: Picked<u32>,
    rng: Rng,
}

fn key(node: &Node) -> Key {
    Key { id: node.id.as_str().into(), address: node.address.as_str().into() }
}

impl Run {
    fn new(balancing: &Balancing) -> Self {
        Self {
            world: World::new(),
            set: Picked::new(balancing, true),
            rng: Rng::with_seed(7),
            now: 0,
            stages: Vec::new(),
            listed: BTreeMap::new(),
            removed: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            identities: BTreeSet::new(),
            dialled: BTreeMap::new(),
            out: BTreeMap::new(),
        }
    }

    fn unlist(&mut self, id: &str) {
        if let Some(node) = self.listed.remove(id) {
            self.removed.insert(key(&node), self.now);
        }
    }

    fn list(&mut self, record: Record) -> Arc<Node> {
        let node = node_of(record);
        if self.listed.get(record.0).is_some_and(|known| known.address != node.address) {
            self.unlist(record.0);
        }
        self.removed.remove(&key(&node));
        self.listed.insert(record.0, node.clone());
        node
    }

    /// One of the attempts that are at such a stage.
    fn at(&self, one: &Index, is_meant: impl Fn(Stage) -> bool) -> Option<usize> {
        let stages = self.stages.iter().enumerate();
        let meant: Vec<_> = stages.filter(|(_, stage)| is_meant(**stage)).collect();
        (!meant.is_empty()).then(|| one.get(&meant).0)
    }

    fn connected(&self, one: &Index) -> Option<usize> {
        self.at(one, |stage| matches!(stage, Stage::Connected { .. }))
    }

    /// The counts of one of the members.
    fn tally(&self, one: &Index) -> Option<Arc<Tally>> {
        let members: BTreeMap<_, _> = self.world.members.members.iter().collect();
        let tallies: Vec<_> = members.values().map(|member| &member.tally).collect();
        (!tallies.is_empty()).then(|| one.get(&tallies).to_owned().clone())
    }

    /// Nothing comes of events that nothing is there for.
    fn happens(&mut self, event: &Event) -> Option<()> {
        let now = self.world.at(self.now);
        match event {
            Event::List(record) => {
                let node = self.list(*record);
                self.world.members.update(Update::Insert(node), now);
            }
            Event::Remove(id) => {
                self.unlist(id);
                self.world.members.update(Update::Remove((*id).into()), now);
            }
            Event::Reset(records) => {
                for id in IDS.iter().filter(|id| records.iter().all(|it| it.0 != **id)) {
                    self.unlist(id);
                }
                let nodes = records.iter().map(|record| self.list(*record)).collect();
                self.world.members.update(Update::Reset(nodes), now);
            }
            Event::Exclude(ids) => {
                ids.iter().for_each(|id| drop(self.listed.remove(id)));
                let ids: Vec<_> = ids.iter().map(|id| Arc::from(*id)).collect();
                self.world.members.exclude(&ids, now);
            }
            Event::Forget => {
                self.listed.clear();
                self.world.members.update(Update::Forget, now);
            }
            Event::Connected(one, is_well) => {
                let place = self.at(one, |stage| stage == Stage::Dialling)?;
                self.stages[place] = Stage::Connected { is_well: *is_well };
                let attempt = &self.world.dialled[place];
                self.world.members.connected(attempt, place as u32, *is_well, now);
            }
            Event::Failed(one) => {
                let place = self.at(one, |stage| stage == Stage::Dialling)?;
                self.stages[place] = Stage::Over;
                let attempt = &self.world.dialled[place];
                self.world.members.failed(attempt, &"refused".into(), Some(false), now);
            }
            Event::Draining(one) => {
                let place = self.connected(one)?;
                self.stages[place] = Stage::Over;
                self.world.members.draining(&self.world.dialled[place], now);
            }
            Event::Closed(one) => {
                let place = self.connected(one)?;
                self.stages[place] = Stage::Over;
                self.world.members.closed(&self.world.dialled[place], &"reset".into(), now);
            }
            Event::Told(one, is_well) => {
                let place = self.connected(one)?;
                self.stages[place] = Stage::Connected { is_well: *is_well };
                let health = if *is_well { Ok(()) } else { Err("NOT_SERVING".into()) };
                self.world.members.told(&self.world.dialled[place], health, now);
            }
            Event::Broke(one) => self.world.members.failing(&self.tally(one)?, true, now),
            Event::Failing(one) => self.world.members.failing(&self.tally(one)?, false, now),
            Event::Calls(one, answered, failed) => {
                let tally = self.tally(one)?;
                (0..*answered).for_each(|_| tally.answered());
                (0..*failed).for_each(|_| tally.failed_with_others());
            }
            Event::Probed(one, is_well) => {
                self.world.members.probed(&self.tally(one)?, now, *is_well, now);
            }
            Event::Wanted(wanted) => self.world.members.set_wanted(whichever(*wanted), now),
            Event::MostOut(max_ejection_percent) => {
                let rules =
                    Rules { max_ejection_percent: *max_ejection_percent, ..Rules::default() };
                self.world.members.set_rules(rules, now);
            }
            Event::Wait(ms) => self.now += ms,
        }
        Some(())
    }

    fn step(&mut self, event: &Event) -> Result<(), TestCaseError> {
        let out = self.out();
        self.happens(event);
        self.world.act();
        // As the driver does after each event.
        self.world.tick(self.now);
        for link in std::mem::take(&mut self.world.closed) {
            self.stages[link as usize] = Stage::Over;
        }
        self.dials()?;
        self.identities()?;
        self.picks()?;
        self.serves()?;
        let members = &self.world.members;
        let let_in =
            out.iter().any(|key| members.members.get(key).is_some_and(|it| it.ejection.is_in()));
        let is_probe = matches!(event, Event::Probed(_, true));
        let is_most = members.census.out == members.rules.most(members.census.pickable);
        prop_assert!(!let_in || is_probe || is_most, "let in for nothing");
        self.outlives(is_probe || is_most)
    }

    /// An ejection lasts, whatever the registry does meanwhile, unless its node was let in.
    fn outlives(&mut self, may_let_in: bool) -> Result<(), TestCaseError> {
        let now = self.world.at(self.now);
        let members = &self.world.members.members;
        self.out.retain(|_, until| now < *until);
        for key in self.out.keys() {
            let is_out = members.get(key).is_some_and(|it| !it.ejection.is_in());
            prop_assert!(is_out || may_let_in, "its ejection went with its record: {key:?}");
        }
        self.out.clear();
        for member in members.values() {
            if let Phase::Out(until, _) = member.ejection.phase() {
                self.out.insert(member.key.clone(), until);
            }
        }
        Ok(())
    }

    /// Those that are ejected, connected or not.
    fn out(&self) -> Vec<Key> {
        let members = self.world.members.members.values();
        members.filter(|it| !it.ejection.is_in()).map(|it| it.key.clone()).collect()
    }

    /// An endpoint is dialled once at a time; and one without a connection will be.
    fn dials(&mut self) -> Result<(), TestCaseError> {
        let members = &self.world.members;
        for attempt in &self.world.dialled[self.stages.len()..] {
            let before = self.dialled.insert(attempt.key.clone(), self.now);
            // A backoff may be shorter than that, at first.
            let least = before.map_or(0, |at| at + 160);
            prop_assert!(least <= self.now, "dialled twice at once: {:?}", attempt.key);
        }
        self.stages.resize(self.world.dialled.len(), Stage::Dialling);
        for member in members.members.values().filter(|it| it.standing == Standing::Listed) {
            let under_way = self.world.dialled.iter().zip(&self.stages).any(|(attempt, stage)| {
                attempt.key == member.key
                    && attempt.number == member.attempt
                    && *stage == Stage::Dialling
            });
            let waits = member.timer.is_some();
            let ways = [under_way, waits, member.link.is_some()].map(u8::from);
            prop_assert_eq!(ways.iter().sum::<u8>(), 1, "dialling, waiting or connected");
        }
        let now = self.world.at(self.now);
        prop_assert!(members.wakes_at().is_none_or(|at| at > now), "what is due is done");
        let is_swept = members.sweeps_at().is_some_and(|at| at > now);
        prop_assert!(is_swept || members.census.pickable == 0, "no outlier is looked for");
        Ok(())
    }

    /// A node at an address is one endpoint for as long as it is listed or connected.
    fn identities(&mut self) -> Result<(), TestCaseError> {
        let members = &self.world.members.members;
        self.endpoints.retain(|key, _| members.contains_key(key));
        for member in members.values() {
            match self.endpoints.entry(member.key.clone()) {
                Entry::Occupied(known) => {
                    prop_assert_eq!(known.get().0, member.endpoint);
                    prop_assert!(Arc::ptr_eq(&known.get().1, &member.tally), "its counts are new");
                }
                Entry::Vacant(new) => {
                    new.insert((member.endpoint, member.tally.clone()));
                    prop_assert!(self.identities.insert(member.endpoint), "another's identity");
                }
            }
        }
        let mut listed: Vec<_> = self.world.members.nodes();
        listed.sort_by(|one, other| one.id.cmp(&other.id));
        prop_assert_eq!(listed, self.listed.values().cloned().collect::<Vec<_>>());
        prop_assert_eq!(self.world.members.listed(), self.listed.len());
        Ok(())
    }

    /// The connections that calls are for: those of nodes that are ready and listed, or if there are none,
    /// of those that were removed within the last TTL.
    fn meant(&self) -> Result<BTreeSet<u32>, TestCaseError> {
        let key_of = |link: u32| &self.world.dialled[link as usize].key;
        let live = (0..self.stages.len() as u32).filter(|link| self.is_ready(*link));
        let (listed, removed): (Vec<_>, Vec<_>) = live.partition(|link| {
            let key = key_of(*link);
            self.listed.get(&*key.id).is_some_and(|node| *node.address == *key.address)
        });
        let since = |link: &u32| self.now - self.removed[key_of(*link)];
        prop_assert!(removed.iter().all(|link| since(link) < 3 * TTL), "it is given up");
        let lingers = |link: &u32| since(link) < TTL;
        Ok(if listed.is_empty() {
            removed.into_iter().filter(lingers).collect()
        } else {
            listed.into_iter().collect()
        })
    }

    fn is_ready(&self, link: u32) -> bool {
        self.stages[link as usize] == Stage::Connected { is_well: true }
    }

    /// Calls go to nodes that are ready, and to all of them but for those that are ejected.
    fn picks(&self) -> Result<(), TestCaseError> {
        let key_of = |link: u32| &self.world.dialled[link as usize].key;
        for (node, link) in self.world.picked.values().chain(self.world.probes.values()) {
            prop_assert!(self.is_ready(*link), "{link} is not ready");
            prop_assert_eq!(&key(node), key_of(*link), "it leads elsewhere");
            match self.listed.get(&*node.id).filter(|listed| listed.address == node.address) {
                Some(listed) => prop_assert_eq!(node, listed, "its record is the last one"),
                None => {
                    prop_assert!(self.removed.contains_key(&key(node)), "nobody listed it");
                    let listed = self.listed.get(&*node.id).map(|listed| key(listed));
                    let mut links = 0..self.stages.len() as u32;
                    let is_there =
                        links.any(|it| self.is_ready(it) && Some(key_of(it)) == listed.as_ref());
                    prop_assert!(!is_there, "it is ready where it is listed");
                }
            }
        }
        let meant = self.meant()?;
        let picked: BTreeSet<_> = self.world.picked.values().map(|(_, link)| *link).collect();
        let out = meant.difference(&picked).count();
        let all = meant.union(&picked).count();
        prop_assert!(out <= all / 2, "{out} of {all} are out: {meant:?}, {picked:?}");
        let members = self.world.members.members.values();
        let ejected = members.filter(|it| it.is_pickable() && !it.ejection.is_in());
        let ejected: BTreeSet<_> = ejected.filter_map(|it| it.link).collect();
        let missing: Vec<_> =
            meant.difference(&picked).filter(|it| !ejected.contains(it)).collect();
        prop_assert!(missing.is_empty(), "ready, not ejected and not picked: {missing:?}");
        Ok(())
    }
}

const POLICIES: [&str; 7] =
    ["p2c", "round_robin", "random", "least_request", "weighted", "consistent_hash", "pick_first"];

proptest! {
    #[test]
    fn no_sequence_of_events_leaves_a_ready_node_out_or_one_that_is_not_in(
        events in prop::collection::vec(event(), 1..120),
        policy in prop::sample::select(&POLICIES),
    ) {
        let mut run = Run::new(&policy.parse().expect("a policy's name"));
        for event in &events {
            run.step(event)?;
        }
    }
}
