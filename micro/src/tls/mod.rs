//! TLS between nodes and their callers, and mTLS: [`ServerTls`] for [`Server::tls`], [`ClientTls`]
//! for [`ChannelOptions::tls`]. The guide has [a chapter](crate::guide::tls) on it.
//!
//! [`Server::tls`]: crate::Server::tls
//! [`ChannelOptions::tls`]: crate::ChannelOptions::tls

// From PEM to an encrypted stream that speaks HTTP/2. This room knows nothing of HTTP/2 itself, nor of
// nodes and calls; no type of `rustls` leaves it but inside of a stream.

mod client;
mod live;
mod pem;
mod refusal;
mod server;
#[cfg(test)]
mod tests;

pub use client::ClientTls;
pub(crate) use client::Connector;
pub(crate) use server::Acceptor;
pub use server::ServerTls;

/// HTTP/2 by its name in ALPN (RFC 9113, section 3.2).
const H2: &[u8] = b"h2";
