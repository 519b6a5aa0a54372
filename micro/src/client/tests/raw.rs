//! Peers that are written by hand, frame by frame.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::registry::{self, Node};

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
const ACK: u8 = 1;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const REFUSED_STREAM: u8 = 7;

/// A peer that reads and writes frames by hand.
pub(super) struct Raw(TcpStream);

impl Raw {
    pub(super) async fn accept(listener: &TcpListener) -> io::Result<Self> {
        let (socket, _) = listener.accept().await?;
        // A frame behind another would wait 40 ms, in which a clock that is paused runs far.
        socket.set_nodelay(true)?;
        let mut raw = Self(socket);
        raw.write(SETTINGS, 0, 0, &[]).await?;
        raw.write(SETTINGS, ACK, 0, &[]).await?;
        raw.0.read_exact(&mut [0; 24]).await?;
        Ok(raw)
    }

    pub(super) async fn write(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u8,
        payload: &[u8],
    ) -> io::Result<()> {
        let length = u8::try_from(payload.len()).expect("a short payload");
        let head = [0, 0, length, kind, flags, 0, 0, 0, stream];
        self.0.write_all(&[&head, payload].concat()).await
    }

    /// Answers a call with a word that is this text.
    pub(super) async fn answer(&mut self, stream: u8, text: &str) -> io::Result<()> {
        let len = u8::try_from(text.len()).expect("a short text");
        let prefix = [0, 0, 0, 0, len + 2, 10, len];
        self.write(HEADERS, 4, stream, HEAD).await?;
        self.write(DATA, 0, stream, &[&prefix, text.as_bytes()].concat()).await?;
        self.write(HEADERS, 5, stream, OK).await
    }

    /// The id of the stream that the next frame of this kind is on. PINGs are answered meanwhile.
    pub(super) async fn next(&mut self, kind: u8) -> io::Result<u8> {
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

/// The head of a response.
pub(super) const HEAD: &[u8] = b"\x88\x00\x0ccontent-type\x10application/grpc";
/// The end of one that is well.
const OK: &[u8] = b"\x00\x0bgrpc-status\x010";

/// Listens on a free port, as a node of this service.
pub(super) async fn node(registry: &str, service: &str) -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let registry = registry::open(registry).expect("a registry");
    let node = Node::new(service, &address, &address);
    registry.register(&node, Duration::from_secs(60)).await.expect("memory takes it");
    listener
}
