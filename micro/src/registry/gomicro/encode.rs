//! Writing the record as Go's `encoding/json` writes go-micro's `registry.Service`.

use std::{collections::BTreeMap, io};

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

use super::{
    super::{Endpoint, Node, Value},
    MAX_LEN,
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
#[cfg_attr(
    not(any(feature = "etcd", feature = "kubernetes")),
    allow(dead_code, reason = "others keep no record of go-micro's")
)]
pub(in super::super) fn encode(node: &Node) -> Result<Vec<u8>, String> {
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
pub(in super::super) fn encode_text(node: &Node) -> Result<Vec<u8>, String> {
    write(&GoText {
        metadata: &node.metadata,
        service: &node.service,
        version: &node.version,
        endpoints: node.endpoints.iter().map(endpoint).collect(),
    })
}

fn write(record: &impl Serialize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(1024);
    record
        .serialize(&mut Serializer::with_formatter(&mut bytes, GoFormatter))
        .map_err(|error| error.to_string())?;
    if bytes.len() > MAX_LEN {
        let (length, limit) = (bytes.len(), MAX_LEN);
        return Err(format!(
            "the record takes {length} bytes, over the limit of {limit}: give the node less metadata"
        ));
    }
    Ok(bytes)
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

/// Compact JSON with Go's escapes: HTML's `<`, `>` and `&`, and JavaScript's U+2028 and U+2029.
struct GoFormatter;

impl Formatter for GoFormatter {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + io::Write,
    {
        let escaped = |c: char| matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}');
        let mut rest = fragment;
        while let Some(at) = rest.find(escaped) {
            writer.write_all(&rest.as_bytes()[..at])?;
            let mut tail = rest[at..].chars();
            if let Some(c) = tail.next() {
                write!(writer, "\\u{:04x}", c as u32)?;
            }
            rest = tail.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}
