//! Why there is no node, as callers are told.

use super::*;

#[tokio::test(start_paused = true)]
async fn why_nothing_is_ready_is_told() {
    let world = world();
    let why = |world: &World| world.balancer.why_not_ready(&Request::default());
    assert_eq!(why(&world), "memory:// has not answered yet");
    world.status.send_modify(|status| status.error = Some("etcd://h:1: refused".into()));
    assert_eq!(why(&world), "etcd://h:1: refused");
    world.status.send_modify(|status| status.error = None);
    world.send(nodes(&[]));
    sleep(Duration::from_millis(10)).await;
    let none = "none is registered in memory://; is 'greeter' running, and on the same registry? \
                memory:// is within one process";
    assert_eq!(why(&world), none);
    world.network.set("a:1", Host::Refuses);
    world.send(nodes(&["a"]));
    sleep(Duration::from_millis(10)).await;
    let expected = "none of 1 nodes is connected: node a: cannot connect to a:1: Refuses";
    assert_eq!(why(&world), expected);
}

#[tokio::test(start_paused = true)]
async fn records_that_cannot_be_used_are_told() {
    let world = World::with(&[]).await;
    world.status.send_modify(|status| (status.malformed, status.not_grpc) = (1, 2));
    assert_eq!(
        world.balancer.why_not_ready(&Request::default()),
        "memory:// has 3 records of it and none that can be used: 2 of nodes that do not speak \
         gRPC, 1 that cannot be decoded"
    );
}

#[tokio::test(start_paused = true)]
async fn who_waits_in_vain_learns_what_else_is_registered() {
    let why = |found: &str| {
        format!(
            "none is registered in memory://; {found}; is 'greeter' running, and on the same \
             registry? memory:// is within one process"
        )
    };
    let world = world();
    let wait = async || {
        let waited = timeout(Duration::from_millis(100), ready(&world.balancer, false)).await;
        assert!(waited.is_err(), "there is no node");
        world.balancer.why_not_ready(&Request::default())
    };
    assert_eq!(wait().await, "memory:// has not answered yet");
    world.send(nodes(&[]));
    assert_eq!(wait().await, why("no service at all is registered there"));

    let register = async |service| {
        let node = Node::new(service, "1", "host:1");
        world.registry.register(&node, Duration::from_secs(3600)).await.expect("a lease");
    };
    register("users").await;
    assert_eq!(wait().await, why("no service at all is registered there"), "not asked each time");
    sleep(Duration::from_secs(10)).await;
    assert_eq!(wait().await, why("registered there: 'users'"));
    register("greeters").await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(
        wait().await,
        "none is registered in memory://; did you mean 'greeters'? registered there: 'greeters' \
         and 'users'"
    );
}

#[tokio::test(start_paused = true)]
async fn who_does_not_wait_has_the_next_one_learn_what_else_is_registered() {
    let world = World::with(&[]).await;
    assert!(
        !world.balancer.why_not_ready(&Request::default()).contains("registered there"),
        "nothing is waited for"
    );
    sleep(Duration::from_millis(1)).await;
    assert!(
        world
            .balancer
            .why_not_ready(&Request::default())
            .contains("no service at all is registered there")
    );
    let node = Node::new("greeters", "1", "host:1");
    world.registry.register(&node, Duration::from_secs(3600)).await.expect("a lease");
    sleep(Duration::from_secs(10)).await;
    assert!(
        !world.balancer.why_not_ready(&Request::default()).contains("greeters"),
        "what was known"
    );
    sleep(Duration::from_millis(1)).await;
    assert!(
        world.balancer.why_not_ready(&Request::default()).contains("registered there: 'greeters'")
    );

    world.send(nodes(&["a"]));
    ready(&world.balancer, false).await;
    world.send(nodes(&[]));
    let mut gone = world.balancer.why_not_ready(&Request::default());
    while !gone.contains("none is registered") {
        sleep(Duration::from_secs(1)).await;
        gone = world.balancer.why_not_ready(&Request::default());
    }
    assert!(!gone.contains("registered there"), "from before: {gone}");
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_service_that_cannot_be_is_told_at_once() {
    let world = World::with(&[]).await;
    let balancer = world.balancer.clone();
    assert_eq!(balancer.refused(), None);
    let waiting = tokio::spawn(async move {
        ready(&balancer, false).await;
        balancer.refused()
    });
    tokio::task::yield_now().await;
    world.status.send_modify(|status| {
        status.error = Some("no name".into());
        status.refused = true;
    });
    let refused = timeout(Duration::from_millis(1), waiting).await.expect("at once");
    assert_eq!(refused.expect("no panic").as_deref(), Some("no name"));
}
