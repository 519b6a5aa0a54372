//! `consul://` on a real Consul: held to what every registry is, and to go-micro's words.

use std::{process::Stdio, sync::Arc, time::Duration};

use micro::{
    registry::{self, Node, Registry, RenewError},
    registry_conformance,
    testing::registry::{Backend, Cannot, Owner, Watching},
};
use serde_json::{Value, json};
use tests::consul::Consul;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

const TTL: Duration = Duration::from_secs(60);

struct InConsul(Consul);

impl InConsul {
    async fn start() -> Self {
        Self(Consul::start().await)
    }
}

/// As a part of a path.
fn part(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2F")
}

impl Backend for InConsul {
    fn registry(&self) -> Arc<dyn Registry> {
        registry::open(&self.0.url()).expect("the URL is well-formed")
    }

    fn not_applicable(&self) -> &'static [(&'static str, &'static [&'static str])] {
        &[(
            "Consul keeps no history: a watch is told how all stands, however far back it begins",
            &["a_gap_in_the_watch_is_told"],
        )]
    }

    fn tells_every_change(&self) -> bool {
        false
    }

    async fn delete(&self, nodes: &[Node]) -> Result<(), Cannot> {
        for node in nodes {
            let path = format!("/v1/agent/service/deregister/{}", part(&node.id));
            self.0.put(&path, Value::Null).await;
        }
        Ok(())
    }

    async fn write_malformed(&self, service: &str) -> Result<String, Cannot> {
        let tags = ["t-789caa562a"];
        let body = json!({ "ID": "malformed", "Name": service, "Tags": tags, "Port": 1 });
        self.0.put("/v1/agent/service/register", body).await;
        Ok("n1/malformed".to_owned())
    }

    async fn delete_key(&self, key: &str) -> Result<(), Cannot> {
        let (_, id) = key.split_once('/').expect("a key has a node and an id");
        let path = format!("/v1/agent/service/deregister/{}", part(id));
        self.0.put(&path, Value::Null).await;
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

registry_conformance!(() InConsul::start().await);

#[tokio::test]
async fn a_node_is_a_service_in_go_micros_words() {
    let backend = InConsul::start().await;
    let registry = backend.registry();
    let mut node = Node::new("team/pay.svc", "team/pay.svc-1%\"\\", "[::1]:38453");
    node.version = "1.2.0".to_owned();
    let long = "x".repeat(513);
    node.metadata.extend(
        [("zone", "a"), ("a.b", "c"), ("consul-x", "d")]
            .map(|(key, value)| (key.into(), value.into())),
    );
    node.metadata.insert("long".to_owned(), long);
    let lease = registry.register(&node, Duration::from_millis(14_001)).await.unwrap();
    registry.renew(&node, lease).await.unwrap();
    assert_eq!(*registry.read("team/pay.svc").await.unwrap().entries[0].node, node);

    let services = backend.0.get("/v1/agent/services").await;
    let service = &services[&node.id];
    assert_eq!(service["Service"], "team/pay.svc");
    assert_eq!((&service["Address"], &service["Port"]), (&json!("::1"), &json!(38453)));
    let tags: Vec<_> = service["Tags"].as_array().unwrap().iter().collect();
    assert_eq!(tags.iter().filter(|tag| tag.as_str().unwrap().starts_with("t-789c")).count(), 7);
    assert!(tags.iter().any(|tag| **tag == "v-789c33d433d233000002d400f0"), "1.2.0: {tags:?}");
    // What Consul takes as it is; the rest is in the tags alone.
    assert_eq!(
        service["Meta"],
        json!({ "protocol": "grpc", "server": "grpc", "transport": "grpc", "zone": "a" })
    );
    let checks = backend.0.get("/v1/agent/checks").await;
    let check = &checks[format!("service:{}", node.id)];
    assert_eq!((&check["Type"], &check["Status"]), (&json!("ttl"), &json!("passing")));
    registry.deregister(&node, lease).await.unwrap();
    assert_eq!(backend.0.get("/v1/agent/checks").await, json!({}), "the check went with it");
}

/// What go-micro v5 sends, then Kratos and Kitex, and a machine's administrator.
async fn register_foreign(consul: &Consul) {
    let go_micro = json!({
        "ID": "mixed-go", "Name": "mixed", "Port": 41597, "Address": "10.0.0.5",
        "Tags": [
            "t-789caa562a28ca2fc94fcecf51b2524a2f2a4856aa05040000ffff468306d9",
            "t-789caa562a294acc2b2ec82f2a51b2524a2f2a4856aa05040000ffff4f4c0754",
            "t-789caa562a4e2d2a4b2d52b2524a2f2a4856aa05040000ffff36fa05fe",
            "t-789caa56aacacf4b55b2524a54aa05040000ffff1a7e03d8",
            "v-789c32d433d23300040000ffff02d400f0"
        ],
        "Meta": { "protocol": "grpc", "transport": "grpc", "server": "grpc", "zone": "a" },
        "Check": { "TTL": "1m0s", "DeregisterCriticalServiceAfter": "1m5s" }, "Checks": null
    });
    consul.put("/v1/agent/service/register", go_micro).await;
    consul.put("/v1/agent/check/pass/service:mixed-go?note=", Value::Null).await;
    let kratos = json!({
        "ID": "6f0c2a1e", "Name": "mixed", "Tags": ["version=v1.0.0"], "Port": 8000,
        "Address": "10.0.3.7",
        "TaggedAddresses": {
            "grpc": { "Address": "grpc://10.0.3.7:9000", "Port": 9000 },
            "http": { "Address": "http://10.0.3.7:8000", "Port": 8000 }
        },
        "Meta": { "weight": "100" }, "Check": null,
        "Checks": [
            { "CheckID": "service:6f0c2a1e", "TTL": "20s", "DeregisterCriticalServiceAfter": "600s" }
        ]
    });
    consul.put("/v1/agent/service/register", kratos).await;
    consul.put("/v1/agent/check/update/service:6f0c2a1e", json!({ "Status": "passing" })).await;
    let kitex = json!({
        "ID": "mixed:10.0.3.7:8888", "Name": "mixed", "Tags": ["hello:world", "a:b:c"],
        "Port": 8888, "Address": "10.0.3.7", "Weights": { "Passing": 7, "Warning": 7 }
    });
    consul.put("/v1/agent/service/register", kitex).await;
    // No address but the machine's.
    let plain = json!({
        "ID": "plain", "Name": "mixed", "Port": 80, "Tags": ["e-commerce", "prod"],
        "Meta": { "protocol": "grpc" }
    });
    consul.put("/v1/agent/service/register", plain).await;
}

async fn found(url: &str, service: &str) -> Vec<(String, String, String, bool)> {
    let listing = registry::open(url).unwrap().read(service).await.unwrap();
    assert!(listing.malformed.is_empty(), "{listing:?}");
    let mut found: Vec<_> = listing
        .entries
        .into_iter()
        .map(|entry| {
            let Node { id, address, version, .. } = &*entry.node;
            (id.clone(), address.clone(), version.clone(), entry.node.is_grpc())
        })
        .collect();
    found.sort();
    found
}

#[tokio::test]
async fn nodes_of_other_fleets_are_read() {
    let consul = Consul::start().await;
    register_foreign(&consul).await;
    let row = |id: &str, address: &str, version: &str, is_grpc| {
        (id.to_owned(), address.to_owned(), version.to_owned(), is_grpc)
    };
    let go_micro = row("mixed-go", "10.0.0.5:41597", "1.2.0", true);
    let plain = row("plain", "127.0.0.1:80", "", true);
    assert_eq!(
        found(&consul.url(), "mixed").await,
        [
            row("6f0c2a1e", "10.0.3.7:8000", "", false),
            go_micro.clone(),
            row("mixed:10.0.3.7:8888", "10.0.3.7:8888", "", false),
            plain,
        ],
        "what does not say that it speaks gRPC is not called"
    );
    let kratos = row("6f0c2a1e", "10.0.3.7:9000", "v1.0.0", true);
    assert_eq!(found(&format!("{}?format=micro,kratos", consul.url()), "mixed").await[0], kratos);
    let alone = found(&format!("{}?format=kratos", consul.url()), "mixed").await;
    let called: Vec<_> = alone.iter().filter(|row| row.3).collect();
    assert_eq!(called, [&kratos], "go-micro's nodes are not asked for");
    let kitex = row("mixed:10.0.3.7:8888", "10.0.3.7:8888", "latest", true);
    let url = format!("{}?format=kitex,micro,kratos", consul.url());
    assert_eq!(found(&url, "mixed").await[..3], [kratos, go_micro, kitex]);
    let listing = registry::open(&url).unwrap().read("mixed").await.unwrap();
    let of = |id: &str| {
        let entry = listing.entries.iter().find(|entry| entry.node.id == id).unwrap();
        entry.node.metadata.clone()
    };
    assert_eq!(of("6f0c2a1e")["weight"], "100");
    let kitex = of("mixed:10.0.3.7:8888");
    assert_eq!((&*kitex["weight"], &*kitex["hello"], &*kitex["a"]), ("7", "world", "b:c"));
}

#[tokio::test]
async fn one_registration_speaks_to_all_fleets() {
    let consul = Consul::start().await;
    let open = |format: &str| registry::open(&format!("{}?format={format}", consul.url())).unwrap();
    let all = open("micro,kratos,kitex");
    let mut node = Node::new("all", "all-1", "127.0.0.1:9000");
    node.version = "v2".to_owned();
    node.metadata.insert("weight".to_owned(), "30".to_owned());
    let lease = all.register(&node, TTL).await.unwrap();
    all.renew(&node, lease).await.expect("it stands as written");
    assert_eq!(*all.read("all").await.unwrap().entries[0].node, node);
    let service = consul.get("/v1/agent/service/all-1").await;
    assert_eq!(
        service["TaggedAddresses"]["grpc"],
        json!({ "Address": "grpc://127.0.0.1:9000", "Port": 9000 })
    );
    assert_eq!(service["Weights"], json!({ "Passing": 30, "Warning": 30 }));
    let tags = service["Tags"].as_array().unwrap();
    assert!(tags.contains(&json!("version=v2")), "{tags:?}");
    for format in ["kratos", "micro"] {
        assert_eq!(*open(format).read("all").await.unwrap().entries[0].node, node, "{format}");
    }
    let kitex = open("kitex");
    kitex.register(&node, TTL).await.unwrap();
    let read = kitex.read("all").await.unwrap();
    assert_eq!(read.entries[0].node.metadata, node.metadata);
    assert!(matches!(all.renew(&node, lease).await, Err(RenewError::Taken(_))));
}

#[tokio::test]
async fn nodes_in_warning_count_and_nodes_with_a_critical_check_do_not() {
    let backend = InConsul::start().await;
    let registry = backend.registry();
    let node = Node::new("health", "health-1", "127.0.0.1:1");
    let lease = registry.register(&node, TTL).await.unwrap();
    let mut watching = Watching::from_now(&registry, "health").await;
    backend.0.put("/v1/agent/service/maintenance/health-1?enable=true", Value::Null).await;
    assert_eq!(watching.events(1).await, ["-health-1"]);
    registry.renew(&node, lease).await.expect("its own check passes");
    backend.0.put("/v1/agent/service/maintenance/health-1?enable=false", Value::Null).await;
    assert_eq!(watching.events(1).await, ["+health-1@127.0.0.1:1"]);

    backend.0.put("/v1/agent/check/warn/service:health-1", Value::Null).await;
    assert_eq!(registry.read("health").await.unwrap().entries.len(), 1);
    backend.0.put("/v1/agent/check/fail/service:health-1", Value::Null).await;
    assert_eq!(watching.events(1).await, ["-health-1"]);
    let renewed = registry.renew(&node, lease).await;
    assert!(matches!(renewed, Err(RenewError::Lost(_))), "{renewed:?}");
    // Consul keeps the state of a check that is registered anew.
    registry.register(&node, TTL).await.unwrap();
    assert_eq!(registry.read("health").await.unwrap().entries.len(), 1);
    assert_eq!(watching.events(1).await, ["+health-1@127.0.0.1:1"]);
}

#[tokio::test]
async fn what_another_hand_did_to_a_record_is_found_at_the_renewal() {
    let backend = InConsul::start().await;
    let registry = backend.registry();
    let node = Node::new("hand", "hand-1", "127.0.0.1:1");
    let register = async || registry.register(&node, TTL).await.unwrap();

    let lease = register().await;
    backend.0.put("/v1/agent/check/deregister/service:hand-1", Value::Null).await;
    let renewed = registry.renew(&node, lease).await;
    assert!(matches!(&renewed, Err(RenewError::Lost(why)) if why.contains("check")), "{renewed:?}");

    // Gone from the catalog, where the agent still has it. What the agent has yet to tell the catalog would
    // write it again: it tells all in one turn, and shows its services between two.
    let lease = register().await;
    registry.register(&Node::new("told", "told-1", "127.0.0.1:2"), TTL).await.unwrap();
    backend.0.get("/v1/agent/services").await;
    let gone = json!({ "Node": "n1", "ServiceID": "hand-1" });
    backend.0.put("/v1/catalog/deregister", gone).await;
    let renewed = registry.renew(&node, lease).await;
    assert!(
        matches!(&renewed, Err(RenewError::Lost(why)) if why.contains("catalog")),
        "{renewed:?}"
    );
    let lease = register().await;
    assert_eq!(registry.read("hand").await.unwrap().entries.len(), 1, "it is back at once");
    registry.renew(&node, lease).await.unwrap();

    let other = json!({
        "Node": "n1", "Address": "127.0.0.1", "SkipNodeUpdate": true,
        "Service": { "ID": "hand-1", "Service": "hand", "Port": 2, "Address": "127.0.0.1" }
    });
    backend.0.put("/v1/catalog/register", other).await;
    let renewed = registry.renew(&node, lease).await;
    assert!(matches!(&renewed, Err(RenewError::Taken(_))), "{renewed:?}");

    // Registered anew with the same words, and no check: it would stay for ever.
    let lease = register().await;
    let service = backend.0.get("/v1/agent/service/hand-1").await;
    let same = json!({
        "ID": "hand-1", "Name": "hand", "Tags": service["Tags"], "Meta": service["Meta"],
        "Address": "127.0.0.1", "Port": 1
    });
    let path = "/v1/agent/service/register?replace-existing-checks=true";
    backend.0.put(path, same).await;
    let renewed = registry.renew(&node, lease).await;
    assert!(matches!(renewed, Err(RenewError::Lost(_))), "{renewed:?}");
    registry.deregister(&node, lease).await.unwrap();
    assert!(registry.read("hand").await.unwrap().entries.is_empty(), "it went with its node");
}

#[tokio::test]
async fn an_id_that_another_service_took_is_told_with_its_name() {
    let backend = InConsul::start().await;
    let registry = backend.registry();
    let ours = Node::new("ours", "same-id", "127.0.0.1:1");
    let theirs = Node::new("theirs", "same-id", "127.0.0.1:2");
    let lease = registry.register(&ours, TTL).await.unwrap();
    let their_lease = registry.register(&theirs, TTL).await.unwrap();
    let renewed = registry.renew(&ours, lease).await;
    assert!(
        matches!(&renewed, Err(RenewError::Taken(why)) if why.contains("service \"theirs\"")),
        "{renewed:?}"
    );
    registry.deregister(&ours, lease).await.unwrap();
    registry.renew(&theirs, their_lease).await.expect("nobody else's record is removed");
}

#[tokio::test]
async fn an_older_lease_removes_nothing() {
    let backend = InConsul::start().await;
    let registry = backend.registry();
    let node = Node::new("lease", "lease-1", "127.0.0.1:1");
    let older = registry.register(&node, TTL).await.unwrap();
    let newer = registry.register(&node, TTL).await.unwrap();
    registry.deregister(&node, older).await.unwrap();
    registry.renew(&node, newer).await.expect("the record stands");
    assert!(matches!(registry.renew(&node, older).await, Err(RenewError::Taken(_))));
}

#[tokio::test]
async fn all_that_a_process_does_shares_few_connections() {
    let consul = Consul::start().await;
    let mut kept = Vec::new();
    for n in 0..20 {
        let registry = registry::open(&consul.url()).unwrap();
        let node = Node::new("shared", format!("shared-{n}"), "127.0.0.1:1");
        let lease = registry.register(&node, TTL).await.unwrap();
        for _ in 0..3 {
            registry.renew(&node, lease).await.unwrap();
        }
        kept.push((registry, lease));
    }
    // A renewal asks two things at once.
    assert!(consul.connections() <= 2, "{}", consul.connections());
}

#[tokio::test]
async fn an_agent_is_reached_by_its_socket() {
    let dir = tempfile::TempDir::new().unwrap();
    let socket = dir.path().join("consul.sock");
    let addresses = format!(r#"addresses {{ http = "127.0.0.1 unix://{}" }}"#, socket.display());
    let _consul = Consul::start_with(tests::consul::Options::hcl(&addresses)).await;
    let registry = registry::open(&format!("consul://{}", socket.display())).unwrap();
    let node = Node::new("socket", "socket-1", "127.0.0.1:1");
    let lease = registry.register(&node, TTL).await.unwrap();
    registry.renew(&node, lease).await.unwrap();
    let mut watching = Watching::from_now(&registry, "socket").await;
    registry.deregister(&node, lease).await.unwrap();
    assert_eq!(watching.events(1).await, ["-socket-1"]);
}

#[tokio::test]
async fn datacenter_and_nearness_are_passed_on() {
    let consul = Consul::start().await;
    let open = |query: &str| registry::open(&format!("{}{query}", consul.url())).unwrap();
    let here = open("?dc=dc1&near=_agent");
    let node = Node::new("near", "near-1", "127.0.0.1:1");
    here.register(&node, TTL).await.unwrap();
    assert_eq!(here.read("near").await.unwrap().entries.len(), 1);
    assert!(here.list().await.unwrap().contains(&"near".to_owned()));
    let error = open("?dc=mars").read("near").await.unwrap_err();
    assert!(error.to_string().contains("No path to datacenter"), "{error}");
    let error = open("?ns=team").read("near").await.unwrap_err();
    assert!(error.to_string().contains("Namespaces are a Consul Enterprise feature"), "{error}");
    let error = open("?partition=team").register(&node, TTL).await.unwrap_err();
    assert!(error.to_string().contains("Enterprise feature"), "{error}");
}

#[tokio::test]
async fn nodes_of_the_service_mesh_are_apart() {
    let consul = Consul::start().await;
    let plain = registry::open(&consul.url()).unwrap();
    let native = registry::open(&format!("{}?connect=native", consul.url())).unwrap();
    let mesh = Node::new("mesh", "mesh-native", "127.0.0.1:1");
    let lease = native.register(&mesh, TTL).await.unwrap();
    native.renew(&mesh, lease).await.unwrap();
    let mut watching = Watching::from_now(&native, "mesh").await;
    let other = Node::new("mesh", "mesh-plain", "127.0.0.1:2");
    plain.register(&other, TTL).await.unwrap();
    let ids = async |registry: &Arc<dyn Registry>| {
        let listing = registry.read("mesh").await.unwrap();
        listing.entries.iter().map(|entry| entry.node.id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&native).await, ["mesh-native"]);
    assert_eq!(ids(&plain).await, ["mesh-native", "mesh-plain"]);

    // By hand, with all but its flag.
    let own = consul.get("/v1/agent/service/mesh-native").await;
    let check = consul.get("/v1/agent/checks").await["service:mesh-native"]["Notes"].clone();
    let without = json!({
        "ID": "mesh-native", "Name": "mesh", "Tags": own["Tags"], "Meta": own["Meta"],
        "Address": "127.0.0.1", "Port": 1,
        "Check": { "TTL": "15s", "Status": "passing", "Notes": check }
    });
    consul.put("/v1/agent/service/register", without).await;
    assert_eq!(watching.events(1).await, ["-mesh-native"]);
    let renewed = native.renew(&mesh, lease).await;
    assert!(matches!(&renewed, Err(RenewError::Taken(_))), "{renewed:?}");
    let lease = native.register(&mesh, TTL).await.unwrap();
    assert_eq!(ids(&native).await, ["mesh-native"]);

    let mut watching = Watching::from_now(&native, "mesh").await;
    native.deregister(&mesh, lease).await.unwrap();
    assert_eq!(watching.events(1).await, ["-mesh-native"]);
}

#[tokio::test]
async fn a_list_of_a_thousand_nodes_is_read_whole() {
    let consul = Consul::start().await;
    let registry = registry::open(&consul.url()).unwrap();
    for n in 0..1000 {
        let service = json!({ "Node": "far", "Address": "127.0.0.2", "Service": {
            "ID": format!("many-{n:04}"), "Service": "many", "Port": 1, "Address": "127.0.0.1",
            "Meta": { "protocol": "grpc", "filler": "x".repeat(400) }
        }});
        consul.put("/v1/catalog/register", service).await;
    }
    let listing = registry.read("many").await.unwrap();
    assert_eq!((listing.entries.len(), listing.malformed.len()), (1000, 0));
    assert_eq!(listing.entries[0].key, "far/many-0000");
}

#[tokio::test]
async fn names_that_no_path_can_have_are_refused() {
    let consul = Consul::stopped();
    let registry = registry::open(&consul.url()).unwrap();
    for (service, id) in [("", "a"), ("a", ""), ("..", "a"), ("a", ".")] {
        let error = registry.register(&Node::new(service, id, "h:1"), TTL).await.unwrap_err();
        assert!(error.is_config(), "{error:?}");
        if id == "a" {
            assert!(registry.read(service).await.unwrap_err().is_config());
        }
    }
    let error = registry
        .register(&Node::new("a", "a-1", "h:1"), Duration::from_millis(999))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "{}: cannot register a-1 of service a: a TTL of 999ms is under the least for Consul, 1 s",
            consul.url()
        )
    );
}
