//! One HTTP/2 connection to a node: connecting, calls, keepalive, its end.
//!
//! Knows HTTP/2 and gRPC's framing, and how sure one can be that a failed call was never seen by a
//! handler. Knows nothing of registries, balancing, deadlines or retries. No type of `h2` leaves
//! this room, so that another HTTP/2 can move in.

mod connect;
mod connection;
mod disconnect;
mod driver;
mod failure;
mod frames;
pub(crate) mod gather;
mod keepalive;
mod message;
#[cfg(feature = "testing")]
pub(crate) mod pipe;
mod response;
mod slots;
mod stream;
mod tap;
mod unary;

use std::time::Duration;

use http::uri::Scheme;

pub(crate) use connect::{ConnectError, connect};
pub(crate) use connection::{Connection, ConnectionState, Slot};
pub(crate) use disconnect::Disconnect;
pub(crate) use failure::{Failure, FailureKind};
pub(crate) use stream::Body;
pub(crate) use unary::UnaryReply;

/// What a connection is made with.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Bounds name resolution, TCP, TLS and the peer's SETTINGS together.
    pub(crate) connect_timeout: Duration,
    /// `None` is plaintext.
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<crate::tls::Connector>,
    /// With calls outstanding, a PING goes out when no byte came for this long.
    pub(crate) ping_after: Duration,
    /// A PING unanswered for this long means the connection is dead.
    pub(crate) ping_timeout: Duration,
    /// Receive window of a stream, in bytes.
    pub(crate) stream_window: u32,
    /// Receive window of the connection, in bytes.
    pub(crate) connection_window: u32,
    /// The largest header block taken, in bytes as HTTP/2 counts them (decoded, 32 a field more).
    pub(crate) max_header_list_size: u32,
    /// The largest message taken in a unary reply, in bytes.
    pub(crate) max_message_size: usize,
}

impl Config {
    /// As requests name it.
    fn scheme(&self) -> Scheme {
        #[cfg(feature = "tls")]
        if self.tls.is_some() {
            return Scheme::HTTPS;
        }
        Scheme::HTTP
    }
}

/// The largest window of HTTP/2, in bytes.
pub(crate) const LARGEST_WINDOW: u32 = (1 << 31) - 1;

impl Default for Config {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            #[cfg(feature = "tls")]
            tls: None,
            ping_after: Duration::from_secs(1),
            ping_timeout: Duration::from_secs(1),
            stream_window: 1024 * 1024,
            connection_window: 4 * 1024 * 1024,
            max_header_list_size: 16 * 1024,
            max_message_size: 4 * 1024 * 1024,
        }
    }
}

#[cfg(test)]
pub(crate) use connect::handshake;
#[cfg(test)]
mod tests;
