//! Which streams are made again, and how they are judged.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body_util::{BodyExt as _, Full};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::StreamExt as _;
use tonic::{Code, Status};
use tower_service::Service as _;

use super::raw::{DATA, HEAD, HEADERS, REFUSED_STREAM, RST_STREAM, Raw, node};
use crate::{
    Client,
    client::{Hedge, Served, unary::Options},
    fixture::{Echo, Stub, Word, client, start},
    service::Handle,
};

/// A frame that a node answers with: its kind, its flags, its payload.
type Answer<'a> = (u8, u8, &'a [u8]);

const BEGUN: Answer<'_> = (HEADERS, 4, HEAD);

/// How a call ends whose only node breaks the connection when it has a message of it; `answer` is
/// what the node says before, on the call's stream. Then there is another node.
async fn lost<T: Send + 'static>(
    registry: &str,
    answer: &[Answer<'_>],
    call: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Result<T, Status> {
    let listener = node(registry, "a").await;
    let call = tokio::spawn(call);
    let mut raw = Raw::accept(&listener).await.expect("connected");
    let stream = raw.next(DATA).await.expect("a message");
    for (kind, flags, payload) in answer {
        raw.write(*kind, *flags, stream, payload).await.expect("connected");
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
    assert_eq!(lost(registry, &[], call).await.expect("a word"), "other");

    let registry = "memory://client-lost-up";
    let stub = Stub::new("a", &client(registry));
    let call = async move { stub.collect(words(&["who", "is", "it?"])).await };
    assert_eq!(lost(registry, &[], call).await.expect("a reply").into_inner().text, "other");
}

#[tokio::test]
async fn streaming_calls_not_declared_idempotent_fail_when_their_connection_is_lost() {
    let registry = "memory://client-lost-undeclared";
    let stub = Stub::new("a", &client(registry));
    let status = lost(registry, &[], async move { stub.down(Word::new("who?")).await }).await;
    assert_eq!(status.expect_err("may have been seen").code(), Code::Unavailable);
}

#[tokio::test]
async fn a_stream_that_has_sent_more_than_is_kept_fails_when_its_connection_is_lost() {
    let registry = "memory://client-lost-large";
    let client = client(registry);
    let stub = Stub::new("a", &client);
    let large = "x".repeat(70_000);
    let left = || client.channel("a").purse().left(Instant::now());
    let before = left();
    let status = lost(registry, &[], async move { stub.collect(words(&[&large])).await }).await;
    assert_eq!(status.expect_err("cannot be sent again").code(), Code::Unavailable);
    assert!(left() > before - 0.5, "what is not made is not paid for: {before}, {}", left());
}

/// The words of `follow`, and the node that its headers came from.
async fn followed(stub: Stub) -> Result<String, Status> {
    first(stub.follow(Word::new("who?")).await?.into_inner()).await
}

#[tokio::test]
async fn a_stream_declared_idempotent_is_made_again_until_its_first_message() {
    let trailers = |fields: &[u8]| [b"\x00\x0bgrpc-status\x0214", fields].concat();
    let (busy, never) = (trailers(b""), trailers(b"\x00\x16grpc-retry-pushback-ms\x02-1"));
    for (name, answer, is_again) in [
        ("headers alone", &[BEGUN][..], true),
        ("a reset", &[BEGUN, (RST_STREAM, 0, &[0, 0, 0, 2])], true),
        ("a status", &[BEGUN, (HEADERS, 5, &busy)], true),
        ("a last word", &[BEGUN, (HEADERS, 5, &never)], false),
        ("a prefix", &[BEGUN, (DATA, 0, &[0, 0, 0, 0, 3])], false),
    ] {
        let registry = format!("memory://client-lost-begun-{}", name.replace(' ', "-"));
        let stub = Stub::new("a", &client(&registry));
        match lost(&registry, answer, followed(stub)).await {
            Ok(word) => assert!(is_again && word == "other", "{name}: {word}"),
            Err(status) => {
                assert!(!is_again, "{name}: {status}");
                assert_eq!(status.code(), Code::Unavailable, "{name}: {status}");
            }
        }
    }
}

#[tokio::test]
async fn a_hedged_stream_that_ends_before_its_first_message_is_made_again_too() {
    let registry = "memory://client-lost-begun-hedged";
    let stub = Stub::new("a", &client(registry));
    let hedge = Hedge::after(Duration::from_secs(1));
    let call = async move {
        let call = stub.follow(Word::new("attempts")).hedge(hedge).await?;
        let served = call.extensions().get::<Served>().expect("who answered").clone();
        Ok((served.attempts, first(call.into_inner()).await?))
    };
    // The other node fails the first that it gets.
    let (attempts, word) = lost(registry, &[BEGUN], call).await.expect("a third attempt");
    assert_eq!((attempts, word.as_str()), (1, "2"), "when its headers came, and before the word");
}

#[tokio::test]
async fn a_streams_reader_is_given_no_messages_that_its_headers_did_not_announce() {
    for (encoding, is_again) in [("gzip", false), ("identity", true)] {
        let registry = format!("memory://client-lost-begun-{encoding}");
        let options = Options { is_idempotent: true, ..Options::default() };
        let mut channel = client(&registry).channel("a").with_options(options);
        let call = async move {
            let message = Full::new(Bytes::from_static(&[0; 5]));
            let request =
                http::Request::post("/test.Echo/Follow").header("content-type", "application/grpc");
            let request = request.body(tonic::body::Body::new(message)).expect("a request");
            Ok::<_, Status>(channel.call(request).await?.into_body().collect().await?.to_bytes())
        };
        let length = u8::try_from(encoding.len()).expect("short");
        let name = b"\x00\x0dgrpc-encoding";
        let head = [HEAD, name, &[length], encoding.as_bytes()].concat();
        let words = lost(&registry, &[(HEADERS, 4, &head)], call).await;
        assert_eq!(words.is_ok(), is_again, "{encoding}");
        if let Err(status) = words {
            assert_eq!(status.code(), Code::Unavailable, "what came first: {status}");
        }
    }
}

#[tokio::test]
async fn a_stream_not_declared_idempotent_is_its_nodes_from_its_headers_on() {
    for (name, end) in [("lost", None), ("refused", Some(REFUSED_STREAM))] {
        let registry = format!("memory://client-lost-begun-undeclared-{name}");
        let stub = Stub::new("a", &client(&registry));
        let call = async move { first(stub.down(Word::new("who?")).await?.into_inner()).await };
        // What a peer says it has refused has been answered all the same.
        let code = [0, 0, 0, end.unwrap_or_default()];
        let answer: &[Answer<'_>] =
            if end.is_some() { &[BEGUN, (RST_STREAM, 0, &code)] } else { &[BEGUN] };
        let status = lost(&registry, answer, call).await.expect_err("a handler has seen it");
        assert_eq!(status.code(), Code::Unavailable, "{name}: {status}");
    }
}

#[tokio::test]
async fn a_stream_that_is_made_again_sends_all_that_it_has_sent_and_goes_on() {
    let registry = "memory://client-lost-chat";
    let stub = Stub::new("a", &client(registry));
    let (says, words) = tokio::sync::mpsc::channel(1);
    let (answered, is_answered) = tokio::sync::oneshot::channel();
    let call = async move {
        says.send(Word::new("who")).await.expect("it is read");
        let words = tokio_stream::wrappers::ReceiverStream::new(words);
        let mut words = stub.chat(words).idempotent().await?.into_inner();
        answered.send(()).expect("the test waits");
        let mut echoed = vec![words.next().await.expect("a word")?.text];
        says.send(Word::new("is it?")).await.expect("it is read");
        drop(says);
        while let Some(word) = words.next().await {
            echoed.push(word?.text);
        }
        Ok(echoed)
    };
    let listener = node(registry, "a").await;
    let call = tokio::spawn(call);
    let mut raw = Raw::accept(&listener).await.expect("connected");
    let stream = raw.next(DATA).await.expect("a message");
    raw.write(HEADERS, 4, stream, HEAD).await.expect("connected");
    is_answered.await.expect("its caller has the headers");
    drop(listener);
    let _other = start(registry, "a", Echo::named("other")).await;
    drop(raw);
    let echoed: Result<_, Status> = call.await.expect("no panic");
    assert_eq!(echoed.expect("words"), ["who", "is it?"]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_given_up_between_two_attempts_is_not_made_again() {
    let registry = "memory://client-lost-begun-given-up";
    let stub = Stub::new("a", &client(registry));
    let listener = node(registry, "a").await;
    let peer = tokio::spawn(async move {
        let mut raw = Raw::accept(&listener).await.expect("connected");
        let stream = raw.next(DATA).await.expect("a message");
        raw.write(HEADERS, 4, stream, HEAD).await.expect("connected");
    });
    let call = stub.follow(Word::new("who?")).await.expect("its headers");
    peer.await.expect("no panic");
    let read = first(call.into_inner());
    timeout(Duration::from_secs(1), read).await.expect_err("there is no other node");
    let echo = Echo::named("other");
    let calls = echo.calls.clone();
    let _other = start(registry, "a", echo).await;
    stub.read(Word::new("who?")).await.expect("a reply");
    assert_eq!(calls.load(std::sync::atomic::Ordering::SeqCst), 1, "that one alone");
}

#[tokio::test(start_paused = true)]
async fn a_streams_deadline_covers_the_wait_for_another_attempt() {
    let registry = "memory://client-lost-begun-late";
    let stub = Stub::new("a", &client(registry));
    let listener = node(registry, "a").await;
    let peer = tokio::spawn(async move {
        let mut raw = Raw::accept(&listener).await.expect("connected");
        let stream = raw.next(DATA).await.expect("a message");
        raw.write(HEADERS, 4, stream, HEAD).await.expect("connected");
    });
    let (begin, second) = (Instant::now(), Duration::from_secs(1));
    let call = stub.follow(Word::new("who?")).timeout(second).await.expect("its headers");
    peer.await.expect("no panic");
    let status = first(call.into_inner()).await.expect_err("no other node");
    assert!([Code::DeadlineExceeded, Code::Unavailable].contains(&status.code()), "{status}");
    assert!(status.message().contains("the last attempt failed with"), "{status}");
    assert_eq!(begin.elapsed(), second);
}

#[tokio::test]
async fn a_stream_may_be_fed_with_what_comes_back_on_it() {
    let registry = "memory://client-ping-pong";
    let _node = start(registry, "a", Echo::named("a")).await;
    let stub = Stub::new("a", &client(registry));
    for is_declared in [false, true] {
        let (gives, taken) = tokio::sync::oneshot::channel::<tonic::Streaming<Word>>();
        let (says, heard) = tokio::sync::mpsc::unbounded_channel();
        let response = async { taken.await.expect("the response") };
        // Each word that comes back is sent on, three times in all.
        let echoed = response.flatten_stream().take(3).map(move |word| {
            let text = word.expect("a word").text;
            says.send(text.clone()).expect("the test listens");
            Word::new(format!("{text}0"))
        });
        let words = tokio_stream::once(Word::new("0")).chain(echoed);
        let call = stub.chat(words);
        let call = if is_declared { call.idempotent() } else { call };
        let words = call.await.expect("it begins").into_inner();
        gives.send(words).expect("the request is read");
        let heard = tokio_stream::wrappers::UnboundedReceiverStream::new(heard);
        assert_eq!(heard.collect::<Vec<_>>().await, ["0", "00", "000"]);
    }
}

#[tokio::test]
async fn what_is_never_sent_again_is_not_kept() {
    let registry = "memory://client-not-kept";
    let listener = node(registry, "a").await;
    let mut channel = client(registry).channel("a");
    let sent = std::sync::Arc::new([0; 5]);
    let kept = std::sync::Arc::downgrade(&sent);
    let peer = tokio::spawn(async move {
        let mut raw = Raw::accept(&listener).await.expect("connected");
        let stream = raw.next(DATA).await.expect("a message");
        raw.write(HEADERS, 4, stream, HEAD).await.expect("connected");
        raw
    });
    struct Owned(std::sync::Arc<[u8; 5]>);
    impl AsRef<[u8]> for Owned {
        fn as_ref(&self) -> &[u8] {
            &*self.0
        }
    }
    let message = Full::new(Bytes::from_owner(Owned(sent)));
    let request = http::Request::post("/test.Echo/Down").header("content-type", "application/grpc");
    let request = request.body(tonic::body::Body::new(message)).expect("a request");
    let response = channel.call(request).await.expect("it begins");
    while kept.strong_count() > 0 {
        tokio::task::yield_now().await;
    }
    drop((response, peer));
}

#[tokio::test(start_paused = true)]
async fn a_hedged_stream_without_a_deadline_waits_five_seconds_for_a_node_that_takes_it() {
    let registry = "memory://client-hedged-refused";
    let listener = node(registry, "a").await;
    tokio::spawn(async move {
        let mut raw = Raw::accept(&listener).await.expect("connected");
        while let Ok(stream) = raw.next(HEADERS).await {
            let code = [0, 0, 0, REFUSED_STREAM];
            raw.write(RST_STREAM, 0, stream, &code).await.expect("connected");
        }
    });
    let stub = Stub::new("a", &client(registry));
    let begin = Instant::now();
    let call = stub.follow(Word::new("who?")).hedge(Hedge::after(Duration::from_secs(1)));
    let status = call.await.expect_err("refused for ever");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert_eq!(begin.elapsed().as_secs(), 5, "{status}");
}

#[tokio::test(start_paused = true)]
async fn a_hedged_stream_that_began_late_has_time_to_begin_elsewhere() {
    let registry = "memory://client-hedged-late";
    let second = Duration::from_secs(1);
    let stub = Stub::new("a", &client(registry));
    let listener = node(registry, "a").await;
    let call = async move {
        first(stub.follow(Word::new("who?")).hedge(Hedge::after(9 * second)).await?.into_inner())
            .await
    };
    let call = tokio::spawn(call);
    let mut raw = Raw::accept(&listener).await.expect("connected");
    let stream = raw.next(DATA).await.expect("a message");
    // More than is waited for a node; PINGs are answered meanwhile.
    timeout(6 * second, raw.next(RST_STREAM)).await.expect_err("it is not given up");
    raw.write(HEADERS, 4, stream, HEAD).await.expect("connected");
    timeout(second, raw.next(RST_STREAM)).await.expect_err("it is not given up");
    drop((raw, listener));
    sleep(second).await;
    let _other = start(registry, "a", Echo::named("other")).await;
    assert_eq!(call.await.expect("no panic").expect("a word"), "other");
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
