//! How long a call waits that fails fast.

use super::*;
use crate::{
    Error,
    registry::{BoxFuture, Lease, Listing, RenewError, Watch},
};

/// Takes its time to list.
#[derive(Debug)]
struct Slow(Duration);

impl Registry for Slow {
    fn name(&self) -> &str {
        "slow://"
    }

    fn spread(&self) -> Duration {
        Duration::ZERO
    }

    fn min_ttl(&self) -> Duration {
        Duration::ZERO
    }

    fn register<'a>(&'a self, _: &'a Node, _: Duration) -> BoxFuture<'a, Result<Lease, Error>> {
        unreachable!("a balancer only lists")
    }

    fn renew<'a>(&'a self, _: &'a Node, _: Lease) -> BoxFuture<'a, Result<(), RenewError>> {
        unreachable!("a balancer only lists")
    }

    fn deregister<'a>(&'a self, _: &'a Node, _: Lease) -> BoxFuture<'a, Result<(), Error>> {
        unreachable!("a balancer only lists")
    }

    fn read<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Listing, Error>> {
        unreachable!("a balancer only lists")
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<String>, Error>> {
        Box::pin(async {
            sleep(self.0).await;
            Ok(vec!["greeters".to_owned()])
        })
    }

    fn watch(&self, _: &str, _: u64) -> Watch {
        unreachable!("a balancer only lists")
    }
}

/// What a call that fails fast finds, and after how long.
async fn ready(world: &World) -> (bool, Duration) {
    let start = Instant::now();
    let is_ready = timeout(Duration::from_secs(3600), super::ready(&world.balancer, true)).await;
    (is_ready.expect("it ends by itself"), start.elapsed())
}

const MS: Duration = Duration::from_millis(1);

#[tokio::test(start_paused = true)]
async fn the_registrys_first_list_and_the_first_connection_are_waited_for() {
    let world = world();
    let balancer = world.balancer.clone();
    let fast = tokio::spawn(async move { super::ready(&balancer, true).await });
    sleep(Duration::from_secs(60)).await;
    assert!(!fast.is_finished(), "the registry has not answered");
    // Nor is its answer known here as long as it is not applied.
    world.status.send_modify(|status| status.synced = true);
    sleep(MS).await;
    assert!(!fast.is_finished());
    assert_eq!(world.balancer.why_not_ready(&Request::default()), "memory:// has not answered yet");
    world.send(nodes(&["a"]));
    assert!(fast.await.expect("no panic"));
    assert_eq!(world.picks(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn whenever_the_list_comes_its_node_is_found() {
    for yields in 0..20 {
        let world = world();
        let balancer = world.balancer.clone();
        let fast = tokio::spawn(async move { super::ready(&balancer, true).await });
        for _ in 0..yields {
            tokio::task::yield_now().await;
        }
        world.send(nodes(&["a"]));
        assert!(fast.await.expect("no panic"), "after {yields} yields");
        assert!(world.balancer.pick(&Request::default()).is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_are_waited_for_until_each_was_tried_once() {
    let world = world();
    world.network.set("refusing:1", Host::Refuses);
    world.network.set("silent:1", Host::Silent);
    world.send(nodes(&["refusing", "silent"]));
    assert_eq!(ready(&world).await, (false, MS * 1000), "the slower one's attempt");
    assert_eq!(ready(&world).await, (false, Duration::ZERO), "and then nothing is waited for");

    world.network.set("new:1", Host::Silent);
    let new = |address: &str| Update::Insert(Arc::new(Node::new("greeter", "new", address)));
    world.send(new("new:1"));
    sleep(MS * 100).await;
    assert_eq!(ready(&world).await, (false, MS * 900), "one that is new has its attempt");
    world.network.set("moved:1", Host::Accepts);
    world.send(new("moved:1"));
    tokio::task::yield_now().await;
    let (is_ready, waited) = ready(&world).await;
    assert!(is_ready && waited <= MS * 1001, "{waited:?}");
    assert_eq!(world.picks(), ["new"]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_while_it_is_tried_is_not_waited_for() {
    let world = world();
    world.network.set("silent:1", Host::Silent);
    world.network.set("refusing:1", Host::Refuses);
    world.send(nodes(&["silent", "refusing"]));
    sleep(MS * 10).await;
    world.send(Update::Remove("silent".into()));
    tokio::task::yield_now().await;
    assert_eq!(ready(&world).await, (false, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_lost_node_is_not_waited_for() {
    let world = World::with(&["a"]).await;
    let pick = world.pick();
    world.network.set("a:1", Host::Silent);
    world.network.end(pick.connection(), Ended::Closed("killed".to_owned()));
    sleep(MS * 10).await;
    assert_eq!(ready(&world).await, (false, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn the_next_connection_of_a_node_that_ends_one_for_its_age_is_waited_for() {
    for (then, expected) in [(Host::Accepts, true), (Host::Refuses, false)] {
        let world = World::with(&["a"]).await;
        sleep(MS * 5000).await;
        let pick = world.pick();
        world.network.set("a:1", then);
        world.network.end(pick.connection(), Ended::Draining);
        while world.balancer.pick(&Request::default()).is_some() {
            tokio::task::yield_now().await;
        }
        let (is_ready, waited) = ready(&world).await;
        assert_eq!(is_ready, expected);
        assert!(waited < MS * 100, "it is dialled at once: {waited:?}");
        assert_eq!(ready(&world).await, (expected, Duration::ZERO));
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_registry_is_told_at_once_with_what_it_has_instead() {
    let world = world();
    let node = Node::new("greeters", "1", "host:1");
    world.registry.register(&node, Duration::from_secs(3600)).await.expect("a lease");
    world.send(nodes(&[]));
    for _ in 0..3 {
        assert_eq!(ready(&world).await, (false, Duration::ZERO));
        let why = world.balancer.why_not_ready(&Request::default());
        assert!(why.contains("did you mean 'greeters'?"), "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_else_is_registered_is_waited_for_once_and_not_for_long() {
    for (takes, waits, is_known) in [(150, 150, true), (60_000, 2_000, false)] {
        let world = world_with(Memory::new(), Arc::new(Slow(MS * takes)));
        world.send(nodes(&[]));
        sleep(MS).await;
        assert_eq!(ready(&world).await, (false, MS * waits));
        let why = world.balancer.why_not_ready(&Request::default());
        assert_eq!(why.contains("did you mean 'greeters'?"), is_known, "{why}");
        assert!(why.starts_with("none is registered in slow://; "), "{why}");
        sleep(Duration::from_secs(60)).await;
        assert_eq!(ready(&world).await, (false, Duration::ZERO), "though it is asked again");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_before_a_node_came_is_not_told_after_it_left() {
    let world = world_with(Memory::new(), Arc::new(Slow(MS * 500)));
    world.send(nodes(&[]));
    let asks = timeout(MS * 100, super::ready(&world.balancer, true));
    assert!(asks.await.is_err(), "the answer is on its way");
    world.network.set("a:1", Host::Refuses);
    world.send(nodes(&["a"]));
    assert_eq!(ready(&world).await, (false, MS), "its attempt");
    sleep(MS * 500).await;
    world.send(nodes(&[]));
    tokio::task::yield_now().await;
    assert_eq!(ready(&world).await, (false, MS * 500), "it is asked anew");
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_fails_is_not_waited_for() {
    let world = world();
    world.status.send_modify(|status| status.error = Some("etcd://h:1: refused".into()));
    assert_eq!(ready(&world).await, (false, Duration::ZERO));
    assert_eq!(world.balancer.why_not_ready(&Request::default()), "etcd://h:1: refused");
    world.status.send_modify(|status| status.refused = true);
    assert_eq!(ready(&world).await, (false, Duration::ZERO));
    assert!(world.balancer.refused().is_some());
    drop(world.status);
    assert!(!super::ready(&world.balancer, true).await);
    assert!(world.balancer.is_over());
}
