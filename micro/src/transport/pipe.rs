//! Pipes in place of sockets, for a fleet in one process: to addresses that no network has.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex},
    sync::{mpsc, watch},
};
use tokio_stream::{Stream as _, wrappers::WatchStream};

/// What is under way unread in one direction, in bytes: a socket's buffers, about.
const BUFFER: usize = 64 * 1024;

/// Of the addresses for documentation (RFC 3849): no socket is ever connected to them.
const PREFIX: [u16; 2] = [0x2001, 0xdb8];

/// The address of a node of a fleet. No two wires may have one.
pub(crate) fn address(fleet: u32, node: u16) -> SocketAddr {
    let ([a, b], [high, low]) = (PREFIX, [(fleet >> 16) as u16, fleet as u16]);
    (Ipv6Addr::new(a, b, 0, 0, 0, high, low, node), 50051).into()
}

/// The wires there are.
static WIRES: Mutex<BTreeMap<SocketAddr, Weak<Wire>>> = Mutex::new(BTreeMap::new());

/// What leads to a node, at an address that is its own as long as this is held: where it may listen,
/// and where it is connected to.
#[derive(Debug)]
pub(crate) struct Wire {
    address: SocketAddr,
    line: watch::Sender<Line>,
    listener: Mutex<Option<mpsc::UnboundedSender<Pipe>>>,
}

/// How a wire does.
#[derive(Debug, Clone, Copy, Default)]
struct Line {
    /// Nothing that was sent arrives, at either end.
    is_hung: bool,
    /// Nobody is connected any more.
    is_refused: bool,
    /// How often all connections were broken.
    cuts: u64,
}

impl Wire {
    pub(crate) fn new(address: SocketAddr) -> Arc<Self> {
        let (line, listener) = (watch::Sender::default(), Mutex::default());
        let wire = Arc::new(Self { address, line, listener });
        wires().insert(address, Arc::downgrade(&wire));
        wire
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn hang(&self) {
        self.line.send_modify(|line| line.is_hung = true);
    }

    /// Breaks what is connected, and lets nobody connect.
    pub(crate) fn refuse(&self) {
        self.line.send_modify(|line| {
            line.is_refused = true;
            line.cuts += 1;
        });
    }

    /// Breaks what is connected; whoever listens listens no longer.
    pub(crate) fn kill(&self) {
        self.listener().take();
        self.line.send_modify(|line| line.cuts += 1);
    }

    pub(crate) fn heal(&self) {
        self.line.send_modify(|line| (line.is_hung, line.is_refused) = (false, false));
    }

    /// Waits while it hangs.
    pub(crate) async fn moves(&self) {
        // The sender is here.
        let _ = self.line.subscribe().wait_for(|line| !line.is_hung).await;
    }

    fn connect(&self) -> io::Result<Pipe> {
        let (ours, theirs) = duplex(BUFFER);
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let pipe = |io| {
            let line = self.line.subscribe();
            let known = *line.borrow();
            Pipe { io, made: known.cuts, known, changes: WatchStream::from_changes(line) }
        };
        if self.line.borrow().is_refused {
            return Err(refused());
        }
        let listener = self.listener();
        let listener = listener.as_ref().ok_or_else(refused)?;
        listener.send(pipe(theirs)).map_err(|_gone| refused())?;
        Ok(pipe(ours))
    }

    fn listen(&self) -> io::Result<Listener> {
        let mut listener = self.listener();
        if listener.as_ref().is_some_and(|listener| !listener.is_closed()) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let (connect, pipes) = mpsc::unbounded_channel();
        *listener = Some(connect);
        Ok(Listener(pipes))
    }

    fn listener(&self) -> MutexGuard<'_, Option<mpsc::UnboundedSender<Pipe>>> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        wires().remove(&self.address);
    }
}

fn wires() -> MutexGuard<'static, BTreeMap<SocketAddr, Weak<Wire>>> {
    WIRES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Connects to the address, if it is one of these.
pub(super) fn dial(address: &str) -> Option<io::Result<Pipe>> {
    let (_, wire) = find(address)?;
    Some(wire.ok_or(io::ErrorKind::ConnectionRefused.into()).and_then(|wire| wire.connect()))
}

/// Listens on the address, if it is one of these.
pub(crate) fn listen(address: &str) -> Option<io::Result<(Listener, SocketAddr)>> {
    let (address, wire) = find(address)?;
    let wire = wire.ok_or(io::ErrorKind::AddrNotAvailable.into());
    Some(wire.and_then(|wire| wire.listen()).map(|listener| (listener, address)))
}

fn find(address: &str) -> Option<(SocketAddr, Option<Arc<Wire>>)> {
    let address: SocketAddr = address.parse().ok()?;
    let SocketAddr::V6(v6) = address else { return None };
    if !v6.ip().segments().starts_with(&PREFIX) {
        return None;
    }
    Some((address, wires().get(&address).and_then(Weak::upgrade)))
}

/// Takes the connections to an address.
#[derive(Debug)]
pub(crate) struct Listener(mpsc::UnboundedReceiver<Pipe>);

impl Listener {
    /// The next connection; there is none any more once the node was killed. Cancel safe.
    pub(crate) async fn next(&mut self) -> Pipe {
        match self.0.recv().await {
            Some(pipe) => pipe,
            None => std::future::pending().await,
        }
    }
}

/// One end of a connection. Used by one task at a time, as ours are.
#[derive(Debug)]
pub(crate) struct Pipe {
    io: DuplexStream,
    /// The cuts before it was made.
    made: u64,
    known: Line,
    changes: WatchStream<Line>,
}

impl Pipe {
    /// Takes in what has become of the wire, and has the task woken for what will.
    fn look(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while let Poll::Ready(Some(line)) = Pin::new(&mut self.changes).poll_next(cx) {
            self.known = line;
        }
        if self.known.cuts == self.made {
            Ok(())
        } else {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.look(cx)?;
        if self.known.is_hung {
            return Poll::Pending;
        }
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.look(cx)?;
        Pin::new(&mut self.io).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.look(cx)?;
        Pin::new(&mut self.io).poll_write_vectored(cx, data)
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
    use super::*;

    #[test]
    fn addresses_for_documentation_are_pipes_and_no_others() {
        for socket in ["127.0.0.1:1", "[::1]:1", "[2001:db9::1]:1", "greeter:80", "2001:db8::1"] {
            assert!(dial(socket).is_none() && listen(socket).is_none(), "{socket}");
        }
        let nobodys = "[2001:db8::1]:1";
        let refused = dial(nobodys).expect("a pipe's").expect_err("there is no wire");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let none = listen(nobodys).expect("a pipe's").expect_err("there is no wire");
        assert_eq!(none.kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[test]
    fn one_listens_at_a_time_until_it_is_dropped_or_killed() {
        let wire = Wire::new(address(u32::MAX, u16::MAX));
        let at = wire.address().to_string();
        let dialled = || dial(&at).expect("a pipe's").map_err(|error| error.kind());
        assert_eq!(dialled().expect_err("nobody listens"), io::ErrorKind::ConnectionRefused);
        let (first, local) = listen(&at).expect("a pipe's").expect("it is free");
        assert_eq!(local, wire.address());
        let taken = listen(&at).expect("a pipe's").expect_err("it is taken");
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        let (second, _) = listen(&at).expect("a pipe's").expect("it is free again");
        assert!(dialled().is_ok());
        wire.kill();
        assert!(dialled().is_err());
        assert!(listen(&at).expect("a pipe's").is_ok(), "a successor need not wait");
        drop((second, wire));
        assert_eq!(dialled().expect_err("it is gone"), io::ErrorKind::ConnectionRefused);
    }
}
