//! `zookeeper://` on a real ZooKeeper: held to what every registry is, and to go-micro's bytes.

use std::{process::Stdio, sync::Arc, time::Duration};

use micro::{
    registry::{self, Node, Registry, RenewError},
    registry_conformance,
    testing::registry::{Backend, Cannot, Owner, Watching},
};
use tests::zookeeper::ZooKeeper;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::{sleep, timeout},
};
use zookeeper_client::{Acls, Client, CreateMode, CreateOptions, Error as ClientError};

const TTL: Duration = Duration::from_secs(60);

const PERSISTENT: CreateOptions<'static> = CreateMode::Persistent.with_acls(Acls::anyone_all());
const EPHEMERAL: CreateOptions<'static> = CreateMode::Ephemeral.with_acls(Acls::anyone_all());

struct InZooKeeper(ZooKeeper);

impl InZooKeeper {
    async fn start() -> Self {
        Self(ZooKeeper::start().await)
    }
}

fn path(node: &Node) -> String {
    let escape = |name: &str| name.replace('/', "-");
    format!("/micro-registry/{}/{}", escape(&node.service), escape(&node.id))
}

impl Backend for InZooKeeper {
    fn registry(&self) -> Arc<dyn Registry> {
        registry::open(&self.0.url()).expect("the URL is well-formed")
    }

    fn not_applicable(&self) -> &'static [(&'static str, &'static [&'static str])] {
        &[
            ("ZooKeeper keeps no history to forget", &["a_gap_in_the_watch_is_told"]),
            (
                "a watch begins with how all stands, however that came about",
                &["updates_come_in_order_each_with_a_revision_of_its_own"],
            ),
        ]
    }

    async fn delete(&self, nodes: &[Node]) -> Result<(), Cannot> {
        let client = self.0.client().await;
        let mut delete = client.new_multi_writer();
        for node in nodes {
            delete.add_delete(&path(node), None).expect("a path");
        }
        delete.commit().await.expect("the records were there");
        Ok(())
    }

    async fn write_malformed(&self, service: &str) -> Result<String, Cannot> {
        let path = format!("/micro-registry/{service}/malformed");
        let value = br#"{"name":"x","nodes":[{"id":3}]}"#;
        let client = self.0.client().await;
        client.create(&path, value, &PERSISTENT).await.expect("ZooKeeper answers");
        Ok(path)
    }

    async fn delete_key(&self, key: &str) -> Result<(), Cannot> {
        self.0.client().await.delete(key, None).await.expect("ZooKeeper answers");
        Ok(())
    }

    async fn own(&self, node: &Node, ttl: Duration) -> Result<Owner, Cannot> {
        let mut owner = Command::new(env!("CARGO_BIN_EXE_registry-owner"))
            .args([&self.0.url(), &node.service, &node.id, &ttl.as_secs().to_string()])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let output = owner.stdout.take().expect("its output is ours");
        let line = BufReader::new(output).lines().next_line().await.expect("it says something");
        assert_eq!(line.as_deref(), Some("registered"));
        Ok(Owner::killed_by(move || owner.start_kill().expect("SIGKILL is sent")))
    }
}

registry_conformance!(() InZooKeeper::start().await);
