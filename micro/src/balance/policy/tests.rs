//! Each policy over sets that change, with fixed seeds.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use tracing::Level;

use super::{
    super::{
        EndpointId, Request,
        ewma::Load,
        snapshot::{Picked, Snapshot},
    },
    *,
};
use crate::fixture::Log;

mod keys;
mod serving;

/// When no node is in its slow start any more.
const LATER: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Last;

impl Policy for Last {
    fn pick(&self, candidates: &Candidates<'_>, _: &CallInfo<'_>) -> Option<usize> {
        candidates.len().checked_sub(1)
    }
}

fn all_policies() -> Vec<Balancing> {
    let mut all: Vec<_> = NAMED.into_iter().map(|(_, kind)| Balancing(kind)).collect();
    all.push(Balancing::consistent_hash(ConsistentHash::by_key().unbounded()));
    all.push(Balancing::zone_first("a"));
    all.push(Balancing::custom(Last));
    all
}

fn node(id: u64, facts: &[(&str, &str)]) -> Arc<Node> {
    let mut node = Node::new("greeter", id.to_string(), "host:1");
    for (key, value) in facts {
        node.metadata.insert((*key).to_owned(), (*value).to_owned());
    }
    Arc::new(node)
}

/// The set of one policy, and who picks from it.
struct Fleet {
    start: Instant,
    at: Duration,
    rng: Rng,
    picked: Picked<u64>,
}

impl Fleet {
    fn new(balancing: &Balancing) -> Self {
        Self {
            start: Instant::now(),
            at: Duration::ZERO,
            rng: Rng::with_seed(7),
            picked: Picked::new(balancing, false),
        }
    }

    fn of(balancing: &Balancing, nodes: std::ops::Range<u64>) -> Self {
        let mut fleet = Self::new(balancing);
        nodes.for_each(|id| fleet.insert(id, &[]));
        fleet.at = LATER;
        fleet
    }

    fn insert(&mut self, id: u64, facts: &[(&str, &str)]) {
        let now = self.start + self.at;
        let load = Load::new(None, Duration::from_secs(5), now);
        self.picked.insert(Endpoint::of(node(id, facts), EndpointId(id + 1), id, load));
    }

    fn remove(&mut self, id: u64) {
        self.picked.remove(EndpointId(id + 1));
    }

    /// The id of the node for a call, which is over at once.
    fn pick(&mut self, snapshot: &Snapshot<u64>, request: &Request<'_>) -> Option<u64> {
        let now = self.start + self.at;
        snapshot.pick(request, now, &mut self.rng).map(|endpoint| endpoint.connection)
    }

    /// How many of so many calls each node gets.
    fn shares(&mut self, calls: usize) -> BTreeMap<u64, usize> {
        let snapshot = self.picked.snapshot();
        let mut shares = BTreeMap::new();
        for _ in 0..calls {
            let id = self.pick(&snapshot, &Request::default()).expect("one is ready");
            *shares.entry(id).or_default() += 1;
        }
        shares
    }

    /// The node of each key.
    fn of_keys(&mut self, keys: u64) -> Vec<u64> {
        let snapshot = self.picked.snapshot();
        let request = |key| Request { hash: Some(hash_text(key)), ..Request::default() };
        (0..keys).map(|key| self.pick(&snapshot, &request(key)).expect("one is ready")).collect()
    }
}

#[test]
fn no_policy_picks_what_is_not_in_the_set_or_was_tried_while_there_is_another() {
    for balancing in all_policies() {
        let mut fleet = Fleet::new(&balancing);
        let mut rng = Rng::with_seed(1);
        let mut model = BTreeSet::new();
        for _ in 0..3_000 {
            let id = rng.u64(..12);
            if rng.bool() {
                let zone = if rng.bool() { "a" } else { "b" };
                let weight = rng.u8(..4).to_string();
                fleet.insert(id, &[("zone", zone), ("weight", &weight)]);
                model.insert(id);
            } else {
                fleet.remove(id);
                model.remove(&id);
            }
            let tried: Vec<_> = (0..rng.u64(..12)).map(|_| EndpointId(rng.u64(..12) + 1)).collect();
            let hash = rng.bool().then(|| rng.u64(..));
            let snapshot = fleet.picked.snapshot();
            let pick =
                fleet.pick(&snapshot, &Request { tried: &tried, hash, ..Request::default() });
            assert_eq!(pick.is_none(), model.is_empty(), "{balancing:?}: one if there is one");
            let Some(pick) = pick else {
                continue;
            };
            assert!(model.contains(&pick), "{balancing:?} picked {pick} of {model:?}");
            let was_tried = |id: &u64| tried.contains(&EndpointId(id + 1));
            let has_other = model.iter().any(|id| !was_tried(id));
            assert!(!was_tried(&pick) || !has_other, "{balancing:?}: {pick} after {tried:?}");
        }
    }
}

#[test]
fn a_pinned_call_gets_its_node_or_none_whatever_the_policy_and_what_was_tried() {
    for balancing in all_policies() {
        let mut fleet = Fleet::of(&balancing, 0..5);
        let snapshot = fleet.picked.snapshot();
        let tried = [EndpointId(4)];
        let pinned = |id| Request { node: Some(id), tried: &tried, ..Request::default() };
        for _ in 0..20 {
            assert_eq!(fleet.pick(&snapshot, &pinned("3")), Some(3), "{balancing:?}");
            assert_eq!(fleet.pick(&snapshot, &pinned("7")), None, "{balancing:?}");
        }
    }
}

#[test]
fn names_make_policies_and_a_slip_is_told() {
    for (name, _) in NAMED {
        name.parse::<Balancing>().expect("known");
    }
    let why = |name: &str| name.parse::<Balancing>().expect_err("none").to_string();
    assert_eq!(
        why("roundrobin"),
        "'roundrobin' is no balancing policy that a name makes; did you mean 'round_robin'?"
    );
    assert_eq!(
        why("maglev"),
        "'maglev' is no balancing policy that a name makes; take one of p2c, round_robin, random, \
         least_request, weighted, consistent_hash, pick_first"
    );
}

#[test]
fn round_robin_gives_each_its_turn() {
    let mut fleet = Fleet::of(&Balancing::round_robin(), 0..7);
    assert!(fleet.shares(700).values().all(|calls| *calls == 100));
    // What is none for these calls gives its turns to the others alike, not to the one after.
    let snapshot = fleet.picked.snapshot();
    let tried = [EndpointId(2), EndpointId(3), EndpointId(4)];
    let mut shares = HashMap::<_, usize>::new();
    for _ in 0..400 {
        let request = Request { tried: &tried, ..Request::default() };
        *shares.entry(fleet.pick(&snapshot, &request)).or_default() += 1;
    }
    assert!(shares.len() == 4 && shares.values().all(|calls| *calls == 100), "{shares:?}");
}

#[test]
fn random_is_even_in_the_long_run() {
    let shares = Fleet::of(&Balancing::random(), 0..10).shares(100_000);
    assert_eq!(shares.len(), 10);
    assert!(shares.values().all(|calls| (9_500..10_500).contains(calls)), "{shares:?}");
}

#[test]
fn least_request_takes_the_less_busy_of_two() {
    let mut fleet = Fleet::of(&Balancing::least_request(), 0..10);
    let snapshot = fleet.picked.snapshot();
    // Calls that do not end: two choices keep the busiest within a few of the mean.
    let mut calls = BTreeMap::<_, usize>::new();
    for _ in 0..1_000 {
        let now = fleet.start + fleet.at;
        let endpoint = snapshot.pick(&Request::default(), now, &mut fleet.rng).expect("ready");
        endpoint.load.begin();
        *calls.entry(endpoint.connection).or_default() += 1;
    }
    assert!(calls.values().all(|calls| (97..=103).contains(calls)), "{calls:?}");
}

#[test]
fn least_request_of_more_comes_to_a_busy_node_less_often() {
    // What the busy ones get, eight of ten.
    let share = |choices| {
        let mut fleet = Fleet::of(&Balancing::least_request_of(choices), 0..10);
        let snapshot = fleet.picked.snapshot();
        for id in 2..10 {
            fleet.picked.get(EndpointId(id + 1)).expect("there").load.begin();
        }
        let picks = (0..10_000).filter_map(|_| fleet.pick(&snapshot, &Request::default()));
        picks.filter(|id| *id >= 2).count() as f64 / 10_000.0
    };
    // That each that is drawn is busy, the first two of them different.
    let of_two = 8.0 / 10.0 * 7.0 / 9.0;
    for (choices, more) in [(2, 0), (3, 1), (5, 3), (10, 8), (11, 8), (u32::MAX, 8)] {
        let (found, expected) = (share(choices), of_two * 0.8_f64.powi(more));
        assert!((found - expected).abs() < 0.02, "{choices}: {found}, not {expected}");
    }
}

#[test]
fn least_request_of_another_number_is_another_policy() {
    assert_eq!(Balancing::least_request_of(2), Balancing::least_request());
    assert_ne!(Balancing::least_request_of(3), Balancing::least_request());
    assert_eq!(Balancing::least_request_of(11), Balancing::least_request_of(10));
}

#[test]
fn least_request_of_more_than_there_are_is_of_those() {
    for (nodes, tried) in [(1, vec![]), (2, vec![]), (3, vec![EndpointId(1), EndpointId(2)])] {
        let mut fleet = Fleet::of(&Balancing::least_request_of(10), 0..nodes);
        let snapshot = fleet.picked.snapshot();
        let request = Request { tried: &tried, ..Request::default() };
        let pick = fleet.pick(&snapshot, &request).expect("one is ready");
        assert!(!tried.contains(&EndpointId(pick + 1)), "{pick} of {nodes}");
    }
}

#[test]
fn weights_are_shares_to_about_a_call_and_change_with_the_record() {
    let mut fleet = Fleet::new(&Balancing::weighted());
    let weights = [1, 2, 5, 0, 12, 1000, 7];
    for (id, weight) in (0..).zip(weights) {
        fleet.insert(id, &[("weight", &weight.to_string())]);
    }
    fleet.at = LATER;
    for calls in [100, 1_027, 20_000] {
        let shares = fleet.shares(calls);
        for (id, weight) in (0..).zip(weights) {
            let expected = calls as f64 * f64::from(weight) / 1_027.0;
            let found = shares.get(&id).copied().unwrap_or(0);
            assert!((found as f64 - expected).abs() < 3.0, "{weight}: {found}, not {expected}");
        }
    }
    fleet.at = Duration::ZERO;
    fleet.insert(5, &[("weight", "3")]);
    fleet.at = LATER;
    let shares = fleet.shares(3_000);
    assert!((298..=302).contains(&shares[&5]), "3 of 30: {shares:?}");
    assert!(!shares.contains_key(&3), "weight 0");
}

#[test]
fn weights_of_ten_thousand_nodes_are_exact_too() {
    let mut fleet = Fleet::new(&Balancing::weighted());
    for id in 0..10_000 {
        fleet.insert(id, &[("weight", if id % 10 == 0 { "10" } else { "1" })]);
    }
    fleet.at = LATER;
    let shares = fleet.shares(190_000);
    for (id, calls) in shares {
        let expected = if id % 10 == 0 { 100..=100 } else { 10..=10 };
        let (least, most) = (expected.start() - 3, expected.end() + 3);
        assert!((least..=most).contains(&calls), "{id}: {calls}");
    }
}

#[test]
fn weights_stay_true_whatever_comes_and_goes() {
    let mut fleet = Fleet::new(&Balancing::weighted());
    let mut rng = Rng::with_seed(4);
    let mut weights = BTreeMap::new();
    for _ in 0..5_000 {
        let id = rng.u64(..400);
        if rng.bool() {
            let weight = rng.u32(..10);
            fleet.insert(id, &[("weight", &weight.to_string())]);
            weights.insert(id, weight);
        } else {
            fleet.remove(id);
            weights.remove(&id);
        }
    }
    fleet.at = LATER;
    let total = weights.values().sum::<u32>() as usize;
    let shares = fleet.shares(10 * total);
    for (id, weight) in weights {
        let (found, expected) = (shares.get(&id).copied().unwrap_or(0), 10 * weight as usize);
        assert!(found.abs_diff(expected) <= 3, "{id}: {found} calls, not {expected}");
    }
}

#[test]
fn without_any_weight_all_are_equal_and_what_is_none_counts_as_1() {
    let mut fleet = Fleet::new(&Balancing::weighted());
    (0..4).for_each(|id| fleet.insert(id, &[("weight", "0")]));
    fleet.at = LATER;
    let shares = fleet.shares(10_000);
    assert!(shares.values().all(|calls| (2_200..2_800).contains(calls)), "{shares:?}");
    for (text, expected) in [
        ("", 1),
        ("-1", 1),
        ("much", 1),
        ("2.5", 1),
        ("0", 0),
        ("1001", 1_001),
        ("65535", 65_535),
        ("65536", 65_535),
        ("99999999999999999999", 65_535),
        ("-99999999999999999999", 1),
    ] {
        assert_eq!(weighted::weight(&node(0, &[("weight", text)]), None), expected, "{text}");
    }
    assert_eq!(weighted::weight(&node(0, &[]), None), 1);
}

#[test]
fn a_weight_that_cannot_count_as_it_is_is_told_once() {
    let log = Log::down_to(Level::WARN);
    let mut fleet = Fleet::new(&Balancing::weighted());
    for (weight, told) in [("much", 1), ("much", 1), ("7", 1), ("65536", 2), ("65536", 2)] {
        fleet.insert(0, &[("weight", weight)]);
        assert_eq!(log.lines_with("the node's weight").len(), told, "{weight}");
    }
}

#[test]
fn the_largest_weights_are_shares_as_any() {
    for (one, other, expected) in [("60000", "500", 99_174), ("99999999", "65535", 50_000)] {
        let mut fleet = Fleet::new(&Balancing::weighted());
        fleet.insert(0, &[("weight", one)]);
        fleet.insert(1, &[("weight", other)]);
        fleet.at = LATER;
        let found = fleet.shares(100_000)[&0];
        assert!(found.abs_diff(expected) <= 3, "{one} beside {other}: {found}, not {expected}");
    }
}

#[test]
fn a_node_that_has_just_come_gets_less_of_its_weight_for_ten_seconds() {
    let mut fleet = Fleet::of(&Balancing::weighted(), 0..9);
    fleet.insert(9, &[]);
    let mut share = |secs| {
        fleet.at = LATER + Duration::from_secs(secs);
        fleet.shares(100_000).get(&9).copied().unwrap_or(0) as f64 / 10_000.0
    };
    for (secs, factor) in [(0, 0.1), (1, 0.1), (3, 0.3), (5, 0.5), (9, 0.9), (10, 1.0)] {
        let share = share(secs);
        assert!((share - factor).abs() < 0.1, "after {secs} s: {share}, not {factor}");
    }
}

#[test]
fn all_being_new_is_no_reason_to_leave_their_weights() {
    let mut fleet = Fleet::new(&Balancing::weighted());
    for (id, weight) in [(0, "1"), (1, "1"), (2, "2")] {
        fleet.insert(id, &[("weight", weight)]);
    }
    let shares = fleet.shares(40_000);
    assert!((18_000..22_000).contains(&shares[&2]), "{shares:?}");
}

#[test]
fn pick_first_holds_on_to_one_while_that_is_there() {
    let mut fleet = Fleet::of(&Balancing::pick_first(), 0..100);
    let shares = fleet.shares(1_000);
    assert_eq!(shares.len(), 1);
    let held = *shares.keys().next().expect("one");
    for id in (0..100).filter(|id| *id != held) {
        fleet.remove(id);
        fleet.insert(id + 100, &[]);
        assert_eq!(fleet.shares(5), BTreeMap::from([(held, 5)]), "wherever it is");
    }
    let snapshot = fleet.picked.snapshot();
    let tried = [EndpointId(held + 1)];
    let pick = fleet.pick(&snapshot, &Request { tried: &tried, ..Request::default() });
    assert_ne!(pick, Some(held), "a further attempt goes elsewhere");
    assert_eq!(fleet.shares(5), BTreeMap::from([(held, 5)]), "and takes nobody with it");
    fleet.remove(held);
    let shares = fleet.shares(100);
    assert!(shares.len() == 1 && !shares.contains_key(&held), "{shares:?}");
}

#[test]
fn the_own_zone_gets_all_while_it_is_well_and_gives_away_what_it_lacks() {
    let mut fleet = Fleet::new(&Balancing::zone_first("a"));
    let own: Vec<_> = (0..10).map(|id| node(id, &[("zone", "a")])).collect();
    let others = (10..30).map(|id| node(id, &[("zone", "b")]));
    fleet.picked.listed(&Update::Reset(own.iter().cloned().chain(others).collect()));
    (0..10).for_each(|id| fleet.insert(id, &[("zone", "a")]));
    (10..30).for_each(|id| fleet.insert(id, &[("zone", "b")]));
    let own_share = |fleet: &mut Fleet| {
        let shares = fleet.shares(20_000);
        shares.range(..10).map(|(_, calls)| *calls).sum::<usize>() as f64 / 20_000.0
    };
    for (ready, expected) in [(10, 1.0), (8, 1.0), (7, 0.98), (5, 0.7), (1, 0.14), (0, 0.0)] {
        (ready..10).for_each(|id| fleet.remove(id));
        let found = own_share(&mut fleet);
        assert!((found - expected).abs() < 0.02, "{ready} of 10 ready: {found}, not {expected}");
    }
    // What the registry no longer lists is not missing.
    (1..10).for_each(|id: u64| fleet.picked.listed(&Update::Remove(id.to_string().into())));
    fleet.insert(0, &[("zone", "a")]);
    assert_eq!(own_share(&mut fleet), 1.0);
    (10..30).for_each(|id| fleet.remove(id));
    assert_eq!(own_share(&mut fleet), 1.0, "there is no other");
}

#[test]
fn a_policy_that_picks_nothing_or_past_the_end_picks_nothing() {
    #[derive(Debug)]
    struct Past(Option<usize>);
    impl Policy for Past {
        fn pick(&self, _: &Candidates<'_>, _: &CallInfo<'_>) -> Option<usize> {
            self.0
        }
    }
    for (place, expected) in [(None, None), (Some(3), None), (Some(2), Some(2))] {
        let mut fleet = Fleet::of(&Balancing::custom(Past(place)), 0..3);
        let snapshot = fleet.picked.snapshot();
        assert_eq!(fleet.pick(&snapshot, &Request::default()), expected);
    }
}

#[test]
fn a_header_that_cannot_be_is_told() {
    let check = |hash: ConsistentHash| Balancing::from(hash).check();
    assert!(check(ConsistentHash::by_header("X-User")).is_ok());
    assert_eq!(
        check(ConsistentHash::by_header("user id")).expect_err("a space").to_string(),
        "consistent_hash by the header 'user id': no header can have that name; take letters, \
         digits and '-'"
    );
}
