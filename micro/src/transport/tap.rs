//! Sees what passes beneath `h2`, and says what `h2` does not.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::{self, Frames};

/// Wraps a socket and notes in [`Activity`] what came and what went. Costs a look at each frame's
/// head and one atomic operation a read, nothing a call.
#[derive(Debug)]
pub(super) struct Tap<IO> {
    io: IO,
    incoming: Frames,
    outgoing: Frames,
    go_away: Vec<u8>,
    activity: Arc<Activity>,
}

/// What a [`Tap`] saw.
#[derive(Debug, Default)]
pub(super) struct Activity {
    seen: AtomicU8,
    last_stream_sent: AtomicU32,
    go_away: OnceLock<GoAway>,
    has_settings: AtomicBool,
    /// What the first bytes were, once they are here.
    beginning: OnceLock<Beginning>,
}

/// What a peer sent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beginning {
    /// An alert, as TLS servers answer HTTP/2 in plaintext.
    TlsAlert,
    Other,
}

/// What came in since the last look, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen(u8);

/// A GOAWAY the peer sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GoAway {
    pub(super) code: u32,
    pub(super) debug: String,
}

impl Seen {
    const BYTES: u8 = 1;
    const PROGRESS: u8 = 2;
    const SETTINGS: u8 = 4;
    const GO_AWAY: u8 = 8;
    const ACKNOWLEDGED: u8 = 16;

    /// Anything at all.
    pub(super) fn bytes(self) -> bool {
        self.0 & Self::BYTES != 0
    }

    /// HEADERS or DATA.
    pub(super) fn progress(self) -> bool {
        self.0 & Self::PROGRESS != 0
    }

    /// SETTINGS of the peer's own.
    pub(super) fn settings(self) -> bool {
        self.0 & Self::SETTINGS != 0
    }

    /// The acknowledgement of our SETTINGS.
    pub(super) fn acknowledged(self) -> bool {
        self.0 & Self::ACKNOWLEDGED != 0
    }

    /// A whole GOAWAY.
    pub(super) fn go_away(self) -> bool {
        self.0 & Self::GO_AWAY != 0
    }
}

impl Activity {
    /// What came in since this was last asked.
    pub(super) fn take(&self) -> Seen {
        if self.seen.load(Ordering::Relaxed) == 0 {
            return Seen(0);
        }
        Seen(self.seen.swap(0, Ordering::Acquire))
    }

    /// The newest stream whose HEADERS were handed to the socket.
    pub(super) fn last_stream_sent(&self) -> u32 {
        self.last_stream_sent.load(Ordering::Acquire)
    }

    /// Whether the head of this stream's HEADERS was handed to the socket. What was not handed
    /// over, no peer has seen: `h2` opens streams in the order of their ids.
    pub(super) fn was_sent(&self, stream: u32) -> bool {
        stream <= self.last_stream_sent()
    }

    /// Whether SETTINGS of the peer's own have come.
    pub(super) fn has_settings(&self) -> bool {
        self.has_settings.load(Ordering::Relaxed)
    }

    /// What came first, if anything came.
    pub(super) fn beginning(&self) -> Option<Beginning> {
        self.beginning.get().copied()
    }

    /// The first GOAWAY that came.
    pub(super) fn go_away(&self) -> Option<&GoAway> {
        self.go_away.get()
    }
}

/// Length of a client's connection preface (RFC 9113, section 3.4).
const PREFACE: usize = 24;
/// How a record of TLS begins that has an alert (RFC 8446, section 5.1). As a frame's length it is more
/// than a client permits.
const TLS_ALERT: [u8; 2] = [21, 3];
/// How much debug text of a GOAWAY is kept, in bytes, the 8 before it included.
const GO_AWAY_LIMIT: usize = 8 + 256;

impl<IO> Tap<IO> {
    pub(super) fn new(io: IO) -> (Self, Arc<Activity>) {
        let activity = Arc::new(Activity::default());
        let tap = Self {
            io,
            incoming: Frames::default(),
            outgoing: Frames::after(PREFACE),
            go_away: Vec::new(),
            activity: activity.clone(),
        };
        (tap, activity)
    }

    fn came(&mut self, mut bytes: &[u8]) {
        self.activity.beginning.get_or_init(|| {
            if bytes.starts_with(&TLS_ALERT) { Beginning::TlsAlert } else { Beginning::Other }
        });
        let mut seen = Seen::BYTES;
        while let Some(part) = self.incoming.next(&mut bytes) {
            match part.kind {
                frames::HEADERS | frames::DATA => seen |= Seen::PROGRESS,
                frames::SETTINGS if part.flags & frames::ACK != 0 => seen |= Seen::ACKNOWLEDGED,
                frames::SETTINGS => {
                    seen |= Seen::SETTINGS;
                    self.activity.has_settings.store(true, Ordering::Relaxed);
                }
                frames::GOAWAY => {
                    let room = GO_AWAY_LIMIT - self.go_away.len();
                    self.go_away.extend(part.payload.iter().take(room));
                    if part.is_end {
                        seen |= self.note_go_away();
                    }
                }
                _ => {}
            }
        }
        self.activity.seen.fetch_or(seen, Ordering::Release);
    }

    fn note_go_away(&mut self) -> u8 {
        let payload = std::mem::take(&mut self.go_away);
        // One that is too short is `h2`'s to complain about.
        let Some(([_, _, _, _, code @ ..], debug)) = payload.split_first_chunk::<8>() else {
            return 0;
        };
        let code = u32::from_be_bytes(*code);
        let debug = String::from_utf8_lossy(debug).into_owned();
        // The first of several says why; the second of a graceful pair says nothing new.
        let _ = self.activity.go_away.set(GoAway { code, debug });
        Seen::GO_AWAY
    }

    fn went(&mut self, mut bytes: &[u8]) {
        let mut last = 0;
        while let Some(part) = self.outgoing.next(&mut bytes) {
            if part.kind == frames::HEADERS && part.is_start {
                last = part.stream;
            }
        }
        if last > 0 {
            // Trailers of an older stream must not lower it.
            self.activity.last_stream_sent.fetch_max(last, Ordering::Release);
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Tap<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        let bytes = &buf.filled()[before..];
        if !bytes.is_empty() {
            this.came(bytes);
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Tap<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let count = ready!(Pin::new(&mut this.io).poll_write(cx, buf))?;
        this.went(&buf[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let count = ready!(Pin::new(&mut this.io).poll_write_vectored(cx, bufs))?;
        let mut left = count;
        for buf in bufs {
            let taken = buf.len().min(left);
            this.went(&buf[..taken]);
            left -= taken;
        }
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
    }

    #[tokio::test]
    async fn what_comes_in_is_seen() {
        let (mut peer, io) = tokio::io::duplex(1024);
        let (mut tap, activity) = Tap::new(io);
        let mut buf = [0; 1024];
        assert_eq!(activity.take(), Seen(0));
        for (bytes, expected) in [
            (frame(frames::SETTINGS, 0, 0, b""), Seen::BYTES | Seen::SETTINGS),
            (frame(frames::SETTINGS, frames::ACK, 0, b""), Seen::BYTES | Seen::ACKNOWLEDGED),
            (frame(6, 0, 0, b"pingpong"), Seen::BYTES),
            (frame(frames::HEADERS, 4, 1, b"x"), Seen::BYTES | Seen::PROGRESS),
            (frame(frames::DATA, 0, 1, b"x"), Seen::BYTES | Seen::PROGRESS),
        ] {
            peer.write_all(&bytes).await.unwrap();
            let _ = tap.read(&mut buf).await.unwrap();
            assert_eq!(activity.take(), Seen(expected));
            assert_eq!(activity.take(), Seen(0), "seen once");
        }
    }

    #[tokio::test]
    async fn an_alert_of_tls_is_told_from_what_comes_otherwise() {
        for (bytes, beginning) in [
            (&[21, 3, 3, 0, 2, 2, 70][..], Beginning::TlsAlert),
            (&frame(frames::SETTINGS, 0, 0, b""), Beginning::Other),
        ] {
            let (mut peer, io) = tokio::io::duplex(1024);
            let (mut tap, activity) = Tap::new(io);
            assert_eq!(activity.beginning(), None);
            for sent in [bytes, &[21, 3]] {
                peer.write_all(sent).await.unwrap();
                let _ = tap.read(&mut [0; 64]).await.unwrap();
                assert_eq!(activity.beginning(), Some(beginning), "what comes first counts");
            }
        }
    }

    #[tokio::test]
    async fn a_go_away_is_seen_whole_and_the_first_counts() {
        let (mut peer, io) = tokio::io::duplex(1024);
        let (mut tap, activity) = Tap::new(io);
        let mut buf = [0; 1024];
        let bytes = frame(frames::GOAWAY, 0, 0, b"\0\0\0\x05\0\0\0\x0btoo_many_pings");
        let (head, tail) = bytes.split_at(20);
        peer.write_all(head).await.unwrap();
        let _ = tap.read(&mut buf).await.unwrap();
        assert!(!activity.take().go_away());
        peer.write_all(tail).await.unwrap();
        let _ = tap.read(&mut buf).await.unwrap();
        assert!(activity.take().go_away());
        peer.write_all(&frame(frames::GOAWAY, 0, 0, &[0; 8])).await.unwrap();
        let _ = tap.read(&mut buf).await.unwrap();
        let expected = GoAway { code: 11, debug: "too_many_pings".into() };
        assert_eq!(activity.go_away(), Some(&expected));
    }

    #[tokio::test]
    async fn a_go_away_too_short_to_be_one_is_passed_over() {
        let (mut peer, io) = tokio::io::duplex(1024);
        let (mut tap, activity) = Tap::new(io);
        peer.write_all(&frame(frames::GOAWAY, 0, 0, b"123")).await.unwrap();
        let _ = tap.read(&mut [0; 64]).await.unwrap();
        assert!(!activity.take().go_away());
    }

    #[tokio::test]
    async fn a_stream_is_sent_once_the_head_of_its_headers_is_out() {
        let (_peer, io) = tokio::io::duplex(1024);
        let (mut tap, activity) = Tap::new(io);
        tap.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let bytes = frame(frames::HEADERS, 4, 3, b"block");
        tap.write_all(&bytes[..8]).await.unwrap();
        assert!(!activity.was_sent(3), "nobody can read a head cut short");
        tap.write_all(&bytes[8..]).await.unwrap();
        assert!(activity.was_sent(3));
        assert!(!activity.was_sent(5));
        tap.write_all(&frame(frames::HEADERS, 5, 1, b"trailers")).await.unwrap();
        assert!(activity.was_sent(3), "an older stream's trailers take nothing back");
    }
}
