use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Wake, Waker},
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// What a test says the socket does, and what it saw.
#[derive(Debug, Default)]
struct Socket {
    /// Every write that took something.
    writes: Vec<Vec<u8>>,
    /// Bytes to be read.
    incoming: Vec<u8>,
    /// The most bytes a write takes; `None` is all.
    most: Option<usize>,
    blocked: bool,
    fails: bool,
    plain: bool,
    flushes: usize,
    is_shut_down: bool,
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.incoming.is_empty() {
            return Poll::Pending;
        }
        buf.put_slice(&self.incoming);
        self.incoming.clear();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        assert!(!self.plain || bufs.len() == 1, "slices to a socket that takes none");
        if self.fails {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if self.blocked {
            return Poll::Pending;
        }
        let most = self.most.unwrap_or(usize::MAX);
        let bytes = bufs.iter().flat_map(|buf| buf.iter().copied());
        let bytes: Vec<u8> = bytes.take(most).collect();
        let count = bytes.len();
        self.writes.push(bytes);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        !self.plain
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flushes += 1;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_shut_down = true;
        Poll::Ready(Ok(()))
    }
}

/// A task in the hands of the test: it counts its wake-ups.
struct Task {
    woken: Arc<Woken>,
    waker: Waker,
    gather: Gather<Socket>,
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Task {
    fn new(socket: Socket) -> Self {
        let woken = Arc::new(Woken::default());
        Self { waker: woken.clone().into(), woken, gather: Gather::new(socket) }
    }

    fn write(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.write_slices(&[bytes])
    }

    fn write_slices(&mut self, bytes: &[&[u8]]) -> Poll<io::Result<usize>> {
        let slices: Vec<_> = bytes.iter().map(|bytes| IoSlice::new(bytes)).collect();
        let cx = &mut Context::from_waker(&self.waker);
        Pin::new(&mut self.gather).poll_write_vectored(cx, &slices)
    }

    fn flush(&mut self) -> Poll<io::Result<()>> {
        Pin::new(&mut self.gather).poll_flush(&mut Context::from_waker(&self.waker))
    }

    fn shutdown(&mut self) -> Poll<io::Result<()>> {
        Pin::new(&mut self.gather).poll_shutdown(&mut Context::from_waker(&self.waker))
    }

    fn read(&mut self) -> bool {
        let mut buf = [0; 64];
        let mut buf = ReadBuf::new(&mut buf);
        let cx = &mut Context::from_waker(&self.waker);
        Pin::new(&mut self.gather).poll_read(cx, &mut buf).is_ready()
    }

    fn sends(&mut self, bytes: &[u8]) {
        assert!(matches!(self.write(bytes), Poll::Ready(Ok(count)) if count == bytes.len()));
        assert!(matches!(self.flush(), Poll::Ready(Ok(()))));
    }

    fn woken(&self) -> usize {
        self.woken.0.swap(0, Ordering::Relaxed)
    }

    fn writes(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.gather.io.writes)
    }
}

fn busy(socket: Socket) -> Task {
    let mut task = Task::new(socket);
    task.sends(b"first");
    assert_eq!(task.writes(), [b"first"]);
    task
}

#[test]
fn the_first_write_of_an_idle_socket_goes_at_once() {
    let mut task = Task::new(Socket::default());
    task.sends(b"one");
    assert_eq!(task.writes(), [b"one"]);
    assert_eq!(task.woken(), 0, "nothing waits, so nothing is woken");

    task.gather.io.incoming.extend(b"reply");
    assert!(task.read());
    task.sends(b"two");
    assert_eq!(task.writes(), [b"two"], "bytes came in: the socket is idle again");
}

#[test]
fn what_follows_in_the_same_turn_is_one_write() {
    let mut task = busy(Socket::default());
    for message in [b"a", b"b", b"c"] {
        task.sends(message);
    }
    assert!(task.writes().is_empty(), "the turn is not over");
    assert_eq!(task.woken(), 1, "woken once for the turn, not once a message");

    assert!(!task.read());
    task.sends(b"d");
    assert_eq!(task.writes(), [b"abcd"]);
    assert_eq!(task.woken(), 0);
}

#[test]
fn a_second_flush_with_nothing_new_is_meant() {
    let mut task = busy(Socket::default());
    task.sends(b"a");
    assert!(task.flush().is_ready());
    assert_eq!(task.writes(), [b"a"], "a task that only writes is not left waiting for a read");
}

#[test]
fn reading_while_bytes_wait_keeps_them_gathering() {
    let mut task = busy(Socket::default());
    assert!(task.write(b"a").is_ready());
    task.gather.io.incoming.extend(b"reply");
    assert!(task.read());
    task.sends(b"b");
    assert!(task.writes().is_empty());
    assert_eq!(task.woken(), 1);
}

#[test]
fn more_than_the_limit_goes_out_behind_what_waits_without_a_copy() {
    let mut task = busy(Socket::default());
    task.sends(b"a");
    let large = vec![b'x'; LIMIT];
    assert!(matches!(task.write_slices(&[b"head", &large]), Poll::Ready(Ok(n)) if n == 4 + LIMIT));
    let writes = task.writes();
    assert_eq!(writes.len(), 1);
    assert_eq!(writes[0], [b"ahead".as_slice(), &large].concat());
}

#[test]
fn no_more_than_the_limit_waits() {
    let mut task = busy(Socket { blocked: false, ..Socket::default() });
    task.gather.io.blocked = true;
    let half = vec![b'x'; LIMIT / 2];
    task.sends(&half);
    task.sends(&half);
    assert!(task.write(b"more").is_pending(), "the socket is full and so are we");
    task.gather.io.blocked = false;
    assert!(matches!(task.write(b"more"), Poll::Ready(Ok(4))));
    assert_eq!(task.writes().concat().len(), LIMIT + 4);
}

#[test]
fn partial_writes_lose_and_double_nothing() {
    for most in 1..=7 {
        let mut task = busy(Socket { most: Some(5), ..Socket::default() });
        task.gather.io.most = Some(most);
        task.sends(b"abc");
        task.sends(b"defg");
        assert!(!task.read());
        assert!(task.flush().is_ready());
        assert_eq!(task.writes().concat(), b"abcdefg");

        // The same past the limit, where what waits and what comes share a write.
        task.sends(b"hij");
        let large = vec![b'x'; LIMIT];
        let mut sent = 0;
        while sent < large.len() {
            match task.write(&large[sent..]) {
                Poll::Ready(Ok(count)) => sent += count,
                other => panic!("{other:?}"),
            }
        }
        assert!(task.flush().is_ready());
        assert!(!task.read());
        assert!(task.flush().is_ready());
        assert_eq!(task.writes().concat(), [b"hij".as_slice(), &large].concat());
    }
}

#[test]
fn a_full_socket_makes_the_flush_wait_and_lets_reads_through() {
    let mut task = busy(Socket::default());
    task.sends(b"a");
    task.gather.io.blocked = true;
    task.gather.io.incoming.extend(b"reply");
    assert!(task.read(), "a socket that takes nothing still gives");
    assert!(task.flush().is_pending());
    task.gather.io.blocked = false;
    assert!(task.flush().is_ready());
    assert_eq!(task.writes(), [b"a"]);
}

#[test]
fn a_write_error_reaches_the_flush_and_not_the_read() {
    let mut task = busy(Socket::default());
    task.sends(b"a");
    task.gather.io.fails = true;
    task.gather.io.incoming.extend(b"goaway");
    assert!(task.read(), "what the peer said last is still read");
    assert!(matches!(task.flush(), Poll::Ready(Err(_))));
    assert!(matches!(task.shutdown(), Poll::Ready(Err(_))));
}

#[test]
fn shutdown_writes_what_waits_first() {
    let mut task = busy(Socket::default());
    task.sends(b"a");
    task.gather.io.blocked = true;
    assert!(task.shutdown().is_pending());
    assert!(!task.gather.io.is_shut_down);
    task.gather.io.blocked = false;
    assert!(task.shutdown().is_ready());
    assert_eq!(task.writes(), [b"a"]);
    assert!(task.gather.io.is_shut_down);
}

#[test]
fn a_socket_that_takes_no_slices_gets_one_buffer() {
    let mut task = Task::new(Socket { plain: true, ..Socket::default() });
    assert!(matches!(task.write_slices(&[b"head", b"body"]), Poll::Ready(Ok(8))));
    assert!(task.flush().is_ready());
    assert_eq!(task.writes(), [b"headbody"], "put together, and at once");
    assert_eq!(task.gather.io.flushes, 1, "the flush is passed on");
}

#[tokio::test]
async fn a_hundred_tasks_of_one_turn_make_few_writes() {
    // The pattern of h2: one connection task that reads, takes what others queued, and flushes.
    let mut gather = Gather::new(Socket::default());
    let (queue, mut queued) = tokio::sync::mpsc::unbounded_channel::<[u8; 4]>();
    gather.write_all(b"first").await.unwrap();
    let connection = tokio::spawn(std::future::poll_fn(move |cx| {
        let mut buf = [0; 8];
        assert!(Pin::new(&mut gather).poll_read(cx, &mut ReadBuf::new(&mut buf)).is_pending());
        let is_done = loop {
            match queued.poll_recv(cx) {
                Poll::Ready(Some(message)) => {
                    assert!(Pin::new(&mut gather).poll_write(cx, &message).is_ready());
                }
                Poll::Ready(None) => break true,
                Poll::Pending => break false,
            }
        };
        if is_done {
            ready!(Pin::new(&mut gather).poll_shutdown(cx)).unwrap();
            return Poll::Ready(std::mem::take(&mut gather.io.writes));
        }
        ready!(Pin::new(&mut gather).poll_flush(cx)).unwrap();
        Poll::Pending
    }));
    for index in 0..100_u32 {
        let queue = queue.clone();
        tokio::spawn(async move { queue.send(index.to_be_bytes()) });
    }
    drop(queue);
    let writes = connection.await.unwrap();
    assert_eq!(writes.concat().len(), 5 + 400);
    assert!(writes.len() <= 4, "{} writes", writes.len());
}

#[tokio::test]
async fn reads_pass_through() {
    let socket = Socket { incoming: b"hello".to_vec(), ..Socket::default() };
    let mut gather = Gather::new(socket);
    let mut buf = [0; 5];
    gather.read_exact(&mut buf).await.unwrap();
    assert_eq!(&buf, b"hello");
}
