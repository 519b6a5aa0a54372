//! `nacos://` while Nacos is away: down, stopped, wiped, or slow.

use std::time::Duration;

use micro::{
    registry::{self, RenewError, WatchError},
    testing::registry::Watching,
};
use serde_json::json;
use tests::{
    away::{TTL, fails_in_time, ids, node, register},
    fault::Server,
    gate::Gate,
    link::Link,
    nacos::{Nacos, main_address},
};
use tokio::time::{Instant, sleep, timeout};

#[tokio::test]
async fn nacos_may_start_after_us() {
    let mut nacos = Nacos::stopped();
    let registry = registry::open(&nacos.url()).unwrap();
    let error = fails_in_time(registry.register(&node("a"), TTL)).await;
    let text = error.to_string();
    assert!(error.is_registry(), "{error:?}");
    assert!(
        text.contains(&nacos.url()) && text.contains("register a of service greeter"),
        "{text}"
    );
    assert!(text.to_lowercase().contains("connection refused"), "{text}");
    fails_in_time(registry.read("greeter")).await;
    fails_in_time(registry.list()).await;
    let mut watching = Watching::after_revision(&registry, "greeter", 0);
    let ended = watching.next_or_end().await;
    assert!(matches!(ended, Err(WatchError::Disconnected(_))), "{ended:?}");
    assert!(watching.has_ended().await, "the stream ends after its first error");

    nacos.restart().await;
    let lease = registry.register(&node("a"), TTL).await.unwrap();
    registry.renew(&node("a"), lease).await.unwrap();
    assert_eq!(ids(&registry).await, ["a"]);
}

/// Two links to a Nacos, as to two servers of a cluster, and the URL of both. The first connection is made
/// over the first: the second is cut.
async fn two_links(nacos: &Nacos) -> ([Link; 2], String) {
    two_links_by([&nacos.grpc_address(); 2]).await
}

/// The same, to a server that is reached at both of these addresses.
async fn two_links_by(addresses: [&str; 2]) -> ([Link; 2], String) {
    let links = [Link::to(addresses[0]).await, Link::to(addresses[1]).await];
    links[1].cut().await;
    let main = |link: &Link| main_address(&link.address);
    let url = format!("nacos://{},{}", main(&links[0]), main(&links[1]));
    (links, url)
}

#[tokio::test]
async fn after_a_restart_the_record_is_lost_and_taken_at_once() {
    let mut nacos = Nacos::start().await;
    let ([first, second], url) = two_links(&nacos).await;
    let registry = registry::open(&url).unwrap();
    let lease = registry.register(&node("a"), TTL).await.unwrap();
    let mut watching = Watching::from_now(&registry, "greeter").await;
    nacos.kill();
    let ended = watching.next_or_end().await;
    assert!(matches!(ended, Err(WatchError::Disconnected(_))), "{ended:?}");
    let renewed = fails_in_time(registry.renew(&node("a"), lease)).await;
    assert!(matches!(renewed, RenewError::Failed(_)), "it may well stand: {renewed:?}");

    // So that the earlier connection does not come back.
    first.cut().await;
    second.mend().await;
    nacos.restart().await;
    let back = Instant::now();
    let renewed = fails_in_time(registry.renew(&node("a"), lease)).await;
    assert!(matches!(renewed, RenewError::Lost(_)), "{renewed:?}");
    let lease = register(&registry, &node("a"), TTL).await;
    registry.renew(&node("a"), lease).await.unwrap();
    assert_eq!(ids(&registry).await, ["a"]);
    // The SDK itself would take up to a minute.
    assert!(back.elapsed() < Duration::from_secs(3), "{:?}", back.elapsed());
}

#[tokio::test]
async fn an_earlier_connection_that_comes_back_takes_nothing_along() {
    let nacos = Nacos::start().await;
    let ([first, second], url) = two_links(&nacos).await;
    let registry = registry::open(&url).unwrap();
    let lease = registry.register(&node("a"), TTL).await.unwrap();
    first.cut().await;
    second.mend().await;
    let renewed = fails_in_time(registry.renew(&node("a"), lease)).await;
    assert!(matches!(renewed, RenewError::Lost(_)), "{renewed:?}");
    let lease = register(&registry, &node("a"), TTL).await;

    // Over a link so slow that what the SDK writes by itself every 3 s comes before it is told not to.
    first.mend().await;
    first.slow(Duration::from_millis(2500)).await;
    let mended = Instant::now();
    while mended.elapsed() < Duration::from_secs(30) {
        assert_eq!(ids(&registry).await, ["a"], "after {:?}", mended.elapsed());
        registry.renew(&node("a"), lease).await.expect("the later record stands");
        sleep(Duration::from_millis(50)).await;
    }
    // It has come back, and nothing is left of it.
    let instances = nacos.instances("greeter").await;
    assert_eq!(instances.len(), 1, "{instances:?}");
}

#[tokio::test]
async fn an_earlier_connection_that_writes_over_a_later_record_does_not_take_it_along() {
    let nacos = Nacos::start().await;
    let grpc_address = nacos.grpc_address();
    let gate = Gate::to(&grpc_address).await;
    let ([first, second], url) = two_links_by([&gate.address, &grpc_address]).await;
    let registry = registry::open(&url).unwrap();
    let lease = registry.register(&node("a"), TTL).await.unwrap();
    first.cut().await;
    second.mend().await;
    let renewed = fails_in_time(registry.renew(&node("a"), lease)).await;
    assert!(matches!(renewed, RenewError::Lost(_)), "{renewed:?}");

    // What the SDK writes by itself is on its way while the later record is registered.
    first.mend().await;
    let held = timeout(Duration::from_secs(60), gate.hold("\"registerInstance\""));
    held.await.expect("the SDK connects again and writes its record");
    let lease = register(&registry, &node("a"), TTL).await;
    gate.release();
    let released = Instant::now();
    while released.elapsed() < Duration::from_secs(8) {
        assert_eq!(ids(&registry).await, ["a"], "after {:?}", released.elapsed());
        sleep(Duration::from_millis(20)).await;
    }
    registry.renew(&node("a"), lease).await.expect("the later record stands");
    let instances = nacos.instances("greeter").await;
    assert_eq!(instances.len(), 1, "{instances:?}");
}

#[tokio::test]
async fn a_node_that_left_while_nacos_was_away_does_not_come_back() {
    let mut nacos = Nacos::start().await;
    let registry = registry::open(&nacos.url()).unwrap();
    let lease = registry.register(&node("a"), TTL).await.unwrap();
    nacos.kill();
    fails_in_time(registry.deregister(&node("a"), lease)).await;
    nacos.restart().await;
    // The SDK connects again after 2, 4, 8 s, and registers what it had.
    sleep(Duration::from_secs(16)).await;
    assert!(ids(&registry).await.is_empty());
}

#[tokio::test]
async fn a_stopped_nacos_fails_exchanges_in_time_and_ends_the_watch() {
    let nacos = Nacos::start().await;
    let registry = registry::open(&nacos.url()).unwrap();
    let lease = registry.register(&node("a"), TTL).await.unwrap();
    let mut watching = Watching::from_now(&registry, "greeter").await;
    nacos.write("greeter", "127.0.0.1", 2, &json!({ "protocol": "grpc" })).await;
    assert_eq!(watching.events(1).await.len(), 1);

    nacos.pause();
    let stopped = Instant::now();
    for _ in 0..2 {
        let error = fails_in_time(registry.read("greeter")).await;
        assert!(error.to_string().contains("no answer in time"), "{error}");
        let renewed = fails_in_time(registry.renew(&node("a"), lease)).await;
        assert!(matches!(renewed, RenewError::Failed(_)), "{renewed:?}");
        fails_in_time(registry.register(&node("c"), TTL)).await;
    }
    let ended = watching.next_or_end().await;
    assert!(matches!(ended, Err(WatchError::Disconnected(_))), "{ended:?}");
    assert!(stopped.elapsed() < Duration::from_secs(15), "{:?}", stopped.elapsed());

    nacos.resume();
    registry.renew(&node("a"), lease).await.expect("its connection has outlived it");
    assert!(ids(&registry).await.contains(&"a".to_owned()));
}

#[tokio::test]
async fn what_was_given_up_by_its_caller_is_taken_back() {
    let nacos = Nacos::start().await;
    let registry = registry::open(&nacos.url()).unwrap();
    registry.read("greeter").await.unwrap();
    let link = Link::to(&nacos.grpc_address()).await;
    let slow = registry::open(&nacos.url_at(&link.address)).unwrap();
    slow.read("greeter").await.unwrap();
    link.slow(Duration::from_secs(3)).await;
    fails_in_time(slow.register(&node("a"), TTL)).await;
    // The SDK goes on to try it every 3 s, and is told to stop 3 s later.
    sleep(Duration::from_secs(8)).await;
    link.mend().await;
    let start = Instant::now();
    while !ids(&registry).await.is_empty() {
        assert!(start.elapsed() < Duration::from_secs(20), "it stays for ever");
        sleep(Duration::from_millis(100)).await;
    }
    sleep(Duration::from_secs(4)).await;
    assert!(ids(&registry).await.is_empty(), "it came back");
    drop(slow.register(&node("b"), TTL));
    register(&slow, &node("b"), TTL).await;
    assert_eq!(ids(&registry).await, ["b"]);
}

#[tokio::test]
async fn a_lease_that_ends_while_its_node_is_written_anew_takes_nothing_along() {
    let nacos = Nacos::start().await;
    let link = Link::to(&nacos.grpc_address()).await;
    let registry = registry::open(&nacos.url_at(&link.address)).unwrap();
    registry.list().await.expect("it connects");
    link.slow(Duration::from_millis(400)).await;
    registry.register(&node("a"), Duration::from_secs(1)).await.unwrap();
    sleep(Duration::from_millis(800)).await;
    let lease = registry.register(&node("a"), TTL).await.unwrap();
    sleep(Duration::from_secs(2)).await;
    registry.renew(&node("a"), lease).await.expect("the record is the later lease's");
    assert_eq!(ids(&registry).await, ["a"]);
}

#[tokio::test]
async fn a_wiped_nacos_has_lost_the_record_and_takes_it_again() {
    let mut nacos = Nacos::start().await;
    let registry = registry::open(&nacos.url()).unwrap();
    let lease = registry.register(&node("a"), TTL).await.unwrap();
    nacos.wipe().await;
    let renewed = registry.renew(&node("a"), lease).await;
    assert!(matches!(renewed, Err(RenewError::Lost(_))), "{renewed:?}");
    registry.register(&node("a"), TTL).await.unwrap();
    assert_eq!(ids(&registry).await, ["a"]);
    registry.deregister(&node("a"), lease).await.expect("an earlier lease is no error");
    assert_eq!(ids(&registry).await, ["a"]);
}
