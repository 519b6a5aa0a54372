//! Kratos's records: the JSON that its etcd and ZooKeeper registries keep, and what they all have
//! in common, an instance's endpoints as URLs.
//!
//! A record has no endpoints in our sense, the RPC methods; all else of a node is in it. TLS is
//! `scheme=grpcs` in a node's metadata and `grpcs://` in the record.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    super::{Node, url::host_and_port},
    GRPC, facts,
    json::{Object, Wrong, parse_object, write},
    says_grpc,
};

/// In a node's metadata, `grpcs` for one that speaks TLS.
const SCHEME: &str = "scheme";

#[derive(Serialize)]
struct Instance<'a> {
    id: &'a str,
    name: &'a str,
    version: &'a str,
    metadata: Option<BTreeMap<&'a str, &'a str>>,
    endpoints: [String; 1],
}

/// The node's record, as a Kratos application with a gRPC server alone writes it.
///
/// # Errors
/// A record over 1 MiB, saying so.
pub(in crate::registry) fn encode(node: &Node) -> Result<Vec<u8>, String> {
    write(&Instance {
        id: &node.id,
        name: &node.service,
        version: &node.version,
        metadata: Some(metadata(node)).filter(|metadata| !metadata.is_empty()),
        endpoints: [endpoint(node)],
    })
}

/// The node in a record. One without an endpoint for gRPC does not say `protocol=grpc`.
///
/// # Errors
/// What is wrong and where in the record: besides what is not JSON or of another type, a record
/// without a name or an id, and an endpoint for gRPC that is not `scheme://host:port`.
pub(in crate::registry) fn decode(bytes: &[u8]) -> Result<Node, String> {
    parse_object(bytes, |record| {
        let present = |key| match record.text(key)? {
            text if text.is_empty() => Err(Wrong::new("is missing").in_field(key)),
            text => Ok(text),
        };
        let node = Node {
            version: record.text("version")?,
            metadata: record.texts("metadata")?,
            ..Node::new(present("name")?, present("id")?, "")
        };
        let endpoints = endpoints(record).map_err(|wrong| wrong.in_field("endpoints"))?;
        with_endpoints(node, &endpoints).map_err(|why| Wrong::new(why).in_field("endpoints"))
    })
}

fn endpoints<'a>(record: &'a Object<'_>) -> Result<Vec<&'a str>, Wrong> {
    let items = record.get("endpoints").list()?.iter().enumerate();
    items.map(|(index, item)| item.text().map_err(|wrong| wrong.in_item(index))).collect()
}

/// The node's endpoint: `grpc://10.0.3.7:9000`.
pub(in crate::registry) fn endpoint(node: &Node) -> String {
    let scheme = if is_tls(node) { "grpcs" } else { "grpc" };
    format!("{scheme}://{}", node.address)
}

/// What there is to say of the node in a record's metadata.
pub(in crate::registry) fn metadata(node: &Node) -> BTreeMap<&str, &str> {
    facts(node).filter(|fact| *fact != (SCHEME, "grpcs")).collect()
}

/// The node with the address that Kratos's clients would call it at: that of the first endpoint
/// whose scheme is `grpc`, or else `grpcs`. Without one it is a node that does not speak gRPC.
///
/// # Errors
/// When that endpoint has no `host:port`.
pub(in crate::registry) fn with_endpoints(
    mut node: Node,
    endpoints: &[&str],
) -> Result<Node, String> {
    let of_scheme = |scheme: &str| {
        endpoints.iter().find(|url| {
            url.split_once("://").is_some_and(|(its, _)| its.eq_ignore_ascii_case(scheme))
        })
    };
    let plain = of_scheme("grpc");
    if let Some(url) = plain.or_else(|| of_scheme("grpcs")) {
        let address = address(url);
        if !matches!(host_and_port(address), Some((_, Some(_)))) {
            return Err(format!("has {url:?}, which has no `host:port`"));
        }
        address.clone_into(&mut node.address);
        says_grpc(&mut node);
        if plain.is_none() {
            node.metadata.insert(SCHEME.to_owned(), "grpcs".to_owned());
        }
        return Ok(node);
    }
    node.metadata.retain(|key, _| !GRPC.contains(&key.as_str()));
    if let Some((scheme, _)) = endpoints.first().and_then(|url| url.split_once("://")) {
        node.metadata.insert("protocol".to_owned(), scheme.to_ascii_lowercase());
        address(endpoints[0]).clone_into(&mut node.address);
    }
    Ok(node)
}

/// What lies between `://` and the path or query: older records end in `?isSecure=false`.
fn address(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or(rest)
}

fn is_tls(node: &Node) -> bool {
    node.metadata.get(SCHEME).is_some_and(|scheme| scheme == "grpcs")
}
