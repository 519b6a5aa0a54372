mod attempts;
mod balancing;
mod bounds;
mod configured;
mod hedged;
mod in_line;
mod layers;
mod raw;
mod streams;
#[cfg(feature = "tls")]
mod tls;
mod waiting;

use std::{
    sync::{Arc, atomic::AtomicU32, atomic::Ordering},
    time::Duration,
};

use tokio::io::AsyncReadExt as _;
use tokio_stream::StreamExt as _;
use tonic::{Code, IntoRequest as _, Request};
use tonic_prost::ProstCodec;

use crate::{
    Client, Service,
    client::{Hedge, RetryPolicy, Served},
    fixture::{ECHO, Echo, Stub, Word, client, register, registered, start},
    layer,
};

const SOON: Duration = Duration::from_millis(100);

#[tokio::test]
async fn a_call_finds_its_service_by_name() {
    let registry = "memory://client-finds";
    let _a = start(registry, "a", Echo::named("a")).await;
    let _b = start(registry, "b", Echo::named("b")).await;
    let client = client(registry);
    for name in ["a", "b"] {
        let reply = Stub::new(name, &client).say(Word::new("who?")).await.expect("a reply");
        assert_eq!(reply.into_inner().text, name);
    }
}

#[test]
fn a_client_outlives_a_runtime() {
    let registry = "memory://client-runtimes";
    let client = client(registry);
    let call_in_a_runtime = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let _a = start(registry, "a", Echo::named("a")).await;
            let stub = Stub::new("a", &client);
            stub.say(Word::new("who?")).await.expect("a reply");
            stub
        })
    };
    let orphan = call_in_a_runtime();
    call_in_a_runtime();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let call = async { orphan.say(Word::new("who?")).timeout(Duration::from_secs(60)).await };
    let status = runtime.expect("a runtime").block_on(call).expect_err("nobody is connected");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("runtime that its channel was made in"), "{status}");
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_named_and_its_handler_is_dropped() {
    let registry = "memory://client-silent";
    let echo = Echo::named("silent");
    let running = echo.running.clone();
    let handle = start(registry, "silent", echo).await;
    let stub = Stub::new("silent", &client(registry));
    let status = stub.say(Word::new("sleep")).timeout(SOON).await.expect_err("no answer");
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains(handle.id()), "{}", status.message());
    none_runs(&running).await;
}

#[tokio::test]
async fn a_call_without_any_time_is_not_sent() {
    let registry = "memory://client-zero";
    let echo = Echo::named("one");
    let calls = echo.calls.clone();
    let _one = start(registry, "one", echo).await;
    let stub = Stub::new("one", &client(registry));
    stub.say(Word::new("who?")).await.expect("connected");
    for _ in 0..10 {
        let call = stub.say(Word::new("who?")).timeout(Duration::ZERO);
        assert_eq!(call.await.expect_err("no time").code(), Code::DeadlineExceeded);
    }
    stub.say(Word::new("who?")).await.expect("a reply");
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_stream_without_any_time_is_not_sent() {
    let registry = "memory://client-stream-zero";
    let _echo = start(registry, "echo", Echo::named("echo")).await;
    let stub = Stub::new("echo", &client(registry));
    stub.say(Word::new("who?")).await.expect("connected");
    let status =
        stub.down(Word::new("one two")).timeout(Duration::ZERO).await.expect_err("no time");
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn headers_of_the_connection_do_not_break_a_call() {
    let registry = "memory://client-reserved";
    let _echo = start(registry, "echo", Echo::named("echo")).await;
    let stub = Stub::new("echo", &client(registry));
    let request = |name: &'static str| {
        let mut request = Request::new(Word::new("who?"));
        request.metadata_mut().insert(name, "7".parse().expect("a value"));
        request
    };
    for name in [
        "connection",
        "upgrade",
        "transfer-encoding",
        "proxy-connection",
        "content-length",
        "grpc-encoding",
        "grpc-timeout",
    ] {
        stub.say(request(name)).await.unwrap_or_else(|status| panic!("{name}: {status}"));
        stub.down(request(name)).await.unwrap_or_else(|status| panic!("{name}: {status}"));
    }
}

#[tokio::test]
async fn a_dropped_call_drops_its_handler() {
    let registry = "memory://client-dropped";
    let echo = Echo::named("one");
    let running = echo.running.clone();
    let _one = start(registry, "one", echo).await;
    let stub = Stub::new("one", &client(registry));
    let call = tokio::spawn(stub.say(Word::new("sleep")).into_future());
    until(|| running.load(Ordering::SeqCst) == 1).await;
    call.abort();
    none_runs(&running).await;
}

#[tokio::test]
async fn a_call_in_a_handler_ends_with_the_handlers_deadline() {
    let registry = "memory://client-inherits";
    let client = client(registry);
    let outer = Echo { client: Some(client.clone()), ..Echo::named("outer") };
    let inner = Echo::named("inner");
    let running = inner.running.clone();
    let _outer = start(registry, "outer", outer).await;
    let _inner = start(registry, "inner", inner).await;
    let call = Stub::new("outer", &client).say(Word::new("peer inner")).timeout(SOON);
    let status = call.await.expect_err("the inner handler sleeps");
    assert_eq!(status.code(), Code::DeadlineExceeded);
    none_runs(&running).await;
}

#[tokio::test]
async fn all_four_kinds_of_calls() {
    let registry = "memory://client-kinds";
    let _echo = start(registry, "echo", Echo::named("echo")).await;
    let stub = Stub::new("echo", &client(registry));

    let words = || tokio_stream::iter(["one", "two"].map(Word::new));
    assert_eq!(stub.up(words()).await.expect("a reply").into_inner().text, "one two");

    let mut down = stub.down(Word::new("one two")).await.expect("a stream").into_inner();
    assert_eq!(down.message().await.expect("ok").expect("a word").text, "one");
    assert_eq!(down.message().await.expect("ok").expect("a word").text, "two");
    assert_eq!(down.message().await.expect_err("the status").code(), Code::Aborted);

    let chat = stub.chat(words()).await.expect("a stream").into_inner();
    let words: Vec<_> = chat.map(|word| word.expect("a word").text).collect().await;
    assert_eq!(words, ["one", "two"]);
}

#[tokio::test]
async fn a_streams_deadline_covers_its_messages() {
    let registry = "memory://client-stream-deadline";
    let _echo = start(registry, "echo", Echo::named("echo")).await;
    let stub = Stub::new("echo", &client(registry));
    // Time enough for the two words on a machine that has other work.
    let call = stub.down(Word::new("one hang")).timeout(Duration::from_secs(1));
    let mut down = call.await.expect("a stream").into_inner();
    assert_eq!(down.message().await.expect("ok").expect("a word").text, "one");
    assert_eq!(down.message().await.expect("ok").expect("a word").text, "hang");
    let status = down.message().await.expect_err("the deadline");
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn only_a_method_declared_idempotent_is_retried_after_a_status() {
    let registry = "memory://client-retries";
    let _a = start(registry, "a", Echo::named("a")).await;
    let _b = start(registry, "b", Echo::named("b")).await;
    let client = client(registry);
    let status = Stub::new("a", &client).say(Word::new("busy")).await.expect_err("no retry");
    assert_eq!(status.code(), Code::Unavailable);
    let reply = Stub::new("b", &client).read(Word::new("attempts")).await.expect("a retry");
    assert_eq!(reply.into_inner().text, "1", "the server is told how many attempts went before");
}

#[tokio::test]
async fn a_call_may_say_by_itself_after_what_it_is_made_again() {
    let registry = "memory://client-retry-by-call";
    let client = client(registry);
    let start = |name: &'static str| start(registry, name, Echo::named(name));
    let (_a, _b, _c) = (start("a").await, start("b").await, start("c").await);
    let reply = Stub::new("a", &client).say(Word::new("attempts")).idempotent().await;
    assert_eq!(reply.expect("a retry").into_inner().text, "1");
    let policy = RetryPolicy::on([Code::Aborted]);
    let status = Stub::new("b", &client).read(Word::new("attempts")).retry(policy).await;
    assert_eq!(status.expect_err("it is not listed").message(), "once more");
    let policy = RetryPolicy::on([Code::NotFound]).max_attempts(3);
    let stub = Stub::new("c", &client);
    stub.say(Word::new("missing")).retry(policy).await.expect_err("three times");
    let reply = stub.say(Word::new("count")).await.expect("a reply");
    assert_eq!(reply.into_inner().text, "4");
}

#[tokio::test]
async fn a_reply_tells_its_node_and_how_many_attempts_it_took() {
    let registry = "memory://client-served";
    let handle = start(registry, "echo", Echo::named("echo")).await;
    let intercepted =
        Client::builder().registry(registry).intercept(|request, next: layer::Next| {
            next.run(request) // as if there were none
        });
    let words = || tokio_stream::iter(["one", "two"].map(Word::new));
    for client in [client(registry), intercepted.build().expect("a client")] {
        let stub = Stub::new("echo", &client);
        let again = RetryPolicy::on([Code::Unavailable]);
        let served = [
            stub.read(Word::new("who?")).await.expect("a reply").extensions().clone(),
            stub.say(Word::new("who?")).retry(again).await.expect("it").extensions().clone(),
            stub.say(Word::new("who?")).hedge(hedge()).await.expect("it").extensions().clone(),
            stub.down(Word::new("one")).await.expect("a stream").extensions().clone(),
            stub.up(words()).await.expect("a reply").extensions().clone(),
        ];
        for (nth, extensions) in served.iter().enumerate() {
            let served = extensions.get::<Served>().unwrap_or_else(|| panic!("call {nth}"));
            assert_eq!((&*served.node.id, served.attempts), (handle.id(), 1), "call {nth}");
        }
    }
    let stub = |name| Stub::new(name, &client(registry));
    for (name, is_hedged) in [("a", false), ("b", true)] {
        let _once_busy = start(registry, name, Echo::named(name)).await;
        let call = stub(name).say(Word::new("busy")).idempotent();
        let call = if is_hedged { call.hedge(hedge()) } else { call };
        let reply = call.await.expect("a retry");
        assert_eq!(reply.extensions().get::<Served>().expect("it").attempts, 2, "{is_hedged}");
    }
    let _once_busy = start(registry, "c", Echo::named("c")).await;
    let reply = stub("c").follow(Word::new("busy")).await.expect("a retry");
    assert_eq!(reply.extensions().get::<Served>().expect("it").attempts, 2);
}

fn hedge() -> Hedge {
    Hedge::after(Duration::from_secs(3))
}

#[tokio::test]
async fn a_call_may_be_given_metadata() {
    let registry = "memory://client-call-metadata";
    let _echo = start(registry, "echo", Echo::named("echo")).await;
    let stub = Stub::new("echo", &client(registry));
    let call = stub.say(Word::new("agent")).metadata("user-agent", "mine");
    assert_eq!(call.await.expect("a reply").into_inner().text, "mine");
    for (name, value, text) in [
        ("User-Agent ", "x", "'User-Agent '"),
        ("thing-bin", "x", "'thing-bin'"),
        ("token", "secret\n", "'token' has a value"),
    ] {
        let unary = stub.say(Word::new("who?")).metadata(name, value).await.expect_err("refused");
        let stream = stub.down(Word::new("who?")).metadata(name, value).await.expect_err("refused");
        for status in [unary, stream] {
            assert_eq!(status.code(), Code::InvalidArgument, "{status}");
            assert!(status.message().contains(text), "{status}");
            assert!(!status.message().contains("secret"), "{status}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_channel_whose_calls_all_fail_does_not_multiply_them() {
    let registry = "memory://client-budget";
    let echo = Echo::named("echo");
    let calls = echo.calls.clone();
    let _echo = start(registry, "echo", echo).await;
    let stub = Stub::new("echo", &client(registry));
    let start = tokio::time::Instant::now();
    for _ in 0..300 {
        stub.read(Word::new("closed")).await.expect_err("closed");
    }
    let retries = f64::from(calls.load(Ordering::SeqCst)) - 300.0;
    let most = 100.0 + 0.2 * 300.0 + 10.0 * start.elapsed().as_secs_f64();
    assert!((100.0..=most).contains(&retries), "{retries}, at most {most}");
}

#[tokio::test]
async fn a_status_of_the_handler_is_the_callers() {
    let registry = "memory://client-status";
    let _a = start(registry, "a", Echo::named("a")).await;
    let status =
        Stub::new("a", &client(registry)).read(Word::new("missing")).await.expect_err("missing");
    assert_eq!((status.code(), status.message()), (Code::NotFound, "no such word"));
}

#[tokio::test]
async fn metadata_goes_both_ways_and_reserved_keys_stay_ours() {
    let registry = "memory://client-metadata";
    let _a = start(registry, "a", Echo::named("a")).await;
    let mut request = Request::new(Word::new("who?"));
    request.metadata_mut().insert("grpc-timeout", "1n?".parse().expect("a value"));
    request.metadata_mut().insert("content-type", "text/html".parse().expect("a value"));
    request.metadata_mut().insert("grpc-accept-encoding", "gzip".parse().expect("a value"));
    let reply = Stub::new("a", &client(registry)).say(request).await.expect("a reply");
    assert_eq!(reply.metadata().get("content-type").expect("a header"), "application/grpc");
}

#[tokio::test]
async fn every_call_says_what_it_was_made_by() {
    let registry = "memory://client-agent";
    let _a = start(registry, "a", Echo::named("a")).await;
    let stub = Stub::new("a", &client(registry));
    let unary = stub.say(Word::new("agent")).await.expect("a reply").into_inner();
    let mut down = stub.follow(Word::new("agent")).await.expect("a stream").into_inner();
    for word in [Some(unary), down.message().await.expect("ok")] {
        let agent = word.expect("a word").text;
        assert!(agent.starts_with("grpc-rust-micro/"), "{agent}");
    }
}

#[tokio::test]
async fn a_dead_address_costs_no_call() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let refused = free.local_addr().expect("an address");
    drop(free);
    let alive = start("memory://client-dead", "a", Echo::named("a")).await;
    let registry = format!("static://a={refused},{}", alive.address());
    let stub = Stub::new("a", &client(&registry));
    for _ in 0..100 {
        stub.say(Word::new("who?")).await.expect("the other node answers");
    }
}

#[tokio::test]
async fn tonics_stubs_call_through_our_channel() {
    let registry = "memory://client-tonic";
    let calls = Arc::new(AtomicU32::new(0));
    let _a = start(registry, "a", Echo { calls: calls.clone(), ..Echo::named("a") }).await;
    let mut grpc = tonic::client::Grpc::new(client(registry).channel("a"));
    grpc.ready().await.expect("always ready");
    let path = http::uri::PathAndQuery::from_static(ECHO.methods[0].path);
    let codec = ProstCodec::<Word, Word>::default();
    let reply = grpc.unary(Word::new("who?").into_request(), path, codec).await.expect("a reply");
    assert_eq!(reply.into_inner().text, "a");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn details_of_a_status_that_are_no_base64_panic_nobody() {
    let registry = "memory://client-garbled";
    let _a = start(registry, "a", Echo::named("a")).await;
    let path = |index: usize| http::uri::PathAndQuery::from_static(ECHO.methods[index].path);
    let layered = Client::builder()
        .registry(registry)
        .intercept(|request, next: layer::Next| next.run(request));
    for client in [client(registry), layered.build().expect("a client")] {
        let stub = Stub::new("a", &client);
        let word = || Word::new("garbled");
        let mut grpc = tonic::client::Grpc::new(client.channel("a"));
        grpc.ready().await.expect("always ready");
        let codec = ProstCodec::<Word, Word>::default();
        let unary = grpc.unary(word().into_request(), path(0), codec).await.err();
        let codec = ProstCodec::<Word, Word>::default();
        let down = grpc.server_streaming(word().into_request(), path(2), codec).await;
        let mut down =
            [stub.down(word()).await, down].map(|down| down.expect("a stream").into_inner());
        let mut ends = vec![unary, stub.say(word()).await.err(), stub.follow(word()).await.err()];
        for down in &mut down {
            assert_eq!(down.next().await.expect("a word").expect("a word").text, "garbled");
            ends.push(down.next().await.expect("an end").err());
        }
        for status in ends {
            let status = status.expect("it fails");
            assert_eq!((status.code(), status.message()), (Code::NotFound, "garbled"));
            assert!(status.details().is_empty());
        }
    }
}

async fn none_runs(running: &AtomicU32) {
    until(|| running.load(Ordering::SeqCst) == 0).await;
}

/// The server learns of a reset over a socket: there is no event to await.
async fn until(is_so: impl Fn() -> bool) {
    let turns = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), turns).await.expect("within five seconds");
}
