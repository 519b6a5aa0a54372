//! What is said on the loopback interface: packets, as a node sends them of itself.

use std::{
    collections::BTreeMap,
    net::{SocketAddrV4, UdpSocket},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use micro::{registry::Node, testing::registry::Cannot};
use serde_json::json;
use tokio::{task::JoinHandle, time::sleep};

use super::{Raw, hex_of_zlib};

/// A registry of packets, in a network namespace of the test's own.
#[derive(Debug)]
pub struct InMdns {
    socket: UdpSocket,
    /// What the hand says again and again: whoever wants to know asks, and it does not listen.
    standing: Arc<Mutex<Standing>>,
    saying: JoinHandle<()>,
}

/// By service and id, where a node is and its text.
type Standing = BTreeMap<(String, String), (String, Vec<u8>)>;

const GROUP: &str = "224.0.0.251:5353";

/// In seconds, as go-micro has it.
const TTL: u32 = 120;

/// Nodes in one packet.
const TOGETHER: usize = 20;

/// The most bytes of a text, in which each has two: it is one record of one packet.
const LONGEST: usize = 30_000;

impl Raw for InMdns {
    const CANNOT: &'static [(&'static str, &'static str)] = &[
        (
            "a_watch_cut_50_times_neither_loses_nor_doubles",
            "datagrams have no connection that could be cut",
        ),
        ("a_record_of_100_kib_is_read", "a record is one datagram, which has at most 64 KiB"),
        (
            "a_duplicate_id_is_one_node",
            "a node is known by its id alone, so that a second record is the first one's next",
        ),
        (
            "a_record_written_again_as_it_was_is_told",
            "a node says what it is again and again, and means that it is still there",
        ),
    ];
    const IS_CONNECTED: bool = false;
    const LONGEST: usize = LONGEST;

    async fn serving() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let standing = Arc::<Mutex<Standing>>::default();
        let (again, of) = (socket.try_clone().expect("a socket"), standing.clone());
        let saying = tokio::spawn(async move {
            loop {
                sleep(Duration::from_millis(50)).await;
                say(&again, &of.lock().unwrap_or_else(PoisonError::into_inner), TTL);
            }
        });
        Self { socket, standing, saying }
    }

    fn address(&self) -> String {
        String::new()
    }

    fn url_at(&self, _address: &str) -> String {
        "mdns://".to_owned()
    }

    async fn put(&self, node: &Node) {
        self.put_all(std::slice::from_ref(node)).await;
    }

    async fn take(&self, node: &Node) {
        self.take_all(std::slice::from_ref(node)).await;
    }

    async fn put_all(&self, nodes: &[Node]) {
        self.stand(nodes.iter().map(|node| (key(node), (node.address.clone(), text(node)))));
    }

    async fn take_all(&self, nodes: &[Node]) {
        self.fall(nodes.iter().map(key));
    }

    async fn put_in(&self, _place: &str, _node: &Node) -> Result<(), Cannot> {
        Err(Cannot)
    }

    async fn take_from(&self, _place: &str, _node: &Node) -> Result<(), Cannot> {
        Err(Cannot)
    }

    async fn write_raw(&self, service: &str, id: &str, text: &str) -> Option<String> {
        let text = text.as_bytes()[..text.len().min(LONGEST)].to_vec();
        let key = (service.to_owned(), id.to_owned());
        self.stand([(key, ("127.0.0.1:9".to_owned(), text))]);
        Some(format!("{service}/{id}"))
    }

    async fn delete_raw(&self, service: &str, id: &str) {
        self.fall([(service.to_owned(), id.to_owned())]);
    }
}

fn key(node: &Node) -> (String, String) {
    (node.service.clone(), node.id.clone())
}

fn text(node: &Node) -> Vec<u8> {
    let Node { service, version, metadata, .. } = node;
    let text = json!({
        "Metadata": metadata, "Service": service, "Version": version, "Endpoints": [],
    });
    text.to_string().into_bytes()
}

impl InMdns {
    fn stand(&self, nodes: impl IntoIterator<Item = ((String, String), (String, Vec<u8>))>) {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let nodes: Standing = nodes.into_iter().collect();
        say(&self.socket, &nodes, TTL);
        standing.extend(nodes);
    }

    fn fall(&self, nodes: impl IntoIterator<Item = (String, String)>) {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = |key| standing.remove_entry(&key).expect("it stands");
        say(&self.socket, &nodes.into_iter().map(gone).collect(), 0);
    }
}

fn say(socket: &UdpSocket, standing: &Standing, ttl: u32) {
    let all: Vec<_> = standing.iter().collect();
    for some in all.chunks(TOGETHER) {
        let mut packet = Packet::default();
        for ((service, id), (address, text)) in some {
            packet.node(service, id, address, text, ttl);
            packet.service(service);
        }
        packet.send(socket);
    }
}

impl Drop for InMdns {
    fn drop(&mut self) {
        self.saying.abort();
    }
}

/// A response without a question.
#[derive(Default)]
struct Packet {
    count: u16,
    records: Vec<u8>,
}

const PTR: u16 = 12;
const TXT: u16 = 16;
const SRV: u16 = 33;
const A: u16 = 1;

impl Packet {
    /// All that a node says of itself. A TTL of 0 says that it leaves.
    fn node(&mut self, service: &str, id: &str, address: &str, text: &[u8], ttl: u32) {
        let address: SocketAddrV4 = address.parse().expect("an address");
        let instance = name(&format!("{id}.{service}.micro."));
        let srv = [&[0; 4][..], &address.port().to_be_bytes(), &instance].concat();
        let mut strings = Vec::new();
        for string in hex_of_zlib(text).as_bytes().chunks(255) {
            strings.push(u8::try_from(string.len()).expect("it is short"));
            strings.extend(string);
        }
        self.record(&instance, SRV, ttl, &srv);
        self.record(&instance, A, ttl, &address.ip().octets());
        self.record(&instance, TXT, ttl, &strings);
    }

    fn service(&mut self, service: &str) {
        let services = name("_services.micro.");
        self.record(&services, PTR, TTL, &name(&format!("{service}._services.micro.")));
    }

    fn record(&mut self, name: &[u8], kind: u16, ttl: u32, data: &[u8]) {
        self.count += 1;
        self.records.extend(name);
        self.records.extend([kind.to_be_bytes(), [0, 1]].concat());
        self.records.extend(ttl.to_be_bytes());
        self.records.extend(u16::try_from(data.len()).expect("it fits").to_be_bytes());
        self.records.extend(data);
    }

    fn send(&self, socket: &UdpSocket) {
        let [high, low] = self.count.to_be_bytes();
        let packet = [&[0, 0, 0x84, 0, 0, 0, high, low, 0, 0, 0, 0][..], &self.records].concat();
        socket.send_to(&packet, GROUP).expect("the packet is sent");
    }
}

fn name(labels: &str) -> Vec<u8> {
    let mut name = Vec::new();
    for label in labels.split('.') {
        name.push(u8::try_from(label.len()).expect("it is short"));
        name.extend(label.as_bytes());
    }
    name
}
