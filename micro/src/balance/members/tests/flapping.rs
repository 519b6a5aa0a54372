//! Nodes whose record comes and goes.

use super::*;

#[test]
fn a_record_that_flaps_has_a_node_that_fails_dialled_once_a_second() {
    let mut world = World::with(&["a"]);
    for ms in (0..10_000).step_by(10) {
        world.tick(ms);
        world.insert(ms, "b");
        world.failed(ms + 1, "b");
        world.remove(ms + 5, "b");
    }
    let dials = world.dials() - 1;
    // The first backoffs are shorter than a second.
    assert!((2..=14).contains(&dials), "{dials} dials in ten seconds");
}

#[test]
fn a_filter_that_a_record_passes_now_and_then_has_it_dialled_once_a_second() {
    let mut world = World::with(&["a"]);
    for ms in (0..10_000).step_by(10) {
        world.insert(ms, "b");
        world.members.exclude(&["b".into()], world.at(ms + 5));
        world.act();
    }
    assert_eq!(world.dials() - 1, 1, "the attempt is still under way");
}

#[test]
fn an_attempt_goes_on_while_its_node_is_unlisted_for_a_moment() {
    let mut world = World::with(&["a"]);
    world.insert(0, "b");
    world.remove(5, "b");
    world.insert(10, "b");
    world.connected(20, "b");
    assert_eq!((world.picks(), world.dials()), (vec!["a", "b"], 2));
}

#[test]
fn a_connection_of_a_node_that_is_not_listed_is_closed_and_made_again_when_it_is() {
    let mut world = World::with(&["a"]);
    world.insert(0, "b");
    world.remove(5, "b");
    let link = world.connected(20, "b");
    assert_eq!((world.picks(), &*world.closed), (vec!["a"], &[link][..]));
    world.insert(30, "b");
    assert_eq!(world.dials(), 2, "not twice in a second");
    world.tick(1_000);
    world.connected(1_010, "b");
    assert_eq!(world.picks(), ["a", "b"]);
}

#[test]
fn an_ejection_outlives_the_connection_and_the_record() {
    let mut world = World::with(&["a", "b"]);
    let tally =
        world.members.members.values().find(|it| *it.key.id == *"b").map(|it| it.tally.clone());
    world.members.failing(&tally.expect("it is there"), true, world.at(1_000));
    world.act();
    world.closed(2_000, "b");
    world.remove(2_001, "b");
    world.tick(2_001 + TTL);
    world.insert(20_000, "b");
    world.connected(20_001, "b");
    assert_eq!(world.picks(), ["a"], "it was ejected for 30 s, and longer than a TTL is that");
    world.remove(20_002, "b");
    world.closed(20_003, "b");
    world.tick(20_002 + 3 * TTL);
    assert_eq!(world.members.members.len(), 1, "what is over is forgotten");
}

#[test]
fn those_that_are_gone_are_remembered_up_to_a_bound() {
    let mut world = World::with(&["a"]);
    for index in 0..absent::MOST + 10 {
        let id = format!("n{index}");
        world.members.update(Update::Insert(node(&id, "n:1")), world.start);
        world.members.update(Update::Remove(id.as_str().into()), world.start);
    }
    world.act();
    assert_eq!(world.members.members.len(), 1 + absent::MOST);
}
