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

/// Longer than anything takes here.
const SOON: Duration = Duration::from_secs(10);

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

fn node(id: &str) -> Node {
    Node::new("greeter", id, "127.0.0.1:1")
}

async fn ids(registry: &Arc<dyn Registry>) -> Vec<String> {
    let listing = registry.read("greeter").await.unwrap();
    listing.entries.iter().map(|entry| entry.node.id.clone()).collect()
}

#[tokio::test]
async fn what_go_micro_hears_is_go_micros_to_the_byte() {
    let nats = Nats::start().await;
    let registry = registry::open(&nats.url()).unwrap();
    let client = nats.client().await;
    let mut told = client.subscribe("micro.nats.watch").await.unwrap();
    client.flush().await.unwrap();
    let document = concat!(
        r#"{"name":"team/pay.svc","version":"latest","metadata":null,"endpoints":[],"nodes":["#,
        r#"{"metadata":{"protocol":"grpc","server":"grpc","transport":"grpc"},"#,
        r#""id":"team/pay.svc-1","address":"127.0.0.1:38453"}]}"#
    );
    let node = Node::new("team/pay.svc", "team/pay.svc-1", "127.0.0.1:38453");
    let mut next = async || {
        let message = timeout(SOON, told.next()).await.expect("it is told").unwrap();
        String::from_utf8(message.payload.to_vec()).unwrap()
    };
    let event = |action: &str| format!(r#"{{"Service":{document},"Action":"{action}"}}"#);

    let lease = registry.register(&node, TTL).await.unwrap();
    assert_eq!(next().await, event("create"));
    registry.renew(&node, lease).await.unwrap();
    assert_eq!(next().await, event("create"), "a renewal is go-micro's heartbeat");

    // go-micro's questions.
    let get = r#"{"Service":{"name":"team/pay.svc","version":"","metadata":null,"endpoints":null,"nodes":null},"Action":"get"}"#;
    for question in [get, r#"{"Service":null,"Action":"list"}"#] {
        let answer = client.request("micro.nats.query", question.into()).await.unwrap();
        assert_eq!(answer.payload, document);
    }
    registry.deregister(&node, lease).await.unwrap();
    assert_eq!(next().await, event("delete"));
}

#[tokio::test]
async fn a_node_of_go_micros_is_found_by_its_answer_and_by_what_it_says() {
    let nats = Nats::start().await;
    let registry = registry::open(&nats.url()).unwrap();
    let client = nats.client().await;
    let mut asked = client.subscribe("micro.nats.query").await.unwrap();
    client.flush().await.unwrap();
    let answering = tokio::spawn(async move {
        while let Some(question) = asked.next().await {
            let json: serde_json::Value = serde_json::from_slice(&question.payload).unwrap();
            assert!(["get", "list"].contains(&json["Action"].as_str().unwrap()), "{json}");
            // Two nodes of one process, without TTL.
            let answer = r#"{"name":"greeter","version":"v1","metadata":null,"endpoints":null,"nodes":[
                {"id":"go-1","address":"127.0.0.1:1","metadata":{"protocol":"grpc"}},
                {"id":"go-2","address":"127.0.0.1:2","metadata":{"protocol":"grpc"}}]}"#;
            client.publish(question.reply.unwrap(), answer.into()).await.unwrap();
        }
    });
    assert_eq!(ids(&registry).await, ["go-1", "go-2"]);
    assert_eq!(registry.list().await.unwrap(), ["greeter"]);
    let mut watching = Watching::from_now(&registry, "greeter").await;
    nats.say("create", &node("go-3")).await;
    assert_eq!(watching.events(1).await, ["+go-3@127.0.0.1:1"]);
    nats.say("create", &node("go-3")).await;
    nats.say("delete", &node("go-3")).await;
    assert_eq!(watching.events(1).await, ["-go-3"], "its heartbeat is no change");
    answering.abort();
}

#[tokio::test]
async fn a_record_that_another_process_writes_over_ours_is_taken_and_taken_back() {
    let nats = Nats::start().await;
    let registry = registry::open(&nats.url()).unwrap();
    let lease = registry.register(&node("a"), TTL).await.unwrap();
    nats.say("create", &Node::new("greeter", "a", "127.0.0.1:2")).await;
    let renewed = registry.renew(&node("a"), lease).await;
    assert!(
        matches!(&renewed, Err(RenewError::Taken(why)) if why.contains("127.0.0.1:2")),
        "{renewed:?}"
    );
    let lease = registry.register(&node("a"), TTL).await.unwrap();
    registry.renew(&node("a"), lease).await.unwrap();
    nats.say("delete", &node("a")).await;
    let renewed = registry.renew(&node("a"), lease).await;
    assert!(matches!(renewed, Err(RenewError::Lost(_))), "{renewed:?}");
}

#[tokio::test]
async fn all_that_a_process_does_with_a_registry_shares_one_connection() {
    let nats = Nats::start().await;
    let mut kept = Vec::new();
    for n in 0..20 {
        let registry = registry::open(&nats.url()).unwrap();
        let lease = registry.register(&node(&format!("n-{n}")), TTL).await.unwrap();
        registry.renew(&node(&format!("n-{n}")), lease).await.unwrap();
        let watching = Watching::from_now(&registry, "greeter").await;
        kept.push((registry, watching));
    }
    assert_eq!(nats.connections(), 1);
    let subscriptions = nats.subscriptions().await;
    assert_eq!(subscriptions["micro.nats.watch"], 1, "{subscriptions:?}");
    assert_eq!(subscriptions["micro.nats.query"], 1, "{subscriptions:?}");
    assert_eq!(subscriptions.len(), 3, "and an inbox: {subscriptions:?}");
    drop(kept);
    let closed = async {
        while nats.connections() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, closed).await.expect("it is closed with the last that needs it");
}

#[tokio::test]
async fn ten_thousand_nodes_are_read_at_once() {
    let nats = Nats::start().await;
    let client = nats.client().await;
    let mut asked = client.subscribe("micro.nats.query").await.unwrap();
    client.flush().await.unwrap();
    let answering = tokio::spawn(async move {
        while let Some(question) = asked.next().await {
            let to = question.reply.unwrap();
            for n in 0..10_000 {
                let answer = json!({
                    "name": "many", "version": "latest",
                    "nodes": [{ "id": format!("m-{n}"), "address": format!("10.0.{}.{}:1", n / 250, n % 250),
                        "metadata": { "protocol": "grpc", "filler": "x".repeat(500) } }],
                });
                client.publish(to.clone(), answer.to_string().into()).await.unwrap();
            }
        }
    });
    let registry = registry::open(&nats.url()).unwrap();
    // What comes after the 100 ms is told to the watch.
    let listing = registry.read("many").await.unwrap();
    let mut watching = Watching::after(&registry, "many", &listing);
    let mut found = listing.entries.len();
    while found < 10_000 {
        match watching.next_or_end().await {
            Ok(batch) => found += batch.events.len(),
            // More came at once than the history has room for.
            Err(_) => {
                let listing = registry.read("many").await.unwrap();
                found = listing.entries.len();
                watching = Watching::after(&registry, "many", &listing);
            }
        }
    }
    assert_eq!(found, 10_000);
    answering.abort();
}

#[tokio::test]
async fn what_is_wrong_with_a_url_is_named_and_no_secret_shown() {
    let file = std::env::current_exe().unwrap().display().to_string();
    for (url, named) in [
        ("nats://".to_owned(), "a host is missing; write `nats://127.0.0.1:4222`"),
        ("nats://a/x".to_owned(), "takes no path"),
        (
            "nats://a?ttl=3".to_owned(),
            "unknown option `ttl`; nats:// knows tls, ca, cert, key, creds",
        ),
        ("nats://a?tls=yes".to_owned(), "option `tls` is `true` or `false`"),
        ("nats://a?ca=".to_owned(), "option `ca` names no file"),
        (
            "nats://a?creds=/nowhere".to_owned(),
            "option `creds`: cannot read /nowhere: No such file",
        ),
        (format!("nats://a?creds={file}"), "option `creds`: cannot read"),
        ("nats://a?creds=Cargo.toml".to_owned(), "holds no user's JWT and key"),
        ("nats://me:s3cret@a?creds=Cargo.toml".to_owned(), "are two credentials; leave one out"),
        (format!("nats://a?cert={file}"), "`cert` and `key` go together"),
        (format!("nats://a?tls=false&ca={file}"), "`tls=false` contradicts"),
    ] {
        let error = registry::open(&url).unwrap_err();
        assert!(error.is_config() && error.to_string().contains(named), "{url}: {error}");
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
}

#[tokio::test]
async fn what_no_record_can_have_is_refused() {
    let registry = registry::open(&Nats::stopped().url()).unwrap();
    for (service, id) in [("", "a"), ("a", "")] {
        let node = Node::new(service, id, "h:1");
        for error in [registry.validate(&node), registry.register(&node, TTL).await.map(drop)] {
            let error = error.unwrap_err();
            assert!(error.is_config() && error.to_string().contains("is empty"), "{error:?}");
        }
    }
    assert!(registry.read("").await.unwrap_err().is_config());
    let mut large = node("a");
    large.metadata.insert("notes".to_owned(), "x".repeat(2 << 20));
    let error = registry.validate(&large).unwrap_err();
    assert!(error.is_config() && error.to_string().contains("less metadata"), "{error:?}");
}
