//! A port where nobody listens.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr},
};

use socket2::{Domain, Socket, Type};
use tokio::net::TcpStream;

/// A port that refuses connections, and that nobody else can come to listen on.
#[derive(Debug)]
pub(super) struct Refusing {
    /// What is refused.
    pub(super) address: String,
    _bound: Socket,
}

impl Refusing {
    /// Takes a free port of loopback.
    ///
    /// # Panics
    /// When it cannot.
    pub(super) fn start() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free port");
        let at = socket.local_addr().expect("a bound socket has an address");
        let address = at.as_socket().expect("of IPv4").to_string();
        Self { address, _bound: socket }
    }

    /// Whether it refuses us.
    pub(super) async fn refuses(&self) -> bool {
        let connected = TcpStream::connect(&self.address).await;
        connected.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_connects_is_refused() {
        let refusing = Refusing::start();
        assert!(refusing.refuses().await);
    }
}
