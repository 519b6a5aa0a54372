use futures_util::FutureExt;
use tokio::time::advance;

use super::*;
use crate::registry::Event;

const TTL: Duration = Duration::from_secs(15);

fn node(id: &str) -> Node {
    Node::new("greeter", id, format!("127.0.0.1:{}", 1000 + id.len()))
}

async fn ids(memory: &Memory) -> Vec<String> {
    let listing = memory.read("greeter").await.unwrap();
    listing.entries.iter().map(|entry| entry.node.id.clone()).collect()
}

fn told(batch: Result<Batch, WatchError>) -> String {
    let batch = batch.unwrap();
    let event = |event: &Event| match event {
        Event::Put(entry) => format!("+{}", entry.key),
        Event::Delete(key) => format!("-{key}"),
        Event::Malformed(malformed) => format!("?{}", malformed.key),
        Event::Reset(_) => unreachable!("memory tells each change"),
    };
    format!("{}{}", batch.revision, batch.events.iter().map(event).collect::<String>())
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_nobody_renews_expires_to_the_millisecond() {
    let memory = Memory::new();
    let lease = memory.register(&node("a"), TTL).await.unwrap();
    advance(TTL - Duration::from_millis(1)).await;
    memory.renew(&node("a"), lease).await.unwrap();
    advance(TTL - Duration::from_millis(1)).await;
    assert_eq!(ids(&memory).await, ["a"]);
    advance(Duration::from_millis(1)).await;
    assert!(ids(&memory).await.is_empty());
    let renewed = memory.renew(&node("a"), lease).await;
    assert!(matches!(renewed, Err(RenewError::Lost(_))), "{renewed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_watch_wakes_for_an_expiry_that_nothing_else_touches() {
    let memory = Memory::new();
    memory.register(&node("a"), TTL).await.unwrap();
    memory.register(&node("b"), TTL * 2).await.unwrap();
    let start = Instant::now();
    let mut watch = memory.watch("greeter", 2);
    assert_eq!(told(watch.next().await.unwrap()), "3-greeter/a");
    assert_eq!(start.elapsed(), TTL);
    assert_eq!(told(watch.next().await.unwrap()), "4-greeter/b");
    assert_eq!(start.elapsed(), TTL * 2);
}

#[tokio::test(start_paused = true)]
async fn a_shorter_lease_taken_while_a_watch_waits_still_wakes_it() {
    let memory = Memory::new();
    memory.register(&node("long"), TTL * 10).await.unwrap();
    let mut watch = memory.watch("greeter", 1);
    assert!(watch.next().now_or_never().is_none());
    memory.register(&node("short"), TTL).await.unwrap();
    assert_eq!(told(watch.next().await.unwrap()), "2+greeter/short");
    assert_eq!(told(watch.next().await.unwrap()), "3-greeter/short");
}

#[tokio::test(start_paused = true)]
async fn a_watch_tells_only_its_service_in_order() {
    let memory = Memory::new();
    let mut watch = memory.watch("greeter", 0);
    let lease = memory.register(&node("a"), TTL).await.unwrap();
    memory.register(&Node::new("greeter2", "x", "127.0.0.1:1"), TTL).await.unwrap();
    memory.register(&Node::new("gree", "x", "127.0.0.1:1"), TTL).await.unwrap();
    memory.register(&node("bb"), TTL).await.unwrap();
    memory.deregister(&node("a"), lease).await.unwrap();
    assert_eq!(told(watch.next().await.unwrap()), "1+greeter/a");
    assert_eq!(told(watch.next().await.unwrap()), "4+greeter/bb");
    assert_eq!(told(watch.next().await.unwrap()), "5-greeter/a");
    assert_eq!(memory.list().await.unwrap(), ["gree", "greeter", "greeter2"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_further_behind_than_the_history_is_compacted_and_ends() {
    let memory = Memory::with_history(2);
    for id in ["a", "bb", "ccc"] {
        memory.register(&node(id), TTL).await.unwrap();
    }
    let mut watch = memory.watch("greeter", 1);
    assert_eq!(told(watch.next().await.unwrap()), "2+greeter/bb");
    let mut watch = memory.watch("greeter", 0);
    assert!(matches!(watch.next().await, Some(Err(WatchError::Compacted))));
    assert!(watch.next().await.is_none(), "the stream ends after its first error");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_lags_is_compacted() {
    let memory = Memory::with_history(2);
    let mut watch = memory.watch("greeter", 0);
    assert!(watch.next().now_or_never().is_none());
    for id in ["a", "bb", "ccc"] {
        memory.register(&node(id), TTL).await.unwrap();
    }
    assert!(matches!(watch.next().await, Some(Err(WatchError::Compacted))));
}

#[tokio::test(start_paused = true)]
async fn a_record_with_the_longest_ttl_stays() {
    let memory = Memory::new();
    let lease = memory.register(&node("a"), Duration::MAX).await.unwrap();
    memory.renew(&node("a"), lease).await.unwrap();
    advance(TTL * 1000).await;
    assert_eq!(ids(&memory).await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_revision_yet_to_come_is_of_another_registry() {
    let memory = Memory::new();
    let mut watch = memory.watch("greeter", 7);
    assert!(matches!(watch.next().await, Some(Err(WatchError::Compacted))));
}

#[tokio::test(start_paused = true)]
async fn an_overwritten_record_is_lost_to_its_first_owner_and_left_alone_by_it() {
    let memory = Memory::new();
    let first = memory.register(&node("a"), TTL).await.unwrap();
    let second = memory.register(&node("a"), TTL * 3).await.unwrap();
    assert!(matches!(memory.renew(&node("a"), first).await, Err(RenewError::Taken(_))));
    memory.deregister(&node("a"), first).await.unwrap();
    advance(TTL * 2).await;
    assert_eq!(ids(&memory).await, ["a"], "neither its leaving nor its expiry counts");
    memory.renew(&node("a"), second).await.unwrap();
    let mut changed = node("a");
    changed.address = "127.0.0.1:9".to_owned();
    assert!(matches!(memory.renew(&changed, second).await, Err(RenewError::Taken(_))));
}

#[tokio::test(start_paused = true)]
async fn who_has_lost_its_record_to_another_is_told_to_whom_and_what_to_do() {
    let memory = Memory::new();
    let (first, mut second) = (node("a"), node("a"));
    second.address = "127.0.0.1:9".to_owned();
    let lease = memory.register(&first, TTL).await.unwrap();
    memory.register(&second, TTL).await.unwrap();
    let Err(RenewError::Taken(why)) = memory.renew(&first, lease).await else {
        panic!("another's record stands");
    };
    assert_eq!(
        why,
        format!(
            "the record of a at {} was overwritten by a node at 127.0.0.1:9; two processes with one \
             id take it from each other: an id must be unique in its service; give each its own, or \
             leave the id out for a new one at each start",
            first.address
        )
    );
}

#[tokio::test(start_paused = true)]
async fn a_ttl_under_a_millisecond_is_refused() {
    let error = Memory::new().register(&node("a"), Duration::from_micros(999)).await.unwrap_err();
    assert!(error.is_config() && error.to_string().contains("under 1ms"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_future_that_is_not_awaited_does_nothing() {
    let memory = Memory::new();
    drop(memory.register(&node("a"), TTL));
    assert!(ids(&memory).await.is_empty());
}
