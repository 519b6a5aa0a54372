//! From an address to a connection that is ready.

use std::{fmt, future::poll_fn, io, net::SocketAddr, sync::Arc, time::Duration};

use http::uri::{Authority, Scheme};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::{Instant, timeout_at},
};

use super::{
    Config, Connection,
    connection::Shared,
    driver::Driver,
    gather::Gather,
    tap::{Activity, Beginning, Tap},
};

/// A connection could not be made. The text names the address and what went wrong.
#[derive(Debug)]
pub(crate) struct ConnectError {
    address: Arc<str>,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    Tcp(io::Error),
    TcpTimeout(Duration),
    #[cfg(feature = "tls")]
    Tls(String),
    #[cfg(feature = "tls")]
    TlsTimeout(Duration),
    Handshake(Arc<str>),
    HandshakeTimeout(Duration),
    /// Its SETTINGS came, and no acknowledgement of ours.
    Unacknowledged(Duration),
}

impl ConnectError {
    #[cfg(test)]
    pub(crate) fn tcp(address: &str, error: io::Error) -> Self {
        Self { address: address.into(), cause: Cause::Tcp(error) }
    }

    /// Whether it says nothing of the node: this process or machine has no socket for any.
    pub(crate) fn is_own(&self) -> bool {
        let own = [EMFILE, ENFILE, ENOBUFS];
        matches!(&self.cause, Cause::Tcp(error) if error.raw_os_error().is_some_and(|it| own.contains(&it)))
    }

    /// Whether there is nothing here to reach such an address from: no IPv6, say.
    fn is_unreachable_from_here(&self) -> bool {
        matches!(&self.cause, Cause::Tcp(error) if error.kind() == io::ErrorKind::AddrNotAvailable)
    }
}

// As Linux numbers them, and the BSDs and macOS: `std` has no names for them.
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;
const ENOBUFS: i32 = if cfg!(any(target_os = "linux", target_os = "android")) { 105 } else { 55 };

/// What this process or machine lacks, if that is why, and what to do.
fn lacks(error: &io::Error) -> Option<&'static str> {
    match error.raw_os_error() {
        Some(EMFILE) => Some("too many open files in this process: raise `ulimit -n`"),
        Some(ENFILE) => Some("too many open files on this machine: raise `fs.file-max`"),
        Some(ENOBUFS) => Some("this machine has no memory for another socket"),
        _ if error.kind() == io::ErrorKind::AddrNotAvailable => {
            Some("this machine has no port, or no address, left to connect from")
        }
        _ => None,
    }
}

/// The least that an address of a name is waited for before the next: the Connection Attempt Delay of
/// RFC 8305. Of a name with hundreds, the last are not tried, and each that is has time for an answer.
const LEAST_SHARE: Duration = Duration::from_millis(250);

/// Connects to `address`, a `host:port` whose host may be a name, an IPv4 or a bracketed IPv6
/// address. A name's addresses are tried in turn. Done when the peer's SETTINGS are here and it has
/// acknowledged ours: who accepts TCP and stays silent is no peer, and who greets may not listen.
///
/// # Errors
/// When the name does not resolve, TCP or TLS fails, or the peer does not speak HTTP/2, all within
/// [`connect_timeout`](Config::connect_timeout).
///
/// # Cancel safety
/// A dropped future leaves nothing behind, but the thread that looks a name up, until the system's
/// resolver has answered it or given up.
pub(crate) async fn connect(address: &str, config: &Config) -> Result<Connection, ConnectError> {
    let peer: Arc<str> = address.into();
    let deadline = Instant::now() + config.connect_timeout;
    let fails = |cause| ConnectError { address: peer.clone(), cause };
    #[cfg(feature = "testing")]
    if let Some(dialled) = super::pipe::dial(address) {
        let pipe = dialled.map_err(|error| fails(Cause::Tcp(error)))?;
        return over(pipe, peer, deadline, config).await;
    }
    let addresses: Vec<_> = match timeout_at(deadline, lookup_host(address)).await {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => return Err(fails(Cause::Tcp(error))),
        Err(_) => return Err(fails(Cause::TcpTimeout(config.connect_timeout))),
    };
    let dial = |address, until| dial(address, peer.clone(), until, config);
    let none = || fails(Cause::Tcp(io::Error::other("could not resolve to any address")));
    first_of(&addresses, deadline, dial).await.unwrap_or_else(|| Err(none()))
}

/// Connects to the first of a name's addresses where that succeeds; else the error is the last one's,
/// or of one that can be reached from here. Each has its share of what is left until the deadline, so that
/// one that is silent does not keep the others from being tried; the last has all of it.
async fn first_of<T, F>(
    addresses: &[SocketAddr],
    deadline: Instant,
    dial: impl Fn(SocketAddr, Instant) -> F,
) -> Option<Result<T, ConnectError>>
where
    F: Future<Output = Result<T, ConnectError>>,
{
    let mut last: Option<ConnectError> = None;
    for (address, remaining) in addresses.iter().zip((1..=addresses.len() as u32).rev()) {
        let now = Instant::now();
        let share = (deadline.saturating_duration_since(now) / remaining).max(LEAST_SHARE);
        match dial(*address, (now + share).min(deadline)).await {
            Ok(connected) => return Some(Ok(connected)),
            Err(error) if error.is_unreachable_from_here() && last.is_some() => {}
            Err(error) => last = Some(error),
        }
        if deadline <= Instant::now() {
            break;
        }
    }
    last.map(Err)
}

/// Connects to one address of a peer.
async fn dial(
    address: SocketAddr,
    peer: Arc<str>,
    until: Instant,
    config: &Config,
) -> Result<Connection, ConnectError> {
    let fails = |cause| ConnectError { address: peer.clone(), cause };
    let socket = match timeout_at(until, TcpStream::connect(address)).await {
        Ok(Ok(socket)) => socket,
        Ok(Err(error)) => return Err(fails(Cause::Tcp(error))),
        Err(_) => return Err(fails(Cause::TcpTimeout(config.connect_timeout))),
    };
    socket.set_nodelay(true).map_err(|error| fails(Cause::Tcp(error)))?;
    over(socket, peer, until, config).await
}

/// Makes a connection, with TLS or without, of what is connected already.
async fn over<IO>(
    io: IO,
    peer: Arc<str>,
    deadline: Instant,
    config: &Config,
) -> Result<Connection, ConnectError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    #[cfg(feature = "tls")]
    if let Some(tls) = &config.tls {
        return secure(tls, io, peer, deadline, config).await;
    }
    handshake(io, peer, deadline, config).await
}

/// Makes a connection, with TLS, of what is connected already.
#[cfg(feature = "tls")]
async fn secure<IO>(
    tls: &crate::tls::Connector,
    io: IO,
    peer: Arc<str>,
    deadline: Instant,
    config: &Config,
) -> Result<Connection, ConnectError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let address = peer.clone();
    let fails = |cause| ConnectError { address, cause };
    let host = authority(&peer);
    let host = host.as_ref().map_or(&*peer, Authority::host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let stream = match timeout_at(deadline, tls.connect(io, host)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(why)) => return Err(fails(Cause::Tls(why))),
        Err(_) => return Err(fails(Cause::TlsTimeout(config.connect_timeout))),
    };
    let refusal = stream.refusal();
    handshake(stream, peer, deadline, config).await.map_err(|error| match refusal.get() {
        Some(why) => fails(Cause::Tls(why.to_owned())),
        None => error,
    })
}

/// Makes a connection of what is connected already.
pub(crate) async fn handshake<IO>(
    io: IO,
    peer: Arc<str>,
    deadline: Instant,
    config: &Config,
) -> Result<Connection, ConnectError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (tap, activity) = Tap::new(io);
    let ready = until_ready(tap, activity.clone(), peer.clone(), config);
    let cause = match timeout_at(deadline, ready).await {
        Ok(Ok(connection)) => return Ok(connection),
        Ok(Err(why)) => Cause::Handshake(why),
        Err(_) if activity.has_settings() => Cause::Unacknowledged(config.connect_timeout),
        Err(_) => Cause::HandshakeTimeout(config.connect_timeout),
    };
    Err(ConnectError { address: peer, cause })
}

async fn until_ready<IO>(
    tap: Tap<IO>,
    activity: Arc<Activity>,
    peer: Arc<str>,
    config: &Config,
) -> Result<Connection, Arc<str>>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let authority = authority(&peer).ok_or_else(|| Arc::from("it is no authority for HTTP/2"))?;
    let (sender, connection) = h2::client::Builder::new()
        // No streams before the peer's SETTINGS, so that readiness is seen.
        .initial_max_send_streams(0)
        .initial_window_size(config.stream_window)
        .initial_connection_window_size(config.connection_window)
        .max_header_list_size(config.max_header_list_size)
        .enable_push(false)
        // Late frames of calls that were dropped count as errors once `h2` has forgotten their
        // streams: after 1024 in a connection's life it would give the whole connection up. The
        // peers of a client are not its attackers; a longer memory spares them needless resets.
        .max_local_error_reset_streams(None)
        .max_concurrent_reset_streams(1024)
        // `h2` closes the connection at some 8500 small frames unread, and counts for ever those of
        // streams that were dropped. The windows bound the frames as well as the bytes: a message
        // takes 5 bytes of them at least, and 240 beside them while it waits, so that a stream of
        // 1 MiB holds at most 50 MB, and 4 MiB of them 200 MB.
        .data_frame_budget(usize::MAX)
        .handshake(Gather::new(tap))
        .await
        .map_err(|error| Arc::from(error.to_string()))?;
    let shared = Arc::new(Shared::new(peer, authority, activity, config));
    let mut driver = Driver::new(connection, shared.clone(), config);
    if let Err(why) = poll_fn(|cx| driver.poll_ready(cx)).await {
        return Err(match shared.activity.beginning() {
            Some(Beginning::TlsAlert) => SPEAKS_TLS.into(),
            None if config.scheme() == Scheme::HTTP => format!("{why}; {MAY_SPEAK_TLS}").into(),
            _ => why,
        });
    }
    tokio::spawn(driver);
    Ok(Connection::new(sender, shared))
}

/// Why there is no plaintext connection to a server that wants TLS.
const SPEAKS_TLS: &str = "the node speaks TLS: give `ChannelOptions::tls` (feature `tls`) for it";

/// The same of one that has not said a word: grpc-go's close, and others hang up for other reasons.
const MAY_SPEAK_TLS: &str =
    "if the node speaks TLS, give `ChannelOptions::tls` (feature `tls`) for it";

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot connect to {}: ", self.address)?;
        match &self.cause {
            Cause::Tcp(error) => match lacks(error) {
                Some(what) => write!(f, "{what} ({error})"),
                None => write!(f, "{error}"),
            },
            Cause::TcpTimeout(timeout) => write!(f, "no connection within {timeout:?}"),
            #[cfg(feature = "tls")]
            Cause::Tls(why) => write!(f, "TLS: {why}"),
            #[cfg(feature = "tls")]
            Cause::TlsTimeout(timeout) => {
                write!(f, "TLS: the node did not finish the handshake within {timeout:?}")
            }
            Cause::Handshake(why) => write!(f, "connected, but got no HTTP/2 SETTINGS: {why}"),
            Cause::HandshakeTimeout(timeout) => {
                write!(f, "connected, but got no HTTP/2 SETTINGS within {timeout:?}")
            }
            Cause::Unacknowledged(timeout) => {
                write!(
                    f,
                    "connected, but the node has not acknowledged our HTTP/2 SETTINGS within {timeout:?}"
                )
            }
        }
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.cause {
            Cause::Tcp(error) => Some(error),
            _ => None,
        }
    }
}

/// An address as its node is told it: without the interface of a link-local one, which means nothing on
/// another machine and is no part of an authority (RFC 6874, section 1).
fn authority(peer: &str) -> Option<Authority> {
    match peer.parse() {
        Ok(SocketAddr::V6(v6)) if v6.scope_id() != 0 => {
            SocketAddr::new((*v6.ip()).into(), v6.port()).to_string().parse().ok()
        }
        _ => peer.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Its backlog is full: it drops what asks for a connection, as a firewall does.
    #[cfg(target_os = "linux")]
    fn silent() -> (SocketAddr, [socket2::Socket; 4]) {
        use socket2::{Domain, Socket, Type};
        let tcp = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let listener = tcp();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let waiting = || {
            let waiting = tcp();
            waiting.set_nonblocking(true).unwrap();
            let _ = waiting.connect(&address); // under way
            waiting
        };
        (address.as_socket().unwrap(), [waiting(), waiting(), waiting(), listener])
    }

    /// Time is paused: on loopback in one thread all that can happen does before it moves.
    #[cfg(target_os = "linux")]
    #[tokio::test(start_paused = true)]
    async fn an_address_of_a_name_that_drops_all_leaves_time_for_the_others() {
        let (silent, _sockets) = silent();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listening = listener.local_addr().unwrap();
        let refusing = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        // Of a protocol that this machine has not, or has no port left for.
        let unreachable: SocketAddr = ([192, 0, 2, 1], 1).into();
        let timeout = Duration::from_secs(1);
        let dial = async |address: SocketAddr, until| {
            let dialled = timeout_at(until, async {
                match address == unreachable {
                    true => Err(io::ErrorKind::AddrNotAvailable.into()),
                    false => TcpStream::connect(address).await,
                }
            });
            let cause = match dialled.await {
                Ok(Ok(socket)) => return Ok(socket),
                Ok(Err(error)) => Cause::Tcp(error),
                Err(_) => Cause::TcpTimeout(timeout),
            };
            Err(ConnectError { address: "name:1".into(), cause })
        };
        for (addresses, millis, expected) in [
            (vec![listening, silent], 0, "connected"),
            (vec![silent, listening], 500, "connected"),
            (vec![refusing, silent, listening], 500, "connected"),
            (vec![silent, silent, silent, listening], 750, "connected"),
            (vec![silent, refusing], 500, "refused"),
            (vec![refusing, silent], 1_000, "no answer"),
            (vec![refusing, unreachable], 0, "refused"),
            (vec![unreachable, refusing], 0, "refused"),
            (vec![unreachable, unreachable], 0, "unreachable"),
            (vec![unreachable, listening], 0, "connected"),
            // Each that is tried has time for an answer.
            ([vec![silent; 3], vec![listening; 97]].concat(), 750, "connected"),
            (vec![silent; 100], 1_000, "no answer"),
        ] {
            let start = Instant::now();
            let told = match first_of(&addresses, start + timeout, dial).await {
                Some(Ok(socket)) => {
                    assert_eq!(socket.peer_addr().unwrap(), listening);
                    "connected"
                }
                Some(Err(ConnectError { cause: Cause::TcpTimeout(_), .. })) => "no answer",
                Some(Err(error)) if error.is_unreachable_from_here() => "unreachable",
                Some(Err(error)) if error.to_string().contains("refused") => "refused",
                other => panic!("{addresses:?}: {other:?}"),
            };
            let elapsed = start.elapsed().as_millis();
            assert_eq!(told, expected, "{addresses:?}");
            assert!((millis..millis + 10).contains(&elapsed), "{addresses:?}: {elapsed} ms");
        }
        assert!(first_of(&[], Instant::now() + timeout, dial).await.is_none());
    }

    #[test]
    fn an_authority_is_without_an_interface() {
        for (peer, expected) in [
            ("[fe80::1%3]:80", Some("[fe80::1]:80")),
            ("[fd00::1]:80", Some("[fd00::1]:80")),
            ("10.0.0.1:80", Some("10.0.0.1:80")),
            ("greeter:80", Some("greeter:80")),
            ("a b", None),
        ] {
            assert_eq!(authority(peer).as_ref().map(Authority::as_str), expected, "{peer}");
        }
    }
}
