//! The accept loop, and how a server leaves.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, timeout},
};

use super::{
    connection::{self, End, Phase, Shared},
    health::Health,
};
#[cfg(feature = "testing")]
use crate::transport::pipe;
use crate::{Error, ErrorKind};

/// The pause after an accept that failed for want of something (file descriptors, mostly), doubled
/// up to the longest: the figures of Go's `net/http`.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// One line in the log for so long, however often accepting fails and succeeds meanwhile: while
/// descriptors are short each connection that ends lets another in.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// A server that is bound and accepts. Dropped, it cuts everything at once.
#[derive(Debug)]
pub(crate) struct Listening {
    address: SocketAddr,
    health: watch::Sender<Health>,
    phase: watch::Sender<Phase>,
    accepting: JoinHandle<Drained>,
}

/// How a [drain](Listening::drain) ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Drained {
    /// Connections that the deadline cut.
    pub(crate) connections_cut: usize,
    /// Calls under way on them.
    pub(crate) calls_cut: usize,
}

impl Drained {
    /// Whether every call ended by itself.
    pub(crate) fn finished(&self) -> bool {
        self.calls_cut == 0
    }
}

impl Listening {
    /// Binds and begins to accept.
    ///
    /// # Errors
    ///
    /// `Bind` if the address cannot be resolved or is taken.
    pub(super) async fn bind(
        address: &str,
        shared: Shared,
        health: watch::Sender<Health>,
    ) -> Result<Self, Error> {
        let failed = |error: io::Error| {
            let text = format!("the server cannot listen on {address}{}", remedy(address, &error));
            Error::new(ErrorKind::Bind, text).with_source(error)
        };
        #[cfg(feature = "testing")]
        if let Some(listener) = pipe::listen(address) {
            let (listener, local) = listener.map_err(failed)?;
            return Ok(Self::start(listener, local, shared, health));
        }
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let local = listener.local_addr().map_err(failed)?;
        Ok(Self::start(listener, local, shared, health))
    }

    /// Begins to accept.
    pub(super) fn start(
        acceptor: impl Accept,
        address: SocketAddr,
        shared: Shared,
        health: watch::Sender<Health>,
    ) -> Self {
        let phase = watch::Sender::new(Phase::Open);
        let accepting = tokio::spawn(accept(acceptor, Arc::new(shared), phase.subscribe()));
        Self { address, health, phase, accepting }
    }

    /// The address it is bound to, with the port the system chose where 0 was asked for.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Has `grpc.health.v1` tell that.
    pub(crate) fn set_health(&self, health: Health) {
        self.health.send_if_modified(|now| std::mem::replace(now, health) != health);
    }

    /// Stops accepting, tells every peer to go elsewhere (GOAWAY in two steps, so that calls on
    /// their way are still served), and waits for the calls under way until the last of their replies
    /// is written, at most until `deadline`; what is left then is cut. Neither idle nor dead peers
    /// hold it up.
    pub(crate) async fn drain(mut self, deadline: Duration) -> Drained {
        self.health.send_replace(Health::Leaving);
        self.phase.send_replace(Phase::Draining);
        let drained = match timeout(deadline, &mut self.accepting).await {
            Ok(drained) => drained,
            Err(_) => {
                self.phase.send_replace(Phase::Cut);
                (&mut self.accepting).await
            }
        };
        drained.unwrap_or_default()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// What to do about an address that cannot be listened on.
fn remedy(address: &str, error: &io::Error) -> String {
    use io::ErrorKind::{AddrInUse, AddrNotAvailable, PermissionDenied};
    // What Go calls every interface.
    if address.starts_with(':') {
        return format!(": write 0.0.0.0{address} for every interface");
    }
    if !address.is_empty() && address.bytes().all(|b| b.is_ascii_digit()) {
        return format!(": write 127.0.0.1:{address}, or 0.0.0.0:{address} for every interface");
    }
    match error.kind() {
        AddrInUse => {
            ": another process or service listens there; choose another port, or 0 for any free one"
        }
        AddrNotAvailable => {
            ": no interface of this machine has the address; choose one that has, or 0.0.0.0 for all"
        }
        PermissionDenied => {
            ": the system does not permit it; choose a port from 1024 on, or 0 for any free one"
        }
        // It did not come to asking the system for it: no address, or a host that nobody knows.
        _ if error.raw_os_error().is_none() => {
            ": write host:port, such as 0.0.0.0:8080 for every interface"
        }
        _ => "",
    }
    .to_owned()
}

/// Where connections come from: a TCP listener, or pipes in the tests of what takes its time.
pub(super) trait Accept: Send + 'static {
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Who is at the other end, where that has an address.
    fn peer(_: &Self::Io) -> Option<SocketAddr> {
        None
    }

    /// The next connection. Dropped before it is ready, it has taken none.
    fn accept(&mut self) -> impl Future<Output = io::Result<Self::Io>> + Send;
}

impl Accept for TcpListener {
    type Io = TcpStream;

    fn peer(io: &TcpStream) -> Option<SocketAddr> {
        io.peer_addr().ok()
    }

    async fn accept(&mut self) -> io::Result<TcpStream> {
        let (stream, _) = Self::accept(self).await?;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
        Ok(stream)
    }
}

#[cfg(feature = "testing")]
impl Accept for pipe::Listener {
    type Io = pipe::Pipe;

    async fn accept(&mut self) -> io::Result<pipe::Pipe> {
        Ok(self.next().await)
    }
}

async fn accept<A: Accept>(
    mut acceptor: A,
    shared: Arc<Shared>,
    mut phase: watch::Receiver<Phase>,
) -> Drained {
    let mut connections = JoinSet::new();
    let serving = phase.clone();
    let serve = |io| {
        let peer = A::peer(&io);
        connection::begin(io, peer, Arc::clone(&shared), serving.clone())
    };
    let mut trouble = Trouble::default();
    loop {
        tokio::select! {
            biased;
            _ = phase.wait_for(|phase| *phase != Phase::Open) => break,
            Some(_) = connections.join_next() => {}
            io = accept_one(&mut acceptor, &mut trouble) => drop(connections.spawn(serve(io))),
        }
    }
    // What the kernel has accepted already gets a GOAWAY too; closing the listener resets it.
    while let Some(Ok(io)) = acceptor.accept().now_or_never() {
        connections.spawn(serve(io));
    }
    drop(acceptor);

    let mut drained = Drained::default();
    while let Some(end) = connections.join_next().await {
        if let Ok(End::Cut(calls)) = end {
            drained.connections_cut += 1;
            drained.calls_cut += calls;
        }
    }
    drained
}

/// The next connection, however often accepting fails before.
async fn accept_one<A: Accept>(acceptor: &mut A, trouble: &mut Trouble) -> A::Io {
    loop {
        match acceptor.accept().await {
            Ok(io) => {
                trouble.failures = 0;
                return io;
            }
            Err(error) if is_of_the_peer(&error) => {}
            Err(error) => {
                trouble.failures = trouble.failures.saturating_add(1);
                if trouble.is_to_be_told(Instant::now()) {
                    tracing::warn!(%error, "the server cannot accept connections");
                }
                sleep(pause(trouble.failures)).await;
            }
        }
    }
}

/// How accepting fares.
#[derive(Debug, Default)]
struct Trouble {
    /// Since the last success.
    failures: u32,
    told: Option<Instant>,
}

impl Trouble {
    fn is_to_be_told(&mut self, now: Instant) -> bool {
        let is_due = self.told.is_none_or(|told| now - told >= TELL_EVERY);
        if is_due {
            self.told = Some(now);
        }
        is_due
    }
}

/// Whether an accept failed because the peer was gone already.
fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn pause(failures: u32) -> Duration {
    SHORTEST_PAUSE.saturating_mul(1 << (failures - 1).min(8)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_after_failed_accepts_grows_to_a_second() {
        let pauses: Vec<_> = (1..=10).map(|failures| pause(failures).as_millis()).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
    }

    /// Fails as often as it is told to, then hands out one connection.
    struct Failing(u32, io::ErrorKind);

    impl Accept for Failing {
        type Io = tokio::io::DuplexStream;

        async fn accept(&mut self) -> io::Result<Self::Io> {
            match self.0.checked_sub(1) {
                Some(left) => {
                    self.0 = left;
                    Err(self.1.into())
                }
                None => Ok(tokio::io::duplex(1).0),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn accepting_goes_on_after_failures_and_pauses_only_for_its_own() {
        let start = Instant::now();
        let mut trouble = Trouble::default();
        accept_one(&mut Failing(5, io::ErrorKind::ConnectionAborted), &mut trouble).await;
        assert_eq!(start.elapsed(), Duration::ZERO, "the next peer does not wait");
        accept_one(&mut Failing(10, io::ErrorKind::Other), &mut trouble).await;
        let taken = start.elapsed().as_millis();
        assert!((3275..3400).contains(&taken), "5 + 10 + .. + 640 + 1000 + 1000 ms: {taken}");
        assert_eq!(trouble.failures, 0, "and the next failure starts at the shortest pause");
    }

    #[test]
    fn a_trouble_that_comes_and_goes_is_told_once_a_minute() {
        let (start, mut trouble) = (Instant::now(), Trouble::default());
        let told = [0, 1, 59, 60, 61, 119, 120].into_iter();
        let told = told.filter(|at| trouble.is_to_be_told(start + Duration::from_secs(*at)));
        assert_eq!(told.collect::<Vec<_>>(), [0, 60, 120]);
    }

    #[test]
    fn only_the_servers_own_troubles_make_it_pause() {
        assert!(is_of_the_peer(&io::ErrorKind::ConnectionAborted.into()));
        assert!(!is_of_the_peer(&io::Error::from_raw_os_error(24)), "EMFILE is ours");
    }
}
