//! Which node a call goes to, where the call or its channel says so.

use std::{collections::BTreeSet, time::Duration};

use tonic::{Code, Request};

use crate::{
    ChannelOptions, Client,
    balance::{Balancing, ConsistentHash, Filter},
    fixture::{Echo, Stub, Word, start},
    service::Handle,
};

const SOON: Duration = Duration::from_millis(100);

/// Nodes `0`, `1` and so on of one service, and a stub that knows all of them.
async fn fleet(registry: &str, nodes: usize, options: ChannelOptions) -> (Stub, Vec<Handle>) {
    let mut handles = Vec::new();
    for number in 0..nodes {
        let (service, name) = (crate::Service::builder("echo"), number.to_string());
        // Of the same name: a node's keys go by its id.
        let service = service.id(&*name).registry(registry).without_env().build().await;
        let mut service = service.expect("a service");
        crate::fixture::register(service.server(), Echo::named(&name));
        handles.push(service.start().await.expect("it starts"));
    }
    let client = Client::builder().without_env().registry(registry).for_all(options);
    let stub = Stub::new("echo", &client.build().expect("a registry in memory"));
    for handle in &handles {
        stub.say(Word::new("who?")).node(handle.id()).await.expect("it is connected to");
    }
    (stub, handles)
}

#[tokio::test]
async fn a_pinned_call_goes_to_its_node() {
    let (stub, handles) = fleet("memory://pinned", 3, ChannelOptions::new()).await;
    for (number, handle) in handles.iter().enumerate() {
        for _ in 0..10 {
            let reply = stub.say(Word::new("who?")).node(handle.id()).await.expect("a reply");
            assert_eq!(reply.into_inner().text, number.to_string());
        }
        let stream = stub.down(Word::new("a b")).node(handle.id()).await;
        assert!(stream.is_ok(), "a stream may be pinned too");
    }
}

#[tokio::test]
async fn a_call_pinned_to_a_node_that_is_not_there_waits_for_it_and_then_fails_by_its_name() {
    let registry = "memory://pinned-absent";
    let (stub, _handles) = fleet(registry, 1, ChannelOptions::new()).await;
    let text = "no node of service 'echo' is ready: node late, which the call is pinned to, is none \
                of the 1 that are ready, of 1 that are registered";
    for call in [
        stub.say(Word::new("who?")).node("late").timeout(SOON),
        stub.say(Word::new("who?")).node("late").fail_fast(),
    ] {
        let status = call.await.expect_err("it is not there");
        assert_eq!((status.code(), status.message()), (Code::Unavailable, text));
    }

    let call = tokio::spawn(stub.say(Word::new("who?")).node("late").into_future());
    tokio::task::yield_now().await;
    let late = crate::Service::builder("echo").id("late").registry(registry).without_env();
    let mut late = late.build().await.expect("a service");
    crate::fixture::register(late.server(), Echo::named("late"));
    let _late = late.start().await.expect("it starts");
    let reply = call.await.expect("no panic").expect("it came");
    assert_eq!(reply.into_inner().text, "late");
}

#[tokio::test]
async fn calls_of_one_key_go_to_one_node_by_the_call_or_by_its_header() {
    let options = ChannelOptions::new().balancing(ConsistentHash::by_header("x-user"));
    let (stub, _handles) = fleet("memory://hashed", 5, options).await;
    let mut nodes = BTreeSet::new();
    for user in 0..40 {
        let reply = stub.say(Word::new("who?")).hash_key(user).await.expect("a reply");
        let node = reply.into_inner().text;
        for _ in 0..5 {
            let mut request = Request::new(Word::new("who?"));
            let value = user.to_string().parse().expect("a number is a value");
            request.metadata_mut().insert("x-user", value);
            let reply = stub.say(request).await.expect("a reply");
            assert_eq!(reply.into_inner().text, node, "user {user}");
        }
        nodes.insert(node);
    }
    assert_eq!(nodes.len(), 5, "each node has keys");
}

#[tokio::test]
async fn what_is_said_of_a_service_goes_before_what_is_said_of_all() {
    let registry = "memory://balanced-apart";
    for service in ["one", "all"] {
        for name in ["a", "b", "c"] {
            std::mem::forget(start(registry, service, Echo::named(name)).await);
        }
    }
    let client = Client::builder()
        .without_env()
        .registry(registry)
        .for_all(ChannelOptions::new().balancing(Balancing::round_robin()))
        .for_service("one", ChannelOptions::new().balancing(Balancing::pick_first()))
        .build()
        .expect("a registry in memory");
    for (service, expected) in [("one", 1), ("all", 3)] {
        let stub = Stub::new(service, &client);
        let mut nodes = BTreeSet::new();
        // The first calls may come before the last connection.
        for _ in 0..100 {
            nodes.insert(stub.say(Word::new("who?")).await.expect("a reply").into_inner().text);
        }
        assert_eq!(nodes.len(), expected, "{service}");
    }
}

#[test]
fn an_option_that_cannot_be_used_fails_the_build() {
    let options = ChannelOptions::new().balancing(ConsistentHash::by_header("user id"));
    let client = Client::builder().without_env().registry("memory://").for_service("echo", options);
    let error = client.build().expect_err("no header can have that name");
    assert!(error.to_string().ends_with("(for service 'echo')"), "{error}");
    let options = ChannelOptions::new().filter(Filter::new().version_range("one"));
    let client = Client::builder().without_env().registry("memory://").for_all(options);
    let error = client.build().expect_err("no range");
    assert!(error.to_string().contains("version range 'one'"), "{error}");
}
