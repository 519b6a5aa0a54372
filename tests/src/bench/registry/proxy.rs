//! A wire to a server on which what passes is counted.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp},
    task::JoinHandle,
};

/// A port of the loopback interface behind which a server is. It closes with this.
#[derive(Debug)]
pub struct Proxy {
    /// `127.0.0.1:PORT`, where the server is reached through it.
    pub address: String,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Counts {
    bytes: AtomicU64,
    requests: AtomicU64,
}

impl Proxy {
    /// A wire to the server at this address.
    ///
    /// # Panics
    /// When there is no port to be had.
    pub async fn to(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let (counts, upstream) = (Arc::new(Counts::default()), upstream.to_owned());
        let counted = counts.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // A server that is gone closes the connection.
                let Ok(server) = TcpStream::connect(&upstream).await else { continue };
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(carry(from_client, to_server, counted.clone(), true));
                tokio::spawn(carry(from_server, to_client, counted.clone(), false));
            }
        });
        Self { address, counts, task }
    }

    /// The bytes that have passed, both ways.
    pub fn bytes(&self) -> u64 {
        self.counts.bytes.load(Ordering::Relaxed)
    }

    /// The requests of HTTP/1.1 that have passed.
    pub fn requests(&self) -> u64 {
        self.counts.requests.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How a request's first line ends.
const END: &[u8] = b" HTTP/1.1\r\n";

async fn carry(
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    counts: Arc<Counts>,
    are_requests: bool,
) {
    let mut chunk = vec![0; 64 * 1024];
    // The end of what came before, in which a line's end may have begun.
    let mut rest = Vec::new();
    while let Ok(length @ 1..) = from.read(&mut chunk).await {
        counts.bytes.fetch_add(length as u64, Ordering::Relaxed);
        if are_requests {
            rest.extend_from_slice(&chunk[..length]);
            let ends = rest.windows(END.len()).filter(|it| *it == END).count();
            counts.requests.fetch_add(ends as u64, Ordering::Relaxed);
            rest.drain(..rest.len().saturating_sub(END.len() - 1));
        }
        if to.write_all(&chunk[..length]).await.is_err() {
            return;
        }
    }
}
