//! What was found out about other fleets' nodes and clients, in `target/interop.json`.

use std::fs;

use serde::{Deserialize, Serialize};

use crate::programs::root;

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
    let path = root().join("target/interop.json");
    let mut lines: Vec<Line> = fs::read(&path)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default();
    lines.retain(|line| line.exchange != *exchange);
    lines.push(Line { exchange: exchange.clone(), passed });
    fs::create_dir_all(root().join("target")).expect("target can be made");
    let text = serde_json::to_string_pretty(&lines).expect("a list of plain facts");
    fs::write(&path, text + "\n").expect("target/interop.json can be written");
}
