//! Many nodes in a registry, written by a process apart: what is measured is who reads them.

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use micro::registry::{self, Lease, Node, Registry};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    task::JoinSet,
    time::sleep,
};
use zookeeper_client::{Acls, Client as ZooKeeperClient, CreateMode};

use super::{SERVICE, next_line, server::Server};
use crate::{
    kubernetes::{Namespace, Slice, Stage, endpoint},
    nacos,
};

/// Longer than any benchmark: nothing is renewed.
const TTL: Duration = Duration::from_secs(600);

/// Written at a time.
const AT_ONCE: usize = 16;

/// The most endpoints that Kubernetes puts into one slice.
const A_SLICE: usize = 100;

/// Which nodes there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// All in one service.
    Nodes,
    /// Each in a service of its own.
    Services,
}

impl Shape {
    /// The service of a node.
    pub fn service(self, index: usize) -> String {
        match self {
            Self::Nodes => SERVICE.to_owned(),
            Self::Services => format!("{SERVICE}-{index}"),
        }
    }

    fn node(self, index: usize, change: usize) -> Node {
        let address = format!("10.0.{}.{}:9000", index / 250, index % 250 + 1);
        let mut node = Node::new(self.service(index), format!("n{index}"), address);
        node.metadata.insert("zone".to_owned(), format!("z{change}"));
        node
    }
}

/// How a process writes there.
enum Hand {
    /// As nodes do.
    Registered(Arc<dyn Registry>),
    /// The same, on the loopback interface.
    Mdns(Arc<dyn Registry>),
    /// In one session: a node has one of its own, and a thousand of them are the server's trouble.
    ZooKeeper(ZooKeeperClient),
    /// As the controller does.
    Kubernetes(Namespace),
    /// By HTTP, at its main address: over gRPC each node of a service has a connection of its own.
    Nacos(String),
    /// The whole file, with what is in it.
    File(PathBuf, Mutex<BTreeMap<usize, Node>>),
}

impl Hand {
    async fn open(name: &str, at: &str) -> Result<Self, Box<dyn Error>> {
        Ok(match name {
            "zookeeper" => Self::ZooKeeper(ZooKeeperClient::connect(at).await?),
            "kubernetes" => Self::Kubernetes(Namespace::open(&PathBuf::from(at), "default").await),
            "nacos" => Self::Nacos(at.to_owned()),
            "mdns" => Self::Mdns(registry::open(at)?),
            "file" => Self::File(PathBuf::from(at), Mutex::default()),
            _ => Self::Registered(registry::open(at)?),
        })
    }

    /// Writes one node, over what it was.
    async fn write(&self, shape: Shape, index: usize, change: usize) {
        let mut node = shape.node(index, change);
        match self {
            // Whoever tells of itself has an address of an interface's.
            Self::Mdns(registry) => {
                node.address = format!("127.0.0.1:{}", 10_000 + index);
                let _: Lease = registry.register(&node, TTL).await.expect("the node registers");
            }
            Self::Registered(registry) => {
                let _: Lease = registry.register(&node, TTL).await.expect("the node registers");
            }
            Self::ZooKeeper(client) => {
                let folder = format!("/micro-registry/{}", node.service);
                let all = CreateMode::Persistent.with_acls(Acls::anyone_all());
                let path = format!("{folder}/{}", node.id);
                let nodes = json!([
                    { "metadata": node.metadata, "id": node.id, "address": node.address }
                ]);
                let record = json!({
                    "name": node.service, "version": "latest", "metadata": null,
                    "endpoints": [], "nodes": nodes
                });
                let record = record.to_string();
                if change == 0 {
                    client.mkdir(&folder, &all).await.expect("ZooKeeper answers");
                    client.create(&path, record.as_bytes(), &all).await.expect("a new node");
                } else {
                    client.set_data(&path, record.as_bytes(), None).await.expect("it is there");
                }
            }
            Self::File(path, nodes) => {
                let mut nodes = nodes.lock().expect("no writer has panicked");
                nodes.insert(index, node);
                write_file(path, &nodes);
            }
            // What is ephemeral would have to be written again and again.
            Self::Nacos(at) => nacos::put(at, &node, &[("ephemeral", "false")], &[]).await,
            Self::Kubernetes(namespace) => {
                let slice = if shape == Shape::Nodes { index / A_SLICE } else { index };
                let indices = match shape {
                    Shape::Nodes => slice * A_SLICE..(slice + 1) * A_SLICE,
                    Shape::Services => index..index + 1,
                };
                let endpoints = indices.map(|it| {
                    let node = shape.node(it, change);
                    let host = node.address.split(':').next().expect("a host");
                    let mut endpoint = endpoint(&node.id, host, Stage::Ready);
                    let change = if it == index { change } else { 0 };
                    endpoint["zone"] = json!(format!("z{change}"));
                    endpoint
                });
                let slice_of = Slice::of(&endpoints.collect::<Vec<_>>());
                namespace
                    .put_slice(&node.service, &format!("{}-{slice}", node.service), &slice_of)
                    .await;
            }
        }
    }

    async fn fill(self: &Arc<Self>, shape: Shape, count: usize) -> Result<(), Box<dyn Error>> {
        // A slice is written once, with all that is in it.
        let is_sliced = matches!(**self, Self::Kubernetes(_)) && shape == Shape::Nodes;
        let mut writing = JoinSet::new();
        for index in (0..count).step_by(if is_sliced { A_SLICE } else { 1 }) {
            if writing.len() == AT_ONCE {
                writing.join_next().await.ok_or("some are written")??;
            }
            let hand = self.clone();
            writing.spawn(async move { hand.write(shape, index, 0).await });
        }
        while let Some(written) = writing.join_next().await {
            written?;
        }
        Ok(())
    }
}

fn write_file(path: &Path, nodes: &BTreeMap<usize, Node>) {
    let mut services: BTreeMap<&str, String> = BTreeMap::new();
    for Node { service, id, address, metadata, .. } in nodes.values() {
        let zone = &metadata["zone"];
        let nodes = services.entry(service).or_default();
        let _ = writeln!(
            nodes,
            "  {{ address = {address:?}, id = {id:?}, metadata = {{ zone = {zone:?} }} }},"
        );
    }
    let services =
        services.iter().map(|(name, nodes)| format!("[{name:?}]\nnodes = [\n{nodes}]\n"));
    // As one should: beside, and renamed.
    let beside = path.with_extension("new");
    fs::write(&beside, services.collect::<String>()).expect("a file is written");
    fs::rename(&beside, path).expect("a file is renamed");
}

/// Obeys the lines of its input, `fill SHAPE COUNT` and `change SHAPE FROM TO PAUSE_MS`, with an empty
/// line for each: the program of the process.
///
/// # Errors
/// When it cannot write.
pub async fn run(name: &str, at: &str) -> Result<(), Box<dyn Error>> {
    let hand = Arc::new(Hand::open(name, at).await?);
    while let Some(line) = next_line().await? {
        let words: Vec<_> = line.split(' ').collect();
        let shape = if words[1] == "nodes" { Shape::Nodes } else { Shape::Services };
        match words[..] {
            ["fill", _, count] => hand.fill(shape, count.parse()?).await?,
            ["change", _, from, to, pause] => {
                let pause = Duration::from_millis(pause.parse()?);
                for change in from.parse()?..to.parse()? {
                    // The same node: who waits for the last change waits for that one.
                    hand.write(shape, 0, change).await;
                    sleep(pause).await;
                }
            }
            _ => return Err(format!("{line}: no such line").into()),
        }
        println!();
    }
    Ok(())
}

/// The process.
#[derive(Debug)]
pub struct Fleet {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

impl Fleet {
    /// One that writes there.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(server: &Server) -> Result<Self, Box<dyn Error>> {
        let at = match server {
            Server::ZooKeeper(zookeeper) => zookeeper.address(),
            Server::Nacos(nacos) => nacos.main_address(),
            Server::File(dir, _) => dir.path().join("nodes.toml").display().to_string(),
            Server::Kubernetes(server, _) => server.kubeconfig().display().to_string(),
            _ => server.url(),
        };
        let mut process = Command::new(env::current_exe()?)
            .args(["fleet", server.name(), &at])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let input = process.stdin.take().ok_or("its input is ours")?;
        let output = BufReader::new(process.stdout.take().ok_or("its output is ours")?).lines();
        Ok(Self { input, output, _process: process })
    }

    async fn tell(&mut self, line: &str) -> Result<(), Box<dyn Error>> {
        self.input.write_all(format!("{line}\n").as_bytes()).await?;
        self.output.next_line().await?.ok_or("the fleet's process has ended")?;
        Ok(())
    }

    /// Writes so many nodes.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn fill(&mut self, shape: Shape, count: usize) -> Result<(), Box<dyn Error>> {
        self.tell(&format!("fill {} {count}", word(shape))).await
    }

    /// Writes the first node again and again, each time with another `zone`: `z` and the number.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn change(
        &mut self,
        shape: Shape,
        numbers: std::ops::Range<usize>,
        pause: Duration,
    ) -> Result<(), Box<dyn Error>> {
        let (from, to, pause) = (numbers.start, numbers.end, pause.as_millis());
        self.tell(&format!("change {} {from} {to} {pause}", word(shape))).await
    }
}

fn word(shape: Shape) -> &'static str {
    match shape {
        Shape::Nodes => "nodes",
        Shape::Services => "services",
    }
}
