//! Records as they come into a registry besides by our own hand: from peers, from operators, and by
//! accident.

use micro::{registry::Node, testing::registry::Cannot};
use serde_json::json;

mod consul;
mod etcd;
mod kubernetes;
mod nacos;
mod nats;
mod zookeeper;

pub use consul::InConsul;
pub use etcd::InEtcd;
pub use kubernetes::InKubernetes;
pub use nacos::InNacos;
pub use nats::InNats;
pub use zookeeper::InZooKeeper;

/// A registry on its real server, and a hand that writes into it without the registry's own client
/// code, wherever the server keeps a record.
#[allow(async_fn_in_trait, reason = "the tests are generic, and no future leaves its test")]
pub trait Raw: Sized {
    /// The rows of the table that do not apply here, each with the reason.
    const CANNOT: &'static [(&'static str, &'static str)];

    /// A server, serving, with nothing of the test's in it.
    async fn serving() -> Self;

    /// `127.0.0.1:PORT`, where it is reached.
    fn address(&self) -> String;

    /// The registry's URL when it is reached at this address.
    fn url_at(&self, address: &str) -> String;

    /// Writes the node's record, over what is there.
    async fn put(&self, node: &Node);

    /// Deletes it.
    async fn take(&self, node: &Node);

    /// Writes the records of nodes of one service at once: in as few transactions as the server has.
    async fn put_all(&self, nodes: &[Node]);

    /// Deletes them at once.
    async fn take_all(&self, nodes: &[Node]);

    /// Writes the node's record once more, in this place, where another's would be.
    async fn put_in(&self, place: &str, node: &Node) -> Result<(), Cannot>;

    /// Deletes it there.
    async fn take_from(&self, place: &str, node: &Node) -> Result<(), Cannot>;

    /// Writes the node's record beside one that has its address.
    async fn put_beside(&self, node: &Node) -> Result<(), Cannot> {
        self.put(node).await;
        Ok(())
    }

    /// Writes this where the record of the node of this id would be. Returns the key that it stands
    /// under; none if it is heard, and stands nowhere.
    async fn write_raw(&self, service: &str, id: &str, text: &str) -> Option<String>;

    /// Deletes what stands there.
    async fn delete_raw(&self, service: &str, id: &str);
}

/// go-micro's record of a node.
pub fn record(node: &Node) -> String {
    let Node { service, version, id, address, metadata, .. } = node;
    let nodes = json!([{ "metadata": metadata, "id": id, "address": address }]);
    json!({
        "name": service, "version": version, "metadata": null, "endpoints": [], "nodes": nodes
    })
    .to_string()
}
