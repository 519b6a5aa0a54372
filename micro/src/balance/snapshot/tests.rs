use std::collections::BTreeMap;

use fastrand::Rng;
use proptest::prelude::*;

use super::{super::policy::ConsistentHash, *};
use crate::registry;

fn endpoint(id: u64, now: Instant) -> Arc<Endpoint<u64>> {
    Endpoint::new(EndpointId(id), id, Load::new(None, Duration::from_secs(5), now))
}

fn picked(count: u64, now: Instant) -> Picked<u64> {
    let mut picked = Picked::new(&Balancing::p2c(), false);
    for id in 0..count {
        assert!(picked.insert(endpoint(id, now)));
    }
    picked
}

fn tried(tried: &[EndpointId]) -> Request<'_> {
    Request { tried, ..Request::default() }
}

fn ids(snapshot: &Snapshot<u64>) -> Vec<u64> {
    let mut ids: Vec<_> = (0..snapshot.len()).map(|i| snapshot.set.get(i).id.0).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn an_empty_set_has_nothing_to_pick() {
    let snapshot = Snapshot::<u64>::empty();
    let now = Instant::now();
    assert!(snapshot.pick(&Request::default(), now, &mut Rng::with_seed(0)).is_none());
    assert!(snapshot.pick(&tried(&[EndpointId(1)]), now, &mut Rng::with_seed(0)).is_none());
}

#[test]
fn the_cheaper_of_two_different_endpoints_is_picked() {
    let now = Instant::now();
    let snapshot = picked(2, now).snapshot();
    for _ in 0..2 {
        snapshot.set.get(0).load.begin();
    }
    let mut rng = Rng::with_seed(1);
    for _ in 0..100 {
        let pick = snapshot.pick(&Request::default(), now, &mut rng).expect("two are ready");
        assert_eq!(pick.id, EndpointId(1), "not the one with two calls in flight");
    }
}

#[test]
fn what_was_tried_is_avoided_while_another_is_ready() {
    let now = Instant::now();
    let snapshot = picked(300, now).snapshot();
    let four = [EndpointId(3), EndpointId(4), EndpointId(5), EndpointId(200)];
    let mut rng = Rng::with_seed(2);
    let mut seen = std::collections::HashSet::new();
    for _ in 0..10_000 {
        let pick = snapshot.pick(&tried(&four), now, &mut rng).expect("ready");
        assert!(!four.contains(&pick.id), "{:?} was tried", pick.id);
        seen.insert(pick.id);
    }
    assert_eq!(seen.len(), 296, "every other one gets its turn");

    let snapshot = picked(2, now).snapshot();
    snapshot.set.get(1).load.begin();
    let pick = snapshot.pick(&tried(&[EndpointId(0)]), now, &mut rng).expect("ready");
    assert_eq!(pick.id, EndpointId(1), "the only other one, though it is dearer");
    let both = [EndpointId(0), EndpointId(1)];
    assert!(snapshot.pick(&tried(&both), now, &mut rng).is_some(), "rather than none");
}

#[test]
fn a_snapshot_keeps_what_it_was_taken_of() {
    let now = Instant::now();
    let mut picked = picked(5, now);
    let before = picked.snapshot();
    picked.remove(EndpointId(1));
    assert!(picked.insert(endpoint(7, now)));
    assert_eq!(ids(&before), [0, 1, 2, 3, 4]);
    assert_eq!(ids(&picked.snapshot()), [0, 2, 3, 4, 7]);
}

#[test]
fn a_new_record_replaces_the_endpoint_in_its_place() {
    let now = Instant::now();
    let mut picked = picked(3, now);
    let load = Load::new(None, Duration::from_secs(5), now);
    assert!(!picked.insert(Endpoint::new(EndpointId(1), 99, load)));
    assert_eq!(picked.snapshot().set.get(1).connection, 99);
    assert_eq!(picked.len(), 3);
}

/// A node comes, or is written anew: in this zone, of this weight, with these methods, or all if it lists
/// none.
#[derive(Debug, Clone)]
struct Record {
    zone: &'static str,
    weight: &'static str,
    methods: Vec<&'static str>,
}

const METHODS: [&str; 3] = ["Greeter.Hello", "Greeter.Bow", "Greeter.Wave"];

fn record() -> impl Strategy<Value = Record> {
    let weight = prop::sample::select(vec!["0", "1", "7"]);
    let methods = prop::sample::subsequence(METHODS.to_vec(), 0..=2);
    (prop::sample::select(vec!["a", "b"]), weight, methods)
        .prop_map(|(zone, weight, methods)| Record { zone, weight, methods })
}

impl Record {
    fn node(&self, id: u64) -> Node {
        let mut node = Node::new("greeter", id.to_string(), "host:1");
        node.metadata.insert("zone".to_owned(), self.zone.to_owned());
        node.metadata.insert("weight".to_owned(), self.weight.to_owned());
        let endpoint =
            |name: &str| registry::Endpoint { name: name.to_owned(), ..Default::default() };
        node.endpoints = self.methods.iter().map(|name| endpoint(name)).collect();
        node
    }
}

fn balancing() -> impl Strategy<Value = Balancing> {
    prop::sample::select(vec![
        Balancing::p2c(),
        Balancing::round_robin(),
        Balancing::random(),
        Balancing::least_request(),
        Balancing::weighted(),
        Balancing::consistent_hash(ConsistentHash::by_key()),
        Balancing::consistent_hash(ConsistentHash::by_key().unbounded()),
        Balancing::pick_first(),
        Balancing::zone_first("a"),
    ])
}

/// What a call asks for.
#[derive(Debug, Clone)]
struct Wish {
    method: &'static str,
    tried: Vec<EndpointId>,
    hash: Option<u64>,
    node: Option<String>,
    limit: Option<u32>,
}

fn wish(ids: u64) -> impl Strategy<Value = Wish> {
    let tried = prop::collection::vec((0..ids).prop_map(EndpointId), 0..4);
    let node = prop::option::weighted(0.2, (0..ids).prop_map(|id| id.to_string()));
    let limit = prop::option::weighted(0.3, 0..3_u32);
    let method = prop::sample::select(&METHODS);
    (method, tried, any::<Option<u64>>(), node, limit)
        .prop_map(|(method, tried, hash, node, limit)| Wish { method, tried, hash, node, limit })
}

/// Changes of a set of so many ids, and what calls then ask for. Sets of several chunks among them.
type Sequence = (Vec<(u64, Option<Record>)>, Vec<Wish>);

fn sequence() -> impl Strategy<Value = Sequence> {
    let lengths = prop_oneof![4 => Just((6_u64, 40_usize)), 1 => Just((400, 700))];
    lengths.prop_flat_map(|(ids, length)| {
        let change = (0..ids, prop::option::weighted(0.6, record()));
        let changes = prop::collection::vec(change, 0..length);
        (changes, prop::collection::vec(wish(ids), 1..10))
    })
}

proptest! {
    #[test]
    fn whatever_came_and_went_a_call_goes_to_what_is_there(
        balancing in balancing(),
        serving: bool,
        (changes, wishes) in sequence(),
        seed: u64,
    ) {
        let now = Instant::now();
        let mut rng = Rng::with_seed(seed);
        let mut picked = Picked::new(&balancing, serving);
        let mut model = BTreeMap::<u64, Arc<Endpoint<u64>>>::new();
        for (id, record) in &changes {
            if let Some(record) = record {
                let load = Load::new(None, Duration::from_secs(5), now);
                (0..rng.u32(..3)).for_each(|_| load.begin());
                let endpoint = Endpoint::of(Arc::new(record.node(*id)), EndpointId(*id), *id, load);
                let is_new = model.insert(*id, endpoint.clone()).is_none();
                prop_assert_eq!(picked.insert(endpoint), is_new);
            } else {
                picked.remove(EndpointId(*id));
                model.remove(id);
            }
            prop_assert_eq!(picked.len(), model.len());
        }
        let snapshot = picked.snapshot();
        prop_assert_eq!(ids(&snapshot), Vec::from_iter(model.keys().copied()));
        if balancing == Balancing::zone_first("a") {
            let zone = |place| snapshot.set.get(place).node.metadata["zone"].as_str();
            prop_assert!(snapshot.set.own().all(|place| zone(place) == "a"));
            prop_assert!(snapshot.set.others().all(|place| zone(place) == "b"));
        }
        for Wish { method, tried, hash, node, limit } in &wishes {
            let path = method.replace("Greeter.", "/greeter.v1.Greeter/");
            let request = Request {
                tried,
                method: &path,
                hash: *hash,
                node: node.as_deref(),
                limit: *limit,
                ..Request::default()
            };
            let has_room =
                |it: &Endpoint<u64>| limit.is_none_or(|limit| it.load.in_flight() < limit);
            let serves = |it: &Endpoint<u64>| {
                let listed = &it.node.endpoints;
                !serving || listed.is_empty() || listed.iter().any(|it| it.name == *method)
            };
            let is_meant = |it: &Endpoint<u64>| match node {
                Some(id) => it.node.id == *id,
                None => serves(it),
            };
            let could: Vec<_> = model.values().filter(|it| has_room(it) && is_meant(it)).collect();
            let is_untried = |it: &Endpoint<u64>| node.is_some() || !tried.contains(&it.id);
            let is_another = could.iter().any(|it| is_untried(it));
            match snapshot.pick(&request, now, &mut rng) {
                None => prop_assert!(could.is_empty(), "{:?} is there", could[0].id),
                Some(pick) => {
                    prop_assert!(could.iter().any(|it| Arc::ptr_eq(it, pick)), "{pick:?}");
                    prop_assert!(is_untried(pick) || !is_another, "{:?} was tried", pick.id);
                }
            }
        }
    }
}

#[test]
fn a_change_among_10_000_copies_one_chunk() {
    let now = Instant::now();
    let mut picked = picked(10_000, now);
    let before = picked.snapshot();
    assert!(!picked.insert(endpoint(5_000, now)));
    let after = picked.snapshot();
    let copied = before
        .set
        .chunks()
        .iter()
        .zip(after.set.chunks())
        .filter(|(a, b)| !Arc::ptr_eq(a, b))
        .count();
    assert_eq!(copied, 1);
}

#[test]
fn the_median_is_of_measured_latencies() {
    let now = Instant::now();
    let mut picked = picked(5, now);
    assert_eq!(picked.median_latency(now), None, "none has answered");
    let snapshot = picked.snapshot();
    for (place, ms) in [(0, 1), (2, 3), (4, 500)] {
        snapshot.set.get(place).load.succeeded(Duration::from_millis(ms), now);
    }
    let median = picked.median_latency(now).expect("three have answered");
    assert!(median.abs_diff(Duration::from_millis(3)) < Duration::from_micros(1), "{median:?}");
}
