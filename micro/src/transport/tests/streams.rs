use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, combinators::BoxBody};
use tokio::sync::mpsc;
use tonic::{Code, Status};

use super::{
    super::{Connection, Failure, FailureKind, stream::Body},
    kit::*,
};

/// A body whose frames the test sends.
struct Sent(mpsc::UnboundedReceiver<Result<Frame<Bytes>, Status>>);

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.0.poll_recv(cx)
    }
}

type Sender = mpsc::UnboundedSender<Result<Frame<Bytes>, Status>>;

fn body() -> (Sender, Sent) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, Sent(receiver))
}

fn data(bytes: &'static [u8]) -> Result<Frame<Bytes>, Status> {
    Ok(Frame::data(Bytes::from_static(bytes)))
}

type Response = Result<http::Response<Body>, Failure>;

fn start<B>(connection: &Connection, body: B) -> tokio::task::JoinHandle<Response>
where
    B: http_body::Body<Data = Bytes, Error = Status> + Send + 'static,
{
    let connection = connection.clone();
    let request = head().map(|()| body);
    tokio::spawn(async move { connection.stream(connection.slot().await?, request).await })
}

fn whole(bytes: impl Into<Bytes>) -> BoxBody<Bytes, Status> {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

#[tokio::test(start_paused = true)]
async fn both_sides_stream_at_once() {
    let (connection, mut peer) = Peer::connected().await;
    let (sender, body) = body();
    let response = start(&connection, body);
    let mut served = peer.next().await;
    let mut stream = served.respond.send_response(ok_head(), false).unwrap();
    let mut response = response.await.unwrap().unwrap();
    for message in [b"one".as_slice(), b"two", b"three"] {
        sender.send(Ok(Frame::data(Bytes::from_static(message)))).unwrap();
        let chunk = served.request.body_mut().data().await.unwrap().unwrap();
        assert_eq!(chunk, message);
        stream.send_data(chunk, false).unwrap();
        let frame = response.body_mut().frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), message);
    }
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-request", "ended".parse().unwrap());
    sender.send(Ok(Frame::trailers(trailers))).unwrap();
    assert!(served.request.body_mut().data().await.is_none());
    let trailers = served.request.body_mut().trailers().await.unwrap().unwrap();
    assert_eq!(trailers["x-request"], "ended");
    stream.send_trailers(status_trailers("0")).unwrap();
    let frame = response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(frame.into_trailers().unwrap()["grpc-status"], "0");
    assert!(response.body_mut().frame().await.is_none());
    assert!(response.body_mut().frame().await.is_none(), "and it stays ended");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_there_whole_ends_with_its_last_frame() {
    let (connection, mut peer) = Raw::connected(b"").await;
    let response = start(&connection, whole("hello"));
    assert_eq!(peer.expect(HEADERS).await.flags & END, 0);
    let frame = peer.expect(DATA).await;
    assert_eq!((frame.flags, frame.payload.as_slice()), (END, &b"hello"[..]));
    peer.answer(frame.stream, b"world").await;
    let body = response.await.unwrap().unwrap().into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
}

#[tokio::test(start_paused = true)]
async fn an_empty_body_ends_with_the_headers() {
    let (connection, mut peer) = Raw::connected(b"").await;
    let empty = Empty::new().map_err(|never| match never {}).boxed();
    let _response = start(&connection, empty);
    assert_eq!(peer.expect(HEADERS).await.flags & END, END);
}

#[tokio::test(start_paused = true)]
async fn the_request_waits_for_the_peers_window() {
    let (connection, mut peer) = Raw::connected(&setting(4, 8)).await;
    let (sender, body) = body();
    let _response = start(&connection, body);
    for _ in 0..100 {
        sender.send(data(b"12345")).unwrap();
    }
    let stream = peer.expect(HEADERS).await.stream;
    let mut received = 0;
    for round in 1..10 {
        while received < 8 * round {
            received += peer.expect(DATA).await.payload.len();
        }
        settle().await;
        assert_eq!(received, 8 * round, "no more than the window");
        peer.write(8, 0, stream, &8_u32.to_be_bytes()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_stops_the_body_being_taken() {
    let (connection, mut peer) = Raw::connected(&setting(4, 8)).await;
    let (sender, receiver) = mpsc::channel::<Result<Frame<Bytes>, Status>>(1);
    struct Bounded(mpsc::Receiver<Result<Frame<Bytes>, Status>>);
    impl http_body::Body for Bounded {
        type Data = Bytes;
        type Error = Status;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            self.0.poll_recv(cx)
        }
    }
    let _response = start(&connection, Bounded(receiver));
    peer.expect(HEADERS).await;
    let mut taken = 0;
    while tokio::time::timeout(Duration::from_millis(1), sender.send(data(b"12345"))).await.is_ok()
    {
        taken += 1;
        assert!(taken < 10, "the whole body is taken though nobody reads it");
    }
}

#[tokio::test(start_paused = true)]
async fn the_response_is_taken_only_as_it_is_read() {
    let (connection, mut peer) = Peer::connected().await;
    let response = start(&connection, whole("hello"));
    let mut served = peer.next().await;
    let mut stream = served.respond.send_response(ok_head(), false).unwrap();
    let sent = 3 * 1024 * 1024;
    stream.send_data(vec![7; sent].into(), true).unwrap();
    let mut body = response.await.unwrap().unwrap().into_body();
    settle().await;
    let mut unread = 0;
    while let Some(Some(frame)) = body.frame().now_or_never() {
        unread += frame.unwrap().into_data().unwrap().len();
    }
    assert!(unread <= 1024 * 1024, "{unread} bytes waited for a reader, the window is 1 MiB");
    let rest = body.collect().await.unwrap().to_bytes().len();
    assert_eq!(unread + rest, sent);
}

#[tokio::test(start_paused = true)]
async fn a_request_body_that_fails_resets_the_stream_and_says_why() {
    let (connection, mut peer) = Peer::connected().await;
    // Before the response.
    let (sender, body_) = body();
    let response = start(&connection, body_);
    let mut served = peer.next().await;
    sender.send(Err(Status::data_loss("disk gone"))).unwrap();
    let failure = response.await.unwrap().unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Body);
    assert_eq!(failure.to_status().code(), Code::DataLoss);
    assert_eq!(served.reset().await, h2::Reason::CANCEL);

    // Amid the response.
    let (sender, body_) = body();
    let response = start(&connection, body_);
    let mut served = peer.next().await;
    let _stream = served.respond.send_response(ok_head(), false).unwrap();
    let mut response = response.await.unwrap().unwrap();
    sender.send(Err(Status::data_loss("disk gone"))).unwrap();
    let failure = response.body_mut().frame().await.unwrap().unwrap_err();
    assert_eq!(failure.to_status().message(), "disk gone");

    // Before anything was sent.
    let (sender, body_) = body();
    sender.send(Err(Status::data_loss("disk gone"))).unwrap();
    let failure = start(&connection, body_).await.unwrap().unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Body);
}

#[tokio::test(start_paused = true)]
async fn a_request_body_that_panics_resets_the_stream_and_says_so() {
    let (connection, mut peer) = Peer::connected().await;
    let (sender, body) = body();
    let response = start(&connection, body.map_frame(|_| panic!("a bug of the caller's")));
    let mut served = peer.next().await;
    sender.send(data(b"word")).unwrap();
    let failure = response.await.unwrap().unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Body);
    assert!(failure.to_string().contains("panicked"), "{failure}");
    assert_eq!(served.reset().await, h2::Reason::CANCEL);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_response_resets_the_stream_and_drops_the_request() {
    let (connection, mut peer) = Peer::connected().await;
    let (sender, body) = body();
    let response = start(&connection, body);
    let mut served = peer.next().await;
    let mut stream = served.respond.send_response(ok_head(), false).unwrap();
    drop(response.await.unwrap().unwrap());
    assert_eq!(reset(&mut stream).await, h2::Reason::CANCEL);
    sender.closed().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_before_its_response_resets_the_stream_too() {
    let (connection, mut peer) = Peer::connected().await;
    let (sender, body) = body();
    let response = start(&connection, body);
    let mut served = peer.next().await;
    response.abort();
    assert_eq!(served.reset().await, h2::Reason::CANCEL);
    sender.closed().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_ends_early_ends_the_request() {
    let (connection, mut peer) = Peer::connected().await;
    let (sender, body) = body();
    let response = start(&connection, body);
    peer.next().await.answer(&[&framed(b"enough")], "0");
    let body = response.await.unwrap().unwrap().into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    sender.closed().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_holds_its_place_until_its_body_ends() {
    let (connection, mut peer) = Raw::connected(&max_streams(1)).await;
    let response = start(&connection, whole("hello"));
    peer.expect(HEADERS).await;
    let stream = peer.expect(DATA).await.stream;
    let waiting = call(&connection, b"next");
    peer.write(HEADERS, END_HEADERS, stream, &ok_block()).await;
    let mut response = response.await.unwrap().unwrap();
    settle().await;
    assert!(!waiting.is_finished());
    peer.write(HEADERS, END_HEADERS | END, stream, &block(&[("grpc-status", "0")])).await;
    response.body_mut().frame().await.unwrap().unwrap();
    let next = peer.call().await;
    peer.answer(next, b"").await;
    waiting.await.unwrap().unwrap();
    assert!(response.body_mut().frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_body_cut_off_is_lost() {
    let (connection, mut peer) = Peer::connected().await;
    let response = start(&connection, whole("hello"));
    let mut served = peer.next().await;
    let mut stream = served.respond.send_response(ok_head(), false).unwrap();
    stream.send_data(framed(b"one"), false).unwrap();
    let mut body = response.await.unwrap().unwrap().into_body();
    assert!(body.frame().await.unwrap().unwrap().is_data());
    peer.kill();
    let failure = body.frame().await.unwrap().unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Lost);
    assert!(body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_refused_stream_call_was_not_processed() {
    let (connection, mut peer) = Raw::connected(b"").await;
    let response = start(&connection, whole("hello"));
    peer.expect(HEADERS).await;
    let stream = peer.expect(DATA).await.stream;
    peer.reset(stream, 7).await;
    assert!(response.await.unwrap().unwrap_err().is_unprocessed());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_grpc_is_malformed() {
    let (connection, mut peer) = Peer::connected().await;
    let response = start(&connection, whole("hello"));
    let html = http::Response::builder().header("content-type", "text/html").body(()).unwrap();
    let mut served = peer.next().await;
    served.respond.send_response(html, true).unwrap();
    let failure = response.await.unwrap().unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Malformed);
}
