//! A gate before a server that holds back one thing said to it.

use std::sync::Arc;

use tokio::{
    io::{self, AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// A port of the loopback interface behind which a server is.
#[derive(Debug)]
pub struct Gate {
    /// `127.0.0.1:PORT`, where the server is reached through it.
    pub address: String,
    state: watch::Sender<State>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    /// All goes through.
    Open,
    /// The first connection on which this is said is held from there on.
    Waits(&'static str),
    /// One is held.
    Holds,
}

impl Gate {
    /// An open gate to the server at this address.
    ///
    /// # Panics
    /// When there is no port for it.
    pub async fn to(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address").to_string();
        let (state, upstream) = (watch::Sender::new(State::Open), Arc::<str>::from(upstream));
        let gate = Self { address, state: state.clone() };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (state, upstream) = (state.clone(), upstream.clone());
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(&*upstream).await else { return };
                    let (from_client, mut to_client) = client.into_split();
                    let (mut from_server, to_server) = server.into_split();
                    // Either one's end is the other's.
                    tokio::select! {
                        _ = carry(from_client, to_server, state) => {}
                        _ = io::copy(&mut from_server, &mut to_client) => {}
                    }
                });
            }
        });
        gate
    }

    /// Holds back the first that says this from now on, and returns once it has.
    ///
    /// # Panics
    /// When the gate is gone.
    pub async fn hold(&self, said: &'static str) {
        self.state.send_replace(State::Waits(said));
        let held = self.state.subscribe().wait_for(|state| *state == State::Holds).await.map(drop);
        held.expect("the gate is there");
    }

    /// Lets through what is held.
    pub fn release(&self) {
        self.state.send_replace(State::Open);
    }
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: watch::Sender<State>,
) -> io::Result<()> {
    let mut opened = state.subscribe();
    let (mut said, mut chunk) = (Vec::<u8>::new(), [0; 4096]);
    loop {
        let length = from.read(&mut chunk).await?;
        if length == 0 {
            return Ok(());
        }
        // What was said before may be said in part.
        let before = said.len();
        said.extend(&chunk[..length]);
        let is_held = state.send_if_modified(|state| {
            let State::Waits(what) = state else { return false };
            let unheard = before.saturating_sub(what.len() - 1);
            let is_said = said[unheard..].windows(what.len()).any(|it| it == what.as_bytes());
            if is_said {
                *state = State::Holds;
            }
            is_said
        });
        if is_held {
            let _ = opened.wait_for(|state| *state == State::Open).await;
        }
        to.write_all(&chunk[..length]).await?;
    }
}
