//! Calls for which the picked node has no stream free.

use std::{future::IntoFuture, time::Duration};

use tonic::{Code, Streaming};

use crate::{
    ChannelOptions, Client,
    balance::{Balancing, ConsistentHash},
    client::Hedge,
    fixture::{Echo, Stub, Word, client, register, registered},
    service::Handle,
};

const SOON: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(60);

/// A node that allows one stream at a time.
async fn start(registry: &str, name: &str) -> Handle {
    let service = crate::Service::builder("echo").id(name).registry(registry).without_env();
    let mut service = service.build().await.expect("a service");
    service.server().max_concurrent_streams(1);
    register(service.server(), Echo::named(name));
    let handle = service.start().await.expect("it starts");
    registered(&handle).await;
    handle
}

/// Takes that stream.
async fn hold(stub: &Stub, node: &str) -> Streaming<Word> {
    let mut held =
        stub.down(Word::new("one hang")).node(node).await.expect("a stream").into_inner();
    held.message().await.expect("it goes on").expect("a word");
    held
}

/// Until so many calls are in flight at the only node.
async fn in_flight(client: &Client, calls: u32) {
    let channel = client.channel("echo");
    loop {
        let explained = channel.explain().await.expect("its runtime runs");
        if explained.nodes[0].in_flight == calls {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn calls_in_line_go_to_a_node_that_comes() {
    let registry = "memory://in-line-comes";
    let _a = start(registry, "a").await;
    let client = client(registry);
    let stub = Stub::new("echo", &client);
    let _held = hold(&stub, "a").await;
    let plain = stub.say(Word::new("who?")).timeout(LONG);
    let hedged = stub.say(Word::new("who?")).timeout(LONG).hedge(Hedge::after(LONG));
    let (plain, hedged) = (tokio::spawn(plain.into_future()), tokio::spawn(hedged.into_future()));
    let down = tokio::spawn(stub.down(Word::new("one")).timeout(LONG).into_future());
    in_flight(&client, 4).await;
    let _b = start(registry, "b").await;
    for call in [plain, hedged] {
        assert_eq!(call.await.expect("no panic").expect("a reply").into_inner().text, "b");
    }
    let mut down = down.await.expect("no panic").expect("a stream").into_inner();
    assert_eq!(down.message().await.expect("it goes on").expect("a word").text, "one");
}

#[tokio::test]
async fn a_call_goes_to_another_node_that_has_a_stream_free() {
    let registry = "memory://in-line-other";
    let (_a, _b) = (start(registry, "a").await, start(registry, "b").await);
    let hash = ConsistentHash::by_key().unbounded();
    // Room for what is held and for the call itself.
    let options =
        ChannelOptions::new().balancing(Balancing::consistent_hash(hash)).max_in_flight(2);
    let client = Client::builder().without_env().registry(registry).for_all(options);
    let stub = Stub::new("echo", &client.build().expect("a registry in memory"));
    for node in ["a", "b"] {
        stub.say(Word::new("who?")).node(node).await.expect("it is connected to");
    }
    let call = || stub.say(Word::new("who?")).hash_key("key").timeout(LONG);
    let own = call().await.expect("a reply").into_inner().text;
    let _held = hold(&stub, &own).await;
    let other = call().await.expect("a reply").into_inner().text;
    assert_ne!(other, own, "its stream is taken");
}

#[tokio::test]
async fn a_deadline_that_strikes_in_line_is_not_charged_to_the_node() {
    let registry = "memory://in-line-deadline";
    let _a = start(registry, "a").await;
    let client = client(registry);
    let stub = Stub::new("echo", &client);
    let _held = hold(&stub, "a").await;
    for status in [
        stub.say(Word::new("who?")).timeout(SOON).await.err(),
        stub.down(Word::new("who?")).timeout(SOON).await.err(),
        stub.say(Word::new("who?")).timeout(SOON).hedge(Hedge::after(LONG)).await.err(),
    ] {
        let status = status.expect("no stream");
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert!(status.message().contains("as many streams as it allows"), "{status}");
    }
    let explained = client.channel("echo").explain().await.expect("its runtime runs");
    assert_eq!(explained.nodes[0].health, Some(1.0), "{explained}");
}

#[tokio::test]
async fn a_call_that_is_given_up_in_line_leaves_its_places() {
    let registry = "memory://in-line-cancelled";
    let _a = start(registry, "a").await;
    let options = ChannelOptions::new().max_in_flight(2);
    let client = Client::builder().without_env().registry(registry).for_all(options);
    let client = client.build().expect("a registry in memory");
    let stub = Stub::new("echo", &client);
    let held = hold(&stub, "a").await;
    for _ in 0..3 {
        let call = tokio::spawn(stub.say(Word::new("who?")).timeout(LONG).into_future());
        in_flight(&client, 2).await;
        call.abort();
        assert!(call.await.expect_err("it is given up").is_cancelled());
        in_flight(&client, 1).await;
    }
    let call = tokio::spawn(stub.say(Word::new("who?")).timeout(LONG).into_future());
    in_flight(&client, 2).await;
    drop(held);
    assert_eq!(call.await.expect("no panic").expect("a reply").into_inner().text, "a");
}
