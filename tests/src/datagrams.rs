//! A link of datagrams (UDP) to a server that can be cut, silenced and slowed.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::UdpSocket,
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};

/// How long an answer is waited for: the asker has given up by then.
const PATIENCE: Duration = Duration::from_secs(10);

/// A port of the loopback interface behind which a server is.
#[derive(Debug)]
pub struct Datagrams {
    upstream: SocketAddr,
    port: u16,
    /// How much later each answer comes; never, if there is none.
    delay: watch::Sender<Option<Duration>>,
    /// None while it is cut.
    relay: Option<JoinHandle<()>>,
}

impl Datagrams {
    /// A good link to a server at this port of loopback.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn to(port: u16) -> Self {
        let upstream = SocketAddr::from(([127, 0, 0, 1], port));
        let delay = watch::Sender::new(Some(Duration::ZERO));
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let port = socket.local_addr().expect("a bound socket has an address").port();
        let relay = Some(tokio::spawn(relay(socket, upstream, delay.subscribe())));
        Self { upstream, port, delay, relay }
    }

    /// The port where the server is reached through it.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Refuses what comes, until it is [mended](Self::mend).
    pub async fn cut(&mut self) {
        if let Some(relay) = self.relay.take() {
            relay.abort();
            let _ = relay.await;
        }
    }

    /// Brings no answer any more.
    pub fn silence(&self) {
        self.delay.send_replace(None);
    }

    /// Takes so much longer for every answer.
    pub fn slow(&self, by: Duration) {
        self.delay.send_replace(Some(by));
    }

    /// Is as it was at first.
    ///
    /// # Panics
    /// When its port was taken while it was cut.
    pub async fn mend(&mut self) {
        self.delay.send_replace(Some(Duration::ZERO));
        if self.relay.is_some() {
            return;
        }
        let socket = UdpSocket::bind(("127.0.0.1", self.port)).await.expect("its port");
        self.relay = Some(tokio::spawn(relay(socket, self.upstream, self.delay.subscribe())));
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        if let Some(relay) = &self.relay {
            relay.abort();
        }
    }
}

async fn relay(socket: UdpSocket, upstream: SocketAddr, delay: watch::Receiver<Option<Duration>>) {
    let socket = Arc::new(socket);
    let mut question = [0; 4096];
    loop {
        // An error tells of an answer that nobody waited for.
        let Ok((length, asker)) = socket.recv_from(&mut question).await else { continue };
        // An answer under way does not keep the port of a link that is cut.
        let (question, socket) = (question[..length].to_vec(), Arc::downgrade(&socket));
        let delay = delay.clone();
        tokio::spawn(async move {
            let Ok(Ok(answer)) = timeout(PATIENCE, ask(upstream, &question)).await else { return };
            let Some(delay) = *delay.borrow() else { return };
            sleep(delay).await;
            if let Some(socket) = socket.upgrade() {
                let _ = socket.send_to(&answer, asker).await;
            }
        });
    }
}

async fn ask(upstream: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    socket.connect(upstream).await?;
    socket.send(question).await?;
    let mut answer = vec![0; 65535];
    let length = socket.recv(&mut answer).await?;
    answer.truncate(length);
    Ok(answer)
}
