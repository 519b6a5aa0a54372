//! `nats://` on a real NATS server: held to what every registry is, as far as one goes that stores
//! nothing, and to go-micro's bytes.

use std::{process::Stdio, sync::Arc, time::Duration};

use micro::{
    registry::{self, Node, Registry, RenewError},
    registry_conformance,
    testing::registry::{Backend, Cannot, Owner, Watching},
};
use serde_json::json;
use tests::nats::Nats;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    sync::Mutex,
    time::{Instant, timeout},
};
use tokio_stream::StreamExt as _;

const TTL: Duration = Duration::from_secs(60);

struct OverNats(Mutex<Nats>, String);

impl OverNats {
    async fn start() -> Self {
        let nats = Nats::start().await;
        let url = nats.url();
        Self(Mutex::new(nats), url)
    }
}

impl Backend for OverNats {
    fn registry(&self) -> Arc<dyn Registry> {
        registry::open(&self.1).expect("the URL is well-formed")
    }

    async fn delete(&self, nodes: &[Node]) -> Result<(), Cannot> {
        let registry = self.registry();
        for node in nodes {
            self.0.lock().await.say("delete", node).await;
        }
        // What was said before a read's question is heard before its answers.
        for node in nodes {
            registry.read(&node.service).await.expect("the registry is read");
        }
        Ok(())
    }

    async fn write_malformed(&self, service: &str) -> Result<String, Cannot> {
        let nodes = json!([{ "id": "bad", "address": 3 }]);
        let message = json!({ "Service": { "name": service, "nodes": nodes }, "Action": "create" });
        self.0.lock().await.publish(message.to_string()).await;
        self.registry().read(service).await.expect("the registry is read");
        Ok(format!("{service}/bad"))
    }

    async fn delete_key(&self, key: &str) -> Result<(), Cannot> {
        let (service, id) = key.rsplit_once('/').expect("it is of write_malformed");
        self.0.lock().await.say("delete", &Node::new(service, id, "h:1")).await;
        Ok(())
    }

    async fn own(&self, node: &Node, ttl: Duration) -> Result<Owner, Cannot> {
        let mut owner = Command::new(env!("CARGO_BIN_EXE_registry-owner"))
            .args([&self.1, &node.service, &node.id, &ttl.as_secs().to_string()])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let output = owner.stdout.take().expect("its output is ours");
        let line = BufReader::new(output).lines().next_line().await.expect("it says something");
        assert_eq!(line.as_deref(), Some("registered"));
        Ok(Owner::killed_by(move || owner.start_kill().expect("SIGKILL is sent")))
    }

    /// A new connection may have missed some.
    async fn forget(&self) -> Result<(), Cannot> {
        self.0.lock().await.restart().await;
        let registry = self.registry();
        let start = Instant::now();
        while registry.read("conf.nothing").await.is_err() {
            assert!(start.elapsed() < Duration::from_secs(10), "it is reached again");
        }
        Ok(())
    }
}

registry_conformance!(() OverNats::start().await);
