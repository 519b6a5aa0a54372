//! What a registry's own client hears: the measure of how fast ours can be. Where there is none, a plain
//! program takes its place.

use std::{
    collections::BTreeSet,
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use etcd_client::{EventType as EtcdEvent, WatchOptions};
use k8s_openapi::api::{core::v1::Pod, discovery::v1::EndpointSlice};
use kube::{
    Api, Resource, ResourceExt as _,
    api::{ListParams, WatchEvent, WatchParams},
};
use micro::registry::{self, Event, Registry};
use serde::de::DeserializeOwned;
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use tokio::{net::UdpSocket, sync::mpsc, time::sleep};
use tokio_stream::StreamExt as _;
use zookeeper_client::{AddWatchMode, EventType as ZooKeeperEvent};

use super::{
    SERVICE,
    server::{RECORD, Server},
};
use crate::{
    bench::measure::now,
    consul::{self, Consul},
    etcd::Etcd,
    kubernetes::Namespace,
    nats::Nats,
    zookeeper::ZooKeeper,
};

/// A node has come, or is gone.
#[derive(Debug)]
struct Told {
    /// Its id, or where a record has none its address or port.
    who: String,
    comes: bool,
    at: Duration,
}

type Tell = mpsc::UnboundedSender<Told>;

/// How a change is heard of without micro: by the registry's own client, or where there is none by as
/// plain a program as can be.
#[derive(Debug)]
pub struct Own(mpsc::UnboundedReceiver<Told>);

impl Own {
    /// Listens to what is said of the nodes of [`SERVICE`], one of which must be there.
    ///
    /// # Panics
    /// When the server cannot be asked.
    pub async fn listen(server: &Server) -> Self {
        let (tell, told) = mpsc::unbounded_channel();
        match server {
            Server::Mdns => mdns(tell),
            Server::Memory => memory(&server.url(), tell).await,
            Server::Etcd(etcd) => watch_etcd(etcd, tell).await,
            Server::Consul(consul) => watch_consul(consul, tell),
            Server::Kubernetes(_, namespace) => watch_pods(namespace, tell).await,
            Server::Slices(_, namespace, _) => watch_slices(namespace, tell).await,
            Server::ZooKeeper(zookeeper) => watch_zookeeper(zookeeper, tell).await,
            Server::Nats(nats) => subscribe(nats, tell).await,
            #[cfg(feature = "nacos")]
            Server::Nacos(nacos) => nacos::subscribe(nacos, tell).await,
            #[cfg(not(feature = "nacos"))]
            Server::Nacos(_) => unreachable!("the feature `nacos` is off"),
            Server::Dns(dns, _) => resolve(dns.port(), tell).await,
            Server::File(dir, _) => read(dir.path().join("nodes.toml"), tell),
        }
        Self(told)
    }

    /// When it was heard that this node came or went.
    ///
    /// # Panics
    /// When the client has failed.
    pub async fn hears(&mut self, id: &str, address: &str, comes: bool) -> Duration {
        let port = address.rsplit(':').next().unwrap_or_default();
        loop {
            let event = self.0.recv().await.expect("the registry's own client listens on");
            if [id, address, port].contains(&&*event.who) && event.comes == comes {
                return event.at;
            }
        }
    }
}

fn say(tell: &Tell, who: impl Into<String>, comes: bool) {
    // Nobody listens any more at the end.
    let _ = tell.send(Told { who: who.into(), comes, at: now() });
}

/// Tells what there is now and was not, and the other way round.
fn say_new(tell: &Tell, known: &mut BTreeSet<String>, all: BTreeSet<String>) {
    all.difference(known).for_each(|who| say(tell, who, true));
    known.difference(&all).for_each(|who| say(tell, who, false));
    *known = all;
}

// ===== without a server =====

fn mdns(tell: Tell) {
    let socket = packets().expect("a multicast socket on loopback");
    tokio::spawn(async move {
        let mut packet = [0; 9000];
        loop {
            let Ok((length, _)) = socket.recv_from(&mut packet).await else { return };
            if let Some((id, comes)) = announced(&packet[..length]) {
                say(&tell, id, comes);
            }
        }
    });
}

fn packets() -> io::Result<UdpSocket> {
    let group = Ipv4Addr::new(224, 0, 0, 251);
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((group, 5353)).into())?;
    socket.join_multicast_v4(&group, &Ipv4Addr::LOCALHOST)?;
    UdpSocket::from_std(socket.into())
}

/// Which node of ours the packet announces, or says of that it is gone.
fn announced(packet: &[u8]) -> Option<(String, bool)> {
    let (header, records) = packet.split_at_checked(12)?;
    // A response with answers and without a question: the node's own word to all.
    if header[2] & 0x80 == 0 || header[5] != 0 || header[7] == 0 {
        return None;
    }
    let (length, rest) = records.split_first()?;
    let (id, rest) = rest.split_at_checked(usize::from(*length))?;
    let mut service = vec![u8::try_from(SERVICE.len()).ok()?];
    service.extend(SERVICE.as_bytes());
    service.extend(b"\x05micro\0");
    let ttl = rest.strip_prefix(&service[..])?.get(4..8)?;
    Some((String::from_utf8(id.to_vec()).ok()?, ttl != [0; 4]))
}

async fn memory(url: &str, tell: Tell) {
    let registry: Arc<dyn Registry> = registry::open(url).expect("a good URL");
    let listing = registry.read(SERVICE).await.expect("memory is there");
    let mut watch = registry.watch(SERVICE, listing.revision);
    tokio::spawn(async move {
        while let Some(batch) = watch.next().await {
            for event in batch.expect("memory is there").events {
                match event {
                    Event::Put(entry) => say(&tell, entry.node.id.clone(), true),
                    Event::Delete(key) => say(&tell, last(&key), false),
                    Event::Reset(_) | Event::Malformed(_) => {}
                }
            }
        }
    });
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// Reads the file as often as ours is looked at: a notice of the kernel's comes sooner, and from a
/// network's file system not at all.
fn read(file: PathBuf, tell: Tell) {
    tokio::spawn(async move {
        let mut known = BTreeSet::new();
        loop {
            let Ok(text) = tokio::fs::read_to_string(&file).await else { return };
            // One a line, `address = "..."` before all else.
            let addresses = text.lines().filter_map(|line| line.split('"').nth(1));
            say_new(&tell, &mut known, addresses.map(str::to_owned).collect());
            sleep(Duration::from_millis(500)).await;
        }
    });
}

// ===== servers =====

/// Asks for the SRV records again when the TTL of the last answer is over.
async fn resolve(port: u16, tell: Tell) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    socket.connect(("127.0.0.1", port)).await.expect("an address");
    let mut question = vec![0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in ["_grpc", "_tcp", "bench", "test", ""] {
        question.push(u8::try_from(label.len()).expect("it is short"));
        question.extend(label.as_bytes());
    }
    question.extend([0, 33, 0, 1]);
    tokio::spawn(async move {
        let mut known = BTreeSet::new();
        let mut packet = [0; 4096];
        loop {
            socket.send(&question).await.expect("the server runs");
            let length = socket.recv(&mut packet).await.expect("the server answers");
            let (ports, ttl) = srv_ports(&packet[..length]).expect("an answer with SRV records");
            say_new(&tell, &mut known, ports);
            sleep(ttl).await;
        }
    });
}

/// The ports of an answer's SRV records, and how long they hold.
fn srv_ports(answer: &[u8]) -> Option<(BTreeSet<String>, Duration)> {
    let number = |at: usize| Some(u16::from_be_bytes([*answer.get(at)?, *answer.get(at + 1)?]));
    let after_name = |mut at: usize| {
        loop {
            match *answer.get(at)? {
                0 => return Some(at + 1),
                // A pointer to the rest of it.
                length if length >= 0xc0 => return Some(at + 2),
                length => at += 1 + usize::from(length),
            }
        }
    };
    let mut at = after_name(12)? + 4;
    let (mut ports, mut ttl) = (BTreeSet::new(), u64::MAX);
    for _ in 0..number(6)? {
        at = after_name(at)?;
        if number(at)? == 33 {
            ports.insert(number(at + 14)?.to_string());
            ttl = ttl.min(u64::from(number(at + 4)?) << 16 | u64::from(number(at + 6)?));
        }
        at += 10 + usize::from(number(at + 8)?);
    }
    (!ports.is_empty()).then_some((ports, Duration::from_secs(ttl)))
}

async fn watch_etcd(etcd: &Etcd, tell: Tell) {
    let mut client = etcd.client().await;
    let prefix = WatchOptions::new().with_prefix();
    let watching = client.watch(format!("/micro/registry/{SERVICE}/"), Some(prefix)).await;
    let mut stream = watching.expect("etcd answers");
    tokio::spawn(async move {
        let _client = client;
        while let Ok(Some(answer)) = stream.message().await {
            for event in answer.events() {
                let key = event.kv().and_then(|kv| kv.key_str().ok()).unwrap_or_default();
                say(&tell, last(key), event.event_type() == EtcdEvent::Put);
            }
        }
    });
}

/// A blocking query, as Consul's documentation has it.
fn watch_consul(consul: &Consul, tell: Tell) {
    let url = format!("http://{}/v1/health/service/{SERVICE}?passing=1&wait=60s", consul.address());
    tokio::spawn(async move {
        let (client, mut index, mut known) = (consul::client(), "0".to_owned(), BTreeSet::new());
        loop {
            let query = client.get(format!("{url}&index={index}")).send();
            let Ok(answer) = query.await else { return };
            let header = answer.headers().get("x-consul-index").expect("its index");
            index = header.to_str().expect("a number").to_owned();
            let Ok(text) = answer.text().await else { return };
            let list: Vec<Value> = serde_json::from_str(&text).expect("a list");
            let id = |it: &Value| it["Service"]["ID"].as_str().unwrap_or_default().to_owned();
            say_new(&tell, &mut known, list.iter().map(id).collect());
        }
    });
}

async fn watch_pods(namespace: &Namespace, tell: Tell) {
    watch(namespace.pods().await, "", move |pod: Pod| {
        let has_record = pod.annotations().contains_key(&format!("{RECORD}{SERVICE}"));
        say(&tell, pod.name_any(), has_record);
    })
    .await;
}

async fn watch_slices(namespace: &Namespace, tell: Tell) {
    let slices = Api::<EndpointSlice>::namespaced(namespace.client().await, &namespace.name);
    let of_service = format!("kubernetes.io/service-name={SERVICE}");
    let mut known = BTreeSet::new();
    watch(slices, &of_service, move |slice| {
        let ready = slice.endpoints.into_iter().filter(|endpoint| {
            endpoint.conditions.as_ref().and_then(|it| it.ready).unwrap_or(true)
        });
        let pods = ready.filter_map(|endpoint| endpoint.target_ref?.name);
        say_new(&tell, &mut known, pods.collect());
    })
    .await;
}

/// What is written from now on.
async fn watch<K>(api: Api<K>, labels: &str, mut written: impl FnMut(K) + Send + 'static)
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned + Send + 'static,
{
    let list = api.list(&ListParams::default()).await.expect("the server answers");
    let mut version = list.metadata.resource_version.expect("a list has a version");
    // The longest that there is.
    let params = WatchParams::default().timeout(294).labels(labels);
    let mut stream = Box::pin(api.watch(&params, &version).await.expect("the server answers"));
    tokio::spawn(async move {
        loop {
            match stream.next().await {
                Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object))) => {
                    version = object.resource_version().expect("an object has a version");
                    written(object);
                }
                Some(Ok(WatchEvent::Bookmark(mark))) => version = mark.metadata.resource_version,
                Some(Ok(WatchEvent::Deleted(_))) => {}
                // Its time is over.
                None => {
                    let Ok(anew) = api.watch(&params, &version).await else { return };
                    stream = Box::pin(anew);
                }
                Some(Err(_) | Ok(WatchEvent::Error(_))) => return,
            }
        }
    });
}

async fn watch_zookeeper(zookeeper: &ZooKeeper, tell: Tell) {
    let client = zookeeper.client().await;
    let folder = format!("/micro-registry/{SERVICE}");
    let watching = client.watch(&folder, AddWatchMode::PersistentRecursive).await;
    let mut watcher = watching.expect("ZooKeeper answers");
    tokio::spawn(async move {
        loop {
            let event = watcher.changed().await;
            match event.event_type {
                // The event has the path alone: where the node is, the record says.
                ZooKeeperEvent::NodeCreated => {
                    let Ok(_) = client.get_data(&event.path).await else { return };
                    say(&tell, last(&event.path), true);
                }
                ZooKeeperEvent::NodeDeleted => say(&tell, last(&event.path), false),
                ZooKeeperEvent::Session => return,
                _ => {}
            }
        }
    });
}

async fn subscribe(nats: &Nats, tell: Tell) {
    let client = nats.client().await;
    let subscription = client.subscribe("micro.nats.watch").await;
    let mut subscription = subscription.expect("NATS answers");
    client.flush().await.expect("NATS answers");
    tokio::spawn(async move {
        let _client = client;
        while let Some(message) = subscription.next().await {
            let told: Value = serde_json::from_slice(&message.payload).expect("go-micro's JSON");
            let id = told["Service"]["nodes"][0]["id"].as_str().unwrap_or_default();
            say(&tell, id, told["Action"] != "delete");
        }
    });
}

#[cfg(feature = "nacos")]
mod nacos {
    use std::{
        collections::BTreeSet,
        future::pending,
        sync::{Arc, Mutex},
    };

    use nacos_sdk::api::{
        naming::{NamingChangeEvent, NamingEventListener, NamingServiceBuilder},
        props::ClientProps,
    };

    use super::{SERVICE, Tell, say_new};
    use crate::nacos::Nacos;

    /// What Nacos pushes: all instances, at each change.
    struct Listener {
        tell: Tell,
        known: Mutex<BTreeSet<String>>,
    }

    impl NamingEventListener for Listener {
        fn event(&self, event: Arc<NamingChangeEvent>) {
            let instances = event.instances.iter().flatten();
            let ids = instances.filter_map(|it| it.metadata.get("micro-id").cloned()).collect();
            say_new(&self.tell, &mut self.known.lock().expect("nobody panics"), ids);
        }
    }

    /// By its SDK.
    pub(super) async fn subscribe(nacos: &Nacos, tell: Tell) {
        let props = ClientProps::new()
            .env_first(false)
            .server_addr(nacos.main_address())
            .naming_push_empty_protection(false);
        let naming = NamingServiceBuilder::new(props).build().await.expect("Nacos is reached");
        let listener = Arc::new(Listener { tell, known: Mutex::default() });
        let subscribed = naming.subscribe(SERVICE.to_owned(), None, Vec::new(), listener).await;
        subscribed.expect("Nacos answers");
        tokio::spawn(async move {
            let _naming = naming;
            pending::<()>().await;
        });
    }
}
