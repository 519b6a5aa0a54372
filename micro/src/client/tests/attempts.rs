//! Which calls are made again, seen from peers that break connections on command.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};
use tokio_stream::StreamExt as _;
use tonic::Code;

use super::raw::{DATA, GOAWAY, HEAD, HEADERS, REFUSED_STREAM, RST_STREAM, Raw, SETTINGS, node};
use crate::{
    Client,
    balance::NodeState,
    client::Hedge,
    fixture::{Echo, Stub, Word, client, start},
    layer::Next,
    service::Handle,
};

#[tokio::test]
async fn a_call_that_costs_its_connection_is_not_sent_to_node_after_node() {
    let registry = "memory://client-thrown-out";
    let calls = Arc::new(AtomicU32::new(0));
    for _ in 0..5 {
        let (listener, calls) = (node(registry, "a").await, calls.clone());
        tokio::spawn(async move {
            while let Ok(mut raw) = Raw::accept(&listener).await {
                let calls = calls.clone();
                tokio::spawn(async move {
                    raw.next(HEADERS).await?;
                    calls.fetch_add(1, Ordering::SeqCst);
                    // The last id is 0, the code ENHANCE_YOUR_CALM.
                    raw.write(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 11]).await
                });
            }
        });
    }
    let stub = Stub::new("a", &client(registry));
    let status = stub.say(Word::new("who?")).await.expect_err("thrown out twice");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("GOAWAY ENHANCE_YOUR_CALM"), "{}", status.message());
    assert_eq!(calls.load(Ordering::SeqCst), 2, "once more, and no further");
}

#[tokio::test]
async fn a_goaway_with_a_code_that_nobody_knows_moves_the_calls_above_its_last_id_and_no_other() {
    let registry = "memory://client-goaway-unknown";
    let listener = node(registry, "a").await;
    let (came, leaves) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
    let (counts, told) = (came.clone(), leaves.clone());
    tokio::spawn(async move {
        let mut raw = Raw::accept(&listener).await?;
        let first = raw.next(HEADERS).await?;
        counts.fetch_add(1, Ordering::SeqCst);
        raw.next(HEADERS).await?;
        counts.fetch_add(1, Ordering::SeqCst);
        told.notified().await;
        raw.write(GOAWAY, 0, 0, &[0, 0, 0, first, 0, 0, 0xde, 0xad]).await?;
        raw.answer(first, "kept").await?;
        raw.next(HEADERS).await
    });
    let client = client(registry);
    let mut calls = Vec::new();
    for nth in 1..=2 {
        let stub = Stub::new("a", &client);
        calls.push(tokio::spawn(async move { stub.say(Word::new("who?")).await }));
        while came.load(Ordering::SeqCst) < nth {
            tokio::task::yield_now().await;
        }
    }
    let _other = start(registry, "a", Echo::named("other")).await;
    let channel = client.channel("a");
    loop {
        let explained = channel.explain().await.expect("its runtime runs");
        if explained.nodes.iter().filter(|it| it.state == NodeState::Ready).count() == 2 {
            break;
        }
        tokio::task::yield_now().await;
    }
    leaves.notify_one();
    for (call, expected) in calls.into_iter().zip(["kept", "other"]) {
        assert_eq!(call.await.expect("no panic").expect("a reply").into_inner().text, expected);
    }
}

/// `content-type: text/html` with `:status: 200`.
const PAGE: &[u8] = b"\x88\x00\x0ccontent-type\x09text/html";
const CANCEL: &[u8] = &[0, 0, 0, 8];
/// A message of no kind, with its prefix.
const GARBAGE: &[u8] = &[0, 0, 0, 0, 3, 255, 255, 255];
const EMPTY: &[u8] = &[0; 5];
const TRAILERS: &[u8] = b"\x00\x04said\x02no";
const OK: &[u8] = b"\x00\x0bgrpc-status\x010";

/// A frame of what a node answers with: its type, flags and payload.
type Answer = &'static [(u8, u8, &'static [u8])];

/// A node beside a good one, whose answers are none: its address, and how many it gave.
async fn beside_a_good_one(name: &str, answer: Answer) -> (Stub, String, Arc<AtomicU32>, Handle) {
    let registry = format!("memory://client-no-answer-{name}");
    let listener = node(&registry, "a").await;
    let address = listener.local_addr().expect("an address").to_string();
    let asked = Arc::new(AtomicU32::new(0));
    let counted = asked.clone();
    tokio::spawn(async move {
        let mut raw = Raw::accept(&listener).await.expect("a client");
        while let Ok(stream) = raw.next(HEADERS).await {
            counted.fetch_add(1, Ordering::SeqCst);
            for (kind, flags, payload) in answer {
                raw.write(*kind, *flags, stream, payload).await.expect("connected");
            }
        }
    });
    let good = start(&registry, "a", Echo::named("good")).await;
    (Stub::new("a", &client(&registry)), address, asked, good)
}

#[tokio::test]
async fn an_idempotent_call_moves_on_from_a_node_whose_answers_are_none() {
    let answers: [(&str, Answer, &str); 7] = [
        ("dropped", &[(RST_STREAM, 0, CANCEL)], "the peer reset the stream: CANCEL"),
        ("page", &[(HEADERS, 5, PAGE)], "its content-type is \"text/html\""),
        ("head", &[(HEADERS, 5, HEAD)], "without a grpc-status"),
        ("cut", &[(HEADERS, 4, HEAD), (DATA, 1, EMPTY)], "without a grpc-status"),
        ("trailers", &[(HEADERS, 4, HEAD), (HEADERS, 5, TRAILERS)], "without a grpc-status"),
        ("empty", &[(HEADERS, 4, HEAD), (HEADERS, 5, OK)], "without a message"),
        (
            "garbage",
            &[(HEADERS, 4, HEAD), (DATA, 0, GARBAGE), (HEADERS, 5, OK)],
            "the server's message cannot be decoded",
        ),
    ];
    for (name, answer, text) in answers {
        let (stub, _, asked, _good) = beside_a_good_one(name, answer).await;
        while asked.load(Ordering::SeqCst) == 0 {
            let reply = stub.read(Word::new("who?")).await.expect("the other answers");
            assert_eq!(reply.into_inner().text, "good", "{name}");
        }
        let (stub, _, asked, _good) = beside_a_good_one(&format!("{name}-hedged"), answer).await;
        while asked.load(Ordering::SeqCst) == 0 {
            let hedge = Hedge::after(Duration::from_secs(5));
            let reply = stub.say(Word::new("who?")).hedge(hedge).await.expect("the other answers");
            assert_eq!(reply.into_inner().text, "good", "{name}");
        }
        let (stub, address, _, _good) = beside_a_good_one(&format!("{name}-once"), answer).await;
        let status = loop {
            if let Err(status) = stub.say(Word::new("who?")).await {
                break status;
            }
        };
        assert_ne!(status.code(), Code::Unavailable, "{status}");
        assert!(status.message().contains(text), "{status}");
        assert!(status.message().contains(&address), "{status}");
    }
}

#[tokio::test]
async fn an_idempotent_stream_moves_on_from_a_node_that_ends_it_without_a_status() {
    let answers: [(&str, Answer); 2] = [
        ("stream-head", &[(HEADERS, 5, HEAD)]),
        ("stream-trailers", &[(HEADERS, 4, HEAD), (HEADERS, 5, TRAILERS)]),
    ];
    for (name, answer) in answers {
        let (stub, _, asked, _good) = beside_a_good_one(name, answer).await;
        while asked.load(Ordering::SeqCst) == 0 {
            let words = stub.follow(Word::new("who?")).await.expect("a stream").into_inner();
            let words: Vec<_> = words.map(|word| word.expect("a word").text).collect().await;
            assert_eq!(words, ["good", "good good"], "{name}");
        }
        let (stub, address, _, _good) = beside_a_good_one(&format!("{name}-once"), answer).await;
        let status = loop {
            let mut words = stub.down(Word::new("who?")).await.expect("a stream").into_inner();
            match words.next().await.expect("something") {
                Ok(_) => {}
                Err(status) => break status,
            }
        };
        assert_eq!(status.code(), Code::Internal, "{status}");
        assert!(status.message().contains(&address), "{status}");
        assert!(status.message().contains("without a grpc-status"), "{status}");
    }
}

/// Time is paused: peers on loopback in one thread answer before it moves.
#[tokio::test(start_paused = true)]
async fn a_stream_without_a_deadline_that_every_node_refuses_ends_after_five_seconds() {
    let registry = "memory://client-refused";
    for _ in 0..3 {
        let listener = node(registry, "a").await;
        tokio::spawn(async move {
            let mut raw = Raw::accept(&listener).await.expect("a client");
            while let Ok(stream) = raw.next(HEADERS).await {
                let code = [0, 0, 0, REFUSED_STREAM];
                raw.write(RST_STREAM, 0, stream, &code).await.expect("connected");
            }
        });
    }
    let stub = Stub::new("a", &client(registry));
    let start = Instant::now();
    let call = timeout(Duration::from_secs(60), stub.down(Word::new("who?")).into_future());
    let status = call.await.expect("it ends").expect_err("refused");
    assert_eq!(status.code(), Code::Unavailable, "it had no deadline: {status}");
    assert!(status.message().contains("REFUSED_STREAM"), "{status}");
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(5) && took < Duration::from_secs(6), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_call_is_not_put_to_each_node_of_a_fleet_that_refuses_it() {
    let registry = "memory://client-sheds";
    let asked = Arc::new(AtomicU32::new(0));
    for _ in 0..40 {
        let (listener, asked) = (node(registry, "a").await, asked.clone());
        tokio::spawn(async move {
            let mut raw = Raw::accept(&listener).await.expect("a client");
            while let Ok(stream) = raw.next(HEADERS).await {
                asked.fetch_add(1, Ordering::SeqCst);
                let code = [0, 0, 0, REFUSED_STREAM];
                raw.write(RST_STREAM, 0, stream, &code).await.expect("connected");
            }
        });
    }
    let (stub, word) = (Stub::new("a", &client(registry)), || Word::new("who?"));
    stub.say(word()).await.expect_err("refused");
    let hedge = Hedge::after(Duration::from_secs(60));
    for kind in ["unary", "hedged", "streaming"] {
        let before = asked.load(Ordering::SeqCst);
        match kind {
            "unary" => drop(stub.say(word()).await.expect_err("refused")),
            "hedged" => drop(stub.say(word()).hedge(hedge).await.expect_err("refused")),
            _ => drop(stub.down(word()).await.expect_err("refused")),
        }
        let times = asked.load(Ordering::SeqCst) - before;
        assert!((10..20).contains(&times), "{kind}: {times} times in five seconds");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_pauses_before_each_attempt_on_a_node_that_it_has_tried_and_before_no_other() {
    for (nodes, pauses) in [(1, 10 + 20 + 40 + 80), (2, 10 + 20 + 40)] {
        let registry = &format!("memory://client-pauses-{nodes}");
        let (calls, mut running) = (Arc::new(AtomicU32::new(0)), Vec::new());
        for _ in 0..nodes {
            let echo = Echo { calls: calls.clone(), ..Echo::default() };
            running.push(start(registry, "a", echo).await);
        }
        let stub = Stub::new("a", &client(registry));
        stub.say(Word::new("who?")).await.expect("connected");
        tokio::time::sleep(Duration::from_millis(10)).await;
        for is_unary in [true, false] {
            let (start, before) = (Instant::now(), calls.load(Ordering::SeqCst));
            if is_unary {
                stub.read(Word::new("closed")).await.expect_err("for ever");
            } else {
                stub.follow(Word::new("closed")).await.expect_err("for ever");
            }
            let took = start.elapsed().as_millis();
            assert_eq!(calls.load(Ordering::SeqCst) - before, 5);
            assert!((pauses * 8 / 10..=pauses * 12 / 10).contains(&took), "{nodes}: {took} ms");
        }
    }
}

/// A node that refuses each call, and how many it has.
async fn refusing(registry: &str) -> Arc<AtomicU32> {
    let refused = Arc::new(AtomicU32::new(0));
    let (listener, counts) = (node(registry, "a").await, refused.clone());
    tokio::spawn(async move {
        let mut raw = Raw::accept(&listener).await.expect("a client");
        while let Ok(stream) = raw.next(HEADERS).await {
            counts.fetch_add(1, Ordering::SeqCst);
            let code = [0, 0, 0, REFUSED_STREAM];
            raw.write(RST_STREAM, 0, stream, &code).await.expect("connected");
        }
    });
    refused
}

#[tokio::test]
async fn an_interceptor_runs_once_though_its_call_moves_to_another_node() {
    let registry = "memory://client-moves";
    let refused = refusing(registry).await;
    let _a = start(registry, "a", Echo::named("a")).await;
    let runs = Arc::new(AtomicU32::new(0));
    let counts = runs.clone();
    let client = Client::builder().registry(registry).intercept(move |request, next: Next| {
        counts.fetch_add(1, Ordering::SeqCst);
        next.run(request)
    });
    let stub = Stub::new("a", &client.build().expect("a client"));
    let mut calls = 0;
    // Each is picked first some time, once both are connected.
    while refused.load(Ordering::SeqCst) == 0 {
        assert_eq!(stub.say(Word::new("who?")).await.expect("it moves").get_ref().text, "a");
        stub.follow(Word::new("who?")).await.expect("it moves");
        calls += 2;
        assert!(calls < 10_000, "the other node is never called");
    }
    assert_eq!(runs.load(Ordering::SeqCst), calls, "once a call");
}

#[tokio::test]
async fn a_call_in_line_does_not_go_back_to_where_it_was_refused() {
    let registry = "memory://client-refused-in-line";
    let refused = refusing(registry).await;
    let mut service = crate::Service::builder("a").id("one").registry(registry).build().await;
    let server = service.as_mut().expect("a service").server().max_concurrent_streams(1);
    crate::fixture::register(server, Echo::named("one"));
    let _one = service.expect("a service").start().await.expect("it starts");
    let client = client(registry);
    let channel = client.channel("a");
    for is_unary in [true, false] {
        let stub = Stub::new("a", &client);
        let held = stub.down(Word::new("one hang")).node("one").await.expect("a stream");
        let mut held = held.into_inner();
        held.message().await.expect("it goes on").expect("a word");
        let before = refused.load(Ordering::SeqCst);
        let call = tokio::spawn(async move {
            match is_unary {
                true => stub.say(Word::new("who?")).await.map(drop),
                false => stub.follow(Word::new("who?")).await.map(drop),
            }
        });
        // Refused, and in line at the other.
        loop {
            let explained = channel.explain().await.expect("its runtime runs");
            let one = explained.nodes.iter().find(|it| it.node.id == "one").expect("it is listed");
            if refused.load(Ordering::SeqCst) > before && one.in_flight == 2 {
                break;
            }
            assert!(!call.is_finished(), "{explained}");
            tokio::task::yield_now().await;
        }
        drop(held);
        call.await.expect("no panic").expect("a reply");
        assert_eq!(refused.load(Ordering::SeqCst), before + 1, "unary: {is_unary}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_a_deadline_waits_five_seconds_in_line_for_a_nodes_streams() {
    let registry = "memory://client-in-line";
    let listener = node(registry, "a").await;
    tokio::spawn(async move {
        let mut raw = Raw::accept(&listener).await.expect("a client");
        let stream = raw.next(HEADERS).await.expect("a call");
        raw.write(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 1]).await.expect("one stream at a time");
        raw.write(HEADERS, 4, stream, HEAD).await.expect("connected");
        raw.next(HEADERS).await.expect_err("no other call before the client goes");
    });
    let stub = Stub::new("a", &client(registry));
    let _held = stub.down(Word::new("who?")).await.expect("a stream");
    let start = Instant::now();
    let call = timeout(Duration::from_secs(60), stub.down(Word::new("who?")).into_future());
    let status = call.await.expect("it ends").expect_err("no place");
    assert_eq!(status.code(), Code::Unavailable, "it had no deadline: {status}");
    assert!(status.message().contains("as many streams as it allows"), "{status}");
    assert_eq!(start.elapsed().as_secs(), 5);
}
