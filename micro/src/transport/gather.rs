//! A writer that gathers what is written in one turn of the scheduler.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most bytes that wait for the end of a turn. One `write` of this size costs several times
/// what the system call itself does, so that gathering more would win nothing.
const LIMIT: usize = 16 * 1024;

/// Gathers small writes into few large ones.
///
/// `h2` makes one `writev` a message. Beneath it, this wrapper holds back what is written until
/// every task that is ready to run has had its turn, then writes all of it at once: replies of a
/// hundred handlers leave in one system call. What keeps a lone call fast: the first write since
/// bytes last came in goes out at once, and only what follows it waits.
///
/// # Flushing
/// Made for `h2` and hyper, whose connections read and then flush each time they are polled.
/// [`poll_flush`](AsyncWrite::poll_flush) with bytes waiting wakes the task and returns `Ready`,
/// so that `h2` goes on encoding; the first flush of the task's next poll (told by the read before
/// it), or a second flush with nothing written since the last, writes to the socket and is
/// `Pending` until everything is out. [`poll_shutdown`](AsyncWrite::poll_shutdown) writes what
/// waits before it shuts down. Errors surface at the call that wrote.
#[derive(Debug)]
pub(crate) struct Gather<IO> {
    io: IO,
    waiting: Vec<u8>,
    /// How much of `waiting` the socket has taken already.
    written: usize,
    turn: Turn,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Bytes came in since the last write, or nothing was ever written.
    Idle,
    /// Something was written already: what comes next waits.
    Busy,
    /// Bytes wait; the task has not been woken for them yet.
    Gathering,
    /// The task has been woken: the end of the turn comes with its next poll.
    Yielded { written_since: bool },
    /// The turn is over: the next flush writes.
    Due,
}

impl<IO> Gather<IO> {
    pub(crate) fn new(io: IO) -> Self {
        Self { io, waiting: Vec::new(), written: 0, turn: Turn::Idle }
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn consume(&mut self, count: usize) {
        self.written += count;
        if self.written == self.waiting.len() {
            self.waiting.clear();
            self.written = 0;
        }
    }
}

impl<IO: AsyncWrite + Unpin> Gather<IO> {
    /// Writes what waits.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let io = Pin::new(&mut self.io);
            let count = ready!(io.poll_write(cx, &self.waiting[self.written..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.consume(count);
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what waits and `bufs` behind it, as far as the socket takes them; never reports
    /// progress in `bufs` before what waits is out.
    fn poll_write_through(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.io.is_write_vectored() || bufs.len() >= MAX_SLICES {
            ready!(self.poll_drain(cx))?;
        }
        while !self.is_empty() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            slices[0] = IoSlice::new(&self.waiting[self.written..]);
            slices[1..=bufs.len()].copy_from_slice(bufs);
            let io = Pin::new(&mut self.io);
            let count = ready!(io.poll_write_vectored(cx, &slices[..=bufs.len()]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let ours = count.min(self.waiting.len() - self.written);
            self.consume(ours);
            if count > ours {
                return Poll::Ready(Ok(count - ours));
            }
        }
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}

/// Slices that one vectored write passes on, what waits included. `h2` gives two.
const MAX_SLICES: usize = 8;

impl<IO: AsyncRead + Unpin> AsyncRead for Gather<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Turn::Yielded { .. } = this.turn {
            this.turn = Turn::Due;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        if this.turn == Turn::Busy && buf.filled().len() > before {
            this.turn = Turn::Idle;
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Gather<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        if total == 0 {
            return Poll::Ready(Ok(0));
        }
        let fits = this.waiting.len() + total <= LIMIT;
        let goes_at_once = this.turn == Turn::Idle
            && (this.io.is_write_vectored()
                || bufs.iter().filter(|buf| !buf.is_empty()).count() == 1);
        if goes_at_once || !fits {
            let count = ready!(this.poll_write_through(cx, bufs))?;
            this.turn = Turn::Busy;
            return Poll::Ready(Ok(count));
        }
        for buf in bufs {
            this.waiting.extend_from_slice(buf);
        }
        this.turn = match this.turn {
            // An idle socket that takes no slices: they were put together here, and go at once.
            Turn::Idle | Turn::Due => Turn::Due,
            Turn::Busy | Turn::Gathering => Turn::Gathering,
            Turn::Yielded { .. } => Turn::Yielded { written_since: true },
        };
        Poll::Ready(Ok(total))
    }

    /// `h2` then passes a frame's head and its payload in one call, whatever is beneath.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.is_empty() {
            match this.turn {
                Turn::Gathering => {
                    cx.waker().wake_by_ref();
                    this.turn = Turn::Yielded { written_since: false };
                    return Poll::Ready(Ok(()));
                }
                Turn::Yielded { written_since: true } => {
                    this.turn = Turn::Yielded { written_since: false };
                    return Poll::Ready(Ok(()));
                }
                // From here on until it is out: a wake-up by the socket must find it due.
                _ => this.turn = Turn::Due,
            }
            ready!(this.poll_drain(cx))?;
            this.turn = Turn::Busy;
        }
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
