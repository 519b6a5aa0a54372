//! The seam to `transport`: what the driver asks of connections. Tests script it.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::stream::BoxStream;
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, timeout},
};

use super::health::{self, Health};
use crate::transport::{self, Disconnect};

/// How many connections a channel begins to make at a time; the others wait first come first
/// served. 10 000 at once would hold each other up until all of them miss their connect timeout.
const BEGUN: usize = 64;

/// How long one counts as begun. Who is slower than this costs nothing but a socket: nodes that
/// stay silent for their whole second keep nobody waiting for all of it. In each of the two lines that
/// is up to 64 x 1 s / 50 ms = 1 280 sockets, more than some processes may have.
const BEGINS: Duration = Duration::from_millis(50);

/// Makes connections, and says when each stops being one to pick.
pub(crate) trait Connect: Clone + Send + 'static {
    /// A connection: cheap to clone, and gone when closed.
    type Connection: Clone + Send + Sync + 'static;

    /// Connects, within a bounded time once its turn has come.
    fn connect(
        self,
        dial: Dial<Self::Connection>,
    ) -> impl Future<Output = Result<Self::Connection, NotConnected>> + Send;

    /// Waits until the connection takes no new calls; and why that is, for metrics.
    fn ended(connection: Self::Connection) -> impl Future<Output = (Ended, Disconnect)> + Send;

    /// What the node at the other end says of a service's health, until the connection takes no new
    /// calls.
    fn health(connection: Self::Connection, service: Arc<str>) -> BoxStream<'static, Health>;

    /// Gives the connection up: no new calls, and those under way finish.
    fn close(connection: &Self::Connection);
}

/// An attempt to connect.
#[derive(Debug)]
pub(crate) struct Dial<C> {
    /// `host:port`.
    pub(crate) address: String,
    /// The last connection to it, if there was one.
    pub(crate) previous: Option<C>,
    /// Whether the attempt before failed for that.
    pub(crate) was_silent: bool,
    /// Whether the node is still listed: else the attempt is not made when its turn comes.
    pub(crate) is_listed: Arc<AtomicBool>,
}

/// Why a connection takes no new calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// GOAWAY: the calls under way may finish.
    Draining,
    /// It is gone, for this reason.
    Closed(String),
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum NotConnected {
    /// The node was gone when its turn came.
    Gone,
    Failed {
        /// For people, with the address.
        why: String,
        /// Whether the peer left it unanswered for as long as a connection counts as begun.
        is_silent: bool,
    },
    /// There is no socket for it here: that says nothing of the node.
    NoSocket {
        /// For people, with the address.
        why: String,
    },
}

impl NotConnected {
    fn of(error: &transport::ConnectError, is_silent: bool) -> Self {
        let why = error.to_string();
        if error.is_own() { Self::NoSocket { why } } else { Self::Failed { why, is_silent } }
    }
}

/// The real one.
#[derive(Debug, Clone)]
pub(super) struct Transport {
    config: transport::Config,
    begun: Arc<Semaphore>,
    /// The same for nodes that were silent, in a line of their own: thousands of them have it full
    /// at all times, and one that is back from a restart is not to stand behind them.
    begun_again: Arc<Semaphore>,
}

impl Transport {
    pub(super) fn new(config: transport::Config) -> Self {
        let places = || Arc::new(Semaphore::new(BEGUN));
        Self { config, begun: places(), begun_again: places() }
    }
}

impl Connect for Transport {
    type Connection = transport::Connection;

    async fn connect(
        mut self,
        dial: Dial<Self::Connection>,
    ) -> Result<Self::Connection, NotConnected> {
        if let Some(previous) = dial.previous {
            // A peer that found the PINGs too many gets fewer.
            self.config.ping_after = previous.ping_after();
        }
        let line = if dial.was_silent { &self.begun_again } else { &self.begun };
        let place = line.acquire().await;
        if !dial.is_listed.load(Relaxed) {
            return Err(NotConnected::Gone);
        }
        let begun = Instant::now();
        let mut connecting = pin!(transport::connect(&dial.address, &self.config));
        let connected = match timeout(BEGINS, &mut connecting).await {
            Ok(connected) => connected,
            Err(_) => {
                drop(place);
                connecting.await
            }
        };
        let is_silent = begun.elapsed() >= BEGINS;
        connected.map_err(|error| NotConnected::of(&error, is_silent))
    }

    async fn ended(connection: Self::Connection) -> (Ended, Disconnect) {
        let (mut state, disconnect) = (connection.state(), connection.disconnect());
        // Held no longer than needed: what watches a connection must not keep it open.
        drop(connection);
        let ended = ended(&mut state).await;
        (ended, disconnect.get().copied().unwrap_or(Disconnect::UNKNOWN))
    }

    fn health(connection: Self::Connection, service: Arc<str>) -> BoxStream<'static, Health> {
        health::watch(connection, service)
    }

    fn close(connection: &Self::Connection) {
        connection.close();
    }
}

async fn ended(state: &mut watch::Receiver<transport::ConnectionState>) -> Ended {
    use transport::ConnectionState::{Closed, Draining, Open};
    let state = state.wait_for(|state| !matches!(state, Open)).await;
    match state.as_deref() {
        Ok(Draining) => Ended::Draining,
        Ok(Closed(reason)) => Ended::Closed(reason.to_string()),
        Ok(Open) | Err(_) => Ended::Closed("the connection's task ended".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tokio::{io::AsyncWriteExt as _, net::TcpListener};

    use super::*;
    use transport::ConnectionState::{Closed, Draining, Open};

    /// A peer's own, and that it has the client's.
    const SETTINGS: [[u8; 9]; 2] = [[0, 0, 0, 4, 0, 0, 0, 0, 0], [0, 0, 0, 4, 1, 0, 0, 0, 0]];

    #[tokio::test]
    async fn a_connection_ends_for_new_calls_when_it_drains_or_closes() {
        for (state, expected) in [
            (Draining, Ended::Draining),
            (Closed("a dead PING".into()), Ended::Closed("a dead PING".to_owned())),
        ] {
            let sender = watch::Sender::new(Open);
            let mut receiver = sender.subscribe();
            let waiting = ended(&mut receiver);
            sender.send_replace(state);
            assert_eq!(waiting.await, expected);
        }
    }

    /// Time is paused: on loopback in one thread all that can happen does before it moves.
    #[tokio::test(start_paused = true)]
    async fn few_connections_are_begun_at_a_time_and_silent_nodes_hold_nobody_up() {
        let listen = async || TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (silent, healthy) = (listen().await, listen().await);
        let address = |listener: &TcpListener| listener.local_addr().expect("bound").to_string();
        let transport = Transport::new(transport::Config::default());
        let dial = |address, was_silent, is_listed| {
            let is_listed = Arc::new(AtomicBool::new(is_listed));
            let dial = Dial { address, previous: None, was_silent, is_listed };
            tokio::spawn(transport.clone().connect(dial))
        };
        let connect = |address, was_silent| dial(address, was_silent, true);
        let dials: Vec<_> = (0..3 * BEGUN).map(|_| connect(address(&silent), false)).collect();
        let accepted = async |within| {
            let mut sockets = Vec::new();
            while let Ok(accepted) = timeout(within, silent.accept()).await {
                sockets.push(accepted.expect("a socket"));
            }
            sockets
        };
        let start = Instant::now();
        let first = accepted(BEGINS / 2).await;
        assert_eq!(first.len(), BEGUN);

        let gone: Vec<_> = (0..100 * BEGUN).map(|_| dial(address(&silent), false, false)).collect();
        let last = connect(address(&healthy), false);
        let (mut socket, _) = healthy.accept().await.expect("a socket");
        assert!(start.elapsed() <= BEGINS * 4, "{:?}", start.elapsed());
        socket.write_all(SETTINGS.as_flattened()).await.expect("SETTINGS, and ours acknowledged");
        last.await.expect("no panic").expect("connected");
        for dial in dials {
            let error = dial.await.expect("no panic").expect_err("no SETTINGS");
            assert!(matches!(error, NotConnected::Failed { is_silent: true, .. }), "{error:?}");
        }
        for dial in gone {
            let error = dial.await.expect("no panic").expect_err("it is gone");
            assert!(matches!(error, NotConnected::Gone), "{error:?}");
        }
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "each has its second, from its beginning"
        );

        // Those that are known for it are passed by at once.
        accepted(BEGINS).await;
        let dials: Vec<_> = (0..3 * BEGUN).map(|_| connect(address(&silent), true)).collect();
        let first = accepted(BEGINS / 2).await;
        assert_eq!(first.len(), BEGUN);
        let start = Instant::now();
        let last = connect(address(&healthy), false);
        let (socket, _) = healthy.accept().await.expect("a socket");
        assert!(start.elapsed() < BEGINS / 2, "{:?}", start.elapsed());
        drop(socket);
        let error = last.await.expect("no panic").expect_err("it has hung up");
        assert!(matches!(error, NotConnected::Failed { is_silent: false, .. }), "{error:?}");
        let start = Instant::now();
        let back = connect(address(&healthy), true);
        let (mut socket, _) = healthy.accept().await.expect("a socket");
        assert!(start.elapsed() <= BEGINS * 3, "{:?}", start.elapsed());
        socket.write_all(SETTINGS.as_flattened()).await.expect("SETTINGS, and ours acknowledged");
        back.await.expect("no panic").expect("connected");
        dials.iter().for_each(tokio::task::JoinHandle::abort);
    }

    /// The numbers are Linux's.
    #[cfg(target_os = "linux")]
    #[test]
    fn to_have_no_socket_for_it_says_nothing_of_a_node() {
        for (code, name, expected) in [
            (24, "EMFILE", Some("too many open files in this process: raise `ulimit -n` (")),
            (23, "ENFILE", Some("too many open files on this machine: raise `fs.file-max` (")),
            (105, "ENOBUFS", Some("this machine has no memory for another socket (")),
            // Of that address alone: others may be of a protocol that this machine has.
            (99, "EADDRNOTAVAIL", None),
            (111, "ECONNREFUSED", None),
            (110, "ETIMEDOUT", None),
            (113, "EHOSTUNREACH", None),
            (101, "ENETUNREACH", None),
        ] {
            let error = io::Error::from_raw_os_error(code);
            let error = transport::ConnectError::tcp("a:1", error);
            match (NotConnected::of(&error, false), expected) {
                (NotConnected::NoSocket { why }, Some(expected)) => {
                    let expected = format!("cannot connect to a:1: {expected}");
                    assert!(why.starts_with(&expected), "{name}: {why}");
                    assert!(why.ends_with(&format!("(os error {code}))")), "{name}: {why}");
                }
                (NotConnected::Failed { is_silent: false, .. }, None) => {}
                (found, _) => panic!("{name}: {found:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_connection_whose_task_is_gone_is_closed() {
        let (sender, mut receiver) = watch::channel(Open);
        drop(sender);
        assert!(matches!(ended(&mut receiver).await, Ended::Closed(_)));
    }
}
