//! Calls with a key, which go to one node.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::*;

#[test]
fn keys_move_only_to_or_from_the_node_that_changed() {
    let hash = ConsistentHash::by_key().unbounded();
    let mut fleet = Fleet::of(&hash.into(), 0..50);
    let before = fleet.of_keys(10_000);
    fleet.insert(50, &[]);
    let with = fleet.of_keys(10_000);
    let moved = before.iter().zip(&with).filter(|(before, with)| before != with);
    let to: Vec<_> = moved.map(|(_, with)| *with).collect();
    assert!(to.iter().all(|to| *to == 50), "only to the one that came");
    assert!((100..350).contains(&to.len()), "about its share: {}", to.len());

    fleet.remove(50);
    assert_eq!(fleet.of_keys(10_000), before, "as before it came");
    fleet.remove(17);
    for (key, (before, after)) in before.iter().zip(fleet.of_keys(10_000)).enumerate() {
        assert!(*before == after || *before == 17, "key {key} moved from {before} to {after}");
    }
}

#[test]
fn the_node_with_most_keys_has_little_more_than_the_mean() {
    for nodes in [3, 10, 300] {
        let mut fleet = Fleet::of(&ConsistentHash::by_key().unbounded().into(), 0..nodes);
        let mut keys = HashMap::<_, u64>::new();
        for id in fleet.of_keys(1_000 * nodes) {
            *keys.entry(id).or_default() += 1;
        }
        let most = keys.values().max().copied().unwrap_or(0);
        assert!(most < 1_300, "{nodes} nodes: {most} of 1000 on average");
    }
}

#[test]
fn the_ring_in_chunks_is_the_ring() {
    let hash = ConsistentHash::by_key().unbounded();
    let mut rng = Rng::with_seed(5);
    let mut fleet = Fleet::of(&hash.clone().into(), 0..2_000);
    let mut left = BTreeSet::from_iter(0..2_000);
    for _ in 0..1_900 {
        let id = rng.u64(..2_000);
        fleet.remove(id);
        left.remove(&id);
    }
    for id in 3_000..3_500 {
        fleet.insert(id, &[]);
        left.insert(id);
    }
    let found = fleet.of_keys(5_000);
    // The same nodes in another order, in chunks that never were split.
    let mut other = Fleet::new(&hash.into());
    left.iter().rev().for_each(|id| other.insert(*id, &[]));
    assert_eq!(found, other.of_keys(5_000));
}

#[test]
fn a_hot_key_fills_its_node_to_the_bound_and_no_further() {
    let busiest = |hash: ConsistentHash| {
        let mut fleet = Fleet::of(&hash.into(), 0..10);
        let snapshot = fleet.picked.snapshot();
        let mut counted = Vec::new();
        let mut calls = BTreeMap::<_, u32>::new();
        for _ in 0..100 {
            let request = Request { hash: Some(1), ..Request::default() };
            let now = fleet.start + fleet.at;
            let endpoint = snapshot.pick(&request, now, &mut fleet.rng).expect("ready");
            endpoint.load.begin();
            counted.push(snapshot.count(&endpoint.load));
            *calls.entry(endpoint.connection).or_default() += 1;
        }
        calls.into_values().max().unwrap_or(0)
    };
    assert_eq!(busiest(ConsistentHash::by_key()), 13, "1.25 times ten, rounded up");
    assert_eq!(busiest(ConsistentHash::by_key().unbounded()), 100);
}

#[test]
fn what_began_before_the_bound_was_set_fills_no_node() {
    let hash: Balancing = ConsistentHash::by_key().into();
    let owners = Fleet::of(&hash, 0..10).of_keys(100);
    let mut fleet = Fleet::of(&Balancing::p2c(), 0..10);
    // Streams that take long, on some of the nodes.
    for id in [0, 1, 2] {
        let endpoint = fleet.picked.get(EndpointId(id + 1)).expect("it is there");
        (0..9).for_each(|_| endpoint.load.begin());
    }
    let none = || Update::Reset(Vec::new());
    fleet.picked.set_balancing(&hash, &none());
    assert_eq!(fleet.of_keys(100), owners);

    // What began under a bound counts under the next.
    let snapshot = fleet.picked.snapshot();
    let mut counted = Vec::new();
    for _ in 0..39 {
        let request = Request { hash: Some(hash_text(0)), ..Request::default() };
        let now = fleet.start + fleet.at;
        let endpoint = snapshot.pick(&request, now, &mut fleet.rng).expect("ready");
        counted.push(snapshot.count(&endpoint.load));
    }
    let before = fleet.of_keys(100);
    assert_ne!(before, owners, "one is full");
    for balancing in [Balancing::p2c(), ConsistentHash::by_header("key").into()] {
        fleet.picked.set_balancing(&balancing, &none());
    }
    assert_eq!(fleet.of_keys(100), before);
}

#[test]
fn a_call_without_a_key_goes_anywhere() {
    let shares = Fleet::of(&ConsistentHash::by_key().into(), 0..4).shares(4_000);
    assert!(shares.values().all(|calls| (800..1_200).contains(calls)), "{shares:?}");
}

#[test]
fn a_keys_text_is_the_key() {
    assert_eq!(hash_text(42), consistent_hash::hash_bytes(b"42"));
    assert_eq!(hash_text(format_args!("{}-{}", "ab", 7)), consistent_hash::hash_bytes(b"ab-7"));
    assert_ne!(hash_text("a"), hash_text("b"));
}
