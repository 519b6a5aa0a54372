//! Kubernetes' annotations at pods, and slices.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use micro::{registry::Node, testing::registry::Cannot};
use serde_json::{Value as Json, json};

use super::{Raw, record};
use crate::kubernetes::{Namespace, Shared, Slice, Stage, client, endpoint};

/// A registry in a namespace of Kubernetes: go-micro's records at pods, and nodes of one moment in a
/// slice.
#[allow(missing_debug_implementations, reason = "its client has none")]
pub struct InKubernetes {
    namespace: Namespace,
    client: Client,
    leases: AtomicU64,
    server: Arc<Shared>,
}

impl Raw for InKubernetes {
    const CANNOT: &'static [(&'static str, &'static str)] = &[];

    async fn serving() -> Self {
        let server = Shared::get().await;
        let namespace = server.namespace().await;
        let client = client(server.kubeconfig()).await.expect("a client");
        Self { namespace, client, leases: AtomicU64::new(0), server }
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.server.port())
    }

    fn url_at(&self, address: &str) -> String {
        let kubeconfig = fs::read_to_string(self.server.kubeconfig()).expect("a kubeconfig");
        let port = address.rsplit_once(':').expect("an address has a port").1;
        let name = &self.namespace.name;
        let file = self.server.kubeconfig().with_file_name(format!("{name}-{port}.yaml"));
        fs::write(&file, kubeconfig.replace(&self.address(), address)).expect("a kubeconfig");
        format!("kubernetes://{name}?kubeconfig={}&format=micro", file.display())
    }

    async fn put(&self, node: &Node) {
        self.write_raw(&node.service, &node.id, &record(node)).await;
    }

    async fn take(&self, node: &Node) {
        let service = spelt(&node.service);
        let metadata = json!({
            "labels": { (format!("micro.mu/selector-{service}")): null },
            "annotations": {
                (format!("micro.mu/service-{service}")): null,
                (format!("micro.mu/lease-{service}")): null,
            },
        });
        self.patch(&pod(&node.id), metadata).await.expect("a patched pod");
    }

    /// In one slice, as the endpoints of pods that are ready.
    async fn put_all(&self, nodes: &[Node]) {
        let Some(first) = nodes.first() else { return };
        let endpoint = |node: &Node| {
            let host = node.address.strip_suffix(":9000").expect("the port of the slice");
            endpoint(&node.id, host, Stage::Ready)
        };
        let endpoints: Vec<_> = nodes.iter().map(endpoint).collect();
        let slice = Slice::of(&endpoints);
        self.namespace.put_slice(&first.service, &format!("{}-x", first.service), &slice).await;
    }

    async fn take_all(&self, nodes: &[Node]) {
        let Some(first) = nodes.first() else { return };
        let slice = Slice::of(&[]);
        self.namespace.put_slice(&first.service, &format!("{}-x", first.service), &slice).await;
    }

    async fn put_in(&self, place: &str, node: &Node) -> Result<(), Cannot> {
        self.write_raw(&node.service, place, &record(node)).await;
        Ok(())
    }

    async fn take_from(&self, place: &str, _node: &Node) -> Result<(), Cannot> {
        self.namespace.delete_pod(&pod(place)).await;
        Ok(())
    }

    async fn write_raw(&self, service: &str, id: &str, text: &str) -> Option<String> {
        let (service, pod) = (spelt(service), pod(id));
        let lease = self.leases.fetch_add(1, Ordering::Relaxed).to_string();
        let metadata = json!({
            "labels": {
                "micro.mu/type": "service", (format!("micro.mu/selector-{service}")): "service"
            },
            "annotations": {
                (format!("micro.mu/service-{service}")): text,
                (format!("micro.mu/lease-{service}")): lease,
            },
        });
        match self.patch(&pod, metadata.clone()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {
                self.namespace.run_pod(&pod).await;
                self.patch(&pod, metadata).await.expect("a patched pod");
            }
            Err(error) => panic!("{pod}: {error}"),
        }
        Some(format!("pods/{pod}"))
    }

    async fn delete_raw(&self, _service: &str, id: &str) {
        self.namespace.delete_pod(&pod(id)).await;
    }
}

impl InKubernetes {
    async fn patch(&self, pod: &str, metadata: Json) -> Result<Pod, kube::Error> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), &self.namespace.name);
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        pods.patch(pod, &PatchParams::default(), &patch).await
    }
}

/// As go-micro spells a service there.
fn spelt(service: &str) -> String {
    let is_kept = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    service.bytes().map(|b| if is_kept(b) { char::from(b) } else { '_' }).collect()
}

/// A pod for the node of this id.
fn pod(id: &str) -> String {
    let is_kept = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-';
    id.chars().map(|c| if is_kept(&c) { c } else { 'x' }).collect()
}
