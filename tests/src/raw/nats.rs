//! What is said on the bus.

use std::{sync::Arc, time::Duration};

use async_nats::Client;
use micro::{registry::Node, testing::registry::Cannot};
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::sleep};

use super::{Raw, owner::Owner, record};
use crate::nats::Nats;

/// A registry over NATS. A node is put there by our own registration: one that does not answer, and
/// does not say again and again that it is there, is not.
#[derive(Debug)]
pub struct InNats {
    owner: Arc<Owner>,
    renewing: JoinHandle<()>,
    client: Client,
    nats: Nats,
}

/// A node that left unheard is there for as long.
const TTL: Duration = Duration::from_secs(3);

impl Raw for InNats {
    const CANNOT: &'static [(&'static str, &'static str)] = &[
        (
            "a_duplicate_id_is_one_node",
            "a node is known by its id alone, so that a second record is the first one's next",
        ),
        (
            "a_record_written_again_as_it_was_is_told",
            "a node says what it is again and again, and means that it is still there",
        ),
    ];

    const KEEPS_RECORDS: bool = false;

    async fn serving() -> Self {
        let nats = Nats::start().await;
        // By another name, and so a registry of its own, with a connection that is not cut.
        let owner = Arc::new(Owner::new(&format!("nats://localhost:{}", nats.port()), TTL));
        let renewing = tokio::spawn({
            let owner = owner.clone();
            async move {
                loop {
                    sleep(TTL / 3).await;
                    owner.renew_all().await;
                }
            }
        });
        Self { owner, renewing, client: nats.client().await, nats }
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.nats.port())
    }

    fn url_at(&self, address: &str) -> String {
        format!("nats://{address}")
    }

    async fn put(&self, node: &Node) {
        self.owner.register(node).await;
    }

    async fn take(&self, node: &Node) {
        self.owner.deregister(node).await;
    }

    async fn put_all(&self, nodes: &[Node]) {
        for node in nodes {
            self.say("create", &record(node)).await;
        }
        self.client.flush().await.expect("NATS is reached");
    }

    async fn take_all(&self, nodes: &[Node]) {
        for node in nodes {
            self.say("delete", &record(node)).await;
        }
        self.client.flush().await.expect("NATS is reached");
    }

    async fn put_in(&self, _place: &str, _node: &Node) -> Result<(), Cannot> {
        Err(Cannot)
    }

    async fn take_from(&self, _place: &str, _node: &Node) -> Result<(), Cannot> {
        Err(Cannot)
    }

    async fn write_raw(&self, service: &str, _id: &str, text: &str) -> Option<String> {
        self.say("create", text).await;
        self.client.flush().await.expect("NATS is reached");
        // Nobody's is what does not say whose it is.
        let told: Value = serde_json::from_str(text).ok()?;
        Some(format!("{service}/{}", told["nodes"][0]["id"].as_str()?))
    }

    async fn delete_raw(&self, service: &str, id: &str) {
        let node = json!({ "name": service, "nodes": [{ "id": id }] });
        self.say("delete", &node.to_string()).await;
        self.client.flush().await.expect("NATS is reached");
    }
}

impl InNats {
    async fn say(&self, action: &str, service: &str) {
        let message = format!(r#"{{"Service":{service},"Action":"{action}"}}"#);
        let published = self.client.publish("micro.nats.watch", message.into()).await;
        published.expect("it is published");
    }
}

impl Drop for InNats {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}
