//! A peer that accepts connections and never says a word.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
};

/// A silent peer. It reads what it is sent, to tell how many calls were.
#[derive(Debug)]
pub struct Silent {
    /// Where it listens.
    pub address: String,
    connections: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
}

impl Silent {
    /// Listens on a free port of loopback.
    ///
    /// # Panics
    /// When it cannot.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address").to_string();
        let silent = Self { address, connections: Arc::default(), calls: Arc::default() };
        let (connections, calls) = (silent.connections.clone(), silent.calls.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(listen(stream, calls.clone()));
            }
        });
        silent
    }

    /// How many connections were made.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// How many calls were sent: HEADERS frames.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

async fn listen(mut stream: TcpStream, calls: Arc<AtomicUsize>) {
    const PREFACE: usize = 24;
    const HEADERS: u8 = 1;
    let mut preface = [0; PREFACE];
    if stream.read_exact(&mut preface).await.is_err() {
        return;
    }
    let mut head = [0; 9];
    while stream.read_exact(&mut head).await.is_ok() {
        if head[3] == HEADERS {
            calls.fetch_add(1, Ordering::Relaxed);
        }
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        if stream.read_exact(&mut payload).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn a_call_is_told_from_settings() {
        let silent = Silent::start().await;
        let mut stream = TcpStream::connect(&silent.address).await.unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        stream.write_all(&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100]).await.unwrap();
        stream.write_all(&[0, 0, 1, 1, 5, 0, 0, 0, 1, 0x82]).await.unwrap();
        while silent.calls() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!((silent.connections(), silent.calls()), (1, 1));
    }
}
