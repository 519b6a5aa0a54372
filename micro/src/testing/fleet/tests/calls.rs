//! What calls make of nodes that go and come.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::client::Hedge;

#[tokio::test(start_paused = true)]
async fn a_hedged_call_is_made_once_by_a_node_that_was_down_when_it_began() {
    let calls = Arc::<AtomicU32>::default();
    let counted = calls.clone();
    let nodes = move |node: &mut Service| {
        let echo = Echo { calls: counted.clone(), ..Echo::named(node.id()) };
        register(node.server(), echo);
    };
    let fleet = Fleet::builder().nodes("echo", 1, nodes).start().await.expect("a fleet");
    let stub = Stub::new("echo", fleet.client());
    stub.read(Word::new("who?")).await.expect("connected");
    fleet.node("echo-1").kill();
    sleep(SECOND).await;
    calls.store(0, Ordering::SeqCst);
    let call = || stub.read(Word::new("who?")).hedge(Hedge::after(50 * MILLI)).into_future();
    let calling: Vec<_> = (0..50).map(|_| tokio::spawn(call())).collect();
    sleep(SECOND).await;
    fleet.node("echo-1").restart().await.expect("it listens");
    fleet.node("echo-1").slow(5 * MILLI);
    for call in calling {
        call.await.expect("no panic").expect("the node is back");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 50, "the delay is that of an answer");
    // Once a node has them, they are hedged.
    fleet.node("echo-1").slow(SECOND);
    let reply = call().await.expect("slowly");
    let served = reply.extensions().get::<Served>().expect("who answers");
    assert_eq!(served.attempts, 2);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_names_its_node() {
    let (fleet, stub) = fleet().await;
    let reply = stub.chat(futures_util::stream::pending::<Word>()).await.expect("headers");
    let Served { node, .. } = reply.extensions().get::<Served>().expect("who answers").clone();
    fleet.node(&node.id).kill();
    let status = reply.into_inner().message().await.expect_err("its node was killed");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let named = format!("service 'echo', node {}: ", node.id);
    assert!(status.message().starts_with(&named), "{status}");
}
