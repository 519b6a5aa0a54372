//! HTTP/2 frames by hand.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;

pub(super) const ACK: u8 = 1;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

/// A frame's bytes.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()];
    [&head.concat(), payload].concat()
}

/// The header block of a call: POST, http, and three literals.
pub(super) fn call_block(path: &str) -> Vec<u8> {
    let content_type = literal("content-type", "application/grpc");
    [&[0x83, 0x86][..], &literal(":path", path), &literal(":authority", "test"), &content_type]
        .concat()
}

/// One more header for a block.
pub(super) fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut literal = vec![0];
    for part in [name, value] {
        literal.push(u8::try_from(part.len()).expect("short"));
        literal.extend_from_slice(part.as_bytes());
    }
    literal
}

/// The next frame of this kind: its payload.
pub(super) async fn next(io: &mut (impl AsyncRead + Unpin), kind: u8) -> Vec<u8> {
    loop {
        let mut head = [0; 9];
        soon(io.read_exact(&mut head)).await.expect("a frame");
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        soon(io.read_exact(&mut payload)).await.expect("all of it");
        if head[3] == kind {
            return payload;
        }
    }
}

/// Greets as a client, and has been greeted.
pub(super) async fn greeted<IO: AsyncRead + AsyncWrite + Unpin>(io: IO) -> IO {
    greeted_with(io, 65_535).await
}

/// Greets as a client that lets each stream send so much, and all of them without end.
pub(super) async fn greeted_with<IO>(mut io: IO, stream_window: u32) -> IO
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let settings = [&[0, 4][..], &stream_window.to_be_bytes()].concat();
    let most = (1_u32 << 31) - 1 - 65_535;
    let greeting = [
        PREFACE,
        &frame(SETTINGS, 0, 0, &settings),
        &frame(WINDOW_UPDATE, 0, 0, &most.to_be_bytes()),
        &frame(SETTINGS, ACK, 0, &[]),
    ]
    .concat();
    io.write_all(&greeting).await.expect("it reads");
    next(&mut io, SETTINGS).await;
    io
}
