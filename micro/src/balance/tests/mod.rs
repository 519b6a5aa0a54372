//! The balancer over a scripted network, on paused time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{StreamExt as _, stream::BoxStream};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep, timeout},
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Code;

use super::{
    Balancer, Balancing, EndpointId, Filter, NodeState, Options, Outcome, Pick, Request, Tuning,
    connect::{Connect, Dial, Ended, NotConnected},
    health::Health,
};
use crate::{
    discovery::{Discovery, Doubts, Neighbours, Status, Update},
    registry::{Endpoint, Node, Registry, memory::Memory},
    transport::Disconnect,
};

mod ejecting;
mod explaining;
mod fail_fast;
mod health;
mod limits;
mod lines;
mod shares;
mod simulation;
mod subset;
mod why;
mod world;

use world::{
    Connection, Host, World, nodes, ready, world, world_of, world_of_all, world_tuned, world_with,
};

#[tokio::test(start_paused = true)]
async fn a_silent_node_keeps_no_other_waiting_and_gets_no_call() {
    let world = world();
    world.network.set("silent:1", Host::Silent);
    world.network.set("refusing:1", Host::Refuses);
    let start = Instant::now();
    world.send(nodes(&["silent", "a", "refusing", "b"]));
    ready(&world.balancer, false).await;
    assert!(start.elapsed() < Duration::from_millis(5), "{:?}", start.elapsed());
    sleep(Duration::from_secs(30)).await;
    assert_eq!(world.picks(), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_to_pick_is_none_and_ready_waits_for_ever() {
    let world = World::with(&[]).await;
    assert!(world.balancer.pick(&Request::default()).is_none());
    assert!(timeout(Duration::from_secs(3600), ready(&world.balancer, false)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_served_first_come_first_served() {
    let world = World::with(&[]).await;
    let (order, mut served) = mpsc::unbounded_channel();
    for number in 0..100 {
        let (balancer, order) = (world.balancer.clone(), order.clone());
        tokio::spawn(async move {
            ready(&balancer, false).await;
            order.send(number).unwrap();
        });
        tokio::task::yield_now().await;
    }
    world.send(nodes(&["a"]));
    for number in 0..100 {
        assert_eq!(served.recv().await, Some(number));
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_has_a_node_dialled_once_a_second() {
    let world = world();
    world.network.set("a:1", Host::Refuses);
    world.send(nodes(&["a"]));
    sleep(Duration::from_secs(60)).await;
    let before = world.network.dials("a:1").len();
    assert!(timeout(Duration::from_secs(10), ready(&world.balancer, false)).await.is_err());
    let dials = world.network.dials("a:1");
    assert!((10..=11).contains(&(dials.len() - before)), "{} dials", dials.len() - before);
    world.network.set("a:1", Host::Accepts);
    let start = Instant::now();
    ready(&world.balancer, false).await;
    assert!(start.elapsed() <= Duration::from_millis(1_001), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_node_is_dialled_as_a_silent_one_while_it_is_silent_and_not_since_it_is_down() {
    let world = world();
    let mut host = Host::Silent;
    world.network.set("a:1", host);
    world.send(nodes(&["a"]));
    sleep(Duration::from_millis(10)).await;
    for next in [Host::Silent, Host::Refuses, Host::Refuses, Host::Silent, Host::Accepts] {
        let before = world.network.dials("a:1").len();
        world.network.set("a:1", next);
        while world.network.dials("a:1").len() == before {
            sleep(Duration::from_millis(10)).await;
        }
        let was_silent = world.network.0.lock().unwrap().was_silent["a:1"];
        assert_eq!(was_silent, host == Host::Silent, "{host:?}, then {next:?}");
        host = next;
    }
    sleep(Duration::from_millis(1_500)).await;
    world.network.end(world.pick().connection(), Ended::Closed("restarts".to_owned()));
    sleep(Duration::from_millis(10)).await;
    assert!(!world.network.0.lock().unwrap().was_silent["a:1"], "it has answered since");
}

#[tokio::test(start_paused = true)]
async fn to_have_no_socket_for_a_node_says_nothing_of_it() {
    let world = world();
    world.network.set("a:1", Host::Silent);
    world.send(nodes(&["a"]));
    world.doubted.notified().await;
    world.network.set("a:1", Host::Unasked);
    let doubted = timeout(Duration::from_secs(20), world.doubted.notified()).await;
    assert!(doubted.is_err(), "that it is there");
    let dials = world.network.dials("a:1").len();
    assert!(dials >= 5, "it is dialled again after its pause: {dials}");
    assert!(world.network.0.lock().unwrap().was_silent["a:1"], "it has said nothing since");
    assert!(!ready(&world.balancer, true).await, "who fails fast does not wait for a socket");
    let told = world.balancer.explain().await.expect("the driver runs");
    let why = told.nodes[0].error.as_deref();
    assert_eq!(why, Some("cannot connect to a:1: Unasked"));
    world.network.set("a:1", Host::Accepts);
    sleep(Duration::from_secs(6)).await;
    assert_eq!(world.picks(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_pinned_call_that_waits_has_its_node_dialled_once_a_second_and_no_other() {
    let world = world();
    for down in ["b:1", "c:1"] {
        world.network.set(down, Host::Refuses);
    }
    world.send(nodes(&["a", "b", "c"]));
    sleep(Duration::from_secs(60)).await;
    let dials = |address: &str| world.network.dials(address).len();
    let before = (dials("b:1"), dials("c:1"));
    let pinned = Request { node: Some("b"), ..Request::default() };
    let waits = world.balancer.wait(&pinned, false);
    tokio::pin!(waits);
    assert!(timeout(Duration::from_secs(20), &mut waits).await.is_err());
    let dialled = (dials("b:1") - before.0, dials("c:1") - before.1);
    assert!((19..=21).contains(&dialled.0), "{dialled:?}");
    assert!(dialled.1 <= 5, "by its backoff: {dialled:?}");
    world.network.set("b:1", Host::Accepts);
    let start = Instant::now();
    assert_eq!(waits.await.expect("it is back").node().id, "b");
    assert!(start.elapsed() <= Duration::from_millis(1_001), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn goaway_ends_picks_while_calls_under_way_keep_their_connection() {
    let world = World::with(&["a"]).await;
    sleep(Duration::from_secs(5)).await;
    let old = world.pick();
    world.network.end(old.connection(), Ended::Draining);
    // The driver hears of it; connecting takes longer than that.
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    assert!(
        world.balancer.pick(&Request::default()).is_none(),
        "no new call on a draining connection"
    );
    ready(&world.balancer, false).await;
    let new = world.pick();
    assert_eq!((old.connection().number, new.connection().number), (0, 1));
    assert_eq!(old.endpoint(), new.endpoint(), "the same node");
    assert_eq!(world.network.closed(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lost_node_is_dialled_at_once_and_the_others_are_picked_meanwhile() {
    let world = World::with(&["a", "b"]).await;
    sleep(Duration::from_secs(5)).await;
    let lost = world.pick();
    let address = lost.connection().address.clone();
    world.network.set(&address, Host::Refuses);
    let now = Instant::now();
    world.network.end(lost.connection(), Ended::Closed("reset".to_owned()));
    sleep(Duration::from_millis(10)).await;
    assert_eq!(world.network.dials(&address).last(), Some(&now));
    assert_eq!(world.picks().len(), 1);
    assert!(!world.picks().contains(&lost.node().id));
    world.network.set(&address, Host::Accepts);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.picks(), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_new_connection_starts_without_the_failures_of_the_old() {
    let world = World::with(&["a", "b"]).await;
    sleep(Duration::from_secs(5)).await;
    let mut late = world.pick();
    let id = late.node().id.clone();
    // Five eject it.
    for _ in 0..3 {
        late.report(Outcome::Failure);
    }
    let share = |world: &World| {
        let picks: Vec<_> = (0..1_000).map(|_| world.pick().node().id == id).collect();
        picks.iter().filter(|hit| **hit).count()
    };
    assert_eq!(share(&world), 0, "charged");
    world.network.end(late.connection(), Ended::Closed("killed".to_owned()));
    sleep(Duration::from_millis(10)).await;
    late.finish(Outcome::Failure);
    let share = share(&world);
    assert!((300..700).contains(&share), "{share} of 1000");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_call_counts_nothing() {
    let world = World::with(&["a", "b"]).await;
    let first = world.pick();
    let id = first.node().id.clone();
    drop(first);
    for _ in 0..1_000 {
        let pick = world.pick();
        if pick.node().id == id {
            pick.finish(Outcome::Cancelled);
        }
    }
    let hits = (0..1_000).filter(|_| world.pick().node().id == id).count();
    assert!((400..600).contains(&hits), "{hits} of 1000");
}

#[tokio::test(start_paused = true)]
async fn a_wiped_registry_leaves_the_connected_nodes() {
    let world = World::with(&["a", "b"]).await;
    world.send(nodes(&[]));
    sleep(Duration::from_secs(44)).await;
    assert_eq!(world.picks(), ["a", "b"]);
    world.send(nodes(&["a"]));
    sleep(Duration::from_secs(2)).await;
    assert_eq!(world.picks(), ["a"], "three TTLs after its removal b is given up");
    assert_eq!(world.network.closed(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_the_last_handle_and_closes_the_connections() {
    let world = World::with(&["a", "b"]).await;
    let (clone, pick) = (world.balancer.clone(), world.pick());
    drop(world.balancer);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.network.closed(), 0, "one handle is left");
    drop(clone);
    sleep(Duration::from_secs(1)).await;
    assert!(world.updates.is_closed(), "the subscription is dropped");
    assert_eq!(world.network.closed(), 2);
    pick.finish(Outcome::Success);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_nodes_connect_and_change_without_ado() {
    let ids: Vec<_> = (0..10_000).map(|number| number.to_string()).collect();
    let world = world();
    world.send(nodes(&ids.iter().map(String::as_str).collect::<Vec<_>>()));
    sleep(Duration::from_secs(1)).await;
    assert!(format!("{:?}", world.balancer).contains("ready: 10000"));
    for id in &ids[..9_999] {
        world.send(Update::Remove(id.as_str().into()));
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.picks(), ["9999"]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_cannot_be_reached_puts_the_registrys_word_in_doubt() {
    let world = world();
    let is_doubted = async || {
        let raised = timeout(Duration::from_millis(100), world.doubted.notified()).await;
        raised.is_ok()
    };
    world.updates.send(nodes(&["a"])).unwrap();
    ready(&world.balancer, false).await;
    assert!(!is_doubted().await, "all is well");
    let pick = world.balancer.pick(&Request::default()).expect("a is ready");
    let connection = pick.connection().clone();
    drop(pick);
    world.network.end(&connection, Ended::Draining);
    assert!(is_doubted().await, "it is leaving");

    ready(&world.balancer, false).await;
    let connection =
        world.balancer.pick(&Request::default()).expect("a is ready").connection().clone();
    world.network.set("a:1", Host::Refuses);
    world.network.end(&connection, Ended::Closed("reset".to_owned()));
    assert!(is_doubted().await, "it was lost");
    let again = timeout(Duration::from_secs(10), world.doubted.notified()).await;
    assert!(again.is_ok(), "and each attempt that fails says so again");
}

#[tokio::test(start_paused = true)]
async fn what_does_not_pass_the_filter_is_not_connected_to() {
    let filter = Filter::new().label("track", "stable");
    let world = world_of(Options { filter, ..Options::default() });
    let node = |id: &str, track: &str| {
        let mut node = Node::new("greeter", id, format!("{id}:1"));
        node.metadata.insert("track".to_owned(), track.to_owned());
        Arc::new(node)
    };
    world.send(Update::Reset(vec![node("a", "canary"), node("b", "canary")]));
    sleep(Duration::from_millis(10)).await;
    assert_eq!(
        world.balancer.why_not_ready(&Request::default()),
        "none of the 2 in memory:// passes the filter: track=stable"
    );
    world.send(Update::Insert(node("b", "stable")));
    world.send(Update::Insert(node("c", "stable")));
    sleep(Duration::from_millis(10)).await;
    assert_eq!(world.picks(), ["b", "c"]);
    world.send(Update::Insert(node("b", "canary")));
    sleep(Duration::from_millis(10)).await;
    assert_eq!(world.picks(), ["c"]);
    assert!(world.network.dials("a:1").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_a_node_that_has_its_method() {
    let filter = Filter::new().serving();
    let world = world_of(Options { filter, ..Options::default() });
    let node = |id: &str, method: &str| {
        let mut node = Node::new("greeter", id, format!("{id}:1"));
        let name = format!("Greeter.{method}");
        node.endpoints = vec![Endpoint { name, ..Endpoint::default() }];
        Arc::new(node)
    };
    world.send(Update::Reset(vec![node("a", "Hello")]));
    sleep(Duration::from_millis(10)).await;
    let wave = Request { method: "/greeter.v1.Greeter/Wave", ..Request::default() };
    assert!(world.balancer.wait(&wave, true).await.is_none(), "it fails fast");
    assert_eq!(
        world.balancer.why_not_ready(&wave),
        "/greeter.v1.Greeter/Wave is in the record of none of the 1 that are ready"
    );
    let waiting = world.balancer.wait(&wave, false);
    tokio::pin!(waiting);
    assert!(timeout(Duration::from_secs(1), &mut waiting).await.is_err());
    world.send(Update::Insert(node("b", "Wave")));
    assert_eq!(waiting.await.expect("it came").node().id, "b");
}

#[tokio::test(start_paused = true)]
async fn a_zones_share_goes_by_what_the_registry_lists_of_it() {
    let balancing = Balancing::zone_first("a");
    let world = world_tuned(Tuning { balancing, ..Tuning::default() });
    for down in ["a1:1", "a2:1"] {
        world.network.set(down, Host::Refuses);
    }
    let node = |id: &str| {
        let mut node = Node::new("greeter", id, format!("{id}:1"));
        node.metadata.insert("zone".to_owned(), id[..1].to_owned());
        Arc::new(node)
    };
    world.send(Update::Reset(["a1", "a2", "a3", "b1"].map(node).into()));
    sleep(Duration::from_millis(10)).await;
    let own = (0..3_000).filter(|_| world.pick().node().id == "a3").count();
    assert!((1_250..1_550).contains(&own), "1.4 of a third: {own} of 3000");
    world.network.set("a1:1", Host::Accepts);
    world.network.set("a2:1", Host::Accepts);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(world.picks(), ["a1", "a2", "a3"], "its own zone is well");
}

#[tokio::test(start_paused = true)]
async fn another_policy_and_other_rules_hold_from_when_they_are_said() {
    let world = World::with(&["a", "b", "c"]).await;
    world.tuning.send_modify(|tuning| tuning.balancing = Balancing::pick_first());
    world.settle().await;
    assert_eq!(world.picks().len(), 1);
    let zone = |zone: &str| Balancing::zone_first(zone);
    let mut node = Node::new("greeter", "c", "c:1");
    node.metadata.insert("zone".to_owned(), "z".to_owned());
    world.send(Update::Insert(Arc::new(node)));
    world.tuning.send_modify(|tuning| tuning.balancing = zone("z"));
    world.settle().await;
    assert_eq!(world.picks(), ["c"], "what is listed and connected is known to the new one");
    world.tuning.send_modify(|tuning| tuning.balancing = zone("y"));
    world.settle().await;
    assert_eq!(world.picks(), ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_look_for_another_node_takes_no_turn() {
    let world = world_tuned(Tuning { balancing: Balancing::round_robin(), ..Tuning::default() });
    world.send(nodes(&["a", "b", "c"]));
    sleep(Duration::from_millis(10)).await;
    let mut turns = Vec::new();
    for _ in 0..6 {
        let pick = world.pick();
        assert!(
            !world.balancer.repeats(&Request { tried: &[pick.endpoint()], ..Request::default() })
        );
        turns.push(pick.node().id.clone());
    }
    assert_eq!(turns[..3], turns[3..]);
    let all: Vec<_> = (0..3).map(|_| world.pick().endpoint()).collect();
    assert!(world.balancer.repeats(&Request { tried: &all, ..Request::default() }));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_lacks_a_method_is_passed_over_for_that_one_and_is_as_well_as_ever() {
    const NEW: &str = "/greeter.v1.Greeter/New";
    let world = World::with(&["a", "b", "c"]).await;
    let new = Request { method: NEW, ..Request::default() };
    let calls_of_a = |request| (0..300).filter(|_| world.pick_of(request).node().id == "a").count();
    let mut picks = std::iter::repeat_with(|| world.pick_of(new));
    let pick = picks.find(|pick| pick.node().id == "a").expect("it is one of three");
    pick.finish(Outcome::of_code(Code::Unimplemented, NEW));
    assert_eq!(calls_of_a(new), 0);
    let of_others = calls_of_a(Request::default());
    assert!((50..150).contains(&of_others), "a third of 300: {of_others}");
    let told = world.balancer.explain().await.expect("the driver runs");
    let a = told.nodes.iter().find(|it| it.node.id == "a").expect("it is listed");
    assert_eq!((&a.state, a.health), (&NodeState::Ready, Some(1.0)));
    sleep(Duration::from_secs(5)).await;
    assert!(calls_of_a(new) > 0, "it is asked again after a penalty");
}
