//! A service's nodes as a channel sees them: for whoever asks why a node has no calls.

use std::{
    fmt::{self, Write as _},
    sync::Arc,
    time::Duration,
};

use crate::registry::Node;

/// The nodes of a service as a channel sees them, at one moment. As text, one line a node.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Explanation {
    /// The service's name in the registry.
    pub service: String,
    /// The registry, without what is secret of its URL.
    pub registry: String,
    /// The registry's last revision that was seen, as it counts them; 0 before the first.
    pub revision: u64,
    /// For how long the registry's word is not to be had, so that the nodes are those known then.
    pub stale: Option<Duration>,
    /// The registry's last error, if it has not answered since.
    pub error: Option<String>,
    /// How many nodes the registry lists for the channel: more than are here if it has a subset.
    pub listed: usize,
    /// How many of those are in the [subset](crate::ChannelOptions::subset) that the channel connects
    /// to, stand-ins included; `None` where it connects to all.
    pub subset: Option<usize>,
    /// How many records were left out, since they cannot be decoded or their nodes do not speak gRPC.
    pub left_out: usize,
    /// How many more nodes the registry lists that do not pass the channel's filter.
    pub filtered: usize,
    /// Since when no node has changed.
    pub unchanged: Duration,
    /// The nodes, by id.
    pub nodes: Vec<NodeReport>,
}

/// One node, as a channel sees it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct NodeReport {
    /// Its record.
    pub node: Arc<Node>,
    /// What it is in, and why.
    pub state: NodeState,
    /// Why it last failed to connect or lost its connection, if it has none, or is not well.
    pub error: Option<String>,
    /// For how long it has been in that state; without a connection, since it has had none, however
    /// often it was dialled meanwhile.
    pub since: Duration,
    /// Why it gets no calls for what those before have come to, in whatever state it is.
    pub ejection: Option<Ejection>,
    /// How many of this channel's calls are under way on it, those included that finish on a connection
    /// which it has asked to leave.
    pub in_flight: u32,
    /// What its calls take, as the balancer estimates it; `None` before the first.
    pub latency: Option<Duration>,
    /// From 0 to 1: a failure halves it, for some time; `None` without a connection.
    pub health: Option<f32>,
}

/// Why a node is left out for what its calls have come to, with a connection and without.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ejection {
    /// Why.
    pub reason: String,
    /// For how long yet; `None` when the next call that may tries it.
    pub left: Option<Duration>,
}

/// What a node is in. Calls go to those `Ready` and `Retained`, one call to one that is `Probed`, and
/// those that are pinned to it ([`Call::node`](crate::client::Call::node)) to one that is `Ejected`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeState {
    /// It was never dialled.
    Idle,
    /// An attempt to connect is under way.
    Connecting,
    /// It takes calls.
    Ready,
    /// It sent GOAWAY: its calls finish, and it is dialled anew.
    Draining {
        /// When it is.
        next_attempt: Duration,
    },
    /// The last attempt to connect has failed, or the connection was lost.
    Backoff {
        /// When the next is made.
        next_attempt: Duration,
    },
    /// It is connected, and left out for what its calls have come to.
    Ejected {
        /// Why.
        reason: String,
        /// For how long yet.
        left: Duration,
    },
    /// As `Ejected`, but the next call that may tries it.
    Probed {
        /// Why it was ejected.
        reason: String,
    },
    /// It is connected, and says that it is not well, or nothing yet: see
    /// [`health_check`](crate::ChannelOptions::health_check).
    Unwell,
    /// The registry has removed it: it has no calls, and is connected for some time yet.
    Removed,
    /// The registry has removed it, and it takes calls all the same, for three TTLs: no node that is
    /// listed was connected then.
    Retained,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, registry, revision, listed, left_out, .. } = self;
        let takes_calls =
            |it: &&NodeReport| matches!(it.state, NodeState::Ready | NodeState::Retained);
        let ready = self.nodes.iter().filter(takes_calls).count();
        write!(f, "service '{service}': {listed} nodes in {registry}, ")?;
        if let Some(subset) = self.subset {
            write!(f, "{subset} in this client's subset, ")?;
        }
        write!(f, "{ready} take calls; ")?;
        write!(f, "revision {revision}, no change for {:.1?}", self.unchanged)?;
        if *left_out > 0 {
            write!(f, "; {left_out} records are left out")?;
        }
        if self.filtered > 0 {
            write!(f, "; {} more do not pass the filter", self.filtered)?;
        }
        if let Some(stale) = self.stale {
            write!(f, "; the registry has been silent for {stale:.1?}")?;
        }
        if let Some(error) = &self.error {
            write!(f, "; the registry's last error: {}", OneLine(error))?;
        }
        self.nodes.iter().try_for_each(|node| write!(f, "\n  {node}"))
    }
}

impl fmt::Display for NodeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, address) = (OneLine(&self.node.id), OneLine(&self.node.address));
        write!(f, "{id} at {address}: {} for {:.1?}", self.state, self.since)?;
        if self.in_flight > 0 || self.health.is_some() {
            write!(f, "; {} in flight", self.in_flight)?;
        }
        if let Some(health) = self.health {
            write!(f, ", health {health:.2}")?;
        }
        if let Some(latency) = self.latency {
            write!(f, ", {latency:.1?} a call")?;
        }
        // Of one that is connected the state says it.
        let is_said = matches!(self.state, NodeState::Ejected { .. } | NodeState::Probed { .. });
        if let Some(ejection) = self.ejection.as_ref().filter(|_| !is_said) {
            write!(f, "; {ejection}")?;
        }
        self.error.iter().try_for_each(|error| write!(f, "; {}", OneLine(error)))
    }
}

impl fmt::Display for Ejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.left {
            Some(left) => write!(f, "ejected ({}; {left:.1?} more)", self.reason),
            None => write!(f, "ejected ({}; a call is to try it)", self.reason),
        }
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle => f.write_str("idle"),
            Self::Connecting => f.write_str("connecting"),
            Self::Ready => f.write_str("ready"),
            Self::Draining { next_attempt } => {
                write!(f, "draining (dialled anew in {next_attempt:.1?})")
            }
            Self::Backoff { next_attempt } => {
                write!(f, "in backoff (dialled again in {next_attempt:.1?})")
            }
            Self::Ejected { reason, left } => {
                Ejection { reason: reason.clone(), left: Some(*left) }.fmt(f)
            }
            Self::Probed { reason } => Ejection { reason: reason.clone(), left: None }.fmt(f),
            Self::Unwell => f.write_str("not well"),
            Self::Removed => f.write_str("removed from the registry"),
            Self::Retained => {
                f.write_str("removed from the registry, and called for want of others")
            }
        }
    }
}

/// What a registry or a peer has said, in a line of ours: as it is, but for what would end the line or
/// move the cursor.
pub(super) struct OneLine<'a>(pub(super) &'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            // These are well in a line.
            '\'' | '"' | '\\' => f.write_char(c),
            _ => c.escape_debug().try_for_each(|c| f.write_char(c)),
        })
    }
}
