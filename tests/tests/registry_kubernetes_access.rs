//! `kubernetes://` with the rights that the manifests give, and without them; with tokens that are
//! wrong or expire; and with a server that is away.

use std::{fmt::Debug, fs, path::PathBuf, time::Duration};

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        authentication::v1::TokenRequest,
        core::v1::{Service as ServiceObject, ServiceAccount},
        rbac::v1::{Role, RoleBinding},
    },
    serde::de::DeserializeOwned,
};
use kube::{
    Api, Resource,
    api::{DeleteParams, PostParams},
    core::NamespaceResourceScope,
};
use micro::registry::{self, Node, Registry};
use micro::{
    discovery::{Discovery, Update},
    testing::registry::Watching,
};
use serde_json::{Value as Json, json};
use tests::{
    kubernetes::{self, Kubernetes, Namespace, Shared, Slice, Stage, endpoint},
    programs,
};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::StreamExt as _;

const TTL: Duration = Duration::from_secs(60);

/// The objects in a manifest.
fn manifest(name: &str) -> Vec<Json> {
    let path = programs::root().join("deploy/kubernetes").join(name);
    let text = fs::read_to_string(path).expect("the manifest is there");
    serde_saphyr::from_multiple(&text).expect("the manifest is YAML")
}

async fn create<K>(namespace: &Namespace, object: Json)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + serde::Serialize
        + DeserializeOwned,
{
    let name = format!("{} {}", object["kind"], object["metadata"]["name"]);
    let object: K = serde_json::from_value(object).expect(&name);
    let api = Api::<K>::namespaced(namespace.client().await, &namespace.name);
    api.create(&PostParams::default(), &object).await.expect(&name);
}

/// Applies a manifest of rights, but for its bindings unless they are wanted.
async fn apply_rights(namespace: &Namespace, name: &str, are_bound: bool) {
    for object in manifest(name) {
        match object["kind"].as_str() {
            Some("ServiceAccount") => create::<ServiceAccount>(namespace, object).await,
            Some("Role") => create::<Role>(namespace, object).await,
            Some("RoleBinding") if are_bound => create::<RoleBinding>(namespace, object).await,
            Some("RoleBinding") => {}
            other => panic!("{other:?} in {name}"),
        }
    }
}

/// A kubeconfig with a new token of the service account `greeter`.
async fn sign_in(server: &Shared, namespace: &Namespace, name: &str) -> PathBuf {
    server.write_kubeconfig(&format!("{}-{name}", namespace.name), &token(namespace).await)
}

async fn token(namespace: &Namespace) -> String {
    let accounts = Api::<ServiceAccount>::namespaced(namespace.client().await, &namespace.name);
    let request = TokenRequest::default();
    let token = accounts.create_token_request("greeter", &PostParams::default(), &request).await;
    token.expect("a token").status.expect("a token").token
}

fn url(namespace: &Namespace, kubeconfig: &std::path::Path) -> String {
    format!("kubernetes://{}?kubeconfig={}", namespace.name, kubeconfig.display())
}

/// Else discovery, told all time and again, would ask again without a pause.
#[tokio::test]
async fn a_watch_that_is_not_allowed_fails_before_it_tells_anything() {
    let server = Shared::get().await;
    let namespace = server.namespace().await;
    apply_rights(&namespace, "rbac.yaml", false).await;
    let name = json!({ "name": "lister" });
    let rule = json!({
        "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list"]
    });
    create::<Role>(&namespace, json!({ "kind": "Role", "metadata": name, "rules": [rule] })).await;
    let binding = json!({
        "kind": "RoleBinding", "metadata": name,
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "lister" },
        "subjects": [{ "kind": "ServiceAccount", "name": "greeter", "namespace": namespace.name }]
    });
    create::<RoleBinding>(&namespace, binding).await;
    let slice = Slice::of(&[endpoint("greeter-0", "10.1.0.4", Stage::Ready)]);
    namespace.put_slice("greeter", "greeter-a", &slice).await;
    let kubeconfig = sign_in(&server, &namespace, "lister").await;
    let registry = registry::open(&url(&namespace, &kubeconfig)).unwrap();
    allowed(&*registry).await;
    let listing = registry.read("greeter").await.unwrap();
    assert_eq!(listing.entries.len(), 1);
    let mut watching = Watching::after_revision(&registry, "greeter", listing.revision);
    let error = format!("{:?}", watching.next_or_end().await.unwrap_err());
    assert!(error.contains("we may not watch endpointslices:"), "{error}");
}

#[tokio::test]
async fn the_manifests_rights_are_enough_and_a_missing_one_is_named() {
    let server = Shared::get().await;
    let namespace = server.namespace().await;
    apply_rights(&namespace, "rbac.yaml", false).await;
    let kubeconfig = sign_in(&server, &namespace, "greeter").await;
    let url = url(&namespace, &kubeconfig);
    let registry = registry::open(&format!("{url}&pod=greeter-0")).unwrap();
    let node = Node::new("greeter", "greeter-1", "10.1.0.4:9000");
    namespace.run_pod("greeter-0").await;
    let slice = Slice::of(&[endpoint("greeter-0", "10.1.0.4", Stage::Ready)]);
    namespace.put_slice("greeter", "greeter-a", &slice).await;

    let read = registry.read("greeter").await.unwrap_err();
    let written = registry.register(&node, TTL).await.unwrap_err();
    for (error, verb, resource) in [(read, "list", "endpointslices"), (written, "patch", "pods")] {
        let text = error.to_string();
        assert!(error.is_registry(), "{error:?}");
        assert!(text.contains(&format!("we may not {verb} {resource}:")), "{text}");
        assert!(text.contains("deploy/kubernetes/rbac.yaml;"), "{text}");
        // As the server says it, for whoever has to give the right.
        assert!(text.contains("system:serviceaccount:"), "{text}");
    }

    // What is in the other manifest is for records at pods alone, and its lack takes nothing down.
    for object in manifest("rbac.yaml") {
        if object["kind"] == "RoleBinding" {
            create::<RoleBinding>(&namespace, object).await;
        }
    }
    allowed(&*registry).await;
    let mut watching = Watching::from_now(&registry, "greeter").await;
    let lease = registry.register(&node, TTL).await.unwrap();
    registry.renew(&node, lease).await.unwrap();
    let with_records = registry::open(&format!("{url}&format=micro")).unwrap();
    let listing = with_records.read("greeter").await.unwrap();
    assert_eq!(listing.entries[0].node.id, "greeter-0");
    let error = with_records.read("nobody").await.unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("we may not list pods:") && error.contains("rbac-records.yaml"),
        "{error}"
    );
    let ready = |pod, address| endpoint(pod, address, Stage::Ready);
    let two = [ready("greeter-0", "10.1.0.4"), ready("greeter-9", "10.1.0.9")];
    let mut without_pods = Watching::after(&with_records, "greeter", &listing);
    namespace.put_slice("greeter", "greeter-a", &Slice::of(&two)).await;
    assert_eq!(watching.events(1).await, ["+greeter-9@10.1.0.9:9000"]);
    assert_eq!(without_pods.events(1).await, ["+greeter-9@10.1.0.9:9000"]);

    apply_rights(&namespace, "rbac-records.yaml", true).await;
    let end = Instant::now() + Duration::from_secs(10);
    while with_records.read("nobody").await.is_err() {
        assert!(Instant::now() < end, "the right was given");
        sleep(Duration::from_millis(20)).await;
    }
    let mut with_pods = Watching::from_now(&with_records, "other").await;
    let other = Node::new("other", "other-1", "10.1.0.5:9000");
    registry.register(&other, TTL).await.unwrap();
    assert_eq!(with_pods.events(1).await, ["+other-1@10.1.0.5:9000"]);
    registry.deregister(&other, lease).await.expect("another's lease leaves it alone");
    registry.deregister(&node, lease).await.unwrap();
}

/// Waits until a right that was given is in force.
async fn allowed(registry: &dyn Registry) {
    let end = Instant::now() + Duration::from_secs(10);
    while let Err(error) = registry.read("greeter").await {
        assert!(Instant::now() < end, "{error}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_other_manifests_are_taken_by_the_server() {
    let server = Shared::get().await;
    let namespace = server.namespace().await;
    for (file, kind) in [("deployment.yaml", "Deployment"), ("service.yaml", "Service")] {
        let [object] = &manifest(file)[..] else { panic!("one object in {file}") };
        assert_eq!(object["kind"], kind);
        match kind {
            "Deployment" => create::<Deployment>(&namespace, object.clone()).await,
            _ => create::<ServiceObject>(&namespace, object.clone()).await,
        }
    }
    // What the one says, the others and our defaults must bear out.
    let deployment = &manifest("deployment.yaml")[0]["spec"]["template"]["spec"];
    let account = manifest("rbac.yaml")
        .into_iter()
        .find(|object| object["kind"] == "ServiceAccount")
        .expect("a service account");
    assert_eq!(deployment["serviceAccountName"], account["metadata"]["name"]);
    let grace = deployment["terminationGracePeriodSeconds"].as_u64().expect("a number");
    let registry = registry::open(&namespace.url()).unwrap();
    let drain = Duration::from_secs(30);
    assert!(Duration::from_secs(grace) > registry.spread() + drain, "the drain is not cut off");
    let container = &deployment["containers"][0];
    assert_eq!(container["readinessProbe"]["grpc"]["port"], 9000);
    let variables = container["env"].as_array().expect("a list");
    let field = |name: &str| {
        let variable = variables.iter().find(|variable| variable["name"] == name);
        variable.expect(name)["valueFrom"]["fieldRef"]["fieldPath"].clone()
    };
    assert_eq!(field("POD_NAME"), "metadata.name");
    assert_eq!(field("POD_NAMESPACE"), "metadata.namespace");
}

#[tokio::test]
async fn a_token_that_expires_is_read_anew() {
    let server = Shared::get().await;
    let namespace = server.namespace().await;
    apply_rights(&namespace, "rbac.yaml", true).await;
    let wrong = server.write_kubeconfig(&format!("{}-wrong", namespace.name), "s3cret-token");
    let registry = registry::open(&url(&namespace, &wrong)).unwrap();
    let error = registry.read("greeter").await.unwrap_err();
    let text = format!("{error} {error:?} {registry:?}");
    assert!(text.contains("does not take our credentials"), "{text}");
    assert!(!text.contains("s3cret"), "{text}");

    // Put right, in the same file.
    let old = token(&namespace).await;
    let file = server.write_kubeconfig(&format!("{}-wrong", namespace.name), &old);
    allowed(&*registry).await;

    // With its account a token ends as if it had expired; the server remembers it for 10 s.
    let accounts = Api::<ServiceAccount>::namespaced(namespace.client().await, &namespace.name);
    accounts.delete("greeter", &DeleteParams::default()).await.unwrap();
    let account = json!({ "kind": "ServiceAccount", "metadata": { "name": "greeter" } });
    create::<ServiceAccount>(&namespace, account).await;
    let with_old = server.write_kubeconfig(&format!("{}-old", namespace.name), &old);
    let with_old = kubernetes::client(&with_old).await.unwrap();
    let with_old = Api::<k8s_openapi::api::discovery::v1::EndpointSlice>::namespaced(
        with_old,
        &namespace.name,
    );
    let end = Instant::now() + Duration::from_secs(30);
    while with_old.list(&kube::api::ListParams::default()).await.is_ok() {
        assert!(Instant::now() < end, "a token without an account ends");
        sleep(Duration::from_millis(200)).await;
    }
    let new = token(&namespace).await;
    server.write_kubeconfig(&format!("{}-wrong", namespace.name), &new);
    registry.read("greeter").await.expect("the same client has the new token at once");
    assert!(file.exists());
}

#[tokio::test]
async fn a_program_that_takes_long_to_have_credentials_is_run_once_and_waited_for() {
    let server = Shared::get().await;
    let namespace = server.namespace().await;
    let credential = json!({
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": { "token": "admin-token" },
    });
    let dir = tempfile::tempdir().expect("a folder");
    let script = format!(
        "cd {}; echo >>runs; until [ -e go ]; do sleep 0.05; done; echo '{credential}'",
        dir.path().display()
    );
    let program = json!({ "exec": {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "sh",
        "args": ["-c", script],
        "interactiveMode": "Never",
    } });
    let kubeconfig = server.write_kubeconfig_of(&format!("{}-slow", namespace.name), &program);
    let registry = registry::open(&url(&namespace, &kubeconfig)).unwrap();
    for _ in 0..3 {
        let start = Instant::now();
        let error = registry.read("greeter").await.unwrap_err();
        assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
        assert!(error.to_string().contains("program for credentials has not ended"), "{error}");
    }
    let runs = fs::read_to_string(dir.path().join("runs")).expect("it has run");
    assert_eq!(runs.lines().count(), 1, "one that hangs has no second beside it");
    fs::write(dir.path().join("go"), "").expect("a file");
    allowed(&*registry).await;
}

#[tokio::test]
async fn a_server_that_is_away_or_silent_is_left_within_a_second_and_followed_again() {
    let mut server = Kubernetes::start().await;
    let namespace = Namespace::create(&server.kubeconfig(), "away").await;
    let registry = registry::open(&namespace.url()).unwrap();
    let ready = |pod: &str, address| endpoint(pod, address, Stage::Ready);
    let slice = Slice::of(&[ready("a", "10.1.0.4")]);
    namespace.put_slice("greeter", "greeter-a", &slice).await;
    let mut updates = Discovery::new(registry.clone()).subscribe("greeter");
    let ids = |update: Option<Update>| match update.expect("it is endless") {
        Update::Reset(nodes) => nodes.iter().map(|node| node.id.clone()).collect(),
        Update::Insert(node) => format!("+{}", node.id),
        Update::Remove(id) => format!("-{id}"),
        Update::Forget => "forget".to_owned(),
    };
    assert_eq!(ids(updates.next().await), "a");

    for round in ["b", "c"] {
        if round == "b" {
            server.pause();
        } else {
            server.kill();
        }
        let asked = Instant::now();
        let error = registry.read("greeter").await.unwrap_err();
        assert!(error.is_registry(), "{error:?}");
        assert!(asked.elapsed() < Duration::from_millis(1500), "{:?}", asked.elapsed());
        if round == "b" {
            server.resume();
        } else {
            server.restart().await;
        }
        let slice = Slice::of(&[ready(round, "10.1.0.5")]);
        namespace.put_slice("greeter", &format!("greeter-{round}"), &slice).await;
        let next = timeout(Duration::from_secs(15), updates.next()).await.expect("it follows on");
        assert_eq!(ids(next), format!("+{round}"));
        if round == "b" {
            namespace.delete_slice("greeter-b").await;
            assert_eq!(ids(updates.next().await), "-b");
        }
    }
    assert!(server.connections() >= 1);
}
