//! What go-micro's registries tell one another over a bus: a service's document with any number of
//! nodes, alone or in an event.

use std::io::Write;

use super::{
    super::{
        super::{Endpoint, Node, size},
        json::{Json, Object, Wrong, parse_object, shorten},
    },
    decode::{endpoint, node, service},
    encode::encode,
};

/// The nodes taken from one document. A process has one node of a service, or a few.
const MAX_NODES: usize = 32;

/// What happened to a service, or is asked of it.
#[derive(Debug)]
pub(in crate::registry) struct Event {
    /// `create`, `update`, `delete`, `get`, `list`.
    pub(in crate::registry) action: String,
    pub(in crate::registry) told: Option<Told>,
}

/// A service's document.
#[derive(Debug)]
pub(in crate::registry) struct Told {
    pub(in crate::registry) service: String,
    /// None of a service that the reader does not follow. Those beyond the most that are taken are one
    /// that cannot be read, under the id of the first of them.
    pub(in crate::registry) nodes: Vec<Result<Node, Unreadable>>,
}

/// A node that is told of, and cannot be read.
#[derive(Debug)]
pub(in crate::registry) struct Unreadable {
    /// Empty where that cannot be read either.
    pub(in crate::registry) id: String,
    pub(in crate::registry) reason: String,
}

/// The event in a message, its nodes read if the service is one that is followed.
///
/// # Errors
/// What is wrong and where, in words. A node that cannot be read is no error.
pub(in crate::registry) fn decode_event(
    bytes: &[u8],
    follows: impl Fn(&str) -> bool,
) -> Result<Event, String> {
    parse_object(bytes, |event| {
        let told = event.object("Service", |document| told(document, &follows))?;
        Ok(Event { action: event.text("Action")?, told })
    })
}

/// The document in a message; otherwise as [`decode_event`].
///
/// # Errors
/// As [`decode_event`].
pub(in crate::registry) fn decode_told(
    bytes: &[u8],
    follows: impl Fn(&str) -> bool,
) -> Result<Told, String> {
    parse_object(bytes, |document| told(document, &follows))
}

fn told(document: &Object<'_>, follows: &impl Fn(&str) -> bool) -> Result<Told, Wrong> {
    let service = service(document, "name")?;
    if !follows(&service) {
        return Ok(Told { service, nodes: Vec::new() });
    }
    let in_nodes = |wrong: Wrong| wrong.in_field("nodes");
    let nodes = document.get("nodes").list().map_err(in_nodes)?;
    let (taken, beyond) = nodes.split_at(nodes.len().min(MAX_NODES));
    let shared = shared(document, taken.len()).map_err(|wrong| wrong.to_string());
    let read = |(index, json): (usize, &Json<'_>)| {
        let read = || {
            let node = node(json);
            let node = node.map_err(|wrong| in_nodes(wrong.in_item(index)).to_string())?;
            let (version, endpoints) = shared.clone()?;
            Ok(Node { service: service.clone(), version, endpoints, ..node })
        };
        read().map_err(|reason: String| Unreadable { id: id(json), reason: shorten(reason) })
    };
    let mut nodes: Vec<_> = taken.iter().enumerate().map(read).collect();
    if let Some(first) = beyond.first() {
        let reason = format!(
            "it and {} more are beyond the {MAX_NODES} nodes that are taken of one document",
            beyond.len() - 1
        );
        nodes.push(Err(Unreadable { id: id(first), reason }));
    }
    Ok(Told { service, nodes })
}

/// The version and endpoints, which each of so many nodes has for itself: a document of a megabyte is
/// not to be half a gigabyte of nodes.
fn shared(document: &Object<'_>, nodes: usize) -> Result<(String, Vec<Endpoint>), Wrong> {
    let version = document.text("version")?;
    let endpoints = document.objects("endpoints", endpoint)?;
    let size = nodes * (version.len() + size::of_endpoints(&endpoints));
    if size > size::MAX_NODE {
        let limit = size::MAX_NODE;
        return Err(Wrong::new(format!(
            "has {nodes} nodes, whose version and endpoints take {size} bytes of memory, over the \
             limit of {limit}"
        )));
    }
    Ok((version, endpoints))
}

fn id(node: &Json<'_>) -> String {
    let id = node.object().ok().flatten().and_then(|node| node.text("id").ok());
    id.unwrap_or_default()
}

/// What happened to a node.
///
/// # Errors
/// As [`encode`].
pub(in crate::registry) fn encode_event(action: &str, node: &Node) -> Result<Vec<u8>, String> {
    Ok(event(&encode(node)?, action))
}

/// The question for a service's nodes.
pub(in crate::registry) fn encode_get(service: &str) -> Vec<u8> {
    let name = serde_json::Value::from(service);
    let nothing = r#""version":"","metadata":null,"endpoints":null,"nodes":null"#;
    event(format!(r#"{{"name":{name},{nothing}}}"#).as_bytes(), "get")
}

/// The question for all services.
pub(in crate::registry) fn encode_list() -> Vec<u8> {
    event(b"null", "list")
}

fn event(document: &[u8], action: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(document.len() + 40);
    bytes.extend_from_slice(br#"{"Service":"#);
    bytes.extend_from_slice(document);
    let _ = write!(bytes, r#","Action":"{action}"}}"#);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Event {
        decode_event(json.as_bytes(), |service| service == "a").unwrap()
    }

    #[test]
    fn an_event_is_go_micros_to_the_byte_and_comes_back() {
        let node = Node::new("a", "a-1", "127.0.0.1:1");
        let bytes = encode_event("create", &node).unwrap();
        assert_eq!(
            String::from_utf8(bytes.clone()).unwrap(),
            concat!(
                r#"{"Service":{"name":"a","version":"latest","metadata":null,"endpoints":[],"nodes":["#,
                r#"{"metadata":{"protocol":"grpc","server":"grpc","transport":"grpc"},"#,
                r#""id":"a-1","address":"127.0.0.1:1"}]},"Action":"create"}"#
            )
        );
        let event = decode_event(&bytes, |_| true).unwrap();
        let told = event.told.unwrap();
        assert_eq!((event.action.as_str(), told.service.as_str()), ("create", "a"));
        assert_eq!(told.nodes.into_iter().next().unwrap().unwrap(), node);
    }

    #[test]
    fn questions_are_go_micros_to_the_byte() {
        assert_eq!(
            String::from_utf8(encode_get("a\"b")).unwrap(),
            r#"{"Service":{"name":"a\"b","version":"","metadata":null,"endpoints":null,"nodes":null},"Action":"get"}"#
        );
        assert_eq!(encode_list(), br#"{"Service":null,"Action":"list"}"#);
        let event = decode_event(&encode_get("a"), |_| true).unwrap();
        assert_eq!(event.told.map(|told| told.service).as_deref(), Some("a"));
        assert!(decode_event(&encode_list(), |_| true).unwrap().told.is_none());
    }

    #[test]
    fn one_unreadable_node_spoils_no_other() {
        let event = read(
            r#"{"service":{"name":"a","nodes":[{"id":"x","address":3},{"id":"y","address":"h:1"},7,null]},"action":"update"}"#,
        );
        let nodes = event.told.unwrap().nodes;
        let first = nodes[0].as_ref().unwrap_err();
        assert_eq!(first.id, "x");
        assert_eq!(first.reason, "`nodes[0].address` is a number where a string is expected");
        assert_eq!(nodes[1].as_ref().unwrap().address, "h:1");
        assert!(nodes[2..].iter().all(|node| node.as_ref().unwrap_err().id.is_empty()));
    }

    #[test]
    fn of_a_service_that_is_not_followed_no_node_is_read_and_of_one_no_more_than_a_few() {
        let nodes = |service: &str, count: usize| {
            let nodes: Vec<_> = (0..count).map(|n| format!(r#"{{"id":"n{n}"}}"#)).collect();
            let nodes = nodes.join(",");
            let json = format!(r#"{{"Service":{{"name":"{service}","nodes":[{nodes}]}}}}"#);
            read(&json).told.unwrap().nodes
        };
        assert!(nodes("b", 1000).is_empty());
        assert!(nodes("a", MAX_NODES).iter().all(Result::is_ok));
        let mut many = nodes("a", 1000);
        let beyond = many.pop().unwrap().unwrap_err();
        assert_eq!((many.len(), many.iter().all(Result::is_ok)), (MAX_NODES, true));
        assert_eq!(beyond.id, "n32");
        assert!(beyond.reason.contains("it and 967 more are beyond the 32"), "{}", beyond.reason);
    }

    #[test]
    fn what_a_document_says_of_all_nodes_is_not_taken_often_where_it_is_long() {
        let nodes = |count: usize, endpoints: usize| {
            let nodes: Vec<_> = (0..count).map(|n| format!(r#"{{"id":"n{n}"}}"#)).collect();
            let endpoints = vec![r#"{"name":"Greeter.Hello"}"#; endpoints];
            let (nodes, endpoints) = (nodes.join(","), endpoints.join(","));
            let json = format!(
                r#"{{"Service":{{"name":"a","endpoints":[{endpoints}],"nodes":[{nodes}]}}}}"#
            );
            read(&json).told.unwrap().nodes
        };
        assert!(nodes(1, 2000).iter().all(Result::is_ok));
        assert!(nodes(MAX_NODES, 60).iter().all(Result::is_ok));
        let refused = nodes(MAX_NODES, 2000);
        assert_eq!(refused.len(), MAX_NODES);
        for (index, node) in refused.into_iter().enumerate() {
            let Unreadable { id, reason } = node.unwrap_err();
            assert_eq!(id, format!("n{index}"));
            assert!(reason.contains("32 nodes, whose version and endpoints"), "{reason}");
        }
    }

    #[test]
    fn what_is_no_event_says_why() {
        for (json, why) in [
            ("", "it is empty"),
            ("[]", "is a list where an object is expected"),
            (r#"{"Service":{}}"#, "`Service.name` is missing"),
            (r#"{"Service":{"name":"a","nodes":3}}"#, "`Service.nodes` is a number"),
            (r#"{"Action":3}"#, "`Action` is a number"),
        ] {
            let error = decode_event(json.as_bytes(), |_| true).unwrap_err();
            assert!(error.contains(why), "{json}: {error}");
        }
        assert!(decode_told(b"null", |_| true).is_err());
    }
}
