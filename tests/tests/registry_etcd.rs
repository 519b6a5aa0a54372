//! `etcd://` on a real etcd: held to what every registry is, and to go-micro's bytes.

use std::{process::Stdio, sync::Arc, time::Duration};

use etcd_client::{Compare, CompareOp, GetOptions, PutOptions, Txn, TxnOp};
use micro::{
    Client, Service,
    discovery::Update,
    registration::{self, Registration},
    registry::{self, Node, Registry, RenewError},
    registry_conformance,
    testing::registry::{Backend, Cannot, Owner, Watching},
};
use tests::etcd::Etcd;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};
use tokio_stream::StreamExt as _;

const TTL: Duration = Duration::from_secs(60);

struct InEtcd(Etcd);

impl InEtcd {
    async fn start() -> Self {
        Self(Etcd::start().await)
    }
}

fn key(node: &Node) -> String {
    let escape = |name: &str| name.replace('/', "-");
    format!("/micro/registry/{}/{}", escape(&node.service), escape(&node.id))
}

impl Backend for InEtcd {
    fn registry(&self) -> Arc<dyn Registry> {
        registry::open(&self.0.url()).expect("the URL is well-formed")
    }

    async fn delete(&self, nodes: &[Node]) -> Result<(), Cannot> {
        let delete: Vec<_> = nodes.iter().map(|node| TxnOp::delete(key(node), None)).collect();
        let all = nodes.iter().map(|node| Compare::version(key(node), CompareOp::Greater, 0));
        let txn = Txn::new().when(all.collect::<Vec<_>>()).and_then(delete);
        let done = self.0.client().await.txn(txn).await.expect("etcd answers");
        assert!(done.succeeded(), "the keys were there");
        Ok(())
    }

    async fn write_malformed(&self, service: &str) -> Result<String, Cannot> {
        let key = format!("/micro/registry/{service}/malformed");
        let value = r#"{"name":"x","nodes":[{"id":3}]}"#;
        self.0.client().await.put(key.clone(), value, None).await.expect("etcd answers");
        Ok(key)
    }

    async fn delete_key(&self, key: &str) -> Result<(), Cannot> {
        self.0.client().await.delete(key, None).await.expect("etcd answers");
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

    async fn forget(&self) -> Result<(), Cannot> {
        let mut client = self.0.client().await;
        let now = client.get("x", None).await.expect("etcd answers");
        let revision = now.header().expect("an answer has a header").revision();
        client.compact(revision, None).await.expect("etcd answers");
        Ok(())
    }
}

registry_conformance!(() InEtcd::start().await);

#[tokio::test]
async fn a_record_has_go_micros_key_and_bytes_and_never_lacks_a_lease() {
    let backend = InEtcd::start().await;
    let registry = backend.registry();
    let mut client = backend.0.client().await;
    let node = Node::new("team/pay.svc", "team/pay.svc-1", "127.0.0.1:38453");
    // etcd counts whole seconds: never less than was asked for.
    let lease = registry.register(&node, Duration::from_millis(14_001)).await.unwrap();
    let found = client.get("/micro/registry/team-pay.svc/team-pay.svc-1", None).await.unwrap();
    let [kv] = found.kvs() else { panic!("one key: {found:?}") };
    assert_eq!(
        kv.value_str().unwrap(),
        concat!(
            r#"{"name":"team/pay.svc","version":"latest","metadata":null,"endpoints":[],"nodes":["#,
            r#"{"metadata":{"protocol":"grpc","server":"grpc","transport":"grpc"},"#,
            r#""id":"team/pay.svc-1","address":"127.0.0.1:38453"}]}"#
        )
    );
    assert!(lease.0 != 0 && kv.lease() == lease.0);
    let granted = client.lease_client().time_to_live(lease.0, None).await.unwrap();
    assert_eq!(granted.granted_ttl(), 15);
    registry.deregister(&node, lease).await.unwrap();
    let leases = client.lease_client().leases().await.unwrap();
    assert!(leases.leases().is_empty(), "the lease was given back: {leases:?}");
}

#[tokio::test]
async fn real_go_micros_records_are_read() {
    let backend = InEtcd::start().await;
    let registry = backend.registry();
    let mut client = backend.0.client().await;
    let mut key = "";
    for line in include_str!("../vectors/etcd-records.txt").lines() {
        if let Some(rest) = line.strip_prefix("KEY ") {
            key = rest;
        } else if let Some(rest) = line.strip_prefix("VALUE ") {
            let (_, value) = rest.split_once(' ').unwrap();
            client.put(key, value, None).await.unwrap();
        }
    }
    assert_eq!(
        registry.list().await.unwrap(),
        [
            "echo.v1.Echo",
            "echo4.Echo",
            "mucp4",
            "mucpsvc",
            "noinit",
            "team/pay.svc",
            "team/pay4.svc"
        ]
    );
    let listing = registry.read("team/pay.svc").await.unwrap();
    let [entry] = &listing.entries[..] else { panic!("one node: {listing:?}") };
    assert_eq!(entry.node.metadata["weight"], "<5>");
    assert_eq!(entry.node.endpoints.len(), 5);
    assert!(entry.node.is_grpc());
    assert!(!registry.read("mucp4").await.unwrap().entries[0].node.is_grpc());
}

#[tokio::test]
async fn more_records_than_a_message_can_have_are_read_all_of_one_revision() {
    let etcd = Etcd::start().await;
    let registry = registry::open(&etcd.url()).unwrap();
    let mut client = etcd.client().await;
    // One in 25 has half a megabyte: no 250 of these fit in 4 MiB.
    for n in 0..1510 {
        let mut node = Node::new("many", format!("many-{n:04}"), "127.0.0.1:1");
        let filler = if n % 25 == 0 { 500_000 } else { 100 };
        node.metadata.insert("filler".to_owned(), "x".repeat(filler));
        let value = format!(
            r#"{{"name":"many","nodes":[{{"id":"{}","metadata":{{"filler":"{}"}}}}]}}"#,
            node.id, node.metadata["filler"]
        );
        client.put(key(&node), value, None).await.unwrap();
    }
    let then = registry.read("many").await.unwrap();
    assert_eq!((then.entries.len(), then.malformed.len()), (1510, 0));
    assert!(then.entries.iter().map(|entry| &entry.node.id).is_sorted());
    assert_eq!(registry.list().await.unwrap(), ["many"]);

    // A watch that resumes from before all of it gets it too.
    let mut watching = Watching::after_revision(&registry, "many", 1);
    assert_eq!(watching.events(1510).await.len(), 1510);
}

#[tokio::test]
async fn changes_of_one_revision_are_one_batch() {
    let backend = InEtcd::start().await;
    let registry = backend.registry();
    let nodes: Vec<_> = (1..=3).map(|n| Node::new("batch", format!("b-{n}"), "h:1")).collect();
    for node in &nodes {
        registry.register(node, TTL).await.unwrap();
    }
    let mut watching = Watching::from_now(&registry, "batch").await;
    backend.delete(&nodes).await.unwrap();
    assert_eq!(watching.next().await.events.len(), 3);
}

#[tokio::test]
async fn a_record_written_by_another_without_our_lease_is_lost() {
    let backend = InEtcd::start().await;
    let registry = backend.registry();
    let mut client = backend.0.client().await;
    let node = Node::new("foreign", "foreign-1", "127.0.0.1:1");
    let lease = registry.register(&node, TTL).await.unwrap();
    let written = client.get(key(&node), None).await.unwrap();
    let value = written.kvs()[0].value().to_vec();

    // The same bytes, without a lease: they would stay for ever.
    client.put(key(&node), value, None).await.unwrap();
    let renewed = registry.renew(&node, lease).await;
    assert!(
        matches!(&renewed, Err(RenewError::Taken(why)) if why.contains("unique")),
        "{renewed:?}"
    );

    // Other bytes, under our lease.
    let lease = registry.register(&node, TTL).await.unwrap();
    let ours = PutOptions::new().with_lease(lease.0);
    client.put(key(&node), "{}", Some(ours)).await.unwrap();
    let renewed = registry.renew(&node, lease).await;
    assert!(matches!(&renewed, Err(RenewError::Taken(_))), "{renewed:?}");

    // The lease revoked.
    let lease = registry.register(&node, TTL).await.unwrap();
    registry.renew(&node, lease).await.unwrap();
    client.lease_client().revoke(lease.0).await.unwrap();
    let renewed = registry.renew(&node, lease).await;
    assert!(matches!(&renewed, Err(RenewError::Lost(why)) if why.contains("lease")), "{renewed:?}");
    let all = GetOptions::new().with_prefix();
    assert!(client.get("/micro/registry/", Some(all)).await.unwrap().kvs().is_empty());
}

#[tokio::test]
async fn a_record_written_back_without_a_lease_goes_with_its_node() {
    let backend = InEtcd::start().await;
    let registry = backend.registry();
    let mut client = backend.0.client().await;
    let node = Node::new("back", "back-1", "127.0.0.1:1");
    let lease = registry.register(&node, TTL).await.unwrap();
    let value = client.get(key(&node), None).await.unwrap().kvs()[0].value().to_vec();
    client.put(key(&node), value.clone(), None).await.unwrap();
    registry.deregister(&node, lease).await.unwrap();
    assert!(client.get(key(&node), None).await.unwrap().kvs().is_empty());

    // What another has written stays, and so does the same record under another lease.
    let lease = registry.register(&node, TTL).await.unwrap();
    client.put(key(&node), "{}", None).await.unwrap();
    registry.deregister(&node, lease).await.unwrap();
    assert_eq!(client.get(key(&node), None).await.unwrap().kvs()[0].value(), b"{}");
    let older = registry.register(&node, TTL).await.unwrap();
    let newer = registry.register(&node, TTL).await.unwrap();
    registry.deregister(&node, older).await.unwrap();
    registry.renew(&node, newer).await.expect("the record stands");
}

#[tokio::test]
async fn the_lease_of_a_lost_record_is_given_back() {
    let backend = InEtcd::start().await;
    let registry = backend.registry();
    let mut client = backend.0.client().await;
    let node = Node::new("lost", "lost-1", "127.0.0.1:1");
    let mut watching = Watching::after_revision(&registry, "lost", 1);
    let options = registration::Options { interval: TTL / 300, ..registration::Options::new(TTL) };
    let registration = Registration::start(registry.clone(), node.clone(), options);
    assert_eq!(watching.events(1).await, ["+lost-1@127.0.0.1:1"]);
    backend.delete(&[node]).await.unwrap();
    assert_eq!(watching.events(2).await, ["-lost-1", "+lost-1@127.0.0.1:1"]);
    let leases = async |client: &mut etcd_client::Client| {
        client.lease_client().leases().await.unwrap().leases().len()
    };
    let one_lease = async {
        while leases(&mut client).await != 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TTL / 6, one_lease).await.expect("long before its TTL is over");
    registration.leave().await;
    assert_eq!(leases(&mut client).await, 0);
}

#[tokio::test]
async fn names_that_no_key_can_have_are_refused() {
    let etcd = Etcd::stopped();
    let registry = registry::open(&etcd.url()).unwrap();
    for (service, id) in [("", "a"), ("a", ""), ("..", "a"), ("a", ".")] {
        let error = registry.register(&Node::new(service, id, "h:1"), TTL).await.unwrap_err();
        assert!(error.is_config(), "{error:?}");
    }
    let error = registry
        .register(&Node::new("a", "a-1", "h:1"), Duration::from_millis(999))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "{}: cannot register a-1 of service a: a TTL of 999ms is under etcd's least, 1 s",
            etcd.url()
        )
    );
}

#[tokio::test]
async fn a_record_that_cannot_be_held_fails_the_start_and_an_etcd_that_is_away_does_not() {
    let etcd = Etcd::stopped();
    let service = || Service::builder("greeter").registry(etcd.url());
    let large = service().metadata("notes", "x".repeat(2 << 20)).build().await.unwrap();
    let error = large.start().await.unwrap_err();
    assert!(error.is_config() && error.to_string().contains("less metadata"), "{error:?}");
    assert!(error.to_string().contains("the name is from Service::builder()"), "{error:?}");
    service().build().await.unwrap().start().await.unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn all_that_a_process_does_with_a_registry_shares_one_connection() {
    let etcd = Etcd::start().await;
    let mut kept = Vec::new();
    for n in 0..20 {
        let registry = registry::open(&etcd.url()).unwrap();
        let node = Node::new("shared", format!("shared-{n}"), "127.0.0.1:1");
        let lease = registry.register(&node, TTL).await.unwrap();
        for _ in 0..3 {
            registry.renew(&node, lease).await.unwrap();
        }
        let mut watching = Watching::after_revision(&registry, "shared", 1);
        watching.events(1).await;
        kept.push((registry, watching));
    }
    assert_eq!(etcd.connections(), 1);
}

#[tokio::test]
async fn all_channels_of_a_process_share_one_watch_a_service() {
    let etcd = Etcd::start().await;
    let service = Service::builder("other").registry(etcd.url()).build().await.unwrap();
    let client = || Client::builder().registry(etcd.url()).build().unwrap();
    let clients = [client(), client(), service.client()];
    let mut updates: Vec<_> = clients.iter().map(|it| it.discovery().subscribe("shared")).collect();
    let channels = clients.map(|client| client.channel("shared"));
    for updates in &mut updates {
        assert_eq!(updates.next().await, Some(Update::Reset(vec![])));
    }
    let registry = registry::open(&etcd.url()).unwrap();
    let node = Node::new("shared", "shared-1", "127.0.0.1:1");
    registry.register(&node, TTL).await.unwrap();
    for updates in &mut updates {
        // Brought by a watch: there are as many now as there will be.
        let update = updates.next().await;
        assert!(matches!(update, Some(Update::Insert(_))), "{update:?}");
    }
    assert_eq!(etcd.watches().await, 1);
    // It goes on for a minute without them, which discovery's own tests have on a simulated clock.
    drop((updates, channels));
    assert_eq!(etcd.watches().await, 1);
}
