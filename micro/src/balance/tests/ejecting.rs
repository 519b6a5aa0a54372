//! From what callers report to who is left out.

use super::*;
use crate::balance::{ConsistentHash, Limits};

impl World {
    /// Calls the node `id` once, whatever else is picked on the way.
    fn call(&self, id: &str, outcome: Outcome) {
        // The others get so many that its turn comes, however little it is liked.
        let mut others = Vec::new();
        loop {
            assert!(others.len() < 10_000, "{id} is not picked");
            match self.pick() {
                pick if pick.node().id == id => return pick.finish(outcome),
                pick => others.push(pick),
            }
        }
    }

    /// Whether a node takes calls, were it liked or not.
    async fn is_in(&self, id: &str) -> bool {
        let told = self.balancer.explain().await.expect("the driver runs");
        told.nodes.iter().any(|it| it.node.id == id && it.state == NodeState::Ready)
    }

    /// The node that the next call tries, if that is an ejected one.
    fn probe(&self, can_move: bool) -> Option<Pick<Connection>> {
        let request = Request { can_move, ..Request::default() };
        self.balancer.pick(&request).filter(|pick| pick.is_probe)
    }
}

#[tokio::test(start_paused = true)]
async fn three_broken_calls_in_a_row_eject_a_node_and_answers_outweigh_them() {
    let world = World::with(&["a", "b", "c"]).await;
    for outcome in [
        Outcome::TransportFailure,
        Outcome::TransportFailure,
        Outcome::Success,
        Outcome::Success,
        Outcome::Success,
        Outcome::Success,
        Outcome::TransportFailure,
        Outcome::Cancelled,
        Outcome::TransportFailure,
    ] {
        world.call("a", outcome);
    }
    // What its failures cost it has faded by then.
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.picks(), ["a", "b", "c"]);
    world.call("a", Outcome::TransportFailure);
    world.settle().await;
    assert_eq!(world.picks(), ["b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_counts_once_however_many_calls_it_takes_with_it() {
    let world = World::with(&["a", "b", "c"]).await;
    for lost in 1..=2 {
        assert_eq!(world.picks(), ["a", "b", "c"], "{lost}");
        let picks: Vec<_> = (0..64).map(|_| world.pick()).collect();
        let lost = picks.into_iter().filter(|pick| pick.node().id == "a");
        let connection = lost.map(|pick| {
            let connection = pick.connection().clone();
            pick.finish(Outcome::ConnectionLost);
            connection
        });
        let connection = connection.last().expect("it has some of 64 calls");
        world.network.end(&connection, Ended::Closed("reset".to_owned()));
        sleep(Duration::from_secs(10)).await;
    }
    assert_eq!(world.picks(), ["b", "c"], "the second in a row that never answered");
}

#[tokio::test(start_paused = true)]
async fn one_call_tries_an_ejected_node_and_one_that_can_move_goes_first() {
    let world = World::with(&["a", "b", "c"]).await;
    let eject = || (0..3).for_each(|_| world.call("a", Outcome::TransportFailure));
    eject();
    sleep(Duration::from_secs(29)).await;
    assert!(world.probe(true).is_none(), "its time is not over");
    sleep(Duration::from_secs(2)).await;
    assert!(world.probe(false).is_none(), "a call that cannot move waits for one that can");
    let tried = [EndpointId(99)];
    for request in [
        Request { can_move: true, tried: &tried, ..Request::default() },
        Request { can_move: true, node: Some("b"), ..Request::default() },
    ] {
        let pick = world.balancer.pick(&request).expect("others are ready");
        assert!(!pick.is_probe, "it failed before, or is pinned: {request:?}");
    }
    let probe = world.probe(true).expect("its time is over");
    assert_eq!(probe.node().id, "a");
    assert!(world.probe(true).is_none(), "one call, and not two");
    drop(probe);
    world.settle().await;
    assert!(world.probe(true).is_none(), "not every call is to be given up");
    sleep(Duration::from_secs(10)).await;
    let probe = world.probe(true).expect("that one was cancelled");
    probe.finish(Outcome::Success);
    world.settle().await;
    assert_eq!(world.picks(), ["a", "b", "c"]);

    eject();
    sleep(Duration::from_secs(66)).await;
    let probe = world.probe(false).expect("none came that can move");
    probe.finish(Outcome::Failure);
    world.settle().await;
    assert_eq!(world.picks(), ["b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn rules_that_let_no_node_be_out_let_those_in_that_are() {
    let world = World::with(&["a", "b", "c"]).await;
    (0..3).for_each(|_| world.call("a", Outcome::TransportFailure));
    sleep(Duration::from_secs(20)).await;
    assert_eq!(world.picks(), ["b", "c"]);
    world.tuning.send_modify(|tuning| tuning.ejection.max_ejection_percent = 0);
    world.settle().await;
    assert_eq!(world.picks(), ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_takes_its_time_is_not_the_last() {
    let world = World::with(&["a", "b", "c"]).await;
    (0..3).for_each(|_| world.call("a", Outcome::TransportFailure));
    sleep(Duration::from_secs(31)).await;
    let stream = world.probe(true).expect("its time is over");
    sleep(Duration::from_secs(9)).await;
    assert!(world.probe(true).is_none(), "it may be answered yet");
    sleep(Duration::from_secs(1)).await;
    world.probe(true).expect("another call may answer sooner").finish(Outcome::Success);
    world.settle().await;
    assert!(world.is_in("a").await);
    stream.finish(Outcome::Failure);
    world.settle().await;
    assert!(world.is_in("a").await, "it decides nothing any more");
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_rewritten_neither_puts_a_probe_off_nor_brings_another() {
    let world = World::with(&["a", "b", "c"]).await;
    (0..3).for_each(|_| world.call("a", Outcome::TransportFailure));
    sleep(Duration::from_secs(31)).await;
    let rewrite = |version: &str| {
        let mut node = Node::new("greeter", "a", "a:1");
        node.version = version.to_owned();
        world.send(Update::Insert(Arc::new(node)));
    };
    for version in ["2", "3"] {
        sleep(Duration::from_secs(3)).await;
        rewrite(version);
        world.settle().await;
    }
    let probe = world.probe(false).expect("none came in five seconds that can move");
    assert_eq!(probe.node().version, "3");
    rewrite("4");
    world.settle().await;
    assert!(world.probe(true).is_none(), "one is under way");
    sleep(Duration::from_secs(10)).await;
    world.probe(true).expect("that one takes its time").finish(Outcome::Success);
    world.settle().await;
    assert!(world.is_in("a").await);
}

#[tokio::test(start_paused = true)]
async fn what_says_little_of_a_node_neither_ejects_it_nor_lets_it_in() {
    let world = World::with(&["a", "b", "c"]).await;
    for _ in 0..20 {
        let pick = world.pick();
        let outcome = if pick.node().id == "a" { Outcome::TurnedAway } else { Outcome::Success };
        pick.finish(outcome);
    }
    (0..3).for_each(|_| world.call("a", Outcome::TurnedAway));
    (0..3).for_each(|_| world.call("a", Outcome::Overtaken));
    world.settle().await;
    assert!(world.is_in("a").await);

    (0..3).for_each(|_| world.call("a", Outcome::TransportFailure));
    sleep(Duration::from_secs(31)).await;
    for outcome in [Outcome::TurnedAway, Outcome::Overtaken, Outcome::Cancelled] {
        world.probe(true).expect("the one before said nothing").finish(outcome);
        world.settle().await;
        assert!(!world.is_in("a").await);
        assert!(world.probe(true).is_none(), "not every call is to come to that: {outcome:?}");
        sleep(Duration::from_secs(10)).await;
    }
    world.probe(true).expect("nor did that").finish(Outcome::Begun);
    world.settle().await;
    assert!(world.is_in("a").await);
}

#[tokio::test(start_paused = true)]
async fn a_call_with_a_key_tries_an_ejected_node_only_if_the_key_is_that_nodes() {
    let hash = ConsistentHash::by_key();
    let world = world_tuned(Tuning { balancing: hash.into(), ..Tuning::default() });
    world.send(nodes(&["a", "b", "c"]));
    sleep(Duration::from_millis(10)).await;
    let pick = |key| {
        let request = Request { hash: Some(key), can_move: true, ..Request::default() };
        world.balancer.pick(&request).expect("some are ready")
    };
    let owners: Vec<_> = (0..60).map(|key| pick(key).node().id.clone()).collect();
    for _ in 0..3 {
        pinned(&world, "a", false).await.expect("ready").finish(Outcome::TransportFailure);
    }
    sleep(Duration::from_secs(31)).await;
    let of_a = |key: &u64| owners[*key as usize] == "a";
    for key in (0..60).filter(|key| !of_a(key)) {
        let pick = pick(key);
        assert!(!pick.is_probe && pick.node().id == owners[key as usize], "{key}");
    }
    let probe = pick((0..60).find(of_a).expect("a third"));
    assert!(probe.is_probe && probe.node().id == "a");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_gets_no_calls_is_not_tried_until_it_would() {
    for (balancing, key, value, of_others, later) in [
        (Balancing::weighted(), "weight", "0", "1", "2"),
        (Balancing::zone_first("x"), "zone", "y", "x", "x"),
    ] {
        let world = world_tuned(Tuning { balancing, ..Tuning::default() });
        let node = |id: &str, value: &str| {
            let mut node = Node::new("greeter", id, format!("{id}:1"));
            node.metadata.insert(key.to_owned(), value.to_owned());
            Arc::new(node)
        };
        let others = [node("b", of_others), node("c", of_others)];
        world.send(Update::Reset([node("a", value)].into_iter().chain(others).collect()));
        sleep(Duration::from_millis(10)).await;
        for _ in 0..3 {
            pinned(&world, "a", false).await.expect("ready").finish(Outcome::TransportFailure);
        }
        sleep(Duration::from_secs(100)).await;
        assert!((0..100).all(|_| world.probe(true).is_none()), "{key}");
        world.send(Update::Insert(node("a", later)));
        world.settle().await;
        assert!(world.probe(true).is_some(), "{key}");
    }
}

/// Three nodes, of which the ejected one alone has the method `Wave`.
async fn a_alone_waves_and_is_ejected(balancing: Balancing) -> World {
    let registry = Memory::new();
    let options = Options { filter: Filter::new().serving(), ..Options::default() };
    let tuning = Tuning { balancing, ..Tuning::default() };
    let world = world_of_all(registry.clone(), Arc::new(registry), options, tuning);
    let node = |id: &str, method: &str| {
        let mut node = Node::new("greeter", id, format!("{id}:1"));
        let name = format!("Greeter.{method}");
        node.endpoints = vec![Endpoint { name, ..Endpoint::default() }];
        Arc::new(node)
    };
    world.send(Update::Reset(vec![node("a", "Wave"), node("b", "Hello"), node("c", "Hello")]));
    sleep(Duration::from_millis(10)).await;
    for _ in 0..3 {
        pinned(&world, "a", false).await.expect("ready").finish(Outcome::TransportFailure);
    }
    world
}

#[tokio::test(start_paused = true)]
async fn an_ejected_node_that_alone_has_a_method_is_tried_by_a_call_of_that_whatever_its_key() {
    let world = a_alone_waves_and_is_ejected(ConsistentHash::by_key().into()).await;
    sleep(Duration::from_secs(31)).await;
    for key in 0..10 {
        let method = "/greeter.v1.Greeter/Wave";
        let request = Request { method, hash: Some(key), can_move: true, ..Request::default() };
        assert!(world.balancer.pick(&request).is_some_and(|pick| pick.is_probe), "{key}");
        // One that was given up is followed by another after ten seconds.
        sleep(Duration::from_secs(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_that_alone_have_a_method_get_its_calls_though_they_are_ejected() {
    let world = a_alone_waves_and_is_ejected(Balancing::default()).await;
    world.settle().await;
    assert!(!world.is_in("a").await);
    for fail_fast in [false, true] {
        let request = Request { method: "/greeter.v1.Greeter/Wave", ..Request::default() };
        let struck = sleep(Duration::from_secs(1));
        let pick =
            world.balancer.wait_until(&request, fail_fast, struck).await.expect("one has it");
        assert!(!pick.is_probe && pick.node().id == "a");
    }
}

#[tokio::test(start_paused = true)]
async fn an_ejected_node_without_room_is_not_tried_until_it_has_some() {
    let per_node = Limits { per_node: Some(2), ..Limits::default() };
    let world = world_of(Options { limits: per_node, ..Options::default() });
    world.send(nodes(&["a", "b", "c"]));
    sleep(Duration::from_millis(10)).await;
    for _ in 0..3 {
        pinned(&world, "a", false).await.expect("ready").finish(Outcome::TransportFailure);
    }
    let hang = pinned(&world, "a", false).await.expect("connected");
    let _hangs = pinned(&world, "a", false).await.expect("connected");
    sleep(Duration::from_secs(31)).await;
    assert!(world.probe(true).is_none(), "two are what it may have");
    drop(hang);
    assert!(world.probe(true).is_some());
}

/// Picks for a call that is pinned to a node, within a second.
async fn pinned(world: &World, id: &str, fail_fast: bool) -> Option<Pick<Connection>> {
    let request = Request { node: Some(id), ..Request::default() };
    let struck = sleep(Duration::from_secs(1));
    world.balancer.wait_until(&request, fail_fast, struck).await.ok()
}

#[tokio::test(start_paused = true)]
async fn one_broken_call_is_an_accident_though_all_nodes_fail() {
    let world = World::with(&["a", "b", "c"]).await;
    for id in ["a", "b", "c"] {
        (0..4).for_each(|_| world.call(id, Outcome::Failure));
    }
    world.call("a", Outcome::TransportFailure);
    world.settle().await;
    assert!(world.is_in("a").await, "what all of them need is down");
    (0..2).for_each(|_| world.call("a", Outcome::TransportFailure));
    world.settle().await;
    assert!(world.is_in("a").await, "two since then");
    world.call("a", Outcome::TransportFailure);
    world.settle().await;
    assert!(!world.is_in("a").await, "three in a row");
}

#[tokio::test(start_paused = true)]
async fn broken_calls_eject_a_node_however_many_end_before_that_is_looked_at() {
    for calls in [3, 4, 5, 16] {
        let world = World::with(&["a", "b", "c"]).await;
        let a = Request { node: Some("a"), ..Request::default() };
        let picks: Vec<_> = (0..calls).map(|_| world.pick_of(a)).collect();
        picks.into_iter().for_each(|pick| pick.finish(Outcome::TransportFailure));
        world.settle().await;
        assert!(!world.is_in("a").await, "{calls}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_pinned_to_an_ejected_node_goes_there_at_once() {
    let world = World::with(&["a", "b", "c"]).await;
    (0..3).for_each(|_| world.call("a", Outcome::TransportFailure));
    world.settle().await;
    let start = Instant::now();
    for outcome in [Outcome::Success, Outcome::TransportFailure].repeat(10) {
        for fail_fast in [false, true] {
            let pick = pinned(&world, "a", fail_fast).await.expect("it is connected");
            assert_eq!(pick.node().id, "a");
            pick.finish(outcome);
        }
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert!(!world.is_in("a").await, "a probe lets it in, and nothing else");
    sleep(Duration::from_secs(31)).await;
    let pick = pinned(&world, "a", false).await.expect("its time is over, and it is connected");
    assert!(!pick.is_probe);
    world.probe(true).expect("its time is over").finish(Outcome::Success);
    world.settle().await;
    assert!(world.is_in("a").await);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_pinned_waits_for_an_ejected_node_that_connects() {
    let world = World::with(&["a", "b", "c"]).await;
    let connection = pinned(&world, "a", false).await.expect("ready").connection().clone();
    (0..3).for_each(|_| world.call("a", Outcome::TransportFailure));
    world.settle().await;
    world.network.set("a:1", Host::Silent);
    world.network.end(&connection, Ended::Closed("reset".to_owned()));
    world.settle().await;
    let start = Instant::now();
    assert!(pinned(&world, "a", false).await.is_none(), "it is not connected");
    assert_eq!(start.elapsed(), Duration::from_secs(1));
    world.network.set("a:1", Host::Accepts);
    let request = Request { node: Some("a"), ..Request::default() };
    let waited = timeout(Duration::from_secs(10), world.balancer.wait(&request, false)).await;
    let pick = waited.expect("who waits is told").expect("a node");
    assert_eq!(pick.node().id, "a");
    assert_eq!(world.picks(), ["b", "c"], "it is out as before");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_pinned_hears_that_an_ejected_node_is_called_again_though_it_was_removed() {
    let world = World::with(&["a", "b", "c"]).await;
    let connection = pinned(&world, "b", false).await.expect("ready").connection().clone();
    (0..3).for_each(|_| world.call("a", Outcome::TransportFailure));
    world.settle().await;
    world.send(nodes(&["b"]));
    world.settle().await;
    let mut waiting = std::pin::pin!(pinned(&world, "a", false));
    assert!(timeout(Duration::from_millis(10), &mut waiting).await.is_err(), "there is another");
    world.network.set("b:1", Host::Silent);
    world.network.end(&connection, Ended::Closed("reset".to_owned()));
    let pick = timeout(Duration::from_millis(10), waiting).await.expect("at once");
    assert_eq!(pick.expect("it is connected").node().id, "a");
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_room_tries_an_ejected_node_whose_time_is_over() {
    let limits = Limits { per_node: Some(1), ..Limits::default() };
    let world = world_of(Options { limits, ..Options::default() });
    world.send(nodes(&["a", "b"]));
    sleep(Duration::from_millis(10)).await;
    for _ in 0..3 {
        pinned(&world, "b", false).await.expect("ready").finish(Outcome::TransportFailure);
    }
    world.settle().await;
    assert_eq!(world.picks(), ["a"]);
    let _stream = pinned(&world, "a", false).await.expect("ready");
    let start = Instant::now();
    let pick = world.balancer.wait(&Request::default(), false).await.expect("a probe");
    assert_eq!(pick.node().id, "b");
    let waited = start.elapsed();
    assert!(waited <= Duration::from_secs(36), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_pinned_to_an_ejected_node_waits_for_room_there() {
    let per_node = Limits { per_node: Some(2), ..Limits::default() };
    let world = world_of(Options { limits: per_node, ..Options::default() });
    world.send(nodes(&["a", "b", "c"]));
    sleep(Duration::from_millis(10)).await;
    for _ in 0..3 {
        let pick = pinned(&world, "a", false).await.expect("it is connected");
        pick.finish(Outcome::TransportFailure);
    }
    world.settle().await;
    assert_eq!(world.picks(), ["b", "c"]);
    let first = pinned(&world, "a", false).await.expect("there is room");
    let _second = pinned(&world, "a", false).await.expect("there is room");
    assert!(pinned(&world, "a", false).await.is_none(), "there is none");
    let mut waiting = std::pin::pin!(pinned(&world, "a", false));
    assert!(timeout(Duration::from_millis(10), &mut waiting).await.is_err());
    drop(first);
    let pick = timeout(Duration::from_millis(10), waiting).await.expect("at once");
    assert_eq!(pick.expect("there is room again").node().id, "a");
}
