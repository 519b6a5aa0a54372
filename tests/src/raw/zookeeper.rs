//! ZooKeeper's znodes: ephemeral ones, of the hand's own session.

use std::time::Duration;

use micro::{registry::Node, testing::registry::Cannot};
use zookeeper_client::{Acls, Client, CreateMode, CreateOptions, Error};

use super::{Raw, record};
use crate::zookeeper::ZooKeeper;

/// Longer than any test, whatever else the machine does.
const SESSION: Duration = Duration::from_secs(120);

/// A registry in ZooKeeper.
#[allow(missing_debug_implementations, reason = "its client has none")]
pub struct InZooKeeper {
    client: Client,
    zookeeper: ZooKeeper,
}

impl Raw for InZooKeeper {
    const CANNOT: &'static [(&'static str, &'static str)] = &[];
    // A watch says what has changed, and not into what.
    const TELLS_EVERY_CHANGE: bool = false;

    async fn serving() -> Self {
        let zookeeper = ZooKeeper::start().await;
        let connector = Client::connector().with_session_timeout(SESSION);
        let client = connector.connect(&zookeeper.address()).await.expect("ZooKeeper is reached");
        Self { client, zookeeper }
    }

    fn address(&self) -> String {
        self.zookeeper.address()
    }

    fn url_at(&self, address: &str) -> String {
        format!("zookeeper://{address}")
    }

    async fn put(&self, node: &Node) {
        self.write_raw(&node.service, &node.id, &record(node)).await;
    }

    async fn take(&self, node: &Node) {
        self.delete_raw(&node.service, &node.id).await;
    }

    async fn put_all(&self, nodes: &[Node]) {
        let Some(first) = nodes.first() else { return };
        self.folder(&first.service).await;
        let is_there = self.client.check_stat(&path(&first.service, &first.id)).await;
        let is_there = is_there.expect("ZooKeeper answers").is_some();
        let mut writer = self.client.new_multi_writer();
        for node in nodes {
            let (path, value) = (path(&node.service, &node.id), record(node));
            match is_there {
                true => writer.add_set_data(&path, value.as_bytes(), None),
                false => writer.add_create(&path, value.as_bytes(), &ephemeral()),
            }
            .expect("a path");
        }
        writer.commit().await.expect("ZooKeeper answers");
    }

    async fn take_all(&self, nodes: &[Node]) {
        let mut writer = self.client.new_multi_writer();
        for node in nodes {
            writer.add_delete(&path(&node.service, &node.id), None).expect("a path");
        }
        writer.commit().await.expect("ZooKeeper answers");
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
        self.folder(service).await;
        let path = path(service, id);
        match self.client.create(&path, text.as_bytes(), &ephemeral()).await {
            Ok(_) => {}
            Err(Error::NodeExists) => {
                let written = self.client.set_data(&path, text.as_bytes(), None).await;
                written.expect("ZooKeeper answers");
            }
            Err(error) => panic!("{path}: {error}"),
        }
        Some(path)
    }

    async fn delete_raw(&self, service: &str, id: &str) {
        self.client.delete(&path(service, id), None).await.expect("ZooKeeper answers");
    }
}

impl InZooKeeper {
    async fn folder(&self, service: &str) {
        let all = CreateMode::Persistent.with_acls(Acls::anyone_all());
        self.client.mkdir(&folder(service), &all).await.expect("ZooKeeper answers");
    }
}

fn ephemeral() -> CreateOptions<'static> {
    CreateMode::Ephemeral.with_acls(Acls::anyone_all())
}

fn folder(service: &str) -> String {
    format!("/micro-registry/{}", service.replace('/', "-"))
}

fn path(service: &str, id: &str) -> String {
    format!("{}/{}", folder(service), id.replace('/', "-"))
}
