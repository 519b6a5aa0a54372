//! What it costs a registry's server to have a node kept in it, counted there.

use std::error::Error;

use kube::Client;
use micro::{
    registration::{Options, Registration, RegistrationState},
    registry::{self, Node},
};

use super::{SERVICE, proxy::Proxy, server::Server};
use crate::fault::Server as _;

/// Some nodes, each kept registered with the default TTL of 15 s.
#[allow(missing_debug_implementations, reason = "kube's client has none")]
pub struct Kept {
    server: Server,
    /// None before Kubernetes, which speaks TLS.
    proxy: Option<Proxy>,
    /// An administrator's.
    kubernetes: Option<Client>,
    nodes: Vec<Registration>,
}

/// What has been asked of a server.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// Requests, or messages of a stream, from its clients.
    pub requests: f64,
    /// What passed on the wire, both ways; 0 where that cannot be counted.
    pub bytes: f64,
}

impl Kept {
    /// So many nodes, registered.
    ///
    /// # Errors
    /// When they are not.
    ///
    /// # Panics
    /// When the server does not take what the nodes need.
    pub async fn start(server: Server, count: usize) -> Result<Self, Box<dyn Error>> {
        let ids: Vec<_> = (0..count).map(|index| format!("n{index}")).collect();
        let (mut proxy, mut kubernetes) = (None, None);
        let mut url = server.url();
        if let Server::Kubernetes(_, namespace) = &server {
            for id in &ids {
                namespace.run_pod(id).await;
            }
            kubernetes = Some(namespace.client().await);
        } else if let Server::Nacos(nacos) = &server {
            let wire = Proxy::to(&nacos.grpc_address()).await;
            url = nacos.url_at(&wire.address);
            proxy = Some(wire);
        } else {
            let (scheme, address) = url.split_once("://").ok_or("a URL")?;
            let wire = Proxy::to(address).await;
            url = format!("{scheme}://{}", wire.address);
            proxy = Some(wire);
        }
        let mut nodes = Vec::new();
        for id in ids {
            let url = match kubernetes {
                Some(_) => format!("{url}&pod={id}"),
                None => url.clone(),
            };
            let node = Node::new(SERVICE, id, "127.0.0.1:1");
            nodes.push(Registration::start(registry::open(&url)?, node, Options::default()));
        }
        for node in &nodes {
            node.state().wait_for(|state| *state == RegistrationState::Registered).await?;
        }
        Ok(Self { server, proxy, kubernetes, nodes })
    }

    /// As the table names the registry.
    pub fn name(&self) -> &'static str {
        self.server.name()
    }

    /// How many nodes.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// All that the server has been asked since its start.
    ///
    /// # Panics
    /// When it does not say.
    pub async fn asked(&mut self) -> Asked {
        let wire = |count: fn(&Proxy) -> u64| self.proxy.as_ref().map_or(0, count) as f64;
        let bytes = wire(Proxy::bytes);
        let requests = match &self.server {
            // A message in a stream, as a keep-alive is, counts as much as a request.
            Server::Etcd(etcd) => sum(&etcd.metrics().await, "grpc_server_msg_received_total", ""),
            Server::Consul(_) => wire(Proxy::requests),
            Server::ZooKeeper(zookeeper) => zookeeper.metric("zk_packets_received").await as f64,
            Server::Nats(nats) => nats.messages().await as f64,
            Server::Nacos(nacos) => sum(&nacos.metrics().await, "grpc_request_total_count", ""),
            Server::Kubernetes(..) => {
                let client = self.kubernetes.as_ref().expect("it has one");
                let request = http::Request::get("/metrics").body(Vec::new()).expect("a request");
                let metrics = client.request_text(request).await.expect("the server answers");
                sum(&metrics, "apiserver_request_total", r#"resource="pods""#)
            }
            _ => unreachable!("{} has no server of its own", self.name()),
        };
        Asked { requests, bytes }
    }

    /// How many of these requests were for the asking.
    pub fn own(&self) -> f64 {
        // A four-letter word counts as a packet.
        if matches!(self.server, Server::ZooKeeper(_)) { 1.0 } else { 0.0 }
    }
}

/// The sum of a metric's values with this label, in Prometheus' format.
fn sum(metrics: &str, name: &str, label: &str) -> f64 {
    let lines = metrics.lines().filter(|it| it.starts_with(name) && it.contains(label));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}
