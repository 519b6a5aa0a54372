//! Reading the record as go-micro would, and with a better word where it is wrong.

use std::net::Ipv6Addr;

use super::super::{
    super::{Endpoint, Node, Value, url::host_and_port},
    json::{Json, Object, Wrong, parse_object},
};

/// The node in a record.
///
/// # Errors
/// What is wrong and where in the record, in words; never its whole text. Besides what is not
/// JSON or of another type: a record without a service's name, with no node or several, a node
/// without an id, and a gRPC node whose address is not `host:port`.
pub(in crate::registry) fn decode(bytes: &[u8]) -> Result<Node, String> {
    parse_object(bytes, record)
}

/// The node of this id and address, of which a TXT record says the rest.
///
/// # Errors
/// As [`decode`], as far as it applies.
#[cfg_attr(not(feature = "mdns"), allow(dead_code, reason = "mdns:// alone reads it"))]
pub(in crate::registry) fn decode_text(
    bytes: &[u8],
    id: &str,
    address: String,
) -> Result<Node, String> {
    parse_object(bytes, |record| {
        Ok(Node {
            service: service(record, "Service")?,
            version: record.text("Version")?,
            id: id.to_owned(),
            address,
            metadata: record.texts("Metadata")?,
            endpoints: record.objects("Endpoints", endpoint)?,
        })
    })
}

fn record(record: &Object<'_>) -> Result<Node, Wrong> {
    let service = service(record, "name")?;
    let in_nodes = |wrong: Wrong| wrong.in_field("nodes");
    let nodes = record.get("nodes").list().map_err(in_nodes)?;
    let [node] = nodes else {
        let count = nodes.len();
        return Err(in_nodes(Wrong::new(format!("has {count} nodes where there must be one"))));
    };
    let node = self::node(node).map_err(|wrong| in_nodes(wrong.in_item(0)))?;
    let version = record.text("version")?;
    Ok(Node { service, version, endpoints: record.objects("endpoints", endpoint)?, ..node })
}

/// The id, address and metadata of a node.
pub(super) fn node(node: &Json<'_>) -> Result<Node, Wrong> {
    let node = node.object()?.ok_or_else(|| Wrong::new("is `null`"))?;
    let decoded = Node {
        metadata: node.texts("metadata")?,
        ..Node::new("", node.text("id")?, address(node)?)
    };
    if decoded.id.is_empty() {
        return Err(Wrong::new("is missing").in_field("id"));
    }
    if decoded.is_grpc() && !matches!(host_and_port(&decoded.address), Some((_, Some(_)))) {
        let why = format!("is {:?}, not `host:port`", decoded.address);
        return Err(Wrong::new(why).in_field("address"));
    }
    Ok(decoded)
}

/// Its `host:port`. go-micro v1 had the port apart, in a field of its own.
fn address(node: &Object<'_>) -> Result<String, Wrong> {
    let address = node.text("address")?;
    let is_ipv6 = address.parse::<Ipv6Addr>().is_ok();
    if !is_ipv6 && !matches!(host_and_port(&address), Some((_, None))) {
        return Ok(address);
    }
    Ok(match node.integer("port")? {
        0 => address,
        port if is_ipv6 => format!("[{address}]:{port}"),
        port => format!("{address}:{port}"),
    })
}

pub(super) fn service(record: &Object<'_>, key: &str) -> Result<String, Wrong> {
    let service = record.text(key)?;
    if service.is_empty() {
        return Err(Wrong::new("is missing: the service has no name").in_field(key));
    }
    Ok(service)
}

/// One without a name is of no use to anybody.
pub(super) fn endpoint(endpoint: &Object<'_>) -> Result<Option<Endpoint>, Wrong> {
    let name = endpoint.text("name")?;
    let endpoint = Endpoint {
        request: endpoint.object("request", value)?,
        response: endpoint.object("response", value)?,
        metadata: endpoint.texts("metadata")?,
        name,
    };
    Ok((!endpoint.name.is_empty()).then_some(endpoint))
}

/// Recursion ends where the parser's does, at 128 levels.
fn value(object: &Object<'_>) -> Result<Value, Wrong> {
    let field = |object: &Object<'_>| {
        let value = value(object)?;
        Ok((value != Value::default()).then_some(value))
    };
    Ok(Value {
        name: object.text("name")?,
        kind: object.text("type")?,
        values: object.objects("values", field)?,
    })
}
