//! Each policy where only some of the nodes have a call's method.

use super::*;

const HELLO: &str = "/greeter.v1.Greeter/Hello";
const WAVE: &str = "/greeter.v1.Greeter/Wave";

/// So many nodes, of which those with `has_wave` have both methods, and the others none but `Hello`.
fn fleet(balancing: &Balancing, nodes: u64, has_wave: impl Fn(u64) -> bool) -> Fleet {
    let mut fleet = Fleet { picked: Picked::new(balancing, true), ..Fleet::new(balancing) };
    for id in 0..nodes {
        let mut node = Node::clone(&node(id, &[]));
        let methods =
            if has_wave(id) { &["Greeter.Hello", "Greeter.Wave"][..] } else { &["Greeter.Hello"] };
        let endpoint = |name: &&str| crate::registry::Endpoint {
            name: (*name).to_owned(),
            ..crate::registry::Endpoint::default()
        };
        node.endpoints = methods.iter().map(endpoint).collect();
        let load = Load::new(None, Duration::from_secs(5), fleet.start);
        fleet.picked.insert(Endpoint::of(Arc::new(node), EndpointId(id + 1), id, load));
    }
    fleet.at = LATER;
    fleet
}

#[test]
fn where_nodes_must_serve_the_method_no_other_is_picked() {
    for balancing in all_policies() {
        let mut fleet = fleet(&balancing, 200, |id| id % 50 == 3);
        let snapshot = fleet.picked.snapshot();
        let mut pick =
            |method, hash| fleet.pick(&snapshot, &Request { method, hash, ..Request::default() });
        for hash in 0..200 {
            let id = pick(WAVE, Some(hash)).expect("four serve it");
            assert_eq!(id % 50, 3, "{balancing:?}");
            assert_eq!(pick("/greeter.v1.Greeter/Bow", Some(hash)), None, "{balancing:?}");
        }
    }
}

/// The policies that spread calls evenly over equal nodes.
fn even() -> impl Iterator<Item = Balancing> {
    let all = all_policies().into_iter();
    all.filter(|it| !matches!(it.0, Kind::PickFirst | Kind::Custom(_)))
}

/// Where new nodes stand: a rollout adds them side by side, at the end.
const ROLLOUTS: [(u64, u64); 4] = [(3, 1), (4, 2), (12, 3), (60, 3)];

#[test]
fn a_method_of_few_nodes_is_spread_evenly_over_those() {
    for (nodes, new) in ROLLOUTS {
        for balancing in even() {
            let mut fleet = fleet(&balancing, nodes, |id| id >= nodes - new);
            let snapshot = fleet.picked.snapshot();
            let mut shares = BTreeMap::<_, u64>::new();
            for _ in 0..1_000 * new {
                let request = Request { method: WAVE, ..Request::default() };
                *shares.entry(fleet.pick(&snapshot, &request)).or_default() += 1;
            }
            let is_even = shares.values().all(|calls| (850..1_150).contains(calls));
            assert!(shares.len() as u64 == new && is_even, "{balancing:?}: {shares:?}");
        }
    }
}

#[test]
fn calls_of_a_method_that_few_nodes_have_take_no_others_turn() {
    for (nodes, new) in ROLLOUTS {
        for balancing in even() {
            let mut fleet = fleet(&balancing, nodes, |id| id >= nodes - new);
            let snapshot = fleet.picked.snapshot();
            let mut shares = BTreeMap::<_, u64>::new();
            for _ in 0..100 * nodes {
                let request = |method| Request { method, ..Request::default() };
                *shares.entry(fleet.pick(&snapshot, &request(HELLO))).or_default() += 1;
                fleet.pick(&snapshot, &request(WAVE)).expect("some have it");
            }
            let is_even = shares.values().all(|calls| (50..160).contains(calls));
            assert!(shares.len() as u64 == nodes && is_even, "{balancing:?}: {shares:?}");
        }
    }
}

#[test]
fn a_hot_key_is_bounded_by_the_mean_of_the_nodes_that_have_its_method() {
    let mut fleet = fleet(&ConsistentHash::by_key().into(), 100, |id| id % 10 == 3);
    let snapshot = fleet.picked.snapshot();
    let (mut counted, mut calls) = (Vec::new(), BTreeMap::<_, u32>::new());
    for _ in 0..100 {
        let request = Request { hash: Some(1), method: WAVE, ..Request::default() };
        let now = fleet.start + fleet.at;
        let endpoint = snapshot.pick(&request, now, &mut fleet.rng).expect("ten serve it");
        counted.push(snapshot.count(&endpoint.load));
        *calls.entry(endpoint.connection).or_default() += 1;
    }
    assert_eq!(calls.values().max(), Some(&13), "1.25 times ten, rounded up: {calls:?}");
}
