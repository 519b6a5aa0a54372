//! Peers that accept connections and answer no call.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// A silent peer. It reads what it is sent, to tell how many calls were. Dropped, it closes its
/// connections.
///
/// All that one may say is known beforehand: its frames, whole.
#[derive(Debug)]
pub struct Silent {
    /// Where it listens.
    pub address: String,
    connections: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
    listening: JoinSet<()>,
}

/// What is said on a connection, and at each call that comes on it.
#[derive(Debug, Clone, Copy)]
struct Says {
    first: &'static [u8],
    at_calls: &'static [u8],
    closes: bool,
}

/// An empty SETTINGS frame: good for HTTP/2.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// The same, and the acknowledgement of the other's.
const READY: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0];

/// GOAWAY, `NO_ERROR`, no stream was or will be processed.
const GOAWAY: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// GOAWAY, `ENHANCE_YOUR_CALM`, no stream was processed: what grpc-go says to too many PINGs.
const CALM: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11];

impl Silent {
    /// One that never says a word, on a free port of loopback.
    ///
    /// # Panics
    /// When there is none.
    pub async fn start() -> Self {
        Self::saying(Says { first: &[], at_calls: &[], closes: false }).await
    }

    /// One that says SETTINGS, and then nothing more.
    ///
    /// # Panics
    /// As [`Silent::start`].
    pub async fn after_settings() -> Self {
        Self::saying(Says { first: SETTINGS, at_calls: &[], closes: false }).await
    }

    /// One that is ready, and says nothing more.
    ///
    /// # Panics
    /// As [`Silent::start`].
    pub async fn when_ready() -> Self {
        Self::saying(Says { first: READY, at_calls: &[], closes: false }).await
    }

    /// One that is ready, and answers each call with GOAWAY: it has processed none.
    ///
    /// # Panics
    /// As [`Silent::start`].
    pub async fn going_away() -> Self {
        Self::saying(Says { first: READY, at_calls: GOAWAY, closes: false }).await
    }

    /// The same for an error.
    ///
    /// # Panics
    /// As [`Silent::start`].
    pub async fn throwing_out() -> Self {
        Self::saying(Says { first: READY, at_calls: CALM, closes: false }).await
    }

    /// One that closes every connection at once.
    ///
    /// # Panics
    /// As [`Silent::start`].
    pub async fn closing() -> Self {
        Self::saying(Says { first: &[], at_calls: &[], closes: true }).await
    }

    /// One that is ready, and closes the connection then.
    ///
    /// # Panics
    /// As [`Silent::start`].
    pub async fn closing_when_ready() -> Self {
        Self::saying(Says { first: READY, at_calls: &[], closes: true }).await
    }

    async fn saying(says: Says) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address").to_string();
        let mut silent = Self {
            address,
            connections: Arc::default(),
            calls: Arc::default(),
            listening: JoinSet::new(),
        };
        let (connections, calls) = (silent.connections.clone(), silent.calls.clone());
        silent.listening.spawn(async move {
            let mut listened_to = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::Relaxed);
                listened_to.spawn(listen(stream, says, calls.clone()));
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

async fn listen(mut stream: TcpStream, says: Says, calls: Arc<AtomicUsize>) {
    const PREFACE: usize = 24;
    const HEADERS: u8 = 1;
    let mut preface = [0; PREFACE];
    let is_read = stream.read_exact(&mut preface).await.is_ok();
    if !is_read || stream.write_all(says.first).await.is_err() || says.closes {
        return;
    }
    let mut head = [0; 9];
    while stream.read_exact(&mut head).await.is_ok() {
        if head[3] == HEADERS {
            calls.fetch_add(1, Ordering::Relaxed);
            if stream.write_all(says.at_calls).await.is_err() {
                return;
            }
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
