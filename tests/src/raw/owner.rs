//! Our own registration, where no other hand can write a node that is there.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use micro::{
    Error,
    registry::{self, Lease, Node, Registry},
};
use tokio::sync::Mutex;

/// Keeps nodes registered: their records are kept nowhere else.
#[derive(Debug)]
pub(super) struct Owner {
    registry: Arc<dyn Registry>,
    ttl: Duration,
    /// One exchange at a time, as each node has it with its registry.
    held: Mutex<BTreeMap<(String, String), (Node, Lease)>>,
}

impl Owner {
    pub(super) fn new(url: &str, ttl: Duration) -> Self {
        let registry = registry::open(url).expect("the URL is well-formed");
        Self { registry, ttl, held: Mutex::default() }
    }

    pub(super) async fn register(&self, node: &Node) {
        let mut held = self.held.lock().await;
        let lease = again(async || self.registry.register(node, self.ttl).await).await;
        held.insert(key(node), (node.clone(), lease));
    }

    pub(super) async fn deregister(&self, node: &Node) {
        let mut held = self.held.lock().await;
        let (node, lease) = held.remove(&key(node)).expect("the node is registered");
        again(async || self.registry.deregister(&node, lease).await).await;
    }

    pub(super) async fn renew_all(&self) {
        for (node, lease) in self.held.lock().await.values() {
            // One that failed is renewed the next time.
            let _ = self.registry.renew(node, *lease).await;
        }
    }
}

fn key(node: &Node) -> (String, String) {
    (node.service.clone(), node.id.clone())
}

/// An exchange is bounded by a time that a busy machine may well take.
async fn again<T>(exchange: impl AsyncFn() -> Result<T, Error>) -> T {
    for _ in 0..10 {
        if let Ok(done) = exchange().await {
            return done;
        }
    }
    exchange().await.expect("the registry takes it")
}
