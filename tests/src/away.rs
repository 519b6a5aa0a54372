//! What the tests of a registry that is away have in common.

use std::{fmt::Debug, sync::Arc, time::Duration};

use micro::registry::{Lease, Node, Registry};
use tokio::time::{Instant, sleep};

/// Long enough that no record expires in the midst of a test.
pub const TTL: Duration = Duration::from_secs(60);

/// The bound of an exchange, and what a busy machine may add to it.
pub const BOUND: Duration = Duration::from_millis(1500);

/// A node of the service `greeter`.
pub fn node(id: &str) -> Node {
    Node::new("greeter", id, "127.0.0.1:1")
}

/// The ids of the nodes of `greeter`, sorted.
///
/// # Panics
/// When the registry cannot be read.
pub async fn ids(registry: &Arc<dyn Registry>) -> Vec<String> {
    let listing = registry.read("greeter").await.expect("the registry is read");
    let mut ids: Vec<_> = listing.entries.iter().map(|entry| entry.node.id.clone()).collect();
    ids.sort();
    ids
}

/// Registers once the registry answers again, as whoever keeps a node registered does.
///
/// # Panics
/// When it does not within 10 s.
pub async fn register(registry: &Arc<dyn Registry>, node: &Node, ttl: Duration) -> Lease {
    let start = Instant::now();
    loop {
        match registry.register(node, ttl).await {
            Ok(lease) => return lease,
            Err(error) => assert!(start.elapsed() < Duration::from_secs(10), "{error:?}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Fails, and in time.
///
/// # Panics
/// When the exchange succeeds, or takes longer than its bound.
pub async fn fails_in_time<T: Debug, E: Debug>(exchange: impl Future<Output = Result<T, E>>) -> E {
    let start = Instant::now();
    let error = exchange.await.expect_err("the registry is away");
    assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
    error
}
