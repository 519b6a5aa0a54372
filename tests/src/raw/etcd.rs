//! etcd's keys.

use etcd_client::{Client, Txn, TxnOp};
use micro::{registry::Node, testing::registry::Cannot};

use super::{Raw, record};
use crate::etcd::{Etcd, Options};

/// A registry in etcd.
#[allow(missing_debug_implementations, reason = "its client has none")]
pub struct InEtcd {
    client: Client,
    etcd: Etcd,
}

impl Raw for InEtcd {
    const CANNOT: &'static [(&'static str, &'static str)] = &[];

    async fn serving() -> Self {
        // By itself it takes 128 in one transaction.
        let flags = ["--max-txn-ops", "1000"].map(str::to_owned).to_vec();
        let etcd = Etcd::start_with(Options { flags, tls: false }).await;
        Self { client: etcd.client().await, etcd }
    }

    fn address(&self) -> String {
        self.etcd.address()
    }

    fn url_at(&self, address: &str) -> String {
        format!("etcd://{address}")
    }

    async fn put(&self, node: &Node) {
        self.write_raw(&node.service, &node.id, &record(node)).await;
    }

    async fn take(&self, node: &Node) {
        self.delete_raw(&node.service, &node.id).await;
    }

    async fn put_all(&self, nodes: &[Node]) {
        self.at_once(nodes.iter().map(|it| TxnOp::put(key(&it.service, &it.id), record(it), None)))
            .await;
    }

    async fn take_all(&self, nodes: &[Node]) {
        self.at_once(nodes.iter().map(|it| TxnOp::delete(key(&it.service, &it.id), None))).await;
    }

    async fn put_in(&self, place: &str, node: &Node) -> Result<(), Cannot> {
        self.write_raw(&node.service, place, &record(node)).await;
        Ok(())
    }

    async fn take_from(&self, place: &str, node: &Node) -> Result<(), Cannot> {
        self.delete_raw(&node.service, place).await;
        Ok(())
    }

    async fn write_raw(&self, service: &str, id: &str, text: &str) -> Option<String> {
        let key = key(service, id);
        self.client.kv_client().put(key.clone(), text, None).await.expect("etcd answers");
        Some(key)
    }

    async fn delete_raw(&self, service: &str, id: &str) {
        self.client.kv_client().delete(key(service, id), None).await.expect("etcd answers");
    }
}

impl InEtcd {
    async fn at_once(&self, operations: impl Iterator<Item = TxnOp>) {
        let txn = Txn::new().and_then(operations.collect::<Vec<_>>());
        self.client.kv_client().txn(txn).await.expect("etcd answers");
    }
}

fn key(service: &str, id: &str) -> String {
    let escape = |name: &str| name.replace('/', "-");
    format!("/micro/registry/{}/{}", escape(service), escape(id))
}
