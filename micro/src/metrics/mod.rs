//! What registration and discovery do, told to OpenTelemetry.
//!
//! With the feature `metrics` off, what they hold of this room has no size and its methods do
//! nothing.

// This room is told facts and decides nothing. It knows OpenTelemetry's API, and nothing of an SDK or
// of how metrics leave the process. The guide's chapter `metrics` has all names.

use tokio::time::Instant;

#[cfg(feature = "metrics")]
mod discovery;
#[cfg(feature = "metrics")]
mod instruments;
#[cfg(feature = "metrics")]
mod live;
#[cfg(not(feature = "metrics"))]
mod none;
#[cfg(feature = "metrics")]
mod registration;

#[cfg(not(feature = "metrics"))]
pub(crate) use self::none::{DiscoveryMetrics, RegistrationMetrics};
#[cfg(feature = "metrics")]
pub(crate) use self::{discovery::DiscoveryMetrics, registration::RegistrationMetrics};

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
