//! What the registry says of a node, and what we make of it.
//!
//! The registry's word alone never empties a set: an etcd that was stopped for longer than the TTL
//! deletes every key on waking, while the nodes are well and register again seconds later. So a
//! node that the registry removes *lingers*, connected but not picked, for one TTL. When no listed
//! node is connected, since none is listed or none can be reached, all that linger are *retained*:
//! picked again until their connection ends, though not for longer than three TTLs from their removal.
//! A node that leaves in good order ends its connection itself.

use std::time::Duration;

use tokio::time::Instant;

/// How many TTLs after its removal a retained node is given up.
const RETAINED_TTLS: u32 = 3;

/// A node's standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// The registry lists it.
    Listed,
    /// Removed at this time; connected, not picked.
    Lingering(Instant),
    /// Removed at this time; picked for want of connected ones that are listed.
    Retained(Instant),
}

impl Standing {
    /// Whether calls may go to it.
    pub(super) fn is_picked(self) -> bool {
        !matches!(self, Self::Lingering(_))
    }

    /// When its connection is given up.
    pub(super) fn ends_at(self, ttl: Duration) -> Option<Instant> {
        match self {
            Self::Listed => None,
            Self::Lingering(removed) => Some(removed + ttl),
            Self::Retained(removed) => Some(removed + ttl * RETAINED_TTLS),
        }
    }
}
