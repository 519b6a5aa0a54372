//! A link of datagrams (UDP) to a server that can be cut, silenced and slowed.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    net::UdpSocket,
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};

use crate::ports;

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
        let port = ports::free();
        let socket = UdpSocket::bind(("127.0.0.1", port)).await.expect("a free port");
        let relay = Some(tokio::spawn(relay(socket, upstream, delay.subscribe())));
        Self { upstream, port, delay, relay }
    }

    /// The port where the server is reached through it.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Refuses what comes, until it is [mended](Self::mend).
    ///
    /// # Panics
    /// When somebody else has its port.
    pub async fn cut(&mut self) {
        if let Some(relay) = self.relay.take() {
            relay.abort();
            let _ = relay.await;
            ports::left(self.port).await;
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

/// It alone has the socket: once it is over, the port is free.
async fn relay(socket: UdpSocket, upstream: SocketAddr, delay: watch::Receiver<Option<Duration>>) {
    let mut question = [0; 4096];
    let mut answers = JoinSet::new();
    loop {
        tokio::select! {
            received = socket.recv_from(&mut question) => {
                // An error tells of an answer that nobody waited for.
                let Ok((length, asker)) = received else { continue };
                let answer = carry(upstream, question[..length].to_vec(), delay.clone());
                answers.spawn(async move { (answer.await, asker) });
            }
            Some(Ok((answer, asker))) = answers.join_next() => {
                if let Some(answer) = answer {
                    let _ = socket.send_to(&answer, asker).await;
                }
            }
        }
    }
}

/// The answer, if there is one for the asker.
async fn carry(
    upstream: SocketAddr,
    question: Vec<u8>,
    delay: watch::Receiver<Option<Duration>>,
) -> Option<Vec<u8>> {
    let answer = timeout(PATIENCE, ask(upstream, &question)).await.ok()?.ok()?;
    let delay = (*delay.borrow())?;
    sleep(delay).await;
    Some(answer)
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
