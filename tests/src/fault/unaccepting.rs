//! A peer whose backlog is full: the kernel drops what asks for a connection, as a firewall does.

use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// A listener that accepts nothing, with as many connections waiting as it has places for.
#[derive(Debug)]
pub struct Unaccepting {
    /// Where it listens.
    pub address: String,
    _sockets: Vec<Socket>,
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
        let mut sockets = vec![listener];
        // A backlog of none has a place for one; what comes later is not even refused.
        for _ in 0..4 {
            let waiting = tcp();
            waiting.set_nonblocking(true).expect("a socket's mode");
            let _ = waiting.connect(&at); // under way
            sockets.push(waiting);
        }
        let address = at.as_socket().expect("of IPv4").to_string();
        Self { address, _sockets: sockets }
    }
}

fn tcp() -> Socket {
    Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{net::TcpStream, time::timeout};

    use super::*;

    #[tokio::test]
    async fn who_connects_hears_nothing() {
        let peer = Unaccepting::start();
        let connecting = TcpStream::connect(&peer.address);
        assert!(timeout(Duration::from_millis(300), connecting).await.is_err());
    }
}
