//! More callers at once than the nodes take streams, by anybody's client.

use std::time::Duration;

use micro::Client;
use tokio::time::sleep;

use super::{Audit, Callers, Fleet, Line, Who, record};

/// Has 10 000 callers call for 5 s, and writes the line in `target/faults.json`.
///
/// # Panics
/// When a node does not start.
pub async fn crowd(registry: &str, who: Who) -> Audit {
    let fleet = Fleet::start(registry).await;
    let client = Client::builder().registry(&fleet.url).build().expect("a client");
    // All begin at once. Without a pause later calls would measure how many a second this machine can do.
    let callers = Callers::start_by(who, &client, 10_000, Duration::from_secs(1));
    sleep(Duration::from_secs(5)).await;
    let audit = Audit::of(who, callers.stop().await, fleet.visits());
    record(Line {
        fault: who.line("10 000 callers at once"),
        calls: audit.calls(),
        failed: audit.failed().len(),
        allowed: 0,
        seconds_to_recover: audit.recovery_from_the_start().as_secs_f64(),
    });
    audit
}
