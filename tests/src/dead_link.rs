//! A link whose connections go silent and stay so, as when a firewall forgets them: neither end hears
//! of the other again, nor that it is gone. (toxiproxy closes what it has silenced once it is mended.)
//!
//! What is sent into it is still acknowledged: TCP alone, its keepalive included, finds nothing out.

use std::future::pending;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// A port of the loopback interface behind which a server is.
#[derive(Debug)]
pub struct DeadLink {
    /// `127.0.0.1:PORT`, where the server is reached through it.
    pub address: String,
    is_silent: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl DeadLink {
    /// A good link to a server at this address.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn to(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address").to_string();
        let is_silent = watch::Sender::new(false);
        let accepting = tokio::spawn(accept(listener, upstream.to_owned(), is_silent.subscribe()));
        Self { address, is_silent, accepting }
    }

    /// Carries nothing any more, on no connection there is or will be until it is
    /// [mended](Self::mend).
    pub fn silence(&self) {
        self.is_silent.send_replace(true);
    }

    /// Carries what comes on new connections. Those there are stay as they are.
    pub fn mend(&self) {
        self.is_silent.send_replace(false);
    }
}

impl Drop for DeadLink {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, upstream: String, is_silent: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.spawn(carry(client, upstream.clone(), is_silent.clone()));
    }
}

async fn carry(mut client: TcpStream, upstream: String, mut is_silent: watch::Receiver<bool>) {
    // One that is refused is closed.
    let Ok(mut server) = TcpStream::connect(upstream).await else { return };
    tokio::select! {
        // One that begins in silence is to hear nothing.
        biased;
        () = falls_silent(&mut is_silent) => pending().await,
        _ = copy_bidirectional(&mut client, &mut server) => {}
    }
}

async fn falls_silent(is_silent: &mut watch::Receiver<bool>) {
    // One that is dropped is silent too, until its tasks end.
    let _ = is_silent.wait_for(|is_silent| *is_silent).await;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::timeout,
    };

    use super::*;

    async fn echoes(stream: &mut TcpStream) -> bool {
        let mut answer = [0];
        stream.write_all(b"x").await.unwrap();
        timeout(Duration::from_millis(200), stream.read_exact(&mut answer)).await.is_ok()
    }

    #[tokio::test]
    async fn what_has_gone_silent_stays_silent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let link = DeadLink::to(&listener.local_addr().unwrap().to_string()).await;
        tokio::spawn(async move {
            let mut streams = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                streams.spawn(async move {
                    let (mut reader, mut writer) = stream.split();
                    let _ = tokio::io::copy(&mut reader, &mut writer).await;
                });
            }
        });
        let mut before = TcpStream::connect(&link.address).await.unwrap();
        assert!(echoes(&mut before).await);
        link.silence();
        let mut during = TcpStream::connect(&link.address).await.unwrap();
        assert!(!echoes(&mut before).await && !echoes(&mut during).await);
        link.mend();
        let mut after = TcpStream::connect(&link.address).await.unwrap();
        assert!(echoes(&mut after).await);
        assert!(!echoes(&mut before).await && !echoes(&mut during).await);
    }
}
