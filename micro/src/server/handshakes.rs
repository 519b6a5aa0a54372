//! The TLS handshakes under way: bounded in time and number, and in nobody's way.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{oneshot, watch},
    time::sleep,
};
use tokio_rustls::server::TlsStream;

use super::connection::Phase;
use crate::tls::Acceptor;

/// How long a peer may take over its handshake.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The same once the server is leaving: for those who were about to finish.
const TIMEOUT_LEAVING: Duration = Duration::from_secs(2);

/// How many may be under way. The next takes the place of the oldest: who connects and says nothing
/// then costs others nothing, and all of them together a few kilobytes each.
const MOST: usize = 4096;

/// The handshakes of a server.
#[derive(Debug)]
pub(super) struct Handshakes {
    acceptor: Acceptor,
    under_way: Mutex<UnderWay>,
}

#[derive(Debug, Default)]
struct UnderWay {
    begun: u64,
    /// Dropped, it ends its handshake. In the order in which they began.
    by_age: BTreeMap<u64, oneshot::Sender<()>>,
}

impl Handshakes {
    pub(super) fn new(acceptor: Acceptor) -> Self {
        Self { acceptor, under_way: Mutex::default() }
    }

    /// The connection once it is secure, or nothing if it does not become so: that is told in the log
    /// at debug, and is the peer's concern.
    pub(super) async fn secure<IO>(
        &self,
        io: IO,
        peer: Option<SocketAddr>,
        phase: watch::Receiver<Phase>,
    ) -> Option<TlsStream<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let mut place = self.begin();
        let why = tokio::select! {
            biased;
            accepted = self.acceptor.accept(io) => match accepted {
                Ok(stream) => return Some(stream),
                Err(why) => why,
            },
            _ = &mut place.displaced => format!("{MOST} others have begun theirs since"),
            () = sleep(TIMEOUT) => format!("it was not done within {TIMEOUT:?}"),
            () = leaving(phase) => "the server is leaving".to_owned(),
        };
        let peer = peer.map(tracing::field::display);
        tracing::debug!(peer, "no TLS handshake: {why}");
        None
    }

    fn begin(&self) -> Place<'_> {
        let (sender, displaced) = oneshot::channel();
        let mut under_way = self.under_way();
        if under_way.by_age.len() >= MOST {
            under_way.by_age.pop_first();
        }
        under_way.begun += 1;
        let number = under_way.begun;
        under_way.by_age.insert(number, sender);
        Place { handshakes: self, number, displaced }
    }

    fn under_way(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among those under way.
struct Place<'a> {
    handshakes: &'a Handshakes,
    number: u64,
    displaced: oneshot::Receiver<()>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.handshakes.under_way().by_age.remove(&self.number);
    }
}

/// Until a server that is leaving waits no longer.
async fn leaving(mut phase: watch::Receiver<Phase>) {
    let _ = phase.wait_for(|phase| *phase != Phase::Open).await;
    tokio::select! {
        biased;
        () = sleep(TIMEOUT_LEAVING) => {}
        _ = phase.wait_for(|phase| *phase == Phase::Cut) => {}
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::duplex,
        sync::oneshot::error::TryRecvError::{Closed, Empty},
        time::Instant,
    };

    use super::*;
    use crate::fixture::Authority;

    fn handshakes() -> Handshakes {
        Handshakes::new(Authority::new().server("greeter").acceptor().expect("usable"))
    }

    #[test]
    fn one_too_many_takes_the_place_of_the_oldest() {
        let handshakes = handshakes();
        let mut places: Vec<_> = (0..MOST).map(|_| handshakes.begin()).collect();
        assert_eq!(places[0].displaced.try_recv(), Err(Empty));
        drop(places.remove(7));
        let another = handshakes.begin();
        assert_eq!(places[0].displaced.try_recv(), Err(Empty), "there was room");
        let one_too_many = handshakes.begin();
        assert_eq!(places[0].displaced.try_recv(), Err(Closed));
        assert_eq!(places[1].displaced.try_recv(), Err(Empty));
        drop((places, another, one_too_many));
        assert!(handshakes.under_way().by_age.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_has_ten_seconds_and_less_of_a_server_that_leaves() {
        let handshakes = handshakes();
        for (phase, seconds) in [(Phase::Open, 10), (Phase::Draining, 2), (Phase::Cut, 0)] {
            let (_silent, io) = duplex(1);
            let begun = Instant::now();
            let phase = watch::Sender::new(phase);
            assert!(handshakes.secure(io, None, phase.subscribe()).await.is_none());
            assert_eq!(begun.elapsed().as_secs(), seconds);
        }
    }
}
