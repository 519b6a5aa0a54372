//! Kitex's records: the JSON that its etcd registry keeps, and the one in ZooKeeper, whose path
//! says the address.
//!
//! A record has the address, a weight and tags: in a node's metadata the weight is `weight`, and
//! every other fact is a tag. Version and endpoints are lost, and the id is the address. Whether an
//! instance speaks gRPC no record says: under a service that is called, it is expected to.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    super::{Node, url::host_and_port},
    facts,
    json::{Object, Wrong, parse_object, write},
    says_grpc,
};

/// In a node's metadata, what of the calls it is to get beside others.
const WEIGHT: &str = "weight";

/// What Kitex takes in place of a weight that is not positive.
const DEFAULT_WEIGHT: i64 = 10;

#[cfg_attr(not(feature = "etcd"), allow(dead_code, reason = "etcd:// alone keeps it"))]
#[derive(Serialize)]
struct Instance<'a> {
    network: &'a str,
    address: &'a str,
    weight: i64,
    tags: Option<BTreeMap<&'a str, &'a str>>,
}

/// What stands in ZooKeeper: a Go struct without tags, hence the capitals.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Entry<'a> {
    weight: i64,
    tags: Option<BTreeMap<&'a str, &'a str>>,
}

/// The node's record, as a Kitex server writes it. A weight that is no positive integer is 10.
///
/// # Errors
/// A record over 1 MiB, saying so.
#[cfg_attr(not(feature = "etcd"), allow(dead_code, reason = "etcd:// alone keeps it"))]
pub(in crate::registry) fn encode(node: &Node) -> Result<Vec<u8>, String> {
    let (weight, tags) = (weight(node), tags(node));
    write(&Instance { network: "tcp", address: &node.address, weight, tags })
}

/// The node's record under a path that ends in its address.
///
/// # Errors
/// As [`encode`].
#[cfg_attr(not(feature = "zookeeper"), allow(dead_code, reason = "zookeeper:// alone writes it"))]
pub(in crate::registry) fn encode_entry(node: &Node) -> Result<Vec<u8>, String> {
    write(&Entry { weight: weight(node), tags: tags(node) })
}

/// The node of this service in a record.
///
/// # Errors
/// What is wrong and where in the record: besides what is not JSON or of another type, an address
/// that is not `host:port`, and a network other than TCP.
#[cfg_attr(not(feature = "etcd"), allow(dead_code, reason = "etcd:// alone keeps it"))]
pub(in crate::registry) fn decode(bytes: &[u8], service: &str) -> Result<Node, String> {
    parse_object(bytes, |record| {
        let network = record.text("network")?;
        if !network.is_empty() && !network.starts_with("tcp") {
            return Err(Wrong::new(format!("is {network:?}, not `tcp`")).in_field("network"));
        }
        node(record, service, record.text("address")?)
    })
}

/// The node of this service and address, of which a record says the rest.
///
/// # Errors
/// As [`decode`], as far as it applies.
#[cfg_attr(not(feature = "zookeeper"), allow(dead_code, reason = "zookeeper:// alone reads it"))]
pub(in crate::registry) fn decode_entry(
    bytes: &[u8],
    service: &str,
    address: &str,
) -> Result<Node, String> {
    parse_object(bytes, |record| node(record, service, address.to_owned()))
}

fn node(record: &Object<'_>, service: &str, address: String) -> Result<Node, Wrong> {
    if !matches!(host_and_port(&address), Some((_, Some(_)))) {
        let why = format!("is {address:?}, not `host:port`");
        return Err(Wrong::new(why).in_field("address"));
    }
    let (weight, tags) = (record.integer("weight")?, record.texts("tags")?);
    Ok(tagged(Node::new(service, address.clone(), address), weight, tags.into_iter()))
}

/// The node, whose metadata is of no account, with this weight and these tags.
pub(in crate::registry) fn tagged(
    mut node: Node,
    weight: i64,
    tags: impl Iterator<Item = (String, String)>,
) -> Node {
    node.metadata = tags.collect();
    let weight = if weight > 0 { weight } else { DEFAULT_WEIGHT };
    node.metadata.insert(WEIGHT.to_owned(), weight.to_string());
    says_grpc(&mut node);
    node
}

/// Its weight: 10 unless it is a positive integer.
pub(in crate::registry) fn weight(node: &Node) -> i64 {
    let weight = node.metadata.get(WEIGHT).and_then(|weight| weight.parse().ok());
    weight.filter(|weight| *weight > 0).unwrap_or(DEFAULT_WEIGHT)
}

/// What there is to say of it in tags.
pub(in crate::registry) fn tags(node: &Node) -> Option<BTreeMap<&str, &str>> {
    let tags: BTreeMap<_, _> = facts(node).filter(|(key, _)| *key != WEIGHT).collect();
    (!tags.is_empty()).then_some(tags)
}
