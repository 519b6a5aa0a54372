//! What is in a server: pods and the EndpointSlices of services, written as kubelet and controller do.

use std::path::{Path, PathBuf};

use k8s_openapi::api::{
    core::v1::{Namespace as NamespaceObject, Pod},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value as Json, json};

use super::client;

/// A namespace, and the hand of those who are not there: kubelet and controller.
#[derive(Debug, Clone)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    kubeconfig: PathBuf,
}

impl Namespace {
    /// One that is there.
    pub async fn open(kubeconfig: &Path, name: &str) -> Self {
        Self { name: name.to_owned(), kubeconfig: kubeconfig.to_owned() }
    }

    /// A new one.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn create(kubeconfig: &Path, name: &str) -> Self {
        let namespace = Self::open(kubeconfig, name).await;
        let object = serde_json::from_value(json!({ "metadata": { "name": name } }));
        let all = Api::<NamespaceObject>::all(namespace.client().await);
        let object = object.expect("a namespace");
        all.create(&PostParams::default(), &object).await.expect("a new namespace");
        namespace
    }

    /// The registry's URL, without records at pods.
    pub fn url(&self) -> String {
        format!("kubernetes://{}?kubeconfig={}", self.name, self.kubeconfig.display())
    }

    /// A client that may do anything.
    ///
    /// # Panics
    /// When there is none to be had.
    pub async fn client(&self) -> Client {
        client(&self.kubeconfig).await.expect("a client")
    }

    /// The namespace's pods.
    pub async fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client().await, &self.name)
    }

    /// Makes a pod as if a kubelet ran it, or leaves the one that there is.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn run_pod(&self, name: &str) {
        let pods = self.pods().await;
        let pod = json!({
            "metadata": { "name": name },
            "spec": { "containers": [{ "name": "node", "image": "none" }] },
        });
        let pod = serde_json::from_value(pod).expect("a pod");
        match pods.create(&PostParams::default(), &pod).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 => return,
            Err(error) => panic!("a pod: {error}"),
        }
        let status = Patch::Merge(json!({ "status": { "phase": "Running" } }));
        let params = PatchParams::default();
        pods.patch_status(name, &params, &status).await.expect("a pod's status");
    }

    /// Gives a pod its address, as the kubelet does.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn give_address(&self, pod: &str, ip: &str) {
        let status = Patch::Merge(json!({ "status": { "podIP": ip } }));
        let params = PatchParams::default();
        self.pods().await.patch_status(pod, &params, &status).await.expect("a pod's status");
    }

    /// Patches a pod's metadata.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn patch_pod(&self, name: &str, metadata: Json) {
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        let pods = self.pods().await;
        pods.patch(name, &PatchParams::default(), &patch).await.expect("a patched pod");
    }

    /// Deletes a pod at once.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn delete_pod(&self, name: &str) {
        let params = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        self.pods().await.delete(name, &params).await.expect("a deleted pod");
    }

    /// Writes a slice of a Service, over the one of its name.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn put_slice(&self, service: &str, name: &str, slice: &Slice) {
        let object = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": { "name": name, "labels": { "kubernetes.io/service-name": service } },
            "addressType": slice.family,
            "ports": slice.ports,
            "endpoints": slice.endpoints,
        });
        let slices = Api::<EndpointSlice>::namespaced(self.client().await, &self.name);
        let params = PatchParams::apply("endpointslice-controller").force();
        slices.patch(name, &params, &Patch::Apply(object)).await.expect("a slice");
    }

    /// Deletes a slice.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn delete_slice(&self, name: &str) {
        let slices = Api::<EndpointSlice>::namespaced(self.client().await, &self.name);
        slices.delete(name, &DeleteParams::default()).await.expect("a deleted slice");
    }
}

/// What is in a slice.
#[derive(Debug, Clone)]
pub struct Slice {
    /// `IPv4`, `IPv6` or `FQDN`.
    pub family: &'static str,
    /// The ports, as the object has them.
    pub ports: Json,
    /// The endpoints, as the object has them.
    pub endpoints: Vec<Json>,
}

impl Slice {
    /// A slice with the port `grpc` at 9000.
    pub fn of(endpoints: &[Json]) -> Self {
        let ports = json!([{ "name": "grpc", "port": 9000 }]);
        Self { family: "IPv4", ports, endpoints: endpoints.to_vec() }
    }
}

/// Where a pod stands on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It has yet to pass its probe, or passes it no more.
    NotReady,
    /// It is called.
    Ready,
    /// It is told to end, and still answers.
    Terminating,
    /// It is told to end, and its probe fails.
    Draining,
}

/// A pod's endpoint at this stage, as the controller writes it.
pub fn endpoint(pod: &str, address: &str, stage: Stage) -> Json {
    let (is_ready, is_serving, is_terminating) = match stage {
        Stage::NotReady => (false, false, false),
        Stage::Ready => (true, true, false),
        Stage::Terminating => (false, true, true),
        Stage::Draining => (false, false, true),
    };
    json!({
        "addresses": [address],
        "targetRef": { "kind": "Pod", "name": pod },
        "conditions":
            { "ready": is_ready, "serving": is_serving, "terminating": is_terminating },
    })
}
