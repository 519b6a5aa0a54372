//! What registration, discovery and calls do, told to OpenTelemetry.
//!
//! With the feature `metrics` off, what they hold of this room has no size and its methods do
//! nothing.

// This room is told facts and decides nothing. It knows OpenTelemetry's API, and nothing of an SDK or
// of how metrics leave the process. The guide's chapter `metrics` has all names.

use tokio::time::Instant;

#[cfg(feature = "metrics")]
mod balance;
#[cfg(feature = "metrics")]
mod budget;
#[cfg(feature = "metrics")]
mod by_method;
#[cfg(feature = "metrics")]
mod calls;
#[cfg(feature = "metrics")]
mod configs;
#[cfg(feature = "metrics")]
mod discovery;
#[cfg(feature = "metrics")]
mod handled;
#[cfg(feature = "metrics")]
mod instruments;
#[cfg(feature = "metrics")]
mod live;
#[cfg(feature = "metrics")]
mod named;
#[cfg(not(feature = "metrics"))]
mod none;
#[cfg(feature = "metrics")]
mod of_code;
#[cfg(feature = "metrics")]
mod registration;
#[cfg(feature = "metrics")]
mod weighed;

#[cfg(not(feature = "metrics"))]
pub(crate) use self::none::{
    AttemptMetrics, BalanceMetrics, BudgetMetrics, CallMetrics, ChannelMetrics, DiscoveryMetrics,
    HandledMetrics, RegistrationMetrics, ServerMetrics, Weighed, service_config_refused,
};
#[cfg(feature = "metrics")]
pub(crate) use self::{
    balance::BalanceMetrics,
    budget::BudgetMetrics,
    calls::{AttemptMetrics, CallMetrics, ChannelMetrics},
    configs::service_config_refused,
    discovery::DiscoveryMetrics,
    handled::{HandledMetrics, ServerMetrics},
    registration::RegistrationMetrics,
    weighed::Weighed,
};

/// Where a service stands in one registry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// The last revision seen.
    pub(crate) revision: u64,
    pub(crate) nodes: usize,
    /// Whether all has been read once.
    pub(crate) synced: bool,
    /// Since when the registry's word is not to be had.
    pub(crate) stale: Option<Instant>,
    /// Records left out since they cannot be decoded.
    pub(crate) malformed: usize,
    /// Records left out since their nodes do not speak gRPC.
    pub(crate) not_grpc: usize,
}

/// How many nodes a channel has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Balanced {
    /// In the registry.
    pub(crate) listed: usize,
    /// Of those: connected, well and not ejected.
    pub(crate) ready: usize,
    /// Not in the registry any more, and called for want of others.
    pub(crate) retained: usize,
    /// Would be ready, were they not ejected.
    pub(crate) ejected: usize,
}

/// Why an attempt is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AttemptKind {
    First,
    /// One has failed.
    Retry,
    /// One has failed that no handler has seen.
    TransparentRetry,
    /// One has not been answered, or has failed, and the call is hedged.
    Hedge,
}

/// How a node was chosen for an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Picked {
    AtOnce,
    Waited,
    /// There was none.
    Failed,
}

#[cfg(feature = "metrics")]
impl Picked {
    /// In their order.
    const NAMES: [&str; 3] = ["at_once", "waited", "failed"];
}
