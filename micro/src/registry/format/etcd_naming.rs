//! The records of etcd's own naming library (`client/v3/naming/endpoints`), which grpc-go's users
//! have: an address and metadata, in an update that adds them.
//!
//! A record has the address and whatever metadata its writer pleased; grpc-go's resolver drops that.
//! Version and endpoints are lost, and the id is the last part of the key.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    super::{Node, url::host_and_port},
    facts,
    json::{Json, Wrong, parse_object, write},
    says_grpc,
};

/// A Go struct without tags, hence the capitals.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Update<'a> {
    op: u8,
    addr: &'a str,
    metadata: Option<BTreeMap<&'a str, &'a str>>,
}

/// `Add`. What is removed has no record.
const ADD: u8 = 0;

/// The node's record, as `endpoints.Manager` writes it.
///
/// # Errors
/// A record over 1 MiB, saying so.
pub(in crate::registry) fn encode(node: &Node) -> Result<Vec<u8>, String> {
    let metadata: BTreeMap<_, _> = facts(node).collect();
    let metadata = (!metadata.is_empty()).then_some(metadata);
    write(&Update { op: ADD, addr: &node.address, metadata })
}

/// The node of this service and id in a record. Of its metadata, which may be any JSON, what is a
/// text, a number or a boolean under a key of an object is taken.
///
/// # Errors
/// What is wrong and where in the record: besides what is not JSON or of another type, an address
/// that is not `host:port`, and an update that adds nothing.
pub(in crate::registry) fn decode(bytes: &[u8], service: &str, id: &str) -> Result<Node, String> {
    parse_object(bytes, |record| {
        let op = record.integer("Op")?;
        if op != i64::from(ADD) {
            return Err(Wrong::new(format!("is {op}, not 0: it adds nothing")).in_field("Op"));
        }
        let address = record.text("Addr")?;
        if !matches!(host_and_port(&address), Some((_, Some(_)))) {
            let why = format!("is {address:?}, not `host:port`");
            return Err(Wrong::new(why).in_field("Addr"));
        }
        let metadata = match record.get("Metadata") {
            Json::Object(metadata) => metadata.iter().filter_map(fact).collect(),
            _ => BTreeMap::new(),
        };
        let mut node = Node { metadata, ..Node::new(service, id, address) };
        says_grpc(&mut node);
        Ok(node)
    })
}

fn fact((key, json): (&str, &Json<'_>)) -> Option<(String, String)> {
    let text = match json {
        Json::Text(text) => text.to_string(),
        Json::Number(number) => number.to_string(),
        Json::Bool(is) => is.to_string(),
        Json::Null | Json::List(_) | Json::Object(_) => return None,
    };
    Some((key.to_owned(), text))
}
