//! What may happen to the API server, and what kubelets do about it.

use std::fs;

use k8s_openapi::api::{
    authentication::v1::TokenRequest, core::v1::ServiceAccount, rbac::v1::RoleBinding,
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, PostParams},
};
use micro::registry::Node;
use serde_json::json;
use tokio::time::{Duration, sleep};

use super::{Kubernetes, Namespace, client, write_kubeconfig};
use crate::fault::{Cannot, Server};

/// A pod for every process of a fleet, those included that take another's place.
const PODS: [&str; 5] = ["a-1", "b-1", "c-1", "a-2", "b-2"];

/// The service account that a guarded server's URLs are of.
const ACCOUNT: &str = "micro";

impl Kubernetes {
    async fn default(&self) -> Namespace {
        Namespace::open(&self.kubeconfig(), "default").await
    }

    /// Makes the pods that are missing.
    ///
    /// The pods are static ones: those alone outlive what the API server forgets. A kubelet has them
    /// from files of its own, runs them whatever the server says, and makes again what the server
    /// lacks of them, empty: their mirror pods. (All other pods are stopped by their kubelet when the
    /// server has them no more; what that is to a client is a node that ends.)
    async fn run_pods(&self) {
        let default = self.default().await;
        for pod in PODS {
            default.run_pod(pod).await;
        }
    }

    /// The pods that have a record of a node.
    async fn with_record(&self) -> Vec<String> {
        let pods = self.default().await.pods().await;
        let params = ListParams::default().labels("micro.mu/type=service");
        let pods = pods.list(&params).await.expect("the server answers");
        let has_record = |annotation: &String| annotation.starts_with("micro.mu/service-");
        let pods = pods.items.into_iter().filter_map(|pod| {
            pod.metadata.annotations?.keys().any(has_record).then_some(pod.metadata.name?)
        });
        pods.collect()
    }

    async fn accounts(&self) -> Api<ServiceAccount> {
        Api::namespaced(self.default().await.client().await, "default")
    }

    fn token_file(&self) -> std::path::PathBuf {
        self.process.dir().join("token")
    }
}

impl Server for Kubernetes {
    const NAME: &'static str = "kubernetes";

    fn stopped() -> Self {
        Self::stopped()
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The namespace `default`, records at pods included, since nothing but them is written when a
    /// node registers.
    fn url_at(&self, address: &str) -> String {
        let (_, port) = address.rsplit_once(':').expect("an address with a port");
        let user = match self.is_guarded {
            false => json!({ "token": "admin-token" }),
            true => json!({ "tokenFile": self.token_file() }),
        };
        let port = port.parse().expect("a port");
        let kubeconfig = write_kubeconfig(self.process.dir(), port, &format!("at-{port}"), &user);
        format!("kubernetes://default?kubeconfig={}&format=micro", kubeconfig.display())
    }

    fn kill(&mut self) {
        self.kill();
    }

    async fn restart(&mut self) {
        self.restart().await;
        self.run_pods().await;
    }

    fn pause(&self) {
        self.pause();
    }

    fn resume(&self) {
        self.resume();
    }

    async fn wipe(&mut self) -> Result<(), Cannot> {
        self.kill();
        self.etcd.wipe().await;
        Server::restart(self).await;
        Ok(())
    }

    async fn remember(&mut self) -> Result<(), Cannot> {
        self.remembered = Some(self.etcd.snapshot().await);
        Ok(())
    }

    /// Pods that came after are made again, and those that have ended meanwhile, which the server
    /// now has once more, are deleted: a kubelet knows its own.
    async fn go_back(&mut self) -> Result<(), Cannot> {
        let running = self.with_record().await;
        let snapshot = self.remembered.take().expect("there is something remembered");
        self.kill();
        self.etcd.restore(&snapshot).await;
        Server::restart(self).await;
        for pod in self.with_record().await {
            if !running.contains(&pod) {
                self.default().await.delete_pod(&pod).await;
            }
        }
        Ok(())
    }

    async fn delete(&self, node: &Node) -> Result<(), Cannot> {
        let record = json!({
            "labels": { (format!("micro.mu/selector-{}", node.service)): null },
            "annotations": { (format!("micro.mu/service-{}", node.service)): null },
        });
        self.default().await.patch_pod(&node.id, record).await;
        Ok(())
    }

    async fn overwrite(&self, node: &Node) -> Result<(), Cannot> {
        let Node { service, id, .. } = node;
        let record = format!(
            r#"{{"name":"{service}","version":"latest","metadata":null,"endpoints":[],"nodes":[{{"metadata":{{"protocol":"grpc"}},"id":"{id}","address":"127.0.0.1:1"}}]}}"#
        );
        let record = json!({ "annotations": { (format!("micro.mu/service-{service}")): record } });
        self.default().await.patch_pod(id, record).await;
        Ok(())
    }

    /// The URL's token is a service account's, in a file as a pod has it.
    async fn guarded() -> Result<Self, Cannot> {
        let mut kubernetes = Self::stopped();
        kubernetes.is_guarded = true;
        Server::restart(&mut kubernetes).await;
        // Of the roles that a server without controllers has, the one that is not empty.
        let role = "cluster-admin";
        let binding = json!({
            "metadata": { "name": ACCOUNT },
            "roleRef":
                { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
            "subjects": [{ "kind": "ServiceAccount", "name": ACCOUNT, "namespace": "default" }],
        });
        let binding = serde_json::from_value(binding).expect("a binding");
        let bindings =
            Api::<RoleBinding>::namespaced(kubernetes.default().await.client().await, "default");
        bindings.create(&PostParams::default(), &binding).await.expect("the server answers");
        kubernetes.renew().await;
        Ok(kubernetes)
    }

    /// A token is good for ten minutes at least, or for as long as its account: that is deleted.
    async fn expire(&self) {
        let params = DeleteParams::default();
        self.accounts().await.delete(ACCOUNT, &params).await.expect("the server answers");
        // The server remembers for some seconds whom it has let in.
        let token = fs::read_to_string(self.token_file()).expect("a token");
        let with_token = self.write_kubeconfig("expired", &token);
        let with_token = client(&with_token).await.expect("a client");
        let pods = Api::<k8s_openapi::api::core::v1::Pod>::namespaced(with_token, "default");
        while pods.list(&ListParams::default()).await.is_ok() {
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn renew(&self) {
        let account = json!({ "metadata": { "name": ACCOUNT } });
        let account = serde_json::from_value(account).expect("an account");
        let (accounts, params) = (self.accounts().await, PostParams::default());
        accounts.create(&params, &account).await.expect("the server answers");
        let request = TokenRequest::default();
        let token = accounts.create_token_request(ACCOUNT, &params, &request).await;
        let token = token.expect("a token").status.expect("a token").token;
        fs::write(self.token_file(), token).expect("a token is written");
    }
}
