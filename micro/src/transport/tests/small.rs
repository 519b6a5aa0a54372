//! Streams of small messages, either way.

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{
    super::{Connection, Failure, stream::Body},
    kit::*,
};

/// More small frames than `h2` would have wait by itself.
const MANY: usize = 20_000;

fn frames(messages: &[&'static [u8]]) -> Vec<Result<Frame<Bytes>, Status>> {
    messages.iter().map(|bytes| Ok(Frame::data(Bytes::from_static(bytes)))).collect()
}

/// A stream whose response has begun.
async fn begun(connection: &Connection, peer: &mut Raw) -> (http::Response<Body>, u32) {
    let connection = connection.clone();
    let body = StreamBody::new(stream::iter(frames(&[b"hello"])));
    let call = head().map(|()| body);
    let response =
        tokio::spawn(async move { connection.stream(connection.slot().await?, call).await });
    let id = peer.call().await;
    peer.write(HEADERS, END_HEADERS, id, &ok_block()).await;
    (response.await.unwrap().unwrap(), id)
}

async fn write_many(peer: &mut Raw, stream: u32) {
    for _ in 0..MANY {
        peer.write(DATA, 0, stream, &framed(b"")).await;
    }
}

/// Another call is answered, after all that the peer has sent so far.
async fn serves_another(connection: &Connection, peer: &mut Raw) {
    let other = call(connection, b"other");
    let id = peer.call().await;
    peer.answer(id, b"answer").await;
    other.await.unwrap().expect("the connection stands");
}

#[tokio::test(start_paused = true)]
async fn small_messages_that_nobody_reads_yet_do_not_cost_the_connection() {
    let (connection, mut peer) = Raw::connected(b"").await;
    let (response, id) = begun(&connection, &mut peer).await;
    write_many(&mut peer, id).await;
    serves_another(&connection, &mut peer).await;
    peer.write(HEADERS, END_HEADERS | END, id, &block(&[("grpc-status", "0")])).await;
    let body = response.into_body().collect().await.expect("all of it is there");
    assert_eq!(body.to_bytes().len(), MANY * framed(b"").len());
}

#[tokio::test(start_paused = true)]
async fn small_messages_of_a_stream_that_was_dropped_do_not_cost_the_connection() {
    let (connection, mut peer) = Raw::connected(b"").await;
    let (response, id) = begun(&connection, &mut peer).await;
    drop(response);
    assert_eq!(peer.expect(RST_STREAM).await.stream, id);
    write_many(&mut peer, id).await;
    serves_another(&connection, &mut peer).await;
}

/// The DATA frames that a body is sent in, to the end of the stream.
async fn sent_in<S>(messages: S) -> Vec<Vec<u8>>
where
    S: futures_util::Stream<Item = Result<Frame<Bytes>, Status>> + Send + 'static,
{
    let (connection, mut peer) = Raw::connected(b"").await;
    let call = head().map(|()| StreamBody::new(messages));
    let _response: tokio::task::JoinHandle<Result<_, Failure>> =
        tokio::spawn(async move { connection.stream(connection.slot().await?, call).await });
    peer.expect(HEADERS).await;
    let mut payloads = Vec::new();
    loop {
        let frame = peer.expect(DATA).await;
        let is_last = frame.flags & END != 0;
        payloads.push(frame.payload);
        if is_last {
            return payloads;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn messages_that_are_ready_together_go_as_one_frame() {
    assert_eq!(sent_in(stream::iter(frames(&[b"one", b"two", b"three"]))).await, [b"onetwothree"]);
}

#[tokio::test(start_paused = true)]
async fn messages_handed_over_one_by_one_go_in_few_frames() {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        for _ in 0..10_000 {
            sender.send(Ok(Frame::data(framed(b"")))).await.unwrap();
        }
    });
    let payloads = sent_in(ReceiverStream::new(receiver)).await;
    assert_eq!(payloads.iter().map(Vec::len).sum::<usize>(), 50_000);
    // The first by itself, the rest by 16 KiB.
    assert!(payloads.len() <= 6, "{:?}", payloads.iter().map(Vec::len).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn small_and_large_frames_keep_their_order() {
    const SIZES: [usize; 8] = [3, 20_000, 0, 5, 16_000, 7, 16_384, 1];
    let sizes = || SIZES.into_iter().zip(0_u8..);
    let all: Vec<u8> = sizes().flat_map(|(size, byte)| vec![byte; size]).collect();
    let frames = move || {
        stream::iter(sizes()).map(|(size, byte)| Ok(Frame::data(Bytes::from(vec![byte; size]))))
    };
    assert_eq!(sent_in(frames()).await.concat(), all, "all there at once");
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut frames = frames();
        while let Some(frame) = frames.next().await {
            sender.send(frame).await.unwrap();
        }
    });
    assert_eq!(sent_in(ReceiverStream::new(receiver)).await.concat(), all, "one by one");
}
