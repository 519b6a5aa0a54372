//! Registries over real sockets, on the loopback interface. Tests meet on it: each has a service of
//! its own.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt};
use tokio::time::timeout;

use super::{
    super::{Event, Node, Registry, RenewError, Watch},
    Mdns,
    link::Named,
};

const TTL: Duration = Duration::from_secs(15);

fn registry() -> Arc<Mdns> {
    Arc::new(Mdns::on(Vec::new()))
}

/// A service that no other test has, nor any other run of this one.
fn service(name: &str) -> String {
    format!("test.{name}.{}", std::process::id())
}

fn node(service: &str, id: &str, port: u16) -> Node {
    Node::new(service, id, format!("127.0.0.1:{port}"))
}

/// Asks until these are the ids of the service's nodes: a busy machine may answer late.
async fn until(registry: &Mdns, service: &str, expected: &[&str]) {
    let mut ids = Vec::new();
    let asking = async {
        while ids != expected {
            let listing = registry.read(service).await.unwrap();
            ids = listing.entries.iter().map(|entry| entry.node.id.clone()).collect();
            tokio::task::yield_now().await;
        }
    };
    let in_time = timeout(Duration::from_secs(5), asking).await;
    assert!(in_time.is_ok(), "{ids:?} and not {expected:?}");
}

async fn now(registry: &Mdns, service: &str) -> Vec<String> {
    let listing = registry.read(service).await.unwrap();
    listing.entries.iter().map(|entry| entry.node.id.clone()).collect()
}

async fn event(watch: &mut Watch) -> Event {
    let next = timeout(Duration::from_secs(5), watch.next()).await.expect("a change is told");
    let mut batch = next.unwrap().unwrap();
    assert_eq!(batch.events.len(), 1);
    batch.events.remove(0)
}

#[tokio::test]
async fn two_registries_find_each_others_nodes_and_see_them_leave() {
    let (one, other) = (registry(), registry());
    let service = service("both");
    let (first, second) = (node(&service, "first", 1), node(&service, "second", 2));
    let lease = one.register(&first, TTL).await.unwrap();
    assert_eq!(now(&one, &service).await, ["first"], "its own registry knows it");
    until(&other, &service, &["first"]).await;
    let listing = other.read(&service).await.unwrap();
    assert_eq!(listing.entries.len(), 1);
    assert_eq!(*listing.entries[0].node, first);
    let mut watch = other.watch(&service, listing.revision);
    let mut watch_one = one.watch(&service, one.read(&service).await.unwrap().revision);
    other.register(&second, TTL).await.unwrap();
    for watch in [&mut watch, &mut watch_one] {
        assert!(matches!(event(watch).await, Event::Put(entry) if *entry.node == second));
    }
    assert_eq!(now(&one, &service).await, ["first", "second"]);
    one.renew(&first, lease).await.unwrap();

    one.deregister(&first, lease).await.unwrap();
    assert!(matches!(event(&mut watch).await, Event::Delete(key) if key.ends_with("/first")));
    assert_eq!(now(&one, &service).await, ["second"], "gone at once from its own");
    assert!(matches!(one.renew(&first, lease).await, Err(RenewError::Lost(_))));
    one.deregister(&first, lease).await.unwrap();
    assert_eq!(now(&other, &service).await, ["second"]);
}

#[tokio::test]
async fn an_id_that_another_has_is_refused() {
    let (one, other) = (registry(), registry());
    let service = service("twin");
    let first = node(&service, "a", 1);
    let lease = one.register(&first, TTL).await.unwrap();
    for registry in [&other, &one] {
        let error = registry.register(&node(&service, "a", 2), TTL).await.unwrap_err();
        let text = error.to_string();
        assert!(error.is_registry() && text.contains("127.0.0.1:1 has this id"), "{text}");
        assert!(text.contains("unique"), "{text}");
    }
    one.renew(&first, lease).await.unwrap();
    until(&other, &service, &["a"]).await;
    one.deregister(&first, lease).await.unwrap();
    other.register(&node(&service, "a", 2), TTL).await.unwrap();
}

#[tokio::test]
async fn of_two_that_take_an_id_at_once_one_has_it() {
    let (one, other) = (registry(), registry());
    tokio::try_join!(one.prepare(), other.prepare()).unwrap();
    let service = service("race");
    let (first, second) = (node(&service, "a", 1), node(&service, "a", 2));
    let (first, second) = tokio::join!(one.register(&first, TTL), other.register(&second, TTL));
    let error = first.expect_err("the later port has it");
    let named = "a node at 127.0.0.1:2, which registers at this very moment";
    assert!(error.to_string().contains(named), "{error}");
    second.unwrap();
}

#[tokio::test]
async fn a_registration_given_up_leaves_nothing_behind() {
    let (one, other) = (registry(), registry());
    let service = service("dropped");
    let node = node(&service, "a", 1);
    one.prepare().await.unwrap();
    assert!(one.register(&node, TTL).now_or_never().is_none(), "it has begun, and is dropped");
    assert!(one.driver.get().unwrap().look(|state| state.responder.wake_at().is_none()));
    assert!(now(&other, &service).await.is_empty());
}

#[tokio::test]
async fn services_are_listed() {
    let (one, other) = (registry(), registry());
    let names = [service("listed.b"), service("listed.a")];
    for name in &names {
        one.register(&node(name, "x", 1), TTL).await.unwrap();
        one.register(&node(name, "y", 2), TTL).await.unwrap();
    }
    for registry in [&one, &other] {
        let listing = async {
            loop {
                let listed = registry.list().await.unwrap();
                assert!(listed.is_sorted(), "{listed:?}");
                let count = |name| listed.iter().filter(|listed| *listed == name).count();
                if names.iter().map(count).eq([1, 1]) {
                    break;
                }
            }
        };
        timeout(Duration::from_secs(5), listing).await.expect("both are listed, each once");
    }
}

#[tokio::test]
async fn what_cannot_be_registered_says_so() {
    let registry = registry();
    let long = "x".repeat(64);
    let far = Node::new("a", "a-1", "203.0.113.7:80");
    for (node, named) in [
        (node("a", &long, 1), "a label in DNS has at most 63"),
        (node(&long, "a", 1), "a label in DNS has at most 63"),
        (far, "no interface of this machine has the address 203.0.113.7"),
    ] {
        for error in [
            registry.validate(&node).unwrap_err(),
            registry.register(&node, TTL).await.unwrap_err(),
        ] {
            assert!(error.is_config() && error.to_string().contains(named), "{error}");
        }
    }
    assert!(registry.read(&long).await.unwrap_err().is_config());
    let elsewhere = Mdns::on(vec![Named::Address([203, 0, 113, 7].into(), 0)]);
    let error = elsewhere.prepare().await.unwrap_err();
    assert!(error.is_config() && error.to_string().contains("203.0.113.7"), "{error}");
}
