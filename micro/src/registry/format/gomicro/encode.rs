//! Writing the record as Go's `encoding/json` writes go-micro's `registry.Service`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::{
    super::{Endpoint, Node, Value},
    json::write,
};

// The fields in Go's order. What Go leaves nil is `null`: the service's metadata always, a
// message's fields when it has none. go-micro makes every other map and the list of endpoints,
// so an empty one of those is `{}` or `[]`.

#[derive(Serialize)]
struct GoService<'a> {
    name: &'a str,
    version: &'a str,
    metadata: Option<()>,
    endpoints: Vec<GoEndpoint<'a>>,
    nodes: [GoNode<'a>; 1],
}

#[derive(Serialize)]
struct GoNode<'a> {
    metadata: &'a BTreeMap<String, String>,
    id: &'a str,
    address: &'a str,
}

#[derive(Serialize)]
struct GoEndpoint<'a> {
    request: Option<GoValue<'a>>,
    response: Option<GoValue<'a>>,
    metadata: &'a BTreeMap<String, String>,
    name: &'a str,
}

#[derive(Serialize)]
struct GoValue<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    values: Option<Vec<Self>>,
}

/// What go-micro puts into a TXT record, whose neighbours say the id and the address: a Go struct
/// without tags, hence the capitals.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct GoText<'a> {
    metadata: &'a BTreeMap<String, String>,
    service: &'a str,
    version: &'a str,
    endpoints: Vec<GoEndpoint<'a>>,
}

/// The node's record, as a go-micro service of this name would write it.
///
/// # Errors
/// A record over 1 MiB, saying so.
pub(in crate::registry) fn encode(node: &Node) -> Result<Vec<u8>, String> {
    let record = GoService {
        name: &node.service,
        version: &node.version,
        metadata: None,
        endpoints: node.endpoints.iter().map(endpoint).collect(),
        nodes: [GoNode { metadata: &node.metadata, id: &node.id, address: &node.address }],
    };
    write(&record)
}

/// What a TXT record says of the node, as a go-micro service of this name would write it.
///
/// # Errors
/// As [`encode`].
#[cfg_attr(not(feature = "mdns"), allow(dead_code, reason = "mdns:// alone writes it"))]
pub(in crate::registry) fn encode_text(node: &Node) -> Result<Vec<u8>, String> {
    write(&GoText {
        metadata: &node.metadata,
        service: &node.service,
        version: &node.version,
        endpoints: node.endpoints.iter().map(endpoint).collect(),
    })
}

/// An endpoint alone, as it is written into a record.
///
/// # Errors
/// As [`encode`].
#[cfg(any(test, feature = "consul", feature = "nacos"))]
pub(super) fn encode_endpoint(of: &Endpoint) -> Result<Vec<u8>, String> {
    write(&endpoint(of))
}

fn endpoint(endpoint: &Endpoint) -> GoEndpoint<'_> {
    GoEndpoint {
        request: endpoint.request.as_ref().map(value),
        response: endpoint.response.as_ref().map(value),
        metadata: &endpoint.metadata,
        name: &endpoint.name,
    }
}

fn value(of: &Value) -> GoValue<'_> {
    let values = (!of.values.is_empty()).then(|| of.values.iter().map(value).collect());
    GoValue { name: &of.name, kind: &of.kind, values }
}
