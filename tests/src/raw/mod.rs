//! Records as they come into a registry besides by our own hand: from peers, from operators, and by
//! accident.

use std::fmt::Write as _;

use micro::registry::Node;
pub use micro::testing::registry::Cannot;
use serde_json::json;

mod consul;
mod etcd;
mod file;
mod following;
mod kubernetes;
mod mdns;
mod memory;
mod nacos;
mod nats;
mod owner;
mod table;
mod zookeeper;

pub use consul::InConsul;
pub use etcd::InEtcd;
pub use file::InFile;
pub use following::{Following, SOON, is_gone, is_there};
pub use kubernetes::InKubernetes;
pub use mdns::InMdns;
pub use memory::InMemory;
pub use nacos::InNacos;
pub use nats::InNats;
pub use table::judge;
pub use zookeeper::InZooKeeper;

/// What comes of an odd record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Odd {
    /// It is left out, and spoils nothing else.
    LeftOut,
    /// Nothing new is read until it is mended, and what was known stands.
    HoldsUpAll,
    /// There is no way to write one.
    Impossible,
}

/// A registry on its real server, and a hand that writes into it without the registry's own client
/// code, wherever the server keeps a record.
#[allow(async_fn_in_trait, reason = "the tests are generic, and no future leaves its test")]
pub trait Raw: Sized {
    /// The rows of the table that do not apply here, each with the reason.
    const CANNOT: &'static [(&'static str, &'static str)];

    /// Whether it is reached over a connection that can be cut.
    const IS_CONNECTED: bool = true;

    /// Whether a watch tells of every write, one after the other, as those of etcd, Kubernetes and NATS do.
    /// Else it says that there is something new, and what that is is read: of several writes the last.
    const TELLS_EVERY_CHANGE: bool = true;

    /// Whether what is read is all that is. Else a removal while the connection was cut is not known to
    /// anybody until the node's TTL is over.
    const KEEPS_RECORDS: bool = true;

    /// The most bytes of a record.
    const LONGEST: usize = usize::MAX;

    /// What comes of what cannot be read.
    const ODD: Odd = Odd::LeftOut;

    /// A server, serving, with nothing of the test's in it.
    async fn serving() -> Self;

    /// `127.0.0.1:PORT`, where it is reached.
    fn address(&self) -> String;

    /// The registry's URL when it is reached at this address.
    fn url_at(&self, address: &str) -> String;

    /// Writes the node's record, over what is there.
    async fn put(&self, node: &Node);

    /// Deletes it.
    async fn take(&self, node: &Node);

    /// Writes the records of nodes of one service at once: in as few transactions as the server has.
    async fn put_all(&self, nodes: &[Node]);

    /// Deletes them at once.
    async fn take_all(&self, nodes: &[Node]);

    /// Writes the node's record once more, in this place, where another's would be.
    async fn put_in(&self, place: &str, node: &Node) -> Result<(), Cannot>;

    /// Deletes it there.
    async fn take_from(&self, place: &str, node: &Node) -> Result<(), Cannot>;

    /// Writes the node's record beside one that has its address.
    async fn put_beside(&self, node: &Node) -> Result<(), Cannot> {
        self.put(node).await;
        Ok(())
    }

    /// Writes this where the record of the node of this id would be. Returns the key that it stands
    /// under; none if it is heard, and stands nowhere.
    async fn write_raw(&self, service: &str, id: &str, text: &str) -> Option<String>;

    /// Deletes what stands there.
    async fn delete_raw(&self, service: &str, id: &str);
}

/// go-micro's record of a node.
pub fn record(node: &Node) -> String {
    let Node { service, version, id, address, metadata, .. } = node;
    let nodes = json!([{ "metadata": metadata, "id": id, "address": address }]);
    json!({
        "name": service, "version": version, "metadata": null, "endpoints": [], "nodes": nodes
    })
    .to_string()
}

/// As go-micro packs a text: in zlib's format, here not compressed, and in hex.
fn hex_of_zlib(bytes: &[u8]) -> String {
    let mut zlib = vec![0x78, 0x01];
    let mut blocks = bytes.chunks(usize::from(u16::MAX)).peekable();
    if bytes.is_empty() {
        zlib.extend([1, 0, 0, 0xff, 0xff]);
    }
    while let Some(block) = blocks.next() {
        let length = u16::try_from(block.len()).expect("a block is this short");
        zlib.push(u8::from(blocks.peek().is_none()));
        zlib.extend(length.to_le_bytes());
        zlib.extend((!length).to_le_bytes());
        zlib.extend(block);
    }
    let (a, b) = bytes.iter().fold((1, 0), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (a + b) % 65_521)
    });
    zlib.extend((b << 16 | a).to_be_bytes());
    let mut hex = String::new();
    for byte in zlib {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}
