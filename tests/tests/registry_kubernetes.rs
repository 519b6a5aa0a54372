//! `kubernetes://` on a real API server without a kubelet: the records at pods, held to what every
//! registry is. Each node has a pod of its own, as a fleet's have.

use std::{collections::BTreeMap, process::Stdio, sync::Arc, time::Duration};

use micro::{
    Error, Service,
    registration::RegistrationState,
    registry::{self, BoxFuture, Lease, Listing, Node, Registry, RenewError, Watch, WatchError},
    registry_conformance,
    testing::registry::{Backend, Cannot, Watching},
};
use serde_json::{Value as Json, json};
use tests::kubernetes::{Kubernetes, Namespace, Shared};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::timeout,
};

const TTL: Duration = Duration::from_secs(60);

/// Longer than anything takes here.
const SOON: Duration = Duration::from_secs(10);

/// A fleet's registry: read by one program, and written by each node from its own pod.
#[derive(Debug)]
struct Fleet {
    namespace: Namespace,
    reader: Arc<dyn Registry>,
}

impl Fleet {
    async fn in_pods(namespace: Namespace) -> Self {
        let url = format!("{}&format=micro", namespace.url());
        Self { namespace, reader: registry::open(&url).expect("the URL is well-formed") }
    }

    /// The registry as the node's own pod has it.
    async fn of(&self, node: &Node) -> Arc<dyn Registry> {
        let pod = pod(&node.id);
        self.namespace.run_pod(&pod).await;
        let url = format!("{}&format=micro&pod={pod}", self.namespace.url());
        registry::open(&url).expect("the URL is well-formed")
    }
}

fn pod(id: &str) -> String {
    id.replace('/', "-")
}

/// As go-micro spells a service there.
fn spelt(service: &str) -> String {
    service.replace('/', "_")
}

fn without_record(service: &str) -> Json {
    let service = spelt(service);
    json!({
        "labels": { (format!("micro.mu/selector-{service}")): null },
        "annotations": { (format!("micro.mu/service-{service}")): null },
    })
}

impl Registry for Fleet {
    fn name(&self) -> &str {
        self.reader.name()
    }

    fn spread(&self) -> Duration {
        self.reader.spread()
    }

    fn min_ttl(&self) -> Duration {
        self.reader.min_ttl()
    }

    fn register<'a>(
        &'a self,
        node: &'a Node,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Lease, Error>> {
        Box::pin(async move { self.of(node).await.register(node, ttl).await })
    }

    fn renew<'a>(&'a self, node: &'a Node, lease: Lease) -> BoxFuture<'a, Result<(), RenewError>> {
        Box::pin(async move { self.of(node).await.renew(node, lease).await })
    }

    fn deregister<'a>(&'a self, node: &'a Node, lease: Lease) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move { self.of(node).await.deregister(node, lease).await })
    }

    fn read<'a>(&'a self, service: &'a str) -> BoxFuture<'a, Result<Listing, Error>> {
        self.reader.read(service)
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<String>, Error>> {
        self.reader.list()
    }

    fn watch(&self, service: &str, after: u64) -> Watch {
        self.reader.watch(service, after)
    }
}

struct InKubernetes {
    /// Dropped last.
    fleet: Arc<Fleet>,
    _server: Arc<Shared>,
}

impl InKubernetes {
    async fn start() -> Self {
        let server = Shared::get().await;
        let fleet = Arc::new(Fleet::in_pods(server.namespace().await).await);
        Self { fleet, _server: server }
    }
}

impl Backend for InKubernetes {
    fn registry(&self) -> Arc<dyn Registry> {
        self.fleet.clone()
    }

    fn not_applicable(&self) -> &'static [(&'static str, &'static [&'static str])] {
        &[
            (
                "nothing expires: a pod that is gone takes its record along, and the kubelet finds \
                 out about one that was killed",
                &[
                    "a_renewed_record_outlives_its_ttl_and_then_expires",
                    "a_killed_owners_record_expires_and_not_before_its_ttl",
                ],
            ),
            (
                "the server is shared, and forgets for all or for none: \
                 what_came_before_a_compaction_is_a_gap has one of its own",
                &["a_gap_in_the_watch_is_told"],
            ),
        ]
    }

    async fn register(&self, node: &Node, ttl: Duration) -> Result<Lease, Cannot> {
        if node.service == "conf.expiry" {
            return Err(Cannot);
        }
        Ok(self.fleet.register(node, ttl).await.expect("the node is registered"))
    }

    async fn delete(&self, nodes: &[Node]) -> Result<(), Cannot> {
        for node in nodes {
            self.fleet.namespace.patch_pod(&pod(&node.id), without_record(&node.service)).await;
        }
        Ok(())
    }

    async fn write_malformed(&self, service: &str) -> Result<String, Cannot> {
        self.fleet.namespace.run_pod("malformed").await;
        let record = json!({
            "labels": { (format!("micro.mu/selector-{service}")): "service" },
            "annotations": {
                (format!("micro.mu/service-{service}")): r#"{"name":"x","nodes":[{"id":3}]}"#
            },
        });
        self.fleet.namespace.patch_pod("malformed", record).await;
        Ok("pods/malformed".to_owned())
    }

    async fn delete_key(&self, key: &str) -> Result<(), Cannot> {
        let pod = key.strip_prefix("pods/").expect("a pod's record");
        self.fleet.namespace.delete_pod(pod).await;
        Ok(())
    }
}

registry_conformance!(() InKubernetes::start().await);

#[tokio::test]
async fn what_came_before_a_compaction_is_a_gap() {
    // With its cache, the server remembers more than its etcd.
    let server = Kubernetes::start_with(&["--watch-cache=false"]).await;
    let fleet = Fleet::in_pods(Namespace::create(&server.kubeconfig(), "gap").await).await;
    let registry: Arc<dyn Registry> = Arc::new(fleet);
    let node = |id: &str| Node::new("gap", id, "127.0.0.1:1");
    let then = registry.read("gap").await.unwrap();
    registry.register(&node("gap-1"), TTL).await.unwrap();
    registry.register(&node("gap-2"), TTL).await.unwrap();
    server.compact().await;
    let mut watching = Watching::after(&registry, "gap", &then);
    let ended = watching.next_or_end().await;
    assert!(matches!(ended, Err(WatchError::Compacted)), "{ended:?}");
    assert!(watching.has_ended().await, "the stream ends after its first error");
    let mut watching = Watching::from_now(&registry, "gap").await;
    registry.register(&node("gap-3"), TTL).await.unwrap();
    assert_eq!(watching.events(1).await, ["+gap-3@127.0.0.1:1"]);
}

#[tokio::test]
async fn a_program_knows_its_pod_from_its_environment_and_writes_go_micros_record_there() {
    let server = Shared::get().await;
    let namespace = server.namespace().await;
    namespace.run_pod("greeter-0").await;
    let mut owner = Command::new(env!("CARGO_BIN_EXE_registry-owner"))
        .args([&namespace.url(), "team/pay.svc", "team/pay.svc-1", "60", "10.1.0.4:9000"])
        .env("POD_NAME", "greeter-0")
        .env("POD_NAMESPACE", &namespace.name)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the program starts");
    let output = owner.stdout.take().expect("its output is ours");
    let mut lines = BufReader::new(output).lines();
    let line = timeout(SOON, lines.next_line()).await.expect("soon").expect("it says something");
    assert_eq!(line.as_deref(), Some("registered"));

    let pod = namespace.pods().await.get("greeter-0").await.unwrap();
    let labels = pod.metadata.labels.unwrap();
    assert_eq!(labels["micro.mu/type"], "service");
    assert_eq!(labels["micro.mu/selector-team_pay.svc"], "service");
    assert_eq!(
        pod.metadata.annotations.unwrap()["micro.mu/service-team_pay.svc"],
        concat!(
            r#"{"name":"team/pay.svc","version":"latest","metadata":null,"endpoints":[],"nodes":["#,
            r#"{"metadata":{"protocol":"grpc","server":"grpc","transport":"grpc"},"#,
            r#""id":"team/pay.svc-1","address":"10.1.0.4:9000"}]}"#
        )
    );
    let reader = registry::open(&format!("{}&format=micro", namespace.url())).unwrap();
    let listing = reader.read("team/pay.svc").await.unwrap();
    assert_eq!(listing.entries[0].node.address, "10.1.0.4:9000");
    assert_eq!(reader.list().await.unwrap(), ["team/pay.svc"]);
}

#[tokio::test]
async fn outside_of_a_pod_a_service_serves_without_being_registered() {
    let server = Shared::get().await;
    let namespace = server.namespace().await;
    let service = Service::builder("greeter").registry(namespace.url());
    let handle = service.build().await.unwrap().start().await.unwrap();
    let mut state = handle.registration();
    let read_only = state.wait_for(|state| *state == RegistrationState::ReadOnly);
    timeout(SOON, read_only).await.expect("soon").expect("it runs");
    handle.stop().await.unwrap();

    let registry = registry::open(&namespace.url()).unwrap();
    let node = Node::new("greeter", "greeter-1", "10.1.0.4:9000");
    let error = registry.register(&node, TTL).await.unwrap_err();
    assert!(error.is_unsupported(), "{error:?}");
    for said in ["POD_NAME", "deploy/kubernetes/deployment.yaml"] {
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[tokio::test]
async fn a_record_is_lost_with_its_pod_and_taken_with_its_annotation() {
    let server = Shared::get().await;
    let namespace = server.namespace().await;
    let fleet = Fleet::in_pods(namespace.clone()).await;
    let node = Node::new("greeter", "greeter-1", "10.1.0.4:9000");
    let registry = fleet.of(&node).await;

    let lease = registry.register(&node, TTL).await.unwrap();
    registry.renew(&node, lease).await.unwrap();
    let annotation = "micro.mu/service-greeter";
    namespace.patch_pod("greeter-1", json!({ "annotations": { (annotation): "{" } })).await;
    let renewed = registry.renew(&node, lease).await;
    assert!(
        matches!(&renewed, Err(RenewError::Taken(why)) if why.contains("no record")),
        "{renewed:?}"
    );
    registry.deregister(&node, lease).await.unwrap();

    // Nobody finds a record without its labels.
    for label in ["micro.mu/selector-greeter", "micro.mu/type"] {
        let lease = registry.register(&node, TTL).await.unwrap();
        namespace.patch_pod("greeter-1", json!({ "labels": { (label): null } })).await;
        let renewed = registry.renew(&node, lease).await;
        assert!(
            matches!(&renewed, Err(RenewError::Lost(why)) if why.contains(label)),
            "{label}: {renewed:?}"
        );
    }

    // A pod of the same name, as a StatefulSet makes one, is another.
    let lease = registry.register(&node, TTL).await.unwrap();
    namespace.delete_pod("greeter-1").await;
    let renewed = registry.renew(&node, lease).await;
    assert!(
        matches!(&renewed, Err(RenewError::Lost(why)) if why.contains("pod greeter-1 is gone")),
        "{renewed:?}"
    );
    registry.deregister(&node, lease).await.expect("gone is gone");
    let error = registry.register(&node, TTL).await.unwrap_err();
    assert!(error.is_registry() && error.to_string().contains("not found"), "{error:?}");
    namespace.run_pod("greeter-1").await;
    let renewed = registry.renew(&node, lease).await;
    assert!(matches!(&renewed, Err(RenewError::Lost(_))), "{renewed:?}");
}

#[tokio::test]
async fn kratos_and_go_micro_find_one_node_in_both_formats() {
    let server = Shared::get().await;
    let namespace = server.namespace().await;
    let of = |format: &str| {
        let url = format!("{}&format={format}&pod=greeter-0", namespace.url());
        registry::open(&url).unwrap()
    };
    let (both, kratos, micro) = (of("micro,kratos"), of("kratos"), of("micro"));
    namespace.run_pod("greeter-0").await;
    namespace.give_address("greeter-0", "10.1.0.4").await;
    let mut of_both = Watching::from_now(&both, "greeter").await;
    let mut of_kratos = Watching::from_now(&kratos, "greeter").await;
    let mut of_micro = Watching::from_now(&micro, "greeter").await;

    let node = Node::new("greeter", "greeter-1", "10.1.0.4:9000");
    let lease = both.register(&node, TTL).await.unwrap();
    let pod = namespace.pods().await.get("greeter-0").await.unwrap();
    let labels = pod.metadata.labels.unwrap();
    assert_eq!(labels["kratos-service-id"], "greeter-1");
    assert_eq!(labels["kratos-service-app"], "greeter");
    assert_eq!(labels["kratos-service-version"], "latest");
    let annotations = pod.metadata.annotations.unwrap();
    assert_eq!(annotations["kratos-service-protocols"], r#"{"9000":"grpc"}"#);
    assert_eq!(annotations["kratos-service-metadata"], "{}");
    for watching in [&mut of_both, &mut of_kratos, &mut of_micro] {
        assert_eq!(watching.events(1).await, ["+greeter-1@10.1.0.4:9000"]);
    }
    both.renew(&node, lease).await.unwrap();
    assert_eq!(kratos.list().await.unwrap(), ["greeter"]);
    assert_eq!(both.list().await.unwrap(), ["greeter"]);

    // Who leaves as Kratos does leaves one of the two; the node's next look finds it out.
    let left = json!({ "labels": {
        "kratos-service-id": "", "kratos-service-app": "", "kratos-service-version": ""
    } });
    namespace.patch_pod("greeter-0", left).await;
    assert_eq!(of_kratos.events(1).await, ["-greeter-1"]);
    assert_eq!(both.read("greeter").await.unwrap().entries.len(), 1);
    let renewed = both.renew(&node, lease).await;
    assert!(
        matches!(&renewed, Err(RenewError::Lost(why)) if why.contains("kratos-service-")),
        "{renewed:?}"
    );
    let lease = both.register(&node, TTL).await.unwrap();
    let again = "+greeter-1@10.1.0.4:9000";
    assert_eq!(of_kratos.events(1).await, [again]);
    for watching in [&mut of_both, &mut of_micro] {
        assert_eq!(watching.events(2).await, [again; 2], "its pod was written twice");
    }

    both.deregister(&node, lease).await.unwrap();
    for watching in [&mut of_both, &mut of_kratos, &mut of_micro] {
        assert_eq!(watching.events(1).await, ["-greeter-1"]);
    }
    let pod = namespace.pods().await.get("greeter-0").await.unwrap();
    let labels = pod.metadata.labels.unwrap_or_default();
    assert_eq!(labels.keys().collect::<Vec<_>>(), ["micro.mu/type"]);
    assert_eq!(pod.metadata.annotations, None);
}

#[tokio::test]
async fn a_kratos_deployment_with_labels_by_hand_is_found() {
    let server = Shared::get().await;
    let namespace = server.namespace().await;
    let registry = registry::open(&format!("{}&format=kratos", namespace.url())).unwrap();
    let mut watching = Watching::from_now(&registry, "helloworld").await;
    let id = "56991810-c77f-4a95-8190-393efa9c1a61";
    for (pod, ip) in [("helloworld-0", "10.1.0.4"), ("helloworld-1", "10.1.0.5")] {
        namespace.run_pod(pod).await;
        namespace.give_address(pod, ip).await;
        let by_hand = json!({
            "labels": {
                "kratos-service-id": id,
                "kratos-service-app": "helloworld",
                "kratos-service-version": "v3.5.0",
            },
            "annotations": {
                "kratos-service-protocols": "{\"80\": \"http\", \"9000\": \"grpc\"}\n",
                "kratos-service-metadata": "{\"region\": \"sh\"}\n",
            },
        });
        namespace.patch_pod(pod, by_hand).await;
        let mut told = watching.events(if pod == "helloworld-0" { 1 } else { 3 }).await;
        told.sort_unstable();
        match pod {
            "helloworld-0" => assert_eq!(told, [format!("+{id}@10.1.0.4:9000")]),
            // An id that both have tells neither from the other.
            _ => assert_eq!(
                told,
                ["+helloworld-0@10.1.0.4:9000", "+helloworld-1@10.1.0.5:9000", &format!("-{id}")]
            ),
        }
    }
    let listing = registry.read("helloworld").await.unwrap();
    let node = &listing.entries[0].node;
    assert_eq!((&*node.version, &*node.metadata["region"]), ("v3.5.0", "sh"));
}

#[tokio::test]
async fn what_a_pod_cannot_hold_is_refused_before_anything_is_asked() {
    let server = Shared::get().await;
    let namespace = server.namespace().await;
    let registry = registry::open(&format!("{}&pod=greeter-1", namespace.url())).unwrap();
    let mut large = Node::new("greeter", "greeter-1", "h:1");
    large.metadata = BTreeMap::from([("notes".to_owned(), "x".repeat(300_000))]);
    for (node, said) in [
        (large, "less metadata"),
        (Node::new("a".repeat(60), "a-1", "h:1"), "a pod's label takes 54"),
        (Node::new("", "a-1", "h:1"), "the service has no name"),
    ] {
        let error = registry.validate(&node).unwrap_err();
        assert!(error.is_config() && error.to_string().contains(said), "{error}");
        let error = registry.register(&node, TTL).await.unwrap_err();
        assert!(error.is_config(), "{error:?}");
    }
}
