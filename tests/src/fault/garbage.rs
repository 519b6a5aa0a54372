//! Who answers in a registry's place, and makes no sense.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::oneshot,
    task::{JoinHandle, JoinSet},
};

use crate::ports;

/// A listener whose answers are garbage.
#[derive(Debug)]
pub struct Garbage {
    port: u16,
    stop: oneshot::Sender<()>,
    listening: JoinHandle<usize>,
}

/// What a connection hears first; then random bytes, as at every other connection from the first one on.
const HEADS: [&[u8]; 3] = [
    b"",
    // A registry's answer over HTTP, of something that is no list.
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Consul-Index: 7\r\n\
      Content-Length: 6\r\n\r\n[{\"a\":",
    // SETTINGS of HTTP/2.
    b"\0\0\0\x04\0\0\0\0\0",
];

impl Garbage {
    /// Listens at this address, `127.0.0.1:PORT`, for connections.
    ///
    /// # Panics
    /// When somebody else does.
    pub async fn at(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.expect("the address is free");
        let port = listener.local_addr().expect("it is bound").port();
        let (stop, stopped) = oneshot::channel();
        let listening = tokio::spawn(async move {
            let (mut connections, mut heard) = (JoinSet::new(), 0);
            let listen = async {
                for head in HEADS.iter().cycle() {
                    if let Ok((stream, _)) = listener.accept().await {
                        connections.spawn(answer(stream, head));
                        heard += 1;
                    }
                }
            };
            tokio::select! {
                () = listen => {}
                _ = stopped => {}
            }
            connections.shutdown().await;
            heard
        });
        Self { port, stop, listening }
    }

    /// Listens at this address for datagrams.
    ///
    /// # Panics
    /// As [`Garbage::at`].
    pub async fn at_datagrams(address: &str) -> Self {
        let socket = UdpSocket::bind(address).await.expect("the address is free");
        let port = socket.local_addr().expect("it is bound").port();
        let (stop, stopped) = oneshot::channel();
        let listening = tokio::spawn(async move {
            let (mut question, mut heard) = ([0; 4096], 0);
            let listen = async {
                loop {
                    if let Ok((length, asker)) = socket.recv_from(&mut question).await {
                        let mut answer = noise(length);
                        // Every second one is to the question, by its number.
                        if length > 2 && fastrand::bool() {
                            answer[..2].copy_from_slice(&question[..2]);
                        }
                        heard += usize::from(socket.send_to(&answer, asker).await.is_ok());
                    }
                }
            };
            tokio::select! {
                () = listen => {}
                _ = stopped => {}
            }
            heard
        });
        Self { port, stop, listening }
    }

    /// Ends, leaves the address to its owner, and says how many connections or questions it has answered.
    ///
    /// # Panics
    /// When it has panicked, or somebody else has the address.
    pub async fn stop(self) -> usize {
        drop(self.stop);
        let heard = self.listening.await.expect("it listened");
        ports::left(self.port).await;
        heard
    }
}

async fn answer(mut stream: TcpStream, head: &[u8]) -> std::io::Result<()> {
    stream.write_all(head).await?;
    let mut question = [0; 4096];
    while stream.read(&mut question).await? > 0 {
        stream.write_all(&noise(512)).await?;
    }
    Ok(())
}

/// So many random bytes.
pub fn noise(length: usize) -> Vec<u8> {
    (0..length).map(|_| fastrand::u8(..)).collect()
}
