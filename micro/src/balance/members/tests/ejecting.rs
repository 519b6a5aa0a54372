//! Ejections, and what keeps them from emptying the set.

use super::*;

impl World {
    fn member(&self, id: &str) -> Option<&Member<u32>> {
        self.members.members.values().find(|member| &*member.key.id == id)
    }

    fn tally(&self, id: &str) -> Arc<Tally> {
        self.member(id).expect("a member").tally.clone()
    }

    fn broke(&mut self, ms: u64, id: &str) {
        self.members.failing(&self.tally(id), true, self.at(ms));
        self.act();
    }

    fn probed(&mut self, ms: u64, id: &str, is_well: bool) {
        let endpoint = self.member(id).expect("a member").endpoint;
        self.probes.remove(&endpoint);
        self.members.probed(&self.tally(id), self.at(ms), is_well, self.at(ms));
        self.act();
    }

    /// Calls of a node in an interval.
    fn calls(&self, id: &str, answered: u32, failed: u32) {
        let tally = self.tally(id);
        (0..answered).for_each(|_| tally.answered());
        for _ in 0..failed {
            tally.failed();
        }
    }

    fn probes(&self) -> Vec<&str> {
        self.probes.values().map(|(node, _)| node.id.as_str()).collect()
    }
}

#[test]
fn three_transport_failures_eject_a_node_until_one_probe_went_well() {
    let mut world = World::with(&["a", "b", "c"]);
    world.broke(1_000, "a");
    assert_eq!(world.picks(), ["b", "c"]);
    world.tick(30_999);
    assert!(world.probes().is_empty(), "30 s are not over");
    world.tick(31_000);
    assert_eq!(world.probes(), ["a"]);
    assert_eq!(world.picks(), ["b", "c"], "one call may try it, and no other");

    world.probed(31_020, "a", false);
    assert_eq!(world.picks(), ["b", "c"]);
    assert!(world.probes().is_empty());
    world.tick(91_020);
    assert_eq!(world.probes(), ["a"], "the second time, twice as long");
    world.probed(91_030, "a", true);
    assert_eq!(world.picks(), ["a", "b", "c"]);
}

#[test]
fn a_probe_of_an_earlier_ejection_decides_nothing() {
    for is_well in [true, false] {
        let mut world = World::with(&["a", "b", "c"]);
        world.broke(1_000, "a");
        world.tick(31_000);
        let began = world.at(31_000);
        world.probed(41_000, "a", false);
        world.tick(101_000);
        assert_eq!(world.probes(), ["a"], "its second time is over");
        world.members.probed(&world.tally("a"), began, is_well, world.at(101_001));
        world.act();
        assert_eq!((world.picks(), world.probes()), (vec!["b", "c"], vec!["a"]), "{is_well}");
        world.probed(101_002, "a", true);
        assert_eq!(world.picks(), ["a", "b", "c"]);
    }
}

#[test]
fn rules_that_are_set_more_often_than_outliers_are_looked_for_do_not_put_that_off() {
    let mut world = World::with(&["a", "b", "c"]);
    let due = world.members.sweeps_at();
    let mut rules = Rules { max_ejection_percent: 50, ..Rules::default() };
    for ms in [3_000, 6_000, 9_000] {
        rules.max_ejection_percent -= 1;
        world.members.set_rules(rules.clone(), world.at(ms));
        assert_eq!(world.members.sweeps_at(), due);
    }
    rules.interval *= 2;
    world.members.set_rules(rules, world.at(9_000));
    assert_eq!(world.members.sweeps_at(), Some(world.at(29_000)));
}

#[test]
fn half_may_be_out_and_one_of_one_never() {
    let mut world = World::with(&["a", "b", "c", "d"]);
    for id in ["a", "b", "c", "d"] {
        world.broke(1_000, id);
    }
    assert_eq!(world.picks(), ["c", "d"]);
    let mut world = World::with(&["a"]);
    world.broke(1_000, "a");
    assert_eq!(world.picks(), ["a"]);
}

#[test]
fn who_is_out_is_let_in_when_the_others_are_lost() {
    let mut world = World::with(&["a", "b", "c"]);
    world.broke(1_000, "a");
    world.closed(2_000, "b");
    assert_eq!(world.picks(), ["c"], "one of two");
    world.closed(2_000, "c");
    assert_eq!(world.picks(), ["a"], "rather than none");

    let mut world = World::with(&["a", "b"]);
    world.broke(1_000, "a");
    world.remove(2_000, "b");
    assert_eq!(world.picks(), ["a"], "removed is as good as lost");
}

#[test]
fn a_probe_is_withdrawn_when_its_node_is_let_in_or_lost() {
    let mut world = World::with(&["a", "b", "c"]);
    world.broke(1_000, "a");
    world.tick(31_000);
    world.closed(32_000, "a");
    assert!(world.probes().is_empty(), "it has no connection");
    world.connected(33_000, "a");
    assert_eq!(world.probes(), ["a"]);
    world.closed(34_000, "b");
    world.closed(34_000, "c");
    assert_eq!(world.picks(), ["a"]);
    assert!(world.probes().is_empty());
    world.probed(34_001, "a", false);
    assert_eq!(world.picks(), ["a"], "the probe that was under way decides nothing any more");
}

#[test]
fn a_node_stays_out_over_a_new_connection_and_a_new_record_but_not_at_a_new_address() {
    let mut world = World::with(&["a", "b", "c"]);
    world.broke(1_000, "a");
    world.closed(2_000, "a");
    world.connected(2_500, "a");
    let mut renewed = Node::new("greeter", "a", "a:1");
    renewed.metadata.insert("zone".into(), "z".into());
    world.update(3_000, Update::Insert(Arc::new(renewed)));
    assert_eq!(world.picks(), ["b", "c"]);
    let old = world.tally("a");
    world.update(4_000, Update::Insert(node("a", "a:2")));
    world.connected(4_001, "a");
    assert_eq!(world.picks(), ["a", "b", "c"]);
    world.members.failing(&old, true, world.at(4_002));
    world.act();
    assert_eq!(world.picks(), ["a", "b", "c"], "the old endpoint's calls are nothing to it");
}

#[test]
fn outliers_are_looked_for_every_ten_seconds() {
    let mut world = World::with(&["a", "b", "c"]);
    world.calls("a", 5, 95);
    world.calls("b", 100, 0);
    world.calls("c", 100, 0);
    world.tick(9_999);
    assert_eq!(world.picks(), ["a", "b", "c"]);
    world.tick(10_000);
    assert_eq!(world.picks(), ["b", "c"]);

    let mut world = World::with(&["a", "b", "c"]);
    for interval in 1..=3 {
        for id in ["a", "b", "c"] {
            world.calls(id, if id == "a" { 0 } else { 100 }, if id == "a" { 49 } else { 0 });
        }
        world.tick(interval * 10_000);
    }
    assert_eq!(world.picks(), ["a", "b", "c"], "calls of another interval are none of this one's");
}

#[test]
fn outliers_are_looked_for_again_once_nodes_are_well_that_were_all_unwell() {
    let ids = ["a", "b", "c"];
    let mut world = World::with(&ids);
    let told = |world: &mut World, ms: u64, health: Result<(), Arc<str>>| {
        for id in ids {
            world.members.told(&world.attempt(id), health.clone(), world.at(ms));
        }
        world.act();
    };
    told(&mut world, 5_000, Err("NOT_SERVING".into()));
    world.tick(10_000);
    world.tick(20_000);
    told(&mut world, 21_000, Ok(()));
    world.calls("a", 5, 95);
    world.calls("b", 100, 0);
    world.calls("c", 100, 0);
    world.tick(30_000);
    assert_eq!(world.picks(), ["b", "c"]);
    ids.iter().for_each(|id| world.remove(31_000, id));
    world.tick(100_000);
    assert_eq!(world.members.sweeps_at(), None, "there is nobody left");
}

#[test]
fn an_interval_without_ejection_is_forgiven() {
    let mut world = World::with(&["a", "b", "c"]);
    world.broke(1_000, "a");
    world.tick(31_000);
    world.probed(31_000, "a", true);
    world.tick(41_000);
    world.broke(42_000, "a");
    world.tick(71_999);
    assert!(world.probes().is_empty());
    world.tick(72_000);
    assert_eq!(world.probes(), ["a"], "30 s again");
}

#[test]
fn failures_eject_a_node_while_the_others_answer() {
    let fails = |world: &mut World, ms: u64, id: &str| {
        let tally = world.tally(id);
        for _ in 0..5 {
            tally.failed();
        }
        world.members.failing(&tally, false, world.at(ms));
        world.act();
    };
    let mut world = World::with(&["a", "b", "c"]);
    fails(&mut world, 1_000, "a");
    assert_eq!(world.picks(), ["a", "b", "c"], "the others were not called: they may fail too");
    let answer = |world: &World, id: &str, calls: u32| {
        let tally = world.tally(id);
        (0..calls).for_each(|_| tally.answered());
    };
    answer(&world, "b", 1);
    fails(&mut world, 1_000, "a");
    assert_eq!(world.picks(), ["a", "b", "c"], "one answer says little of them");
    answer(&world, "b", 10);
    answer(&world, "c", 10);
    fails(&mut world, 1_000, "a");
    assert_eq!(world.picks(), ["b", "c"]);

    let mut world = World::with(&["a", "b", "c", "d"]);
    for id in ["b", "c", "d"] {
        answer(&world, id, 30);
        world.tally(id).failed();
    }
    fails(&mut world, 1_000, "a");
    assert_eq!(world.picks(), ["a", "b", "c", "d"], "what they all need may be down");
    answer(&world, "c", 2);
    answer(&world, "d", 2);
    fails(&mut world, 2_000, "a");
    assert_eq!(world.picks(), ["b", "c", "d"], "two of the three others answer");

    let mut world = World::with(&["a"]);
    fails(&mut world, 1_000, "a");
    assert_eq!(world.picks(), ["a"], "the last");
}

/// The share of the time, ten minutes of 200 calls a second, that each node is out, were its calls to fail
/// as often as that.
fn share_out(failing: &[f64], seed: u64) -> Vec<f64> {
    let ids: Vec<_> = (0..failing.len()).map(|place| format!("n{place}")).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let mut world = World::with(&ids);
    let mut rng = Rng::with_seed(seed);
    let mut out = vec![0.0; ids.len()];
    const CALLS: u64 = 120_000;
    for call in 0..CALLS {
        let now = call * 5;
        let picked = world.picks();
        for (id, out) in ids.iter().zip(&mut out) {
            *out += f64::from(u8::from(!picked.contains(id))) / CALLS as f64;
        }
        let probed = world.probes().first().copied();
        let id = probed.unwrap_or_else(|| picked[rng.usize(..picked.len())]);
        let is_probe = probed.is_some();
        let place = ids.iter().position(|it| *it == id).expect("it is one of them");
        let id = ids[place];
        let is_well = rng.f64() >= failing[place];
        let tally = world.tally(id);
        if is_well {
            tally.answered();
        } else if tally.failed().is_some() {
            world.members.failing(&tally, false, world.at(now));
        }
        if is_probe {
            world.probed(now, id, is_well);
        }
        world.tick(now);
    }
    out
}

#[test]
fn nodes_that_fail_alike_stay_in() {
    for (nodes, failing) in
        [(3, 0.05), (3, 0.2), (3, 0.4), (3, 0.8), (10, 0.01), (10, 0.3), (10, 0.8)]
    {
        let out: f64 = share_out(&vec![failing; nodes], 7).iter().sum();
        assert!(out < 0.01, "{out} of {nodes} nodes, each of whose calls fails with {failing}");
    }
}

#[test]
fn a_node_that_fails_most_of_its_calls_is_out_though_some_of_the_others_fail() {
    for (here, there) in [(1.0, 0.0), (0.6, 0.0), (1.0, 0.2), (0.9, 0.2)] {
        let out = share_out(&[here, there, there], 7);
        assert!(out[0] > 0.9 && out[1] + out[2] < 0.01, "{out:?} of {here} beside {there}");
    }
}
