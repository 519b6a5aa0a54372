//! Which calls are made again, seen from peers that break connections on command.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use http_body_util::BodyExt as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};
use tokio_stream::StreamExt as _;
use tonic::{Code, Status};
use tower_service::Service as _;

use crate::{
    Client,
    client::{Hedge, unary::Options},
    fixture::{Echo, Stub, Word, client, start},
    layer::Next,
    registry::{self, Node},
    service::Handle,
};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const REFUSED_STREAM: u8 = 7;

/// A peer that reads and writes frames by hand.
struct Raw(TcpStream);

impl Raw {
    async fn accept(listener: &TcpListener) -> io::Result<Self> {
        let (socket, _) = listener.accept().await?;
        let mut raw = Self(socket);
        raw.write(SETTINGS, 0, 0, &[]).await?;
        raw.0.read_exact(&mut [0; 24]).await?;
        Ok(raw)
    }

    async fn write(&mut self, kind: u8, flags: u8, stream: u8, payload: &[u8]) -> io::Result<()> {
        let length = u8::try_from(payload.len()).expect("a short payload");
        let head = [0, 0, length, kind, flags, 0, 0, 0, stream];
        self.0.write_all(&[&head, payload].concat()).await
    }

    /// The id of the stream that the next frame of this kind is on. PINGs are answered meanwhile.
    async fn next(&mut self, kind: u8) -> io::Result<u8> {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await?;
            let [_, high, low, next, .., stream] = head;
            let mut payload = vec![0; usize::from(high) << 8 | usize::from(low)];
            self.0.read_exact(&mut payload).await?;
            if next == kind {
                return Ok(stream);
            }
            if next == PING {
                self.write(PING, 1, 0, &payload).await?;
            }
        }
    }
}

/// Listens on a free port, as a node of this service.
async fn node(registry: &str, service: &str) -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let registry = registry::open(registry).expect("a registry");
    let node = Node::new(service, &address, &address);
    registry.register(&node, Duration::from_secs(60)).await.expect("memory takes it");
    listener
}

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

/// The head of a response.
const HEAD: &[u8] = b"\x88\x00\x0ccontent-type\x10application/grpc";

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

/// How a call ends whose only node breaks the connection when it has a message of it; `answer` is
/// what the node says before, on the call's stream. Then there is another node.
async fn lost<T: Send + 'static>(
    registry: &str,
    answer: Option<&[u8]>,
    call: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Result<T, Status> {
    let listener = node(registry, "a").await;
    let call = tokio::spawn(call);
    let mut raw = Raw::accept(&listener).await.expect("connected");
    let stream = raw.next(DATA).await.expect("a message");
    if let Some(block) = answer {
        raw.write(HEADERS, 4, stream, block).await.expect("connected");
    }
    drop(listener);
    let _other = start(registry, "a", Echo::named("other")).await;
    drop(raw);
    call.await.expect("no panic")
}

async fn first(stream: tonic::Streaming<Word>) -> Result<String, Status> {
    let mut stream = stream;
    stream.next().await.expect("a word or an error").map(|word| word.text)
}

fn words(words: &[&str]) -> impl tokio_stream::Stream<Item = Word> + Send + use<> {
    tokio_stream::iter(words.iter().copied().map(Word::new).collect::<Vec<_>>())
}

#[tokio::test]
async fn streaming_calls_declared_idempotent_move_on_when_their_connection_is_lost() {
    let registry = "memory://client-lost-down";
    let stub = Stub::new("a", &client(registry));
    let call = async move { first(stub.follow(Word::new("who?")).await?.into_inner()).await };
    assert_eq!(lost(registry, None, call).await.expect("a word"), "other");

    let registry = "memory://client-lost-up";
    let stub = Stub::new("a", &client(registry));
    let call = async move { stub.collect(words(&["who", "is", "it?"])).await };
    assert_eq!(lost(registry, None, call).await.expect("a reply").into_inner().text, "other");
}

#[tokio::test]
async fn streaming_calls_not_declared_idempotent_fail_when_their_connection_is_lost() {
    let registry = "memory://client-lost-undeclared";
    let stub = Stub::new("a", &client(registry));
    let status = lost(registry, None, async move { stub.down(Word::new("who?")).await }).await;
    assert_eq!(status.expect_err("may have been seen").code(), Code::Unavailable);
}

#[tokio::test]
async fn a_stream_that_has_sent_more_than_is_kept_fails_when_its_connection_is_lost() {
    let registry = "memory://client-lost-large";
    let stub = Stub::new("a", &client(registry));
    let large = "x".repeat(70_000);
    let status = lost(registry, None, async move { stub.collect(words(&[&large])).await }).await;
    assert_eq!(status.expect_err("cannot be sent again").code(), Code::Unavailable);
}

#[tokio::test]
async fn a_stream_whose_response_has_begun_is_not_made_again() {
    let registry = "memory://client-lost-begun";
    let stub = Stub::new("a", &client(registry));
    let call = async move { first(stub.follow(Word::new("who?")).await?.into_inner()).await };
    let status = lost(registry, Some(HEAD), call).await.expect_err("committed");
    assert_eq!(status.code(), Code::Unavailable);
}

/// Two nodes of `a` that have answered calls of late, for another to be judged by.
async fn others(registry: &str, stub: &Stub) -> [Handle; 2] {
    let others = [
        start(registry, "a", Echo::named("b")).await,
        start(registry, "a", Echo::named("c")).await,
    ];
    for other in &others {
        for _ in 0..20 {
            stub.say(Word::new("who?")).node(other.id()).await.expect("a reply");
        }
    }
    others
}

/// Whether the node of this id is ejected.
async fn is_ejected(client: &Client, id: &str) -> bool {
    let told = client.channel("a").explain().await.expect("the runtime runs");
    let node = told.nodes.iter().find(|it| it.node.id == id).expect("it is listed");
    node.ejection.is_some()
}

#[tokio::test]
async fn a_lost_connection_counts_once_however_many_streams_it_takes_with_it() {
    let registry = "memory://client-lost-streams";
    let client = client(registry);
    let stub = Stub::new("a", &client);
    let _others = others(registry, &stub).await;
    let listener = node(registry, "a").await;
    let id = listener.local_addr().expect("an address").to_string();
    let peer = tokio::spawn(async move {
        let mut raw = Raw::accept(&listener).await.expect("a client");
        for _ in 0..5 {
            let stream = raw.next(HEADERS).await.expect("a call");
            raw.write(HEADERS, 4, stream, HEAD).await.expect("connected");
        }
        (raw, listener)
    });
    let mut streams = Vec::new();
    for _ in 0..5 {
        let stream = stub.down(Word::new("who?")).node(&*id).await.expect("its headers came");
        streams.push(stream.into_inner());
    }
    let (raw, _listener) = peer.await.expect("no panic");
    drop(raw);
    for stream in streams {
        let status = first(stream).await.expect_err("lost");
        assert_eq!(status.code(), Code::Unavailable, "{status}");
    }
    assert!(!is_ejected(&client, &id).await, "one restart");
}

#[tokio::test]
async fn a_call_whose_status_came_with_its_headers_is_judged_once_though_its_end_is_read() {
    let registry = "memory://client-headers-alone";
    let client = client(registry);
    let stub = Stub::new("a", &client);
    let _others = others(registry, &stub).await;
    let listener = node(registry, "a").await;
    let id = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move {
        let mut raw = Raw::accept(&listener).await.expect("a client");
        while let Ok(stream) = raw.next(HEADERS).await {
            // As some proxies do it: `Unavailable`, and the end in a frame of its own.
            let block = [HEAD, b"\x00\x0bgrpc-status\x0214"].concat();
            raw.write(HEADERS, 4, stream, &block).await.expect("connected");
            raw.write(DATA, 1, stream, &[]).await.expect("connected");
        }
    });
    let options = Options { node: Some((&*id).into()), ..Options::default() };
    let mut channel = client.channel("a").with_options(options);
    for _ in 0..5 {
        assert!(!is_ejected(&client, &id).await, "five in a row, and no fewer");
        let request = http::Request::post("/test.Echo/Down").body(tonic::body::Body::empty());
        let response = channel.call(request.expect("a request")).await.expect("an answer");
        let status = Status::from_header_map(response.headers()).expect("it is in the headers");
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        let rest = response.into_body().collect().await.expect("its end");
        assert!(rest.to_bytes().is_empty());
    }
    assert!(is_ejected(&client, &id).await);
}

#[tokio::test]
async fn a_streaming_method_declared_idempotent_is_retried_after_a_status() {
    let registry = "memory://client-stream-retries";
    let _a = start(registry, "a", Echo::named("a")).await;
    let _b = start(registry, "b", Echo::named("b")).await;
    let client = client(registry);
    let down = Stub::new("a", &client).follow(Word::new("attempts")).await.expect("a retry");
    let text = first(down.into_inner()).await.expect("a word");
    assert_eq!(text, "1", "the server is told how many attempts went before");
    let up = Stub::new("b", &client).collect(words(&["busy"])).await.expect("a retry");
    assert_eq!(up.into_inner().text, "b");
}

#[tokio::test]
async fn a_status_that_lasts_is_the_callers_with_all_its_metadata() {
    let registry = "memory://client-stream-status";
    let _a = start(registry, "a", Echo::named("a")).await;
    let stub = Stub::new("a", &client(registry));
    let status = stub.follow(Word::new("closed")).await.expect_err("for ever");
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "closed"));
    assert_eq!(status.metadata().get("attempt").expect("metadata"), "5", "five attempts in all");
}
