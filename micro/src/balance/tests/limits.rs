//! Calls beyond what may be in flight.

use super::*;
use crate::balance::Limits;

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
    assert_eq!(
        world.balancer.why_not_ready(&any),
        "each node has 2 calls in flight, as many as max_in_flight_per_node allows"
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
    assert_eq!(
        world.balancer.why_not_ready(&Request::default()),
        "3 of its calls are in flight, as many as max_in_flight allows"
    );
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
    assert!(world.balancer.is_full(&any));
}
