//! `nacos://` on rnacos, which speaks Nacos's protocols: held to what every registry is, and to the
//! words of go-micro, Kratos and Kitex.

use std::{process::Stdio, sync::Arc, time::Duration};

use micro::{
    registry::{self, Node, Registry},
    registry_conformance,
    testing::registry::{Backend, Cannot, Watching},
};
use serde_json::{Value, json};
use tests::nacos::Nacos;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::{Instant, sleep, timeout},
};

const TTL: Duration = Duration::from_secs(60);

struct InNacos(Nacos);

impl InNacos {
    async fn start() -> Self {
        Self(Nacos::start().await)
    }
}

impl Backend for InNacos {
    fn registry(&self) -> Arc<dyn Registry> {
        registry::open(&self.0.url()).expect("the URL is well-formed")
    }

    fn not_applicable(&self) -> &'static [(&'static str, &'static [&'static str])] {
        &[
            (
                "Nacos keeps no history: a watch is told how all stands, however far back it begins",
                &["a_gap_in_the_watch_is_told"],
            ),
            (
                "a killed owner's record goes at once, with its connection",
                &["a_killed_owners_record_expires_and_not_before_its_ttl"],
            ),
            (
                "in Nacos a service has one record an address: the later is in the earlier's place",
                &["of_two_records_with_one_address_subscribers_see_the_newest_alone"],
            ),
        ]
    }

    fn tells_every_change(&self) -> bool {
        false
    }

    async fn register(&self, node: &Node, ttl: Duration) -> Result<registry::Lease, Cannot> {
        let registry = self.registry();
        let listing = registry.read(&node.service).await.expect("the service is read");
        let is_other = |other: &Node| other.address == node.address && other.id != node.id;
        if listing.entries.iter().any(|entry| is_other(&entry.node)) {
            return Err(Cannot);
        }
        Ok(registry.register(node, ttl).await.expect("the node is registered"))
    }

    async fn delete(&self, nodes: &[Node]) -> Result<(), Cannot> {
        for node in nodes {
            self.0.delete_instance(&node.service, &node.address).await;
        }
        Ok(())
    }

    async fn write_malformed(&self, service: &str) -> Result<String, Cannot> {
        let metadata = json!({ "micro-id": "x", "micro-endpoints": "e-789c00" });
        self.0.write(service, "127.0.0.9", 9, &metadata).await;
        Ok(format!("{service}/127.0.0.9:9"))
    }

    async fn delete_key(&self, key: &str) -> Result<(), Cannot> {
        let (service, address) = key.split_once('/').expect("a key has a service and an address");
        self.0.delete_instance(service, address).await;
        Ok(())
    }
}

registry_conformance!(() InNacos::start().await);

/// The one instance of a service.
async fn instance(nacos: &Nacos, service: &str) -> Value {
    let instances = nacos.instances(service).await;
    let [instance] = &instances[..] else { panic!("one instance: {instances:?}") };
    instance.clone()
}

fn node(service: &str) -> Node {
    let mut node = Node::new(service, format!("{service}-1"), "10.0.3.7:9000");
    node.version = "v1.0.0".to_owned();
    node.metadata.insert("zone".to_owned(), "a".to_owned());
    node
}

#[tokio::test]
async fn a_node_is_an_instance_in_go_micros_words() {
    let nacos = Nacos::start().await;
    let registry = registry::open(&nacos.url()).unwrap();
    registry.register(&node("helloworld"), TTL).await.unwrap();
    let mut instance = instance(&nacos, "helloworld").await;
    assert_eq!((&instance["ip"], &instance["port"]), (&json!("10.0.3.7"), &json!(9000)));
    assert_eq!((&instance["weight"], &instance["ephemeral"]), (&json!(1.0), &json!(true)));
    assert_eq!(instance["clusterName"], "DEFAULT");
    let lease = instance["metadata"].as_object_mut().unwrap().remove("micro-lease");
    assert!(lease.unwrap().as_str().unwrap().parse::<u64>().is_ok());
    assert_eq!(
        instance["metadata"],
        json!({
            "micro-id": "helloworld-1", "protocol": "grpc", "server": "grpc", "transport": "grpc",
            "version": "v1.0.0", "zone": "a"
        })
    );
}

#[tokio::test]
async fn go_micros_own_nodes_are_found() {
    let nacos = Nacos::start().await;
    let registry = registry::open(&nacos.url()).unwrap();
    let metadata = json!({
        "protocol": "grpc", "server": "grpc", "transport": "grpc", "registry": "nacos",
        "version": "latest"
    });
    nacos.write("helloworld", "10.0.3.7", 9000, &metadata).await;
    let listing = registry.read("helloworld").await.unwrap();
    let [entry] = &listing.entries[..] else { panic!("{listing:?}") };
    assert!(entry.node.is_grpc() && entry.node.version == "latest");
    assert_eq!(entry.node.address, "10.0.3.7:9000");
}

#[tokio::test]
async fn kratos_and_kitex_have_their_own_words_and_are_read() {
    let nacos = Nacos::start().await;
    let kratos = registry::open(&format!("{}?format=kratos", nacos.url())).unwrap();
    kratos.register(&node("helloworld"), TTL).await.unwrap();
    let written = instance(&nacos, "helloworld.grpc").await;
    assert_eq!(written["weight"], json!(100.0));
    assert_eq!(written["metadata"], json!({ "kind": "grpc", "version": "v1.0.0", "zone": "a" }));
    assert_eq!(kratos.list().await.unwrap(), ["helloworld"]);

    let kitex = registry::open(&format!("{}?format=kitex", nacos.url())).unwrap();
    kitex.register(&node("echo"), TTL).await.unwrap();
    let written = instance(&nacos, "echo").await;
    assert_eq!(written["weight"], json!(10.0));
    assert_eq!(written["metadata"], json!({ "zone": "a" }));

    let theirs = json!({ "kind": "grpc", "version": "v2.0.0" });
    nacos.write("pay.grpc", "10.0.3.8", 9000, &theirs).await;
    let listing = kratos.read("pay").await.unwrap();
    let [entry] = &listing.entries[..] else { panic!("{listing:?}") };
    assert!(entry.node.is_grpc() && entry.node.version == "v2.0.0");
    nacos.write("echo", "10.0.3.8", 9000, &json!({ "tag": "x" })).await;
    let listing = kitex.read("echo").await.unwrap();
    assert!(listing.entries.iter().all(|entry| entry.node.is_grpc()), "{listing:?}");
    assert_eq!(listing.entries.len(), 2);
}

#[tokio::test]
async fn a_node_in_all_formats_is_renewed_and_leaves_in_all() {
    let nacos = Nacos::start().await;
    let registry = registry::open(&format!("{}?format=micro,kratos,kitex", nacos.url())).unwrap();
    let node = node("helloworld");
    let lease = registry.register(&node, TTL).await.unwrap();
    assert_eq!(nacos.connections(), 1, "a service of another name is another's place");
    registry.renew(&node, lease).await.unwrap();
    let listing = registry.read("helloworld").await.unwrap();
    let ranks: Vec<_> = listing.entries.iter().map(|entry| entry.rank).collect();
    assert_eq!(ranks, [1, 0]);
    assert_eq!(registry.list().await.unwrap(), ["helloworld"]);
    nacos.delete_instance("helloworld.grpc", &node.address).await;
    registry.renew(&node, lease).await.unwrap_err();
    let lease = registry.register(&node, TTL).await.unwrap();
    registry.deregister(&node, lease).await.unwrap();
    for service in ["helloworld", "helloworld.grpc"] {
        assert!(nacos.instances(service).await.is_empty(), "{service}");
    }
}

#[tokio::test]
async fn a_removal_that_is_dropped_is_done_all_the_same() {
    let nacos = Nacos::start().await;
    let registry = registry::open(&nacos.url()).unwrap();
    let node = node("helloworld");
    let lease = registry.register(&node, TTL).await.unwrap();
    // Begun, and given up before Nacos can have answered.
    tokio::select! {
        biased;
        ended = registry.deregister(&node, lease) => panic!("{ended:?} at once"),
        () = std::future::ready(()) => {}
    }
    let gone = async { while !nacos.instances("helloworld").await.is_empty() {} };
    timeout(Duration::from_secs(10), gone).await.expect("nobody else could take it back");
}

#[tokio::test]
async fn namespaces_groups_and_clusters_are_apart() {
    let nacos = Nacos::start().await;
    let open = |options: &str| registry::open(&format!("{}{options}", nacos.url())).unwrap();
    let here = open("?group=pay&cluster=c1");
    here.register(&node("helloworld"), TTL).await.unwrap();
    let count = async |options: &str| open(options).read("helloworld").await.unwrap().entries.len();
    assert_eq!(count("?group=pay&cluster=c1").await, 1);
    assert_eq!(count("?group=pay").await, 1, "all clusters, where none is named");
    for options in ["?group=pay&cluster=c2", "", "?namespace=dev&group=pay"] {
        assert_eq!(count(options).await, 0, "{options}");
    }
}

#[tokio::test]
async fn one_connection_does_for_all_but_a_second_node_of_a_service() {
    let nacos = Nacos::start().await;
    let registry = registry::open(&nacos.url()).unwrap();
    registry.read("a").await.unwrap();
    let lease = registry.register(&node("a"), TTL).await.unwrap();
    registry.register(&node("b"), TTL).await.unwrap();
    let mut watching = Watching::from_now(&registry, "a").await;
    assert_eq!(nacos.connections(), 1);
    let second = Node::new("a", "a-2", "10.0.3.7:9001");
    let second_lease = registry.register(&second, TTL).await.unwrap();
    assert_eq!(nacos.connections(), 2, "Nacos has one instance of a service for each");
    assert_eq!(watching.events(1).await, ["+a-2@10.0.3.7:9001"]);
    registry.deregister(&second, second_lease).await.unwrap();
    registry.deregister(&node("a"), lease).await.unwrap();
    registry.register(&second, TTL).await.unwrap();
    assert_eq!(nacos.connections(), 2, "a connection is used again");
}

#[tokio::test]
async fn a_dropped_registry_leaves_nothing_behind() {
    let nacos = Nacos::start().await;
    let registry = registry::open(&nacos.url()).unwrap();
    registry.register(&node("helloworld"), TTL).await.unwrap();
    let mut watching = Watching::from_now(&registry, "helloworld").await;
    nacos.write("helloworld", "10.0.3.8", 9000, &json!({ "protocol": "grpc" })).await;
    watching.events(1).await;
    drop((watching, registry));
    let start = Instant::now();
    while nacos.instances("helloworld").await.len() > 1 {
        assert!(start.elapsed() < Duration::from_secs(5), "the record stays");
        sleep(Duration::from_millis(50)).await;
    }
    // Nor does the SDK bring it back, which looks every 3 s.
    sleep(Duration::from_secs(4)).await;
    assert_eq!(nacos.instances("helloworld").await.len(), 1, "the other's alone");
}

#[tokio::test]
async fn a_killed_nodes_record_goes_with_its_connection() {
    let nacos = Nacos::start().await;
    let registry = registry::open(&nacos.url()).unwrap();
    let mut owner = Command::new(env!("CARGO_BIN_EXE_registry-owner"))
        .args([&nacos.url(), "owned", "owned-1", "60"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the program starts");
    let output = owner.stdout.take().expect("its output is ours");
    let line = BufReader::new(output).lines().next_line().await.expect("it says something");
    assert_eq!(line.as_deref(), Some("registered"));
    let mut watching = Watching::from_now(&registry, "owned").await;
    owner.start_kill().expect("SIGKILL is sent");
    let killed = Instant::now();
    assert_eq!(watching.events(1).await, ["-owned-1"]);
    assert!(killed.elapsed() < Duration::from_secs(6), "{:?}", killed.elapsed());
}

#[tokio::test]
async fn two_processes_with_one_id_are_told_of_each_other() {
    let nacos = Nacos::start().await;
    let registry = registry::open(&nacos.url()).unwrap();
    let ours = Node::new("owned", "owned-1", "127.0.0.1:2");
    let lease = registry.register(&ours, TTL).await.unwrap();
    let mut owner = Command::new(env!("CARGO_BIN_EXE_registry-owner"))
        .args([&nacos.url(), "owned", "owned-1", "60"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the program starts");
    let output = owner.stdout.take().expect("its output is ours");
    BufReader::new(output).lines().next_line().await.expect("it is registered");
    let renewed = registry.renew(&ours, lease).await;
    assert!(
        matches!(&renewed, Err(registry::RenewError::Taken(why)) if why.contains("127.0.0.1:1")),
        "{renewed:?}"
    );
    let listing = registry.read("owned").await.unwrap();
    assert_eq!(listing.entries.len(), 1, "{listing:?}");
    assert_eq!(listing.entries[0].node.address, "127.0.0.1:1", "the later one's");
}

#[tokio::test]
async fn who_must_sign_in_does() {
    let nacos = Nacos::start_guarded().await;
    let registry = registry::open(&nacos.url()).unwrap();
    let lease = registry.register(&node("helloworld"), TTL).await.unwrap();
    registry.renew(&node("helloworld"), lease).await.unwrap();
    assert_eq!(registry.read("helloworld").await.unwrap().entries.len(), 1);
    registry.deregister(&node("helloworld"), lease).await.unwrap();

    let wrong = registry::open(&nacos.url_of("root", "s3cret")).unwrap();
    let error = wrong.register(&node("helloworld"), TTL).await.unwrap_err();
    let text = format!("{error} {error:?} {}", wrong.name());
    assert!(error.is_registry() && text.contains("cannot sign in"), "{text}");
    assert!(!text.contains("s3cret"), "{text}");
    let nobody = registry::open(&format!("nacos://{}", nacos.main_address())).unwrap();
    let error = nobody.register(&node("helloworld"), TTL).await;
    assert!(error.is_err(), "{error:?}");
}

#[tokio::test]
async fn a_thousand_nodes_are_read() {
    let nacos = Nacos::start().await;
    let registry = registry::open(&nacos.url()).unwrap();
    for index in 0..1000 {
        let metadata = json!({ "protocol": "grpc", "version": "1.0.0" });
        nacos.write("many", "10.0.0.1", 1000 + index, &metadata).await;
    }
    let start = Instant::now();
    let listing = registry.read("many").await.unwrap();
    println!("1000 nodes were read in {:?}", start.elapsed());
    assert_eq!(listing.entries.len(), 1000);
}

#[tokio::test]
async fn a_change_is_seen_soon() {
    let nacos = Nacos::start().await;
    let registry = registry::open(&nacos.url()).unwrap();
    let mut watching = Watching::from_now(&registry, "soon").await;
    let mut all = Vec::new();
    for port in 1..=10 {
        // Followed from the first look on.
        sleep(Duration::from_millis(300)).await;
        let start = Instant::now();
        nacos.write("soon", "10.0.0.1", port, &json!({ "protocol": "grpc" })).await;
        watching.events(1).await;
        all.push(start.elapsed());
    }
    all.sort();
    println!("a change was seen within {:?}, at the median {:?}", all[9], all[5]);
    assert!(all[5] < Duration::from_secs(3), "it is told, not looked for: {all:?}");
}
