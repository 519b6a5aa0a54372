//! Calls and their attempts, told to OpenTelemetry as spans.
//!
//! With the feature `trace` off, what others hold of this room has no size and its methods do nothing.

// This room is told facts and decides nothing. It knows OpenTelemetry's API, and nothing of an SDK.
// The guide's chapter `tracing` has all names.

#[cfg(not(feature = "trace"))]
mod none;
#[cfg(feature = "trace")]
mod spans;
#[cfg(feature = "trace")]
mod wire;

#[cfg(not(feature = "trace"))]
pub(crate) use self::none::{AttemptSpan, CallSpan, HandlerSpan};
#[cfg(feature = "trace")]
pub(crate) use self::spans::{AttemptSpan, CallSpan, HandlerSpan};
