//! Peers that do as they are told.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{HeaderMap, Request, Response};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream},
    sync::mpsc,
    task::{AbortHandle, JoinHandle},
    time::Instant,
};

use super::super::{
    Config, Connection, Failure, UnaryReply,
    connect::{ConnectError, handshake},
    frames::Frames,
};

pub(super) use super::super::frames::{ACK, DATA, GOAWAY, HEADERS, SETTINGS};
pub(super) const RST_STREAM: u8 = 3;
pub(super) const PING: u8 = 6;
/// END_STREAM on HEADERS and DATA; END_HEADERS.
pub(super) const END: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

/// As much as a socket's buffers hold.
const PIPE: usize = 256 * 1024;

pub(super) async fn connect_over<IO>(io: IO, config: &Config) -> Result<Connection, ConnectError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    handshake(io, "node:1".into(), Instant::now() + config.connect_timeout, config).await
}

pub(super) fn head() -> Request<()> {
    Request::post("http://node:1/greeter.v1.Greeter/Hello")
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .body(())
        .unwrap()
}

/// A message with gRPC's prefix.
pub(super) fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], message].concat().into()
}

/// A call in a task of its own.
pub(super) fn call(
    connection: &Connection,
    message: &'static [u8],
) -> JoinHandle<Result<UnaryReply, Failure>> {
    let connection = connection.clone();
    tokio::spawn(async move { unary(&connection, head(), framed(message)).await })
}

/// A call on a stream of its own.
pub(super) async fn unary(
    connection: &Connection,
    head: http::Request<()>,
    frame: Bytes,
) -> Result<UnaryReply, Failure> {
    connection.unary(connection.slot().await?, head, frame).await
}

/// Runs what is ready to run, as often as anything in these tests needs.
pub(super) async fn settle() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

pub(super) async fn within<F: Future>(limit: Duration, future: F) -> F::Output {
    tokio::time::timeout(limit, future).await.expect("took too long")
}

pub(super) fn ok_head() -> Response<()> {
    Response::builder().header("content-type", "application/grpc").body(()).unwrap()
}

pub(super) fn status_trailers(code: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.parse().unwrap());
    trailers
}

/// A peer on `h2`'s server, whose calls the test answers.
pub(super) struct Peer {
    pub(super) calls: mpsc::UnboundedReceiver<(Request<RecvStream>, SendResponse<Bytes>)>,
    task: AbortHandle,
}

impl Peer {
    pub(super) fn on<IO>(io: IO, builder: &h2::server::Builder) -> Self
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, calls) = mpsc::unbounded_channel();
        let handshake = builder.handshake::<_, Bytes>(io);
        let task = tokio::spawn(async move {
            let mut connection = handshake.await.unwrap();
            while let Some(Ok(call)) = connection.accept().await {
                let _ = sender.send(call);
            }
        });
        Self { calls, task: task.abort_handle() }
    }

    /// A connection and its peer, over a pipe.
    pub(super) async fn connected() -> (Connection, Self) {
        Self::connected_with(&h2::server::Builder::new(), &Config::default()).await
    }

    pub(super) async fn connected_with(
        builder: &h2::server::Builder,
        config: &Config,
    ) -> (Connection, Self) {
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let peer = Self::on(theirs, builder);
        (connect_over(ours, config).await.unwrap(), peer)
    }

    pub(super) async fn next(&mut self) -> Call {
        let (request, respond) = self.calls.recv().await.expect("the connection ended");
        Call { request, respond }
    }

    /// The peer's process is gone.
    pub(super) fn kill(&self) {
        self.task.abort();
    }
}

/// A call as its peer has it.
pub(super) struct Call {
    pub(super) request: Request<RecvStream>,
    pub(super) respond: SendResponse<Bytes>,
}

impl Call {
    /// The request's body, whole.
    pub(super) async fn body(&mut self) -> Vec<u8> {
        let body = self.request.body_mut();
        let mut bytes = Vec::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk.unwrap();
            body.flow_control().release_capacity(chunk.len()).unwrap();
            bytes.extend(chunk);
        }
        bytes
    }

    /// Answers with what came, and status 0.
    pub(super) async fn echo(mut self) {
        let body = self.body().await;
        self.answer(&[&body], "0");
    }

    pub(super) fn answer(mut self, chunks: &[&[u8]], code: &'static str) {
        let mut stream = self.respond.send_response(ok_head(), false).unwrap();
        for chunk in chunks {
            stream.send_data(Bytes::copy_from_slice(chunk), false).unwrap();
        }
        stream.send_trailers(status_trailers(code)).unwrap();
    }

    /// The code our side resets the stream with before its response.
    pub(super) async fn reset(&mut self) -> h2::Reason {
        std::future::poll_fn(|cx| self.respond.poll_reset(cx)).await.unwrap()
    }
}

/// The code our side resets a stream with whose response has begun.
pub(super) async fn reset(stream: &mut h2::SendStream<Bytes>) -> h2::Reason {
    std::future::poll_fn(|cx| stream.poll_reset(cx)).await.unwrap()
}

/// A peer that reads and writes frames by hand.
pub(super) struct Raw {
    pub(super) io: DuplexStream,
    cursor: Frames,
    rest: Vec<u8>,
}

/// A frame as a [`Raw`] peer reads it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

impl Raw {
    /// A connection and its peer, which has said nothing but these SETTINGS, and that it has ours.
    pub(super) async fn connected(settings: &[u8]) -> (Connection, Self) {
        Self::connected_with(settings, &Config::default(), PIPE).await
    }

    pub(super) async fn connected_with(
        settings: &[u8],
        config: &Config,
        pipe: usize,
    ) -> (Connection, Self) {
        let (ours, io) = tokio::io::duplex(pipe);
        let mut peer = Self { io, cursor: Frames::default(), rest: Vec::new() };
        let (connection, ()) = tokio::join!(connect_over(ours, config), async {
            let mut preface = [0; 24];
            peer.io.read_exact(&mut preface).await.unwrap();
            peer.write(SETTINGS, 0, 0, settings).await;
            peer.write(SETTINGS, ACK, 0, b"").await;
        });
        (connection.unwrap(), peer)
    }

    pub(super) async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.io.write_all(&frame(kind, flags, stream, payload)).await.unwrap();
    }

    /// The next frame of the client's; `None` if it has closed.
    pub(super) async fn read(&mut self) -> Option<Frame> {
        let mut read: Option<Frame> = None;
        loop {
            let mut bytes = self.rest.as_slice();
            while let Some(part) = self.cursor.next(&mut bytes) {
                let frame = read.get_or_insert(Frame {
                    kind: part.kind,
                    flags: part.flags,
                    stream: part.stream,
                    payload: Vec::new(),
                });
                frame.payload.extend(part.payload);
                if part.is_end {
                    self.rest = bytes.to_vec();
                    return read;
                }
            }
            self.rest.clear();
            if self.io.read_buf(&mut self.rest).await.unwrap() == 0 {
                return None;
            }
        }
    }

    /// The next frame of this kind, and none of any other of `HEADERS`, `DATA` and `RST_STREAM`.
    pub(super) async fn expect(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.read().await.expect("the client has closed");
            if frame.kind == kind && (kind != PING || frame.flags & ACK == 0) {
                return frame;
            }
            assert!(
                ![HEADERS, DATA, RST_STREAM].contains(&frame.kind),
                "expected a frame of kind {kind}, got {frame:?}"
            );
        }
    }

    /// The next call, whose id it gives.
    pub(super) async fn call(&mut self) -> u32 {
        let head = self.expect(HEADERS).await;
        let data = self.expect(DATA).await;
        assert_eq!(data.flags, END);
        assert_eq!(head.stream, data.stream);
        head.stream
    }

    pub(super) async fn go_away(&mut self, last: u32, code: u32, debug: &[u8]) {
        let payload = [&last.to_be_bytes()[..], &code.to_be_bytes(), debug].concat();
        self.write(GOAWAY, 0, 0, &payload).await;
    }

    pub(super) async fn reset(&mut self, stream: u32, code: u32) {
        self.write(RST_STREAM, 0, stream, &code.to_be_bytes()).await;
    }

    pub(super) async fn answer(&mut self, stream: u32, message: &[u8]) {
        self.write(HEADERS, END_HEADERS, stream, &ok_block()).await;
        self.write(DATA, 0, stream, &framed(message)).await;
        let trailers = block(&[("grpc-status", "0")]);
        self.write(HEADERS, END_HEADERS | END, stream, &trailers).await;
    }
}

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header block, every field a literal.
pub(super) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// `:status: 200` and gRPC's content-type.
pub(super) fn ok_block() -> Vec<u8> {
    [vec![0x88], block(&[("content-type", "application/grpc")])].concat()
}

/// SETTINGS_MAX_CONCURRENT_STREAMS.
pub(super) fn max_streams(limit: u32) -> Vec<u8> {
    setting(3, limit)
}

pub(super) fn setting(id: u16, value: u32) -> Vec<u8> {
    [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()
}
