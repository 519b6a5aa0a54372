//! Consul's services: of its agent, and in the catalog alone.

use std::sync::atomic::{AtomicU64, Ordering};

use micro::{registry::Node, testing::registry::Cannot};
use serde_json::{Value, json};

use super::{Raw, hex_of_zlib};
use crate::consul::Consul;

/// A registry in Consul.
#[derive(Debug)]
pub struct InConsul {
    /// Written into the notes of a check, as our own registration has its lease there: nothing else
    /// tells a second registration from the first.
    leases: AtomicU64,
    consul: Consul,
}

/// Operations in one transaction, of the 128 that Consul takes.
const TOGETHER: usize = 100;

impl Raw for InConsul {
    const CANNOT: &'static [(&'static str, &'static str)] = &[];
    // A blocking query answers with all that is.
    const TELLS_EVERY_CHANGE: bool = false;

    async fn serving() -> Self {
        Self { leases: AtomicU64::new(0), consul: Consul::start().await }
    }

    fn address(&self) -> String {
        self.consul.address()
    }

    fn url_at(&self, address: &str) -> String {
        format!("consul://{address}")
    }

    async fn put(&self, node: &Node) {
        let mut body = service(node, "Name");
        let lease = self.leases.fetch_add(1, Ordering::Relaxed).to_string();
        body["Check"] = json!({ "TTL": "1h", "Status": "passing", "Notes": lease });
        self.consul.put("/v1/agent/service/register", body).await;
    }

    async fn take(&self, node: &Node) {
        self.delete_raw(&node.service, &node.id).await;
    }

    async fn put_all(&self, nodes: &[Node]) {
        let machine = json!({ "Node": MACHINE, "Address": "127.0.0.1" });
        self.consul.put("/v1/catalog/register", machine).await;
        self.at_once("set", nodes).await;
    }

    async fn take_all(&self, nodes: &[Node]) {
        self.at_once("delete", nodes).await;
    }

    async fn put_in(&self, place: &str, node: &Node) -> Result<(), Cannot> {
        let body =
            json!({ "Node": place, "Address": "127.0.0.1", "Service": service(node, "Service") });
        self.consul.put("/v1/catalog/register", body).await;
        Ok(())
    }

    async fn take_from(&self, place: &str, node: &Node) -> Result<(), Cannot> {
        let body = json!({ "Node": place, "ServiceID": node.id });
        self.consul.put("/v1/catalog/deregister", body).await;
        Ok(())
    }

    /// In a tag, where go-micro has what it has no other place for.
    async fn write_raw(&self, service: &str, id: &str, text: &str) -> Option<String> {
        let tag = format!("t-{}", hex_of_zlib(text.as_bytes()));
        let body = json!({ "ID": id, "Name": service, "Port": 1, "Tags": [tag] });
        self.consul.put("/v1/agent/service/register", body).await;
        Some(format!("n1/{id}"))
    }

    async fn delete_raw(&self, _service: &str, id: &str) {
        let id = id.replace('/', "%2F");
        self.consul.put(&format!("/v1/agent/service/deregister/{id}"), Value::Null).await;
    }
}

/// A machine without an agent: what is in the catalog there, no agent puts right.
const MACHINE: &str = "batch";

impl InConsul {
    async fn at_once(&self, verb: &str, nodes: &[Node]) {
        let operation = |node| {
            let service = service(node, "Service");
            json!({ "Service": { "Verb": verb, "Node": MACHINE, "Service": service } })
        };
        for nodes in nodes.chunks(TOGETHER) {
            let operations: Vec<_> = nodes.iter().map(operation).collect();
            self.consul.put("/v1/txn", json!(operations)).await;
        }
    }
}

/// The node in the oldest of go-micro's tags. The service's name goes by another name with the agent
/// than in the catalog.
fn service(node: &Node, name: &str) -> Value {
    let (host, port) = node.address.rsplit_once(':').expect("an address has a port");
    let facts = node.metadata.iter().map(|(key, value)| format!("t={}", json!({ (key): value })));
    let tags: Vec<_> = facts.chain([format!("v={}", node.version)]).collect();
    json!({
        "ID": node.id, (name): node.service, "Address": host,
        "Port": port.parse::<u16>().expect("a port is a number"), "Tags": tags,
    })
}
