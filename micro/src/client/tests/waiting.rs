//! Calls for which there is no node, or none yet.

use super::*;

#[tokio::test]
async fn a_call_waits_for_its_first_node() {
    let registry = "memory://client-waits";
    let stub = Stub::new("late", &client(registry));
    let call = tokio::spawn(stub.say(Word::new("who?")).into_future());
    let _late = start(registry, "late", Echo::named("late")).await;
    let reply = call.await.expect("no panic").expect("a reply");
    assert_eq!(reply.into_inner().text, "late");
}

#[tokio::test]
async fn a_call_without_nodes_ends_at_its_deadline_with_the_reason() {
    let stub = Stub::new("nobody", &client("memory://client-nobody"));
    let status = stub.say(Word::new("who?")).timeout(SOON).await.expect_err("no node");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("nobody"), "{}", status.message());
    assert!(status.message().contains("no node"), "{}", status.message());
}

#[cfg(feature = "etcd")]
#[tokio::test(start_paused = true)]
async fn a_service_that_the_registry_cannot_hold_fails_its_calls_at_once() {
    // Not even asked: no connection is made.
    let stub = Stub::new("..", &client("etcd://127.0.0.1:1"));
    let start = tokio::time::Instant::now();
    for status in [
        stub.say(Word::new("who?")).await.err(),
        stub.down(Word::new("who?")).await.err(),
        stub.say(Word::new("who?")).fail_fast().await.err(),
    ] {
        let status = status.expect("no such name");
        assert_eq!(status.code(), Code::Internal, "{status}");
        assert!(status.message().contains("'..'"), "{status}");
    }
    assert!(start.elapsed() < SOON);
}

#[tokio::test]
async fn a_call_may_fail_fast() {
    let stub = Stub::new("nobody", &client("memory://client-fast"));
    let status = stub.say(Word::new("who?")).fail_fast().await.expect_err("no node");
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_not_found_fails_with_the_names_that_are() {
    let registry = "memory://client-misnamed";
    let _greeter = start(registry, "greeter", Echo::named("a")).await;
    let stub = Stub::new("greetr", &client(registry));
    let text = "no node of service 'greetr' is ready: none is registered in \
                memory://client-misnamed; did you mean 'greeter'? registered there: 'greeter'";
    let status = stub.say(Word::new("who?")).timeout(SOON).await.expect_err("no such name");
    assert_eq!((status.code(), status.message()), (Code::Unavailable, text));
    // Also as the first call of its channel.
    for stub in [stub, Stub::new("greetr", &client(registry))] {
        let status = stub.say(Word::new("who?")).fail_fast().await.expect_err("no such name");
        assert_eq!((status.code(), status.message()), (Code::Unavailable, text));
    }
}

#[tokio::test]
async fn the_first_call_of_a_channel_that_fails_fast_finds_its_node() {
    let registry = "memory://client-fast-first";
    let _greeter = start(registry, "greeter", Echo::named("a")).await;
    for _ in 0..30 {
        let stub = Stub::new("greeter", &client(registry));
        stub.say(Word::new("who?")).fail_fast().await.expect("the node runs");
        let stub = Stub::new("greeter", &client(registry));
        stub.down(Word::new("one two")).fail_fast().await.expect("the node runs");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_fails_fast_outlasts_neither_the_first_attempt_nor_its_deadline() {
    // It accepts and stays silent, for which a connection has a second.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let registry = format!("static://silent={}", silent.local_addr().expect("an address"));
    let now = tokio::time::Instant::now;
    for (timeout, waits, text) in [
        (SOON, SOON, "none of 1 nodes is connected yet"),
        (Duration::from_secs(60), Duration::from_secs(1), "none of 1 nodes is connected: node "),
    ] {
        for is_unary in [true, false] {
            let stub = Stub::new("silent", &client(&registry));
            let (start, word) = (now(), Word::new("who?"));
            let status = if is_unary {
                stub.say(word).timeout(timeout).fail_fast().await.expect_err("it is silent")
            } else {
                stub.down(word).timeout(timeout).fail_fast().await.expect_err("it is silent")
            };
            let waited = start.elapsed();
            assert_eq!(status.code(), Code::Unavailable, "{status}");
            assert!(status.message().contains(text), "{status}");
            assert!(waits <= waited && waited < waits + SOON, "{waited:?}");
        }
    }
}
