use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Response;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tonic::Code;

use super::{
    super::{Config, FailureKind},
    kit::*,
};

#[tokio::test(start_paused = true)]
async fn a_reply_has_headers_a_message_and_trailers() {
    let (connection, mut peer) = Peer::connected().await;
    let call = call(&connection, b"hello");
    let mut served = peer.next().await;
    assert_eq!(served.request.uri().path(), "/greeter.v1.Greeter/Hello");
    assert_eq!(served.body().await, framed(b"hello"));
    let mut stream = served
        .respond
        .send_response(
            Response::builder()
                .header("content-type", "application/grpc")
                .header("x-node", "a")
                .body(())
                .unwrap(),
            false,
        )
        .unwrap();
    stream.send_data(framed(b"world"), false).unwrap();
    stream.send_trailers(status_trailers("0")).unwrap();
    let reply = call.await.unwrap().unwrap();
    assert_eq!(reply.headers["x-node"], "a");
    assert_eq!(reply.message.unwrap(), "world");
    assert_eq!(reply.trailers["grpc-status"], "0");
}

#[tokio::test(start_paused = true)]
async fn a_response_of_trailers_only_has_its_status_in_the_headers() {
    let (connection, mut peer) = Peer::connected().await;
    let call = call(&connection, b"hello");
    let response = Response::builder()
        .header("content-type", "application/grpc")
        .header("grpc-status", "5")
        .body(())
        .unwrap();
    peer.next().await.respond.send_response(response, true).unwrap();
    let reply = call.await.unwrap().unwrap();
    assert_eq!(reply.headers["grpc-status"], "5");
    assert_eq!(reply.message, None);
    assert!(reply.trailers.is_empty());
}

#[tokio::test(start_paused = true)]
async fn informational_responses_are_passed_over() {
    let (connection, mut peer) = Raw::connected(b"").await;
    let call = call(&connection, b"hello");
    let stream = peer.call().await;
    for status in ["103", "100"] {
        peer.write(HEADERS, END_HEADERS, stream, &block(&[(":status", status)])).await;
    }
    peer.answer(stream, b"world").await;
    assert_eq!(call.await.unwrap().unwrap().message.unwrap(), "world");
}

#[tokio::test(start_paused = true)]
async fn an_http_error_becomes_a_status() {
    let (connection, mut peer) = Peer::connected().await;
    for (status, code) in [(503, Code::Unavailable), (404, Code::Unimplemented)] {
        let call = call(&connection, b"hello");
        let response = Response::builder().status(status).body(()).unwrap();
        let mut stream = peer.next().await.respond.send_response(response, false).unwrap();
        stream.send_data(Bytes::from_static(b"<html>"), true).unwrap();
        let failure = call.await.unwrap().unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Malformed);
        assert!(!failure.is_unprocessed());
        assert_eq!(failure.to_status().code(), code);
        assert!(failure.to_string().contains("node:1"), "{failure}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_may_come_byte_by_byte() {
    let (connection, mut peer) = Peer::connected().await;
    let call = call(&connection, b"hello");
    let message = framed(&[7; 500]);
    let chunks: Vec<&[u8]> = message.chunks(1).collect();
    peer.next().await.answer(&chunks, "0");
    assert_eq!(call.await.unwrap().unwrap().message.unwrap(), vec![7; 500]);
}

#[tokio::test(start_paused = true)]
async fn messages_larger_than_any_window_go_both_ways() {
    let (connection, mut peer) = Peer::connected().await;
    let content: Vec<u8> = (0..3_000_000_u32).map(|index| index.to_le_bytes()[1]).collect();
    let call = tokio::spawn({
        let (connection, frame) = (connection.clone(), framed(&content));
        async move { unary(&connection, head(), frame).await }
    });
    peer.next().await.echo().await;
    assert_eq!(call.await.unwrap().unwrap().message.unwrap(), content);
}

#[tokio::test(start_paused = true)]
async fn a_large_request_waits_for_the_peers_window() {
    let (connection, mut peer) = Raw::connected(&setting(4, 10)).await;
    let call = call(&connection, b"0123456789abcdef");
    let stream = peer.expect(HEADERS).await.stream;
    assert_eq!(peer.expect(DATA).await.payload.len(), 10);
    settle().await;
    assert!(!call.is_finished());
    peer.write(8, 0, stream, &100_u32.to_be_bytes()).await;
    let rest = peer.expect(DATA).await;
    assert_eq!((rest.payload.len(), rest.flags), (11, END));
    peer.answer(stream, b"").await;
    assert_eq!(call.await.unwrap().unwrap().message.unwrap(), "");
}

#[tokio::test(start_paused = true)]
async fn a_message_over_the_limit_is_refused_at_its_prefix() {
    let (connection, mut peer) = Peer::connected().await;
    let call = call(&connection, b"hello");
    let mut served = peer.next().await;
    let mut stream = served.respond.send_response(ok_head(), false).unwrap();
    stream.send_data(Bytes::from_static(&[0, 0, 0x40, 0, 1, 1]), false).unwrap();
    let failure = call.await.unwrap().unwrap_err();
    assert_eq!(failure.kind(), FailureKind::TooLarge);
    assert_eq!(failure.to_status().code(), Code::ResourceExhausted);
    assert!(failure.to_string().contains("4194305 bytes, the limit is 4194304"), "{failure}");
    assert_eq!(served.reset().await, h2::Reason::CANCEL, "the rest is not wanted");
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_breaks_the_framing_is_malformed() {
    let (connection, mut peer) = Peer::connected().await;
    let two = [framed(b"a"), framed(b"b")].concat();
    for (body, text) in [
        (&b"\0\0\0\0\x09short"[..], "ended amid the reply"),
        (b"\0\0", "ended amid the reply"),
        (&two, "more than one message"),
        (b"\x01\0\0\0\x01x", "compressed"),
    ] {
        let call = call(&connection, b"hello");
        peer.next().await.answer(&[body], "0");
        let failure = call.await.unwrap().unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Malformed);
        assert_eq!(failure.to_status().code(), Code::Internal);
        assert!(failure.to_string().contains(text), "{failure}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_outranks_half_a_message() {
    let (connection, mut peer) = Peer::connected().await;
    let call = call(&connection, b"hello");
    peer.next().await.answer(&[b"\0\0\0\0\x09short"], "13");
    let reply = call.await.unwrap().unwrap();
    assert_eq!(reply.message, None);
    assert_eq!(reply.trailers["grpc-status"], "13");
}

#[tokio::test(start_paused = true)]
async fn headers_over_the_limit_fail_their_call_and_no_other() {
    let (connection, mut peer) = Peer::connected().await;
    let large = call(&connection, b"hello");
    let response = Response::builder()
        .header("content-type", "application/grpc")
        .header("x-large", "x".repeat(17 * 1024))
        .body(())
        .unwrap();
    let served = peer.next().await;
    let other = call(&connection, b"hello");
    let served_other = peer.next().await;
    let mut respond = served.respond;
    let _stream = respond.send_response(response, false).unwrap();
    let failure = large.await.unwrap().unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Malformed);
    assert_eq!(failure.to_status().code(), Code::Internal);
    served_other.echo().await;
    assert!(other.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_resets_its_stream() {
    let (connection, mut peer) = Peer::connected().await;
    let call = call(&connection, b"hello");
    let mut served = peer.next().await;
    call.abort();
    assert_eq!(served.reset().await, h2::Reason::CANCEL);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_http2_forbids_is_the_callers_fault() {
    let (connection, mut peer) = Peer::connected().await;
    let mut forbidden = head();
    forbidden.headers_mut().insert("connection", "close".parse().unwrap());
    let failure = unary(&connection, forbidden, framed(b"")).await.unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Body);
    let call = call(&connection, b"hello");
    peer.next().await.echo().await;
    assert!(call.await.unwrap().is_ok(), "the connection goes on");
}

#[tokio::test(start_paused = true)]
async fn callers_beyond_the_peers_limit_are_served_in_their_order() {
    let (connection, mut peer) = Raw::connected(&max_streams(1)).await;
    let mut calls = Vec::new();
    for _ in 0..5 {
        calls.push(call(&connection, b"hello"));
        settle().await;
    }
    let given_up = calls.remove(2);
    given_up.abort();
    for (turn, call) in calls.into_iter().enumerate() {
        let stream = peer.call().await;
        assert_eq!(stream as usize, 2 * turn + 1, "who gave up in line was never sent");
        assert!(!call.is_finished());
        peer.answer(stream, b"").await;
        call.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_raised_lets_more_calls_begin() {
    let (connection, mut peer) = Raw::connected(&max_streams(0)).await;
    let calls = [call(&connection, b"a"), call(&connection, b"b")];
    settle().await;
    peer.write(PING, 0, 0, b"in order").await;
    loop {
        let frame = peer.read().await.unwrap();
        assert!(frame.kind != HEADERS, "no stream is allowed yet");
        if frame.kind == PING {
            break;
        }
    }
    peer.write(SETTINGS, 0, 0, &max_streams(2)).await;
    for stream in [1, 3] {
        let frame = peer.expect(HEADERS).await;
        assert_eq!(frame.stream, stream);
    }
    for stream in [1, 3] {
        peer.answer(stream, b"").await;
    }
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn calls_at_once_share_few_writes() {
    let writes = Arc::new(AtomicUsize::new(0));
    let (ours, theirs) = tokio::io::duplex(1024 * 1024);
    let mut peer = Peer::on(theirs, &h2::server::Builder::new());
    let ours = Counted { io: ours, writes: writes.clone() };
    let connection = connect_over(ours, &Config::default()).await.unwrap();
    writes.store(0, Ordering::Relaxed);
    let calls: Vec<_> = (0..200).map(|_| call(&connection, b"hello")).collect();
    for _ in &calls {
        peer.next().await.echo().await;
    }
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().message.unwrap(), "hello");
    }
    let writes = writes.load(Ordering::Relaxed);
    assert!(writes <= 20, "{writes} writes for 200 calls");
}

/// Counts the writes to a pipe.
struct Counted {
    io: DuplexStream,
    writes: Arc<AtomicUsize>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
