//! Nodes that the registry removed.

use super::*;

#[test]
fn a_removed_node_lingers_unpicked_for_one_ttl_and_is_closed() {
    let mut world = World::with(&["a", "b"]);
    world.remove(1_000, "b");
    assert_eq!((world.picks(), world.closed.len()), (vec!["a"], 0));
    world.tick(1_000 + TTL - 1);
    assert!(world.closed.is_empty(), "it lingers");
    world.tick(1_000 + TTL);
    assert_eq!(world.closed, [2]);
    assert_eq!((world.picks(), world.members.wakes_at()), (vec!["a"], None));
}

#[test]
fn a_lingering_node_that_is_listed_again_keeps_its_connection_and_its_identity() {
    let mut world = World::with(&["a", "b"]);
    let before = world.picked.clone();
    world.remove(1_000, "b");
    world.insert(9_000, "b");
    assert_eq!(world.picked, before);
    world.tick(1_000 + 3 * TTL);
    assert_eq!((world.picks(), world.dials()), (vec!["a", "b"], 2));
    assert!(world.closed.is_empty());
}

#[test]
fn when_the_registry_empties_the_set_all_that_linger_are_picked_again() {
    let mut world = World::with(&["a", "b", "c"]);
    world.remove(0, "c");
    world.remove(9_000, "a");
    assert_eq!(world.picks(), ["b"]);
    world.remove(9_001, "b");
    assert_eq!(world.picks(), ["a", "b", "c"], "removed within the last TTL, and connected");
    // Each goes three TTLs after its own removal.
    world.tick(3 * TTL - 1);
    assert_eq!(world.picks(), ["a", "b", "c"]);
    world.tick(3 * TTL);
    assert_eq!(world.picks(), ["a", "b"]);
    world.tick(3 * TTL + 9_001);
    assert_eq!((world.picks(), world.closed.len()), (vec![], 3));
}

#[test]
fn an_empty_reset_retains_every_connected_node() {
    let mut world = World::with(&["a", "b"]);
    world.insert(0, "never-connected");
    world.reset(5_000, &[]);
    assert_eq!(world.picks(), ["a", "b"]);
    assert!(world.closed.is_empty());
}

#[test]
fn a_node_removed_longer_than_a_ttl_ago_is_not_retained() {
    let mut world = World::with(&["a", "b"]);
    world.remove(0, "a");
    // Not even when the tick that should have closed it is late.
    world.remove(TTL, "b");
    assert_eq!(world.picks(), ["b"]);
}

#[test]
fn a_retained_node_goes_with_its_connection() {
    for event in [World::goaway, World::closed] {
        let mut world = World::with(&["a", "b"]);
        world.reset(1_000, &[]);
        event(&mut world, 2_000, "a");
        assert_eq!(world.picks(), ["b"]);
        world.tick(10_000);
        assert_eq!(world.dials(), 2, "what the registry removed is not dialled");
    }
}

#[test]
fn retained_nodes_stay_beside_the_first_that_is_listed_again() {
    let mut world = World::with(&["a", "b", "c"]);
    world.reset(1_000, &[]);
    world.insert(3_000, "b");
    assert_eq!(world.picks(), ["a", "b", "c"], "b alone need not carry the load of three");
    world.tick(1_000 + 3 * TTL);
    assert_eq!((world.picks(), world.dials()), (vec!["b"], 3));
}

#[test]
fn while_no_listed_node_can_be_reached_those_that_linger_are_picked() {
    // As after a hand that wrote nonsense over every record.
    let mut world = World::with(&["a", "b"]);
    world.update(1_000, Update::Reset(vec![node("a", "nowhere:1")]));
    world.failed(1_010, "a");
    assert_eq!(world.picks(), ["a", "b"]);
    world.insert(6_000, "a");
    world.insert(6_000, "b");
    assert_eq!((world.picks(), world.dials()), (vec!["a", "b"], 3));
    world.tick(1_000 + 3 * TTL);
    assert!(world.closed.is_empty());
}

#[test]
fn a_node_that_is_ready_where_it_is_now_is_called_there_alone_and_those_gone_for_good_go_on() {
    for is_well_at_once in [true, false] {
        let mut world = World::with(&["a", "b"]);
        world.update(1_000, Update::Reset(vec![node("a", "a:2")]));
        assert_eq!(world.links(), [1, 2], "for want of others");
        let attempt = world.attempt("a");
        world.members.connected(&attempt, 3, is_well_at_once, world.at(1_010));
        world.act();
        if !is_well_at_once {
            assert_eq!(world.links(), [1, 2], "it has not said that it is well");
            world.members.told(&attempt, Ok(()), world.at(1_020));
            world.act();
        }
        assert_eq!((world.links(), world.closed.len()), (vec![2, 3], 0));
        world.tick(1_000 + TTL);
        assert_eq!(world.closed, [1]);
        world.tick(1_000 + 3 * TTL);
        assert_eq!((world.links(), world.closed.clone()), (vec![3], vec![1, 2]));
    }
}

#[test]
fn a_node_that_is_lost_where_it_is_now_is_called_where_it_was_within_the_ttl() {
    for (lost, expected) in [(2_000, vec![1]), (1_000 + TTL, vec![])] {
        let mut world = World::with(&["a"]);
        world.update(1_000, Update::Insert(node("a", "a:2")));
        world.connected(1_010, "a");
        world.closed(lost, "a");
        assert_eq!(world.links(), expected, "lost at {lost}");
    }
}

#[test]
fn a_node_that_is_back_where_it_was_is_called_there_alone() {
    let mut world = World::with(&["a"]);
    world.update(1_000, Update::Insert(node("a", "a:2")));
    world.connected(1_010, "a");
    world.goaway(1_020, "a");
    world.update(2_000, Update::Insert(node("a", "a:3")));
    assert_eq!(world.links(), [1], "it is nowhere else");
    world.insert(3_000, "a");
    assert_eq!((world.links(), world.dials()), (vec![1], 3));
    world.tick(60_000);
    assert_eq!((world.links(), world.closed.len()), (vec![1], 0));
}

#[test]
fn when_the_last_connected_node_is_lost_those_that_linger_are_picked() {
    let mut world = World::with(&["a", "b"]);
    world.remove(1_000, "a");
    assert_eq!(world.picks(), ["b"]);
    world.closed(2_000, "b");
    assert_eq!(world.picks(), ["a"]);
}

#[test]
fn a_call_that_waits_does_not_keep_a_removed_node() {
    let mut world = World::with(&["a", "b"]);
    world.remove(1_000, "b");
    world.members.set_wanted(whichever(true), world.at(2_000));
    world.tick(1_000 + TTL);
    assert_eq!(world.closed.len(), 1, "its time is over all the same");
}

#[test]
fn those_that_linger_are_picked_again_in_the_order_of_their_ids() {
    let ids = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let mut world = World::with(&ids);
    world.members.update(Update::Reset(Vec::new()), world.at(1_000));
    let actions = world.members.actions();
    let ids_of = |is_pick: bool| {
        let node = |action: &Action<u32>| match action {
            Action::Pick(_, node, ..) if is_pick => Some(node.id.clone()),
            Action::Unpick(_, node) if !is_pick => Some(node.id.clone()),
            _ => None,
        };
        actions.iter().filter_map(node).collect::<Vec<_>>()
    };
    assert_eq!(
        (ids_of(false), ids_of(true)),
        (ids.map(Into::into).into(), ids.map(Into::into).into()),
        "a run is told by its seed"
    );
}
