//! A registry and its server, and the hand that writes where nodes do not register themselves.

use std::{collections::BTreeMap, fmt::Write as _, fs, time::Duration};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::SERVICE;
use crate::{
    bench::measure::now,
    consul::Consul,
    dns::Dns,
    etcd::Etcd,
    kubernetes::{Kubernetes, Namespace, Slice, Stage, endpoint},
    nacos::Nacos,
    nats::Nats,
    zookeeper::ZooKeeper,
};

/// A registry, its server running.
#[derive(Debug)]
pub enum Server {
    /// `mdns://`, on the loopback interface.
    Mdns,
    /// `memory://`, in this process.
    Memory,
    /// `etcd://`
    Etcd(Etcd),
    /// `consul://`
    Consul(Consul),
    /// `kubernetes://`, with records at pods.
    Kubernetes(Kubernetes, Namespace),
    /// `kubernetes://`, with what is in the slice of a Service: each pod's address, and where it stands.
    Slices(Kubernetes, Namespace, BTreeMap<String, (String, Stage)>),
    /// `zookeeper://`
    ZooKeeper(ZooKeeper),
    /// `nats://`
    Nats(Nats),
    /// `nacos://`, with the feature `nacos`
    Nacos(Nacos),
    /// `dns://`: SRV records with a TTL of 1 s. With what is in the zone.
    Dns(Dns, BTreeMap<String, String>),
    /// `file://`, with what is in the file.
    File(TempDir, BTreeMap<String, String>),
}

impl Server {
    /// An API server, and its namespace.
    ///
    /// # Panics
    /// As [`Kubernetes::start`].
    pub async fn kubernetes() -> Self {
        let server = Kubernetes::start().await;
        let namespace = Namespace::open(&server.kubeconfig(), "default").await;
        Self::Kubernetes(server, namespace)
    }

    /// An API server where nodes are in a slice.
    ///
    /// # Panics
    /// As [`Kubernetes::start`].
    pub async fn slices() -> Self {
        let server = Kubernetes::start().await;
        let namespace = Namespace::open(&server.kubeconfig(), "default").await;
        Self::Slices(server, namespace, BTreeMap::new())
    }

    /// A file without nodes.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn file() -> Self {
        let file = Self::File(TempDir::new().expect("a folder for a file"), BTreeMap::new());
        file.write_file();
        file
    }

    /// As the table names it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Mdns => "mdns",
            Self::Memory => "memory",
            Self::Etcd(_) => "etcd",
            Self::Consul(_) => "consul",
            Self::Kubernetes(..) => "kubernetes",
            Self::Slices(..) => "kubernetes, slices",
            Self::ZooKeeper(_) => "zookeeper",
            Self::Nats(_) => "nats",
            Self::Nacos(_) => "nacos",
            Self::Dns(..) => "dns",
            Self::File(..) => "file",
        }
    }

    /// The registry's URL.
    pub fn url(&self) -> String {
        match self {
            Self::Mdns => "mdns://".to_owned(),
            Self::Memory => "memory://bench".to_owned(),
            Self::Etcd(etcd) => etcd.url(),
            Self::Consul(consul) => consul.url(),
            Self::Kubernetes(_, namespace) => format!("{}&format=micro", namespace.url()),
            Self::Slices(_, namespace, _) => namespace.url(),
            Self::ZooKeeper(zookeeper) => zookeeper.url(),
            Self::Nats(nats) => nats.url(),
            Self::Nacos(nacos) => nacos.url(),
            Self::Dns(dns, _) => dns.url("bench.test"),
            Self::File(dir, _) => format!("file://{}/nodes.toml", dir.path().display()),
        }
    }

    /// Whether nodes write themselves there; where they do not, [`put`](Self::put) and
    /// [`remove`](Self::remove) do.
    pub fn takes_registrations(&self) -> bool {
        !matches!(self, Self::Kubernetes(..) | Self::Slices(..) | Self::Dns(..) | Self::File(..))
    }

    /// Where the node of this number is to serve.
    pub fn place(&self, number: usize) -> String {
        match self {
            // A slice takes no address of the loopback network, and has one port for all of its pods.
            // The one that stays has the first to itself.
            Self::Slices(..) => {
                let host = if number == 0 { 1 } else { 2 + (number - 1) % 249 };
                format!("10.1.0.{host}:{SLICE_PORT}")
            }
            _ => "127.0.0.1:0".to_owned(),
        }
    }

    /// How often it is looked at, where nothing tells of a change.
    pub fn looked_at_every(&self) -> Option<Duration> {
        match self {
            // The TTL of its records.
            Self::Dns(..) => Some(Duration::from_secs(1)),
            Self::File(..) => Some(Duration::from_millis(500)),
            _ => None,
        }
    }

    /// Writes a node by hand, and tells when that began.
    ///
    /// # Panics
    /// When the server refuses, or is one where nodes write themselves.
    pub async fn put(&mut self, id: &str, address: &str) -> Duration {
        let mut begin = now();
        match self {
            Self::Kubernetes(_, namespace) => {
                namespace.run_pod(id).await;
                // The pod is there before its record.
                begin = now();
                let metadata = json!({ "protocol": "grpc" });
                let nodes = json!([{ "id": id, "address": address, "metadata": metadata }]);
                let record = json!({ "name": SERVICE, "version": "latest", "nodes": nodes });
                namespace.patch_pod(id, record_of(Some(&record.to_string()))).await;
            }
            Self::Slices(_, namespace, pods) => {
                // Those that were told to end have ended.
                pods.retain(|_, (_, stage)| *stage == Stage::Ready);
                write_slice(namespace, pods).await;
                begin = now();
                pods.insert(id.to_owned(), (address.to_owned(), Stage::Ready));
                write_slice(namespace, pods).await;
            }
            Self::Dns(_, nodes) | Self::File(_, nodes) => {
                nodes.insert(id.to_owned(), address.to_owned());
                self.write_list().await;
            }
            _ => unreachable!("nodes write themselves into {}", self.name()),
        }
        begin
    }

    /// Removes a node by hand, and tells when that began.
    ///
    /// # Panics
    /// As [`put`](Self::put).
    pub async fn remove(&mut self, id: &str) -> Duration {
        let begin = now();
        match self {
            Self::Kubernetes(_, namespace) => {
                namespace.patch_pod(id, record_of(None)).await;
            }
            Self::Slices(_, namespace, pods) => {
                pods.get_mut(id).expect("a pod in the slice").1 = Stage::Terminating;
                write_slice(namespace, pods).await;
            }
            Self::Dns(_, nodes) | Self::File(_, nodes) => {
                nodes.remove(id);
                self.write_list().await;
            }
            _ => unreachable!("nodes write themselves into {}", self.name()),
        }
        begin
    }

    async fn write_list(&mut self) {
        let Self::Dns(dns, nodes) = self else { return self.write_file() };
        let port = |address: &String| address.rsplit_once(':').expect("a port").1.to_owned();
        let records =
            nodes.values().map(|it| format!("_grpc._tcp.bench 1 SRV 0 1 {} here", port(it)));
        let records: Vec<_> = records.chain(["here 1 A 127.0.0.1".to_owned()]).collect();
        dns.set(&records.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }

    fn write_file(&self) {
        let Self::File(dir, nodes) = self else { unreachable!("the other list is a zone") };
        let mut text = format!("[{SERVICE:?}]\nnodes = [\n");
        for (id, address) in nodes {
            let _ = writeln!(text, "  {{ address = {address:?}, id = {id:?} }},");
        }
        text.push_str("]\n");
        // As one should: beside, and renamed.
        let beside = dir.path().join("new");
        fs::write(&beside, text).expect("a file is written");
        fs::rename(&beside, dir.path().join("nodes.toml")).expect("a file is renamed");
    }
}

/// The port of all pods in the slice.
const SLICE_PORT: u16 = 9000;

async fn write_slice(namespace: &Namespace, pods: &BTreeMap<String, (String, Stage)>) {
    let endpoints = pods.iter().map(|(id, (address, stage))| {
        let (host, _) = address.rsplit_once(':').expect("a port");
        endpoint(id, host, *stage)
    });
    let ports = json!([{ "name": "grpc", "port": SLICE_PORT }]);
    let slice = Slice { ports, ..Slice::of(&endpoints.collect::<Vec<_>>()) };
    namespace.put_slice(SERVICE, &format!("{SERVICE}-a"), &slice).await;
}

/// Where go-micro has a record at a pod; none removes it.
fn record_of(record: Option<&str>) -> Value {
    let selector = record.map(|_| "service");
    json!({
        "labels": { (format!("micro.mu/selector-{SERVICE}")): selector },
        "annotations": { (format!("{RECORD}{SERVICE}")): record },
    })
}

/// What the name of an annotation with a record begins with.
pub(super) const RECORD: &str = "micro.mu/service-";
