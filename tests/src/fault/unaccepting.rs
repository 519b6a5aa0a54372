//! A peer whose backlog is full: the kernel drops what asks for a connection, as a firewall does.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
};

use socket2::{Domain, Socket, Type};

/// A listener that accepts nothing, with as many connections waiting as it has places for.
#[derive(Debug)]
pub struct Unaccepting {
    /// Where it listens.
    pub address: String,
    port: u16,
    _listener: Socket,
    /// Those that wait, with their ports.
    waiting: Vec<(Socket, u16)>,
}

impl Unaccepting {
    /// Listens on a free port of loopback.
    ///
    /// # Panics
    /// When it cannot.
    pub fn start() -> Self {
        let listener = tcp();
        listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free port");
        listener.listen(0).expect("a bound socket listens");
        let at = listener.local_addr().expect("a bound socket has an address");
        // A backlog of none has a place for one; what comes later is not even refused.
        let waiting = (0..4).map(|_| {
            let waiting = tcp();
            waiting.set_nonblocking(true).expect("a socket's mode");
            let _ = waiting.connect(&at); // under way
            let port = port(&waiting);
            (waiting, port)
        });
        let waiting = waiting.collect();
        let address = at.as_socket().expect("of IPv4").to_string();
        Self { address, port: port(&listener), _listener: listener, waiting }
    }

    /// How many others' sockets, of any process, ask for a connection now and hear nothing.
    ///
    /// # Panics
    /// When Linux does not tell.
    pub fn asked(&self) -> usize {
        /// `TCP_SYN_SENT` of Linux.
        const SYN_SENT: &str = "02";
        let sockets = fs::read_to_string("/proc/net/tcp").expect("Linux tells of its sockets");
        let port = |address: &str| {
            let (_, port) = address.split_once(':')?;
            u16::from_str_radix(port, 16).ok()
        };
        // Its number, whence, where to, its state; addresses and ports in hexadecimal.
        let asks = |line: &&str| {
            let mut words = line.split_whitespace().skip(1);
            let (own, peer) = (words.next().and_then(port), words.next().and_then(port));
            let is_ours = self.waiting.iter().any(|(_, waiting)| own == Some(*waiting));
            peer == Some(self.port) && words.next() == Some(SYN_SENT) && !is_ours
        };
        sockets.lines().filter(asks).count()
    }
}

fn port(socket: &Socket) -> u16 {
    let address = socket.local_addr().expect("a socket that was used has an address");
    address.as_socket().expect("of IPv4").port()
}

fn tcp() -> Socket {
    Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket")
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, time::Duration};

    use tokio::{net::TcpStream, time::timeout};

    use super::*;

    #[tokio::test]
    async fn who_connects_hears_nothing_and_is_seen_to() {
        let peer = Unaccepting::start();
        assert_eq!(peer.asked(), 0);
        let mut connecting = pin!(TcpStream::connect(&peer.address));
        assert!(timeout(Duration::from_millis(300), &mut connecting).await.is_err());
        assert_eq!(peer.asked(), 1);
    }
}
