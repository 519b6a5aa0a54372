//! Who is listed as a node and is none: what the client meets there.

use std::time::Duration;

use micro::{
    Client,
    registry::{Lease, Node},
};
use tokio::time::{sleep, timeout};

use super::{Fleet, Rogue, SERVICE, Silent, Unaccepting, Who, refusing::Refusing, told};

/// What stands in a node's place, and its record.
#[derive(Debug)]
pub(crate) struct StandIn {
    peer: Peer,
    record: Node,
    lease: Lease,
}

/// What may.
#[derive(Debug)]
pub(super) enum Peer {
    Refusing(Refusing),
    Unaccepting(Unaccepting),
    Silent(Silent),
    Rogue(Rogue),
}

impl Peer {
    fn address(&self) -> &str {
        match self {
            Self::Refusing(peer) => &peer.address,
            Self::Unaccepting(peer) => &peer.address,
            Self::Silent(peer) => &peer.address,
            Self::Rogue(peer) => &peer.address,
        }
    }

    /// Whether it is seen that this client has met it: at the peer, and where the peer cannot tell, by
    /// what the kernel and the client say.
    async fn is_met(&self, who: Who, client: &Client) -> bool {
        match self {
            // Of others it is only known that they were given the address.
            Self::Refusing(peer) => {
                peer.refuses().await && (who != Who::Micro || is_refused(client).await)
            }
            Self::Unaccepting(peer) => peer.asked() > 0,
            Self::Silent(peer) => peer.connections() > 0,
            Self::Rogue(peer) => peer.offences() > 0,
        }
    }
}

/// Whether the client says that its last attempt to connect was refused.
async fn is_refused(client: &Client) -> bool {
    let error = told(client, Rogue::ID).await.and_then(|node| node.error);
    error.is_some_and(|error| error.contains("refused"))
}

impl StandIn {
    /// Has the registry list it, for longer than any trial.
    pub(super) async fn list(peer: Peer, fleet: &Fleet) -> Self {
        let record = Node::new(SERVICE, Rogue::ID, peer.address());
        let lease = fleet.list(&record).await;
        Self { peer, record, lease }
    }

    /// Waits until it is seen that the client has met it: an attempt to connect may be some seconds
    /// away.
    ///
    /// # Panics
    /// When it has not after 10 s.
    pub(super) async fn met(&self, who: Who, client: &Client) {
        let met = async {
            while !self.peer.is_met(who, client).await {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let is_met = timeout(Duration::from_secs(10), met).await.is_ok();
        assert!(is_met, "the client has not met {:?}", self.peer);
    }

    /// How many calls were sent to it, if it is one that answers none.
    pub(super) fn unanswered(&self) -> Option<usize> {
        match &self.peer {
            Peer::Silent(peer) => Some(peer.calls()),
            _ => None,
        }
    }

    /// Leaves: nobody calls it any more by the time it closes its connections.
    pub(crate) async fn leave(self, fleet: &Fleet) {
        let taken_back = fleet.registry.deregister(&self.record, self.lease).await;
        taken_back.expect("the registry takes a record back");
        sleep(Duration::from_secs(1)).await;
        // Else it would be called again should all others be lost in the next 15 s.
        drop(self.peer);
    }
}
