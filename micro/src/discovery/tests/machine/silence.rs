//! Nodes whose registry does not answer.

use std::time::Duration;

use super::World;

#[test]
fn how_old_the_registrys_word_is_counts_from_the_failure_to_the_next_answer() {
    let mut world = World::with(5, &["a@x"]);
    assert_eq!(world.status().stale, None);
    world.pass(10_000);
    world.disconnected();
    let since = world.status().stale;
    assert_eq!(since, Some(world.now));
    world.wake();
    world.pass(500);
    world.read_fails();
    assert_eq!(world.status().stale, since, "it was silent before");
    world.wake();
    world.listing(6, &["a@x#5"]);
    assert_eq!(world.status().stale, None);
}

#[test]
fn nodes_whose_registry_is_silent_for_too_long_are_given_up_and_come_back_with_it() {
    let max_stale = Duration::from_secs(60);
    let mut world = World::bounded(max_stale);
    world.wake();
    world.listing(5, &["a@x", "b@y"]);
    world.pass(10_000);
    world.disconnected();
    let given_up_at = world.now + max_stale;
    let told = loop {
        let told = world.wake();
        world.read_fails();
        if told.contains("forget") {
            break told;
        }
        assert!(world.now < given_up_at);
    };
    assert!(told.starts_with("given-up forget"), "{told}");
    assert_eq!(world.now, given_up_at);
    let error = world.error().expect("there is one");
    assert!(error.contains("has not answered for 60s, its max_stale: down"), "{error}");
    for _ in 0..10 {
        assert!(!world.wake().contains("forget"), "once is enough");
        world.read_fails();
        assert_eq!(world.error().as_deref(), Some(&*error), "it is said until all is well");
    }
    world.wake();
    let told = world.listing(5, &["a@x", "b@y"]);
    assert_eq!(told, "recovered +a@x +b@y watch>5");
    assert_eq!((world.error(), world.status().stale), (None, None));
}

#[test]
fn without_a_bound_nodes_are_kept_for_ever() {
    let mut world = World::with(5, &["a@x"]);
    world.disconnected();
    for _ in 0..10_000 {
        assert_eq!(world.wake(), "read");
        assert_eq!(world.read_fails(), "");
    }
}

#[test]
fn what_is_remembered_serves_until_the_registry_answers() {
    let mut world = World::new(7);
    assert_eq!(world.wake(), "read");
    let hour = Duration::from_secs(3600);
    assert_eq!(world.remembered(&["a@x", "b@y"], hour), "", "the registry may well answer");
    let told = world.read_fails();
    assert_eq!(told, "trouble:down remembered =[a@x b@y]");
    let status = world.status();
    assert_eq!((status.synced, status.stale), (false, Some(world.now - hour)));
    assert_eq!(world.wake(), "read");
    assert_eq!(world.read_fails(), "");
    world.wake();
    assert_eq!(world.listing(9, &["b@y#3", "c@z#9"]), "recovered =[b@y c@z] watch>9");
    assert_eq!((world.status().synced, world.status().stale), (true, None));
    assert_eq!(world.batch(10, &["-b"]), "-b", "under the registry's own keys");
}

#[test]
fn what_is_remembered_too_late_or_too_old_is_of_no_use() {
    let mut world = World::with(5, &["a@x"]);
    assert_eq!(world.remembered(&["b@y"], Duration::ZERO), "");
    world.disconnected();
    world.wake();
    assert_eq!(world.read_fails(), "", "the registry has spoken since");

    // The file may be slower than the registry's refusal.
    let mut world = World::new(7);
    world.wake();
    world.read_fails();
    assert_eq!(world.remembered(&["b@y"], Duration::ZERO), "remembered =[b@y]");

    let mut world = World::bounded(Duration::from_secs(60));
    world.wake();
    world.remembered(&["b@y"], Duration::from_secs(61));
    world.read_fails();
    assert_eq!(world.wake(), "given-up forget");
}
