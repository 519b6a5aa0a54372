//! When a call must be over.

use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;

use crate::grpc_timeout::{GRPC_TIMEOUT, parse};

/// How long a call without a deadline waits for a node before it fails.
pub(super) const WAIT_WITHOUT_DEADLINE: Duration = Duration::from_secs(5);

/// The most that eight digits of hours can say is beyond any clock; this is "never" to tokio too.
const FAR: Duration = Duration::from_secs(86400 * 365 * 30);

/// The instant `timeout` from `now`, also for a timeout that no clock can hold.
pub(super) fn after(now: Instant, timeout: Duration) -> Instant {
    now.checked_add(timeout).unwrap_or(now + FAR)
}

/// The sooner of two deadlines, either of which may be none.
pub(super) fn sooner(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

/// What `grpc-timeout` says, if it is there and well formed.
pub(super) fn from_headers(headers: &HeaderMap) -> Option<Duration> {
    parse(headers.get(GRPC_TIMEOUT)?.as_bytes()).ok()
}
