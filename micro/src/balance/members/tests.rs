use std::{collections::BTreeMap, sync::atomic::Ordering::Relaxed};

use super::*;
use crate::discovery::Update;

mod ejecting;
mod flapping;
mod lingering;
mod sequences;

const TTL: u64 = 15_000;

/// Runs the machine at milliseconds, and does what it says in a world of names and numbers.
struct World {
    start: Instant,
    members: Members<u32>,
    links: u32,
    /// The latest attempt for each node, and the node's address at that time.
    attempts: BTreeMap<String, (Attempt, String, Option<u32>)>,
    /// All of them.
    dialled: Vec<Attempt>,
    picked: BTreeMap<EndpointId, (Arc<Node>, u32)>,
    /// Those that a call is to try.
    probes: BTreeMap<EndpointId, (Arc<Node>, u32)>,
    closed: Vec<u32>,
}

/// A call waits for whichever node it is, or none does.
fn whichever(any: bool) -> Wanted {
    Wanted { any, ..Wanted::default() }
}

fn node(id: &str, address: &str) -> Arc<Node> {
    Arc::new(Node::new("greeter", id, address))
}

impl World {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            members: Members::new(Duration::from_millis(TTL), Rules::default(), Rng::with_seed(1)),
            links: 0,
            attempts: BTreeMap::new(),
            dialled: Vec::new(),
            picked: BTreeMap::new(),
            probes: BTreeMap::new(),
            closed: Vec::new(),
        }
    }

    /// Nodes that are listed, connected and picked at time zero.
    fn with(ids: &[&str]) -> Self {
        let mut world = Self::new();
        for id in ids {
            world.insert(0, id);
            world.connected(0, id);
        }
        world
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn act(&mut self) {
        let mut census = Census::default();
        self.members.members.values().for_each(|it| census.enter(it));
        assert_eq!(self.members.census, census, "what is counted is what is there");
        assert!(census.out <= census.pickable / 2, "half may be out: {census:?}");
        for action in self.members.actions() {
            match action {
                Action::Dial { attempt, node, previous, .. } => {
                    self.dialled.push(attempt.clone());
                    let seen = (attempt, node.address.clone(), previous);
                    self.attempts.insert(node.id.clone(), seen);
                }
                Action::Pick(endpoint, node, link, _) => {
                    assert!(!self.probes.contains_key(&endpoint), "picked, and probed as well");
                    self.picked.insert(endpoint, (node, link));
                }
                Action::Unpick(endpoint, _) => {
                    let was = self.picked.remove(&endpoint);
                    assert!(was.is_some(), "unpicked, but was not picked");
                }
                Action::Eject(endpoint, ..) => {
                    self.picked.remove(&endpoint);
                    self.probes.remove(&endpoint);
                }
                Action::Probe(endpoint, node, link, _) => {
                    assert!(!self.picked.contains_key(&endpoint), "probed, and picked as well");
                    self.probes.insert(endpoint, (node, link));
                }
                Action::Unprobe(endpoint) => {
                    self.probes.remove(&endpoint);
                }
                Action::Found(_) => {}
                Action::Close(link) => self.closed.push(link),
            }
        }
    }

    fn update(&mut self, ms: u64, update: Update) {
        self.members.update(update, self.at(ms));
        self.act();
    }

    fn insert(&mut self, ms: u64, id: &str) {
        self.update(ms, Update::Insert(node(id, &format!("{id}:1"))));
    }

    fn remove(&mut self, ms: u64, id: &str) {
        self.update(ms, Update::Remove(id.into()));
    }

    fn reset(&mut self, ms: u64, ids: &[&str]) {
        let nodes = ids.iter().map(|id| node(id, &format!("{id}:1"))).collect();
        self.update(ms, Update::Reset(nodes));
    }

    fn attempt(&self, id: &str) -> Attempt {
        self.attempts[id].0.clone()
    }

    fn connected(&mut self, ms: u64, id: &str) -> u32 {
        self.links += 1;
        let attempt = self.attempt(id);
        self.members.connected(&attempt, self.links, true, self.at(ms));
        self.act();
        self.links
    }

    fn failed(&mut self, ms: u64, id: &str) {
        self.members.failed(&self.attempt(id), &"refused".into(), Some(false), self.at(ms));
        self.act();
    }

    fn goaway(&mut self, ms: u64, id: &str) {
        self.members.draining(&self.attempt(id), self.at(ms));
        self.act();
    }

    fn closed(&mut self, ms: u64, id: &str) {
        self.members.closed(&self.attempt(id), &"reset".into(), self.at(ms));
        self.act();
    }

    fn tick(&mut self, ms: u64) {
        self.members.tick(self.at(ms));
        self.act();
    }

    /// The connections that calls can go over.
    fn links(&self) -> Vec<u32> {
        self.picked.values().map(|(_, link)| *link).collect()
    }

    fn dials(&self) -> usize {
        self.dialled.len()
    }

    /// The ids of the nodes that calls can go to.
    fn picks(&self) -> Vec<&str> {
        let mut ids: Vec<_> = self.picked.values().map(|(node, _)| node.id.as_str()).collect();
        ids.sort_unstable();
        ids
    }
}

#[test]
fn every_listed_node_is_dialled_and_picked_once_it_is_connected() {
    let mut world = World::new();
    world.reset(0, &["a", "b"]);
    assert_eq!((world.dials(), world.picks()), (2, vec![]));
    world.connected(5, "b");
    assert_eq!(world.picks(), ["b"]);
    world.connected(6, "a");
    assert_eq!((world.dials(), world.picks()), (2, vec!["a", "b"]));
    assert_eq!(world.members.wakes_at(), None, "nothing is due");
}

#[test]
fn a_failing_node_is_dialled_again_when_its_backoff_is_over() {
    let mut world = World::with(&["a"]);
    world.insert(0, "b");
    world.failed(10, "b");
    let due = world.members.wakes_at().expect("b backs off") - world.start;
    assert!((170..=250).contains(&due.as_millis()), "{due:?}");
    world.tick(169);
    assert_eq!(world.dials(), 2);
    world.tick(250);
    assert_eq!(world.dials(), 3);
    assert_eq!(world.picks(), ["a"]);
}

#[test]
fn a_removed_node_without_a_connection_is_not_dialled_and_is_forgotten() {
    for is_dialling in [true, false] {
        let mut world = World::with(&["a"]);
        world.insert(0, "b");
        if !is_dialling {
            world.failed(10, "b");
        }
        world.remove(20, "b");
        world.tick(20);
        let link = world.connected(30, "b");
        assert_eq!(world.closed, [link], "what comes too late is closed again");
        assert_eq!(world.picks(), ["a"]);
        world.tick(20 + TTL);
        assert_eq!((world.dials(), world.members.wakes_at()), (2, None), "no further attempt");
        assert_eq!(world.members.members.len(), 1, "it is forgotten");
    }
}

#[test]
fn a_node_that_is_back_when_it_was_not_dialled_is_dialled_a_second_after() {
    for is_back_before in [true, false] {
        let mut world = World::with(&["a"]);
        world.members.update(Update::Insert(node("b", "b:1")), world.start);
        let Some(Action::Dial { attempt, is_listed, .. }) = world.members.actions().pop() else {
            panic!("it is dialled");
        };
        assert!(is_listed.load(Relaxed));
        world.remove(100, "b");
        assert!(!is_listed.load(Relaxed), "who dials it need not");
        if is_back_before {
            world.insert(150, "b");
            assert!(is_listed.load(Relaxed));
        }
        world.members.not_made(&attempt, world.at(200));
        if !is_back_before {
            world.insert(300, "b");
        }
        world.tick(999);
        assert_eq!(world.dials(), 1, "that of a");
        world.tick(1_000);
        assert_eq!(world.dials(), 2);
    }
}

#[test]
fn what_is_to_be_forgotten_is_closed_at_once() {
    let mut world = World::with(&["a", "b", "c"]);
    world.remove(0, "c");
    world.insert(0, "d");
    world.update(1_000, Update::Forget);
    assert_eq!((world.picks(), world.closed.len(), world.members.listed()), (vec![], 3, 0));
    world.tick(1_499);
    assert_eq!(world.dials(), 4, "no further attempt");
    let late = world.connected(1_500, "d");
    assert_eq!(world.closed.last(), Some(&late), "nobody waits for it any more");
    world.insert(2_000, "a");
    world.connected(2_010, "a");
    assert_eq!(world.picks(), ["a"]);
}

#[test]
fn a_reset_to_other_nodes_removes_the_old_ones() {
    let mut world = World::with(&["a", "b"]);
    world.reset(1_000, &["b", "c"]);
    assert_eq!(world.picks(), ["b"], "b is listed, so a is not needed");
    world.connected(1_005, "c");
    assert_eq!(world.picks(), ["b", "c"]);
}

#[test]
fn goaway_ends_picks_and_connects_anew_at_once() {
    let mut world = World::with(&["a"]);
    world.goaway(5_000, "a");
    assert_eq!((world.picks(), world.dials()), (vec![], 2));
    assert!(world.closed.is_empty(), "the streams on it finish");
    assert_eq!(world.attempts["a"].2, Some(1), "the next connection learns of the last");
    let link = world.connected(5_010, "a");
    let (_, picked) = world.picked.values().next().expect("it is back");
    assert_eq!(*picked, link);
}

#[test]
fn a_new_record_at_the_same_address_keeps_the_connection() {
    let mut world = World::with(&["a"]);
    let mut changed = Node::clone(&node("a", "a:1"));
    changed.version = "2.0.0".to_owned();
    world.update(1_000, Update::Insert(Arc::new(changed)));
    let (now, link) = world.picked.values().next().expect("still picked");
    assert_eq!((now.version.as_str(), *link, world.dials()), ("2.0.0", 1, 1));
}

#[test]
fn a_changed_address_is_dialled_and_the_old_connection_serves_until_there_is_a_new_one() {
    let mut world = World::with(&["a"]);
    world.update(5_000, Update::Insert(node("a", "elsewhere:1")));
    assert_eq!((world.picks(), world.links()), (vec!["a"], vec![1]));
    let (_, address, previous) = &world.attempts["a"];
    assert_eq!((address.as_str(), *previous), ("elsewhere:1", None));
    world.connected(5_010, "a");
    assert_eq!((world.links(), world.closed.len()), (vec![2], 0), "calls under way may finish");
    world.tick(5_000 + TTL);
    assert_eq!((world.links(), world.closed.clone()), (vec![2], vec![1]));
}

#[test]
fn a_node_that_moves_among_others_leaves_its_old_connection_at_once() {
    let mut world = World::with(&["a", "b"]);
    world.update(5_000, Update::Insert(node("a", "elsewhere:1")));
    assert_eq!(world.picks(), ["b"]);
    world.connected(5_010, "a");
    assert_eq!(world.picks(), ["a", "b"]);
    world.tick(5_000 + TTL);
    assert_eq!((world.picks(), world.closed.clone()), (vec!["a", "b"], vec![1]));
}

#[test]
fn an_address_that_comes_back_finds_its_connection() {
    let mut world = World::with(&["a"]);
    let before = world.picked.clone();
    world.update(5_000, Update::Insert(node("a", "elsewhere:1")));
    world.failed(5_010, "a");
    world.insert(6_000, "a");
    assert_eq!((&world.picked, world.dials()), (&before, 2));
    world.tick(60_000);
    assert_eq!(world.members.wakes_at(), None, "nobody looks for it elsewhere any more");
}

#[test]
fn a_connection_to_an_address_that_changed_meanwhile_is_never_picked() {
    let mut world = World::new();
    world.insert(0, "a");
    let first = world.attempt("a");
    world.update(100, Update::Insert(node("a", "elsewhere:1")));
    world.members.connected(&first, 7, true, world.at(200));
    world.act();
    assert_eq!((world.picks(), world.closed.clone()), (vec![], vec![7]), "it leads to a:1");
    assert_eq!(world.attempts["a"].1, "elsewhere:1");
    world.connected(210, "a");
    assert_eq!(world.picks(), ["a"]);
}

#[test]
fn news_of_an_earlier_attempt_changes_nothing() {
    let mut world = World::with(&["a"]);
    let first = world.attempt("a");
    world.goaway(5_000, "a");
    world.connected(5_010, "a");
    world.members.closed(&first, &"reset".into(), world.at(6_000));
    world.members.draining(&first, world.at(6_000));
    world.members.failed(&first, &"refused".into(), Some(false), world.at(6_000));
    world.act();
    assert_eq!((world.picks(), world.dials()), (vec!["a"], 2));
}

#[test]
fn a_record_written_anew_cuts_the_backoff_short() {
    let mut world = World::with(&["a"]);
    world.insert(0, "b");
    for ms in [0, 300, 900, 2_000, 4_000] {
        world.tick(ms);
        world.failed(ms, "b");
    }
    let dials = world.dials();
    world.insert(5_000, "b");
    assert_eq!(world.dials(), dials + 1, "as a restart under the same id writes it");
}

#[test]
fn while_a_call_waits_every_node_is_dialled_once_a_second() {
    let mut world = World::new();
    world.reset(0, &["a", "b"]);
    let mut dials = Vec::new();
    for ms in (0..10_000).step_by(10) {
        if ms == 5_000 {
            world.members.set_wanted(whichever(true), world.at(ms));
        }
        world.tick(ms);
        let before = world.dials();
        for id in ["a", "b"] {
            // Ignored where no attempt is under way.
            world.failed(ms, id);
        }
        if ms > 5_000 && before > dials.last().map_or(0, |(_, count)| *count) {
            dials.push((ms, before));
        }
    }
    let (first, last) = (dials[0], dials[dials.len() - 1]);
    let a_second = (last.1 - first.1) as f64 / (last.0 - first.0) as f64 * 1e3;
    assert!((1.8..=2.2).contains(&a_second), "{a_second} attempts a second for two nodes");
    world.members.set_wanted(whichever(false), world.at(10_000));
    assert!(world.members.wakes_at().expect("they back off") <= world.at(16_000));
}

#[test]
fn who_is_excluded_is_given_up_though_it_is_the_last() {
    let mut world = World::with(&["a", "b"]);
    let exclude = |world: &mut World, ids: &[&str]| {
        let ids: Vec<_> = ids.iter().map(|id| Arc::from(*id)).collect();
        world.members.exclude(&ids, world.at(1_000));
        world.act();
    };
    exclude(&mut world, &["a", "other"]);
    assert_eq!(world.picks(), ["b"]);
    exclude(&mut world, &["a", "b"]);
    assert!(world.picks().is_empty());
    assert_eq!(world.closed.len(), 2);
    world.insert(2_000, "a");
    world.connected(2_001, "a");
    assert_eq!(world.picks(), ["a"], "it passes again");
}

#[test]
fn who_is_excluded_is_given_up_at_the_address_that_it_had_before_too() {
    let mut world = World::with(&["a"]);
    world.update(1_000, Update::Insert(node("a", "a:2")));
    assert_eq!(world.picks(), ["a"], "called where it was, while the new address is dialled");
    world.members.exclude(&["a".into()], world.at(2_000));
    world.act();
    assert!(world.picks().is_empty());
    assert_eq!(world.closed.len(), 1);
}
