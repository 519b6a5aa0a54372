//! What was found out about other fleets' nodes and clients, in `target/interop.json`.

use serde::{Deserialize, Serialize};

use crate::lines;

/// One kind of exchange with one peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// Whose software.
    pub peer: String,
    /// At which version.
    pub version: String,
    /// Where the two find each other.
    pub registry: String,
    /// Who asks whom: `to peer` or `from peer`.
    pub direction: String,
    /// What about: `unary`, `leave`, `list`..
    pub kind: String,
}

#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(flatten)]
    exchange: Exchange,
    passed: bool,
}

/// Tries an exchange, and writes down whether it passed.
///
/// # Panics
/// When it does, and when the file cannot be written.
pub async fn record<T>(exchange: Exchange, body: impl Future<Output = T>) -> T {
    // Whoever panics writes no more.
    write(&exchange, false);
    let result = body.await;
    write(&exchange, true);
    result
}

fn write(exchange: &Exchange, passed: bool) {
    let line = Line { exchange: exchange.clone(), passed };
    lines::write("interop", line, |other: &Line| other.exchange == *exchange);
}
