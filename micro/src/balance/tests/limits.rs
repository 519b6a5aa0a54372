//! Calls beyond what may be in flight.

use super::*;
use crate::balance::{CallInfo, Candidates, ConsistentHash, Limits, Policy, Unpicked};

async fn limited(ids: &[&str], limits: Limits) -> World {
    let world = world_of(Options { limits, ..Options::default() });
    world.send(nodes(ids));
    sleep(Duration::from_millis(10)).await;
    world
}

#[tokio::test(start_paused = true)]
async fn a_node_with_as_many_calls_as_it_may_have_is_not_picked() {
    let limits = Limits { per_node: Some(2), ..Limits::default() };
    let world = limited(&["a", "b", "c"], limits).await;
    let mut held: Vec<_> = (0..6).map(|_| world.pick()).collect();
    for id in ["a", "b", "c"] {
        assert_eq!(held.iter().filter(|pick| pick.node().id == id).count(), 2, "{id}");
    }
    let any = Request::default();
    assert!(world.balancer.pick(&any).is_none());
    let full = world.balancer.wait_until(&any, true, sleep(Duration::from_secs(9))).await;
    assert!(
        matches!(&full, Err(Unpicked::Full(why)) if *why == "each node has 2 calls in flight, as many as max_in_flight_per_node allows"),
        "{full:?}"
    );
    let ended = held.pop().expect("six").node().id.clone();
    assert_eq!(world.pick().node().id, ended);

    let pinned = Request { node: Some("a"), ..any };
    held.retain(|pick| pick.node().id == "a");
    while held.len() < 2 {
        held.push(world.balancer.pick(&pinned).expect("it has room"));
    }
    assert!(world.balancer.pick(&pinned).is_none(), "a pinned call is a call");
    assert!(world.balancer.pick(&any).is_some());
}

#[tokio::test(start_paused = true)]
async fn calls_that_finish_on_a_draining_connection_have_their_places_on_the_node() {
    let limits = Limits { per_node: Some(1), ..Limits::default() };
    let world = limited(&["a"], limits).await;
    let held = world.pick();
    for number in 0..2 {
        let told = world.balancer.explain().await.expect("the driver runs").to_string();
        assert!(told.contains("a at a:1: ready") && told.contains("; 1 in flight, "), "{told}");
        sleep(Duration::from_secs(5)).await;
        world.network.set("a:1", Host::Refuses);
        let present = Connection { number, ..held.connection().clone() };
        world.network.end(&present, Ended::Draining);
        sleep(Duration::from_millis(10)).await;
        let told = world.balancer.explain().await.expect("the driver runs").to_string();
        assert!(told.contains("; 1 in flight;"), "{told}");
        world.network.set("a:1", Host::Accepts);
        sleep(Duration::from_secs(5)).await;
        assert!(world.balancer.pick(&Request::default()).is_none(), "{told}");
    }
    drop(held);
    let new = world.pick();
    assert_eq!(new.connection().number, 2);
    assert!(world.balancer.pick(&Request::default()).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_node_with_calls_on_a_draining_connection_is_no_idle_one() {
    let key = |key| Request { hash: Some(key), ..Request::default() };
    let hash = ConsistentHash::by_key().into();
    for balancing in [hash, Balancing::least_request(), Balancing::p2c()] {
        let text = format!("{balancing:?}");
        let world = world_tuned(Tuning { balancing, ..Tuning::default() });
        world.send(nodes(&["a", "b"]));
        sleep(Duration::from_secs(5)).await;
        let of_a = (0..).map(key).find(|key| world.pick_of(*key).node().id == "a");
        let of_a = of_a.expect("one of two");
        let pinned = Request { node: Some("a"), ..of_a };
        let held: Vec<_> = (0..8).map(|_| world.pick_of(pinned)).collect();
        world.network.end(held[0].connection(), Ended::Draining);
        sleep(Duration::from_secs(5)).await;
        assert_ne!(world.pick_of(pinned).connection().number, held[0].connection().number);
        let picks: Vec<_> = (0..4).map(|_| world.pick_of(of_a)).collect();
        assert!(picks.iter().all(|pick| pick.node().id == "b"), "{text}: a has eight");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_wait_for_room_first_come_first_served() {
    let limits = Limits { in_all: Some(3), ..Limits::default() };
    let world = limited(&["a", "b"], limits).await;
    let mut held: Vec<_> = (0..3).map(|_| world.pick()).collect();
    let (tell, mut told) = mpsc::unbounded_channel();
    for number in 0..3 {
        let (balancer, tell) = (world.balancer.clone(), tell.clone());
        tokio::spawn(async move {
            let pick = balancer.wait(&Request::default(), false).await.expect("nodes are ready");
            tell.send((number, pick)).expect("it is listened to");
        });
        world.settle().await;
    }
    assert!(told.try_recv().is_err(), "there is no room");
    assert!(world.balancer.pick(&Request::default()).is_none(), "nor is there for who comes later");
    for expected in 0..3 {
        held.pop();
        let (number, pick) = told.recv().await.expect("one of them");
        assert_eq!(number, expected);
        held.insert(0, pick);
        assert!(told.try_recv().is_err(), "one for one");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_that_would_wait_for_room_fail_at_once_where_that_is_asked() {
    let limits = Limits { in_all: Some(1), fails: true, ..Limits::default() };
    let world = limited(&[], limits).await;
    let any = Request::default();
    let waits = timeout(Duration::from_secs(60), world.balancer.wait(&any, false));
    assert!(waits.await.is_err(), "it is a node that is missing, and no room");
    world.send(nodes(&["a"]));
    sleep(Duration::from_millis(10)).await;
    let _held = world.pick();
    assert!(world.balancer.wait(&any, false).await.is_none());
    let full = world.balancer.wait_until(&any, false, std::future::pending()).await;
    assert!(
        matches!(&full, Err(Unpicked::Full(why)) if *why == "1 of its calls are in flight, as many as max_in_flight allows"),
        "{full:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_room_on_a_node_is_not_overtaken() {
    let limits = Limits { per_node: Some(1), ..Limits::default() };
    let world = limited(&["a", "b"], limits).await;
    let mut held: Vec<_> = (0..2).map(|_| world.pick()).collect();
    let (tell, mut told) = mpsc::unbounded_channel();
    for number in 0..20 {
        let (balancer, tell) = (world.balancer.clone(), tell.clone());
        tokio::spawn(async move {
            let pick = balancer.wait(&Request::default(), false).await.expect("nodes are ready");
            tell.send((number, pick)).expect("it is listened to");
        });
        world.settle().await;
    }
    for expected in 0..20 {
        held.remove(0);
        assert!(world.balancer.pick(&Request::default()).is_none(), "others came before");
        let (number, pick) = told.recv().await.expect("one of them");
        assert_eq!(number, expected);
        held.push(pick);
        world.settle().await;
        assert!(told.try_recv().is_err(), "one for one");
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_room_has_no_node_dialled_for_it() {
    let limits = Limits { in_all: Some(1), ..Limits::default() };
    let world = limited(&["a"], limits).await;
    world.network.set("refusing:1", Host::Refuses);
    world.send(nodes(&["a", "refusing"]));
    let _held = world.pick();
    sleep(Duration::from_secs(60)).await;
    let before = world.network.dials("refusing:1").len();
    let any = Request::default();
    assert!(timeout(Duration::from_secs(60), world.balancer.wait(&any, false)).await.is_err());
    let dials = world.network.dials("refusing:1").len() - before;
    assert!((9..16).contains(&dials), "{dials}: one in five seconds or so");
}

/// A call that waits: what it came to, and when.
fn waiting(
    world: &World,
    request: &Request<'static>,
    fail_fast: bool,
    seconds: u64,
) -> tokio::task::JoinHandle<(Result<Pick<Connection>, Unpicked>, Duration)> {
    let (balancer, request) = (world.balancer.clone(), *request);
    tokio::spawn(async move {
        let start = Instant::now();
        let struck = sleep(Duration::from_secs(seconds));
        (balancer.wait_until(&request, fail_fast, struck).await, start.elapsed())
    })
}

#[tokio::test(start_paused = true)]
async fn who_stands_in_line_for_room_hears_that_there_is_no_node() {
    let limits = Limits { per_node: Some(1), ..Limits::default() };
    let world = limited(&["a"], limits).await;
    let (held, any) = (world.pick(), Request::default());
    let mut calls = Vec::new();
    for (fail_fast, seconds) in [(false, 60), (true, 30), (false, 20)] {
        calls.push(waiting(&world, &any, fail_fast, seconds));
        world.settle().await;
    }
    sleep(Duration::from_secs(5)).await;
    assert!(calls.iter().all(|call| !call.is_finished()), "a has no room");
    world.network.set("a:1", Host::Refuses);
    world.network.end(held.connection(), Ended::Closed("killed".to_owned()));
    for seconds in [20, 5] {
        let (picked, waited) = calls.pop().expect("one more").await.expect("no panic");
        assert!(matches!(picked, Err(Unpicked::NotReady)), "{picked:?}");
        assert_eq!(waited.as_secs(), seconds);
    }
    world.network.set("a:1", Host::Accepts);
    let (picked, waited) = calls.pop().expect("the first").await.expect("no panic");
    assert_eq!(picked.expect("a is back").node().id, "a");
    assert!(waited < Duration::from_secs(23), "{waited:?}");
}

/// Has no node for the calls of one method.
#[derive(Debug)]
struct NoneFor(&'static str);

impl Policy for NoneFor {
    fn pick(&self, _: &Candidates<'_>, call: &CallInfo<'_>) -> Option<usize> {
        (call.method() != self.0).then_some(0)
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_another_node_than_there_is_does_not_hold_up_the_line_for_room() {
    let world = world_of(Options {
        limits: Limits { per_node: Some(1), ..Limits::default() },
        ..Options::default()
    });
    let balancing = Balancing::custom(NoneFor("/a.B/None"));
    world.tuning.send_modify(|tuning| tuning.balancing = balancing);
    world.send(nodes(&["a"]));
    sleep(Duration::from_millis(10)).await;
    let held = world.pick();
    let (any, none) = (Request::default(), Request { method: "/a.B/None", ..Request::default() });
    let mut calls = Vec::new();
    for request in [&any, &none, &any] {
        calls.push(waiting(&world, request, false, 60));
        world.settle().await;
    }
    drop(held);
    let last = calls.pop().expect("the third");
    let none = calls.pop().expect("the second");
    drop(calls.pop().expect("the first").await);
    let (picked, waited) = last.await.expect("no panic");
    assert!(picked.is_ok() && waited < Duration::from_secs(1), "{picked:?} after {waited:?}");
    assert!(matches!(none.await, Ok((Err(Unpicked::NotReady), _))));
}

/// Has one node for the calls of each method: its name is at the path's end.
#[derive(Debug)]
struct ByMethod;

impl Policy for ByMethod {
    fn pick(&self, candidates: &Candidates<'_>, call: &CallInfo<'_>) -> Option<usize> {
        candidates.iter().position(|it| call.method().ends_with(&it.node().id))
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_room_on_a_node_that_a_policy_has_for_it_holds_up_nobody_for_another() {
    let limits = Limits { per_node: Some(1), ..Limits::default() };
    let world = limited(&["a", "b"], limits).await;
    world.tuning.send_modify(|tuning| tuning.balancing = Balancing::custom(ByMethod));
    world.settle().await;
    let of = |method: &'static str| Request { method, ..Request::default() };
    let (of_a, of_b) = (of("/of.Node/a"), of("/of.Node/b"));
    let (on_a, on_b) = (world.pick_of(of_a), world.pick_of(of_b));
    let mut calls = Vec::new();
    for request in [of_a, of_b, of_a, of_b] {
        calls.push(waiting(&world, &request, true, 60));
        world.settle().await;
    }
    let [first_of_a, first_of_b, second_of_a, second_of_b] =
        <[_; 4]>::try_from(calls).expect("four");
    drop(on_b);
    let (picked, waited) = first_of_b.await.expect("no panic");
    assert!(waited < Duration::from_secs(1), "{waited:?}: b has room");
    drop(picked.expect("it was not in vain"));
    let (picked, waited) = second_of_b.await.expect("no panic");
    assert!(waited < Duration::from_secs(1), "{waited:?}: b has room again");
    let on_b = picked.expect("it was not in vain");
    assert!(!first_of_a.is_finished() && !second_of_a.is_finished());
    drop(on_a);
    for call in [first_of_a, second_of_a] {
        let (picked, waited) = call.await.expect("no panic");
        assert!(waited < Duration::from_secs(1), "{waited:?}: a has room");
        drop(picked.expect("it was not in vain"));
    }
    drop(on_b);
}

#[tokio::test(start_paused = true)]
async fn no_line_for_room_has_all_of_it() {
    let limits = Limits { per_node: Some(1), ..Limits::default() };
    let world = limited(&["a"], limits).await;
    let mut held = world.pick();
    let (tell, mut told) = mpsc::unbounded_channel();
    for number in 0..10 {
        let (balancer, tell) = (world.balancer.clone(), tell.clone());
        tokio::spawn(async move {
            // Every fifth is pinned, and so in another line than the rest.
            let node = (number % 5 == 0).then_some("a");
            let request = Request { node, ..Request::default() };
            let pick = balancer.wait(&request, false).await.expect("a node is ready");
            tell.send((number, pick)).expect("it is listened to");
        });
        world.settle().await;
    }
    let mut order = Vec::new();
    for _ in 0..10 {
        drop(held);
        let (number, pick) = told.recv().await.expect("one of them");
        order.push(number);
        held = pick;
        // As long as a call takes, all in line know where they stand.
        world.settle().await;
    }
    let pinned: Vec<_> = (0..10).filter(|place| order[*place] % 5 == 0).collect();
    assert!(pinned[1] <= 3, "a line of two beside one of eight: {order:?}");
}

#[tokio::test(start_paused = true)]
async fn who_fails_fast_waits_for_room_on_a_node_that_was_just_connected() {
    let limits = Limits { per_node: Some(1), ..Limits::default() };
    let world = world_of(Options { limits, ..Options::default() });
    let (tell, mut told) = mpsc::unbounded_channel();
    for _ in 0..3 {
        let (balancer, tell) = (world.balancer.clone(), tell.clone());
        tokio::spawn(async move {
            tell.send(balancer.wait(&Request::default(), true).await).expect("it is listened to");
        });
        world.settle().await;
    }
    world.send(nodes(&["a"]));
    for nth in 0..3 {
        let pick = told.recv().await.expect("one of them");
        assert!(pick.is_some(), "it is room that is missing: {nth}");
        world.settle().await;
        assert!(told.try_recv().is_err(), "one at a time");
    }
}
