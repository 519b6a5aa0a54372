//! `memory://`, held to what every registry is: on a paused clock, where leases still expire.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use micro::{
    registry::{Lease, Node, Registry, memory::Memory},
    registry_conformance,
    testing::registry::{Backend, Cannot, Owner},
};
use tokio::time::sleep;

struct InMemory {
    memory: Memory,
    /// Nobody reaches past it: who deletes a record needs its lease.
    leases: Mutex<HashMap<String, Lease>>,
}

impl InMemory {
    fn new() -> Self {
        Self { memory: Memory::with_history(HISTORY), leases: Mutex::default() }
    }
}

impl Backend for InMemory {
    fn registry(&self) -> Arc<dyn Registry> {
        Arc::new(self.memory.clone())
    }

    fn not_applicable(&self) -> &'static [(&'static str, &'static [&'static str])] {
        &[(
            "it holds nodes and not their encoding: none can be malformed",
            &["a_malformed_neighbour_spoils_nothing"],
        )]
    }

    async fn register(&self, node: &Node, ttl: Duration) -> Result<Lease, Cannot> {
        let lease = self.memory.register(node, ttl).await.expect("the node registers");
        self.leases.lock().unwrap().insert(node.id.clone(), lease);
        Ok(lease)
    }

    async fn delete(&self, nodes: &[Node]) -> Result<(), Cannot> {
        for node in nodes {
            let lease = self.leases.lock().unwrap()[&node.id];
            self.memory.deregister(node, lease).await.expect("the node leaves");
        }
        Ok(())
    }

    /// A process that is killed takes its memory along, records and watchers included: none can
    /// be left to expire. What dies here is the task that renews.
    async fn own(&self, node: &Node, ttl: Duration) -> Result<Owner, Cannot> {
        let lease = self.register(node, ttl).await?;
        let (memory, node) = (self.memory.clone(), node.clone());
        let owner = tokio::spawn(async move {
            loop {
                sleep(ttl / 3).await;
                memory.renew(&node, lease).await.expect("the record stands");
            }
        });
        Ok(Owner::killed_by(move || owner.abort()))
    }

    async fn forget(&self) -> Result<(), Cannot> {
        let noise = Node::new("noise", "noise-1", "127.0.0.1:1");
        for _ in 0..HISTORY {
            self.register(&noise, Duration::from_secs(60)).await?;
        }
        Ok(())
    }
}

const HISTORY: usize = 64;

registry_conformance!((start_paused = true) InMemory::new());
