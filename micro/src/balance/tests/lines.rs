//! Whom a change wakes, and which nodes are dialled for whom.

use std::{
    future::poll_fn,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use super::*;
use crate::balance::{Limits, Unpicked};

/// Which of a service's methods each node has.
fn waver(id: &str, method: &str) -> Arc<Node> {
    let mut node = Node::new("greeter", id, format!("{id}:1"));
    let name = format!("Greeter.{method}");
    node.endpoints = vec![Endpoint { name, ..Endpoint::default() }];
    Arc::new(node)
}

const WAVE: Request<'static> = Request { method: "/greeter.v1.Greeter/Wave", ..EMPTY };

const EMPTY: Request<'static> = Request {
    tried: &[],
    method: "",
    metadata: None,
    hash: None,
    node: None,
    can_move: false,
    limit: None,
};

const OF_A: Request<'static> = Request { node: Some("a"), ..EMPTY };

/// Calls that wait, and how often any of them has been looked at.
struct Crowd {
    looks: Arc<AtomicUsize>,
    picked: mpsc::UnboundedReceiver<(usize, Result<Pick<Connection>, Unpicked>)>,
}

impl Crowd {
    async fn of(calls: usize, world: &World, request: Request<'static>) -> Self {
        let looks = Arc::new(AtomicUsize::new(0));
        let (tell, picked) = mpsc::unbounded_channel();
        for number in 0..calls {
            let (balancer, looks, tell) = (world.balancer.clone(), looks.clone(), tell.clone());
            tokio::spawn(async move {
                let waits = balancer.wait_until(&request, false, std::future::pending());
                let mut waits = std::pin::pin!(waits);
                let pick = poll_fn(|context| {
                    looks.fetch_add(1, Relaxed);
                    waits.as_mut().poll(context)
                });
                // Who listens may have heard enough.
                let _ = tell.send((number, pick.await));
            });
        }
        sleep(Duration::from_millis(10)).await;
        let crowd = Self { looks, picked };
        crowd.looks();
        crowd
    }

    /// Since the last time.
    fn looks(&self) -> usize {
        self.looks.swap(0, Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_of_a_method_that_none_has_that_is_ready_has_those_dialled_that_have_it() {
    let options = Options { filter: Filter::new().serving(), ..Options::default() };
    let world = world_of(options);
    for down in ["b:1", "c:1"] {
        world.network.set(down, Host::Refuses);
    }
    let all = [waver("a", "Hello"), waver("b", "Wave"), waver("c", "Hello")];
    world.send(Update::Reset(all.into()));
    sleep(Duration::from_secs(60)).await;
    let dials = |address: &str| world.network.dials(address).len();
    let before = (dials("b:1"), dials("c:1"));
    let mut crowd = Crowd::of(3, &world, WAVE).await;
    sleep(Duration::from_secs(20)).await;
    let dialled = (dials("b:1") - before.0, dials("c:1") - before.1);
    assert!((19..=21).contains(&dialled.0), "{dialled:?}");
    assert!(dialled.1 <= 5, "by its backoff: {dialled:?}");
    world.network.set("b:1", Host::Accepts);
    sleep(Duration::from_millis(1_001)).await;
    for _ in 0..3 {
        let (_, pick) = crowd.picked.try_recv().expect("b is back");
        assert_eq!(pick.expect("it has the method").node().id, "b");
    }
    world.network.set("b:1", Host::Refuses);
    world.network.end(world.pick_of(WAVE).connection(), Ended::Closed("killed".to_owned()));
    let before = dials("b:1");
    sleep(Duration::from_secs(60)).await;
    assert!(dials("b:1") - before < 20, "nobody waits for it any more");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_news_for_a_call_wakes_it_not() {
    for request in [OF_A, WAVE] {
        let options = Options { filter: Filter::new().serving(), ..Options::default() };
        let world = world_of(options);
        world.network.set("a:1", Host::Refuses);
        world.send(Update::Reset(vec![waver("a", "Wave"), waver("b", "Hello")]));
        sleep(Duration::from_millis(10)).await;
        let mut crowd = Crowd::of(100, &world, request).await;
        for number in 0..50 {
            world.send(Update::Insert(waver(&number.to_string(), "Hello")));
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(crowd.looks(), 0, "{request:?}");
        world.network.set("a:1", Host::Accepts);
        sleep(Duration::from_millis(1_001)).await;
        for number in 0..100 {
            let (first, pick) = crowd.picked.try_recv().expect("a is back");
            assert_eq!((first, pick.expect("it is ready").node().id.as_str()), (number, "a"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_calls_end_wakes_one_that_waits_for_room_and_that_is_the_first() {
    for (request, is_any) in [(EMPTY, true), (OF_A, false), (WAVE, false)] {
        let world = world_of(Options {
            filter: if is_any { Filter::new() } else { Filter::new().serving() },
            limits: Limits { per_node: Some(1), ..Limits::default() },
            ..Options::default()
        });
        world.send(Update::Reset(vec![waver("a", "Wave")]));
        sleep(Duration::from_millis(10)).await;
        let mut held = world.pick_of(request);
        let mut crowd = Crowd::of(100, &world, request).await;
        for expected in 0..100 {
            drop(held);
            assert!(world.balancer.pick(&request).is_none(), "others came before: {request:?}");
            let (number, pick) = crowd.picked.recv().await.expect("one of them");
            assert_eq!(number, expected, "{request:?}");
            held = pick.expect("there is room");
            world.settle().await;
            // It, and the one that is the first from then on, which sees for itself.
            assert!(crowd.looks() <= 6, "{request:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_leaves_the_line_for_room_passes_its_turn_on() {
    let limits = Limits { per_node: Some(1), ..Limits::default() };
    let options = Options { filter: Filter::new().serving(), limits, ..Options::default() };
    let world = world_of(options);
    world.send(Update::Reset(vec![waver("a", "Wave")]));
    sleep(Duration::from_millis(10)).await;
    let held = world.pick_of(WAVE);
    let first = world.balancer.wait_until(&WAVE, false, sleep(Duration::from_secs(1)));
    let (first, mut crowd) = tokio::join!(first, Crowd::of(2, &world, WAVE));
    assert!(matches!(first, Err(Unpicked::Full(_))), "{first:?}");
    drop(held);
    let second = crowd.picked.recv().await.expect("the next has its turn").1;
    // Its record is another by then, and it is the node that the third waits for, and no room.
    world.send(Update::Insert(waver("a", "Hello")));
    sleep(Duration::from_secs(1)).await;
    drop(second);
    sleep(Duration::from_secs(1)).await;
    assert!(crowd.picked.try_recv().is_err());
    world.send(Update::Insert(waver("a", "Wave")));
    let (_, third) = crowd.picked.recv().await.expect("it has the method again");
    assert!(third.is_ok());
}
