//! What a record takes in memory, more or less: texts, and the structures that hold them.

use super::{Endpoint, Node, Value};

/// The most that one record may take: a node of 400 methods with eight fields in each message does.
#[cfg(any(test, feature = "mdns", feature = "nats"))]
pub(super) const MAX_NODE: usize = 1024 * 1024;

/// What a node takes that was told by a text of this length.
///
/// # Errors
/// That it is too much.
#[cfg(any(feature = "mdns", feature = "nats"))]
pub(super) fn of_record(text: &[u8], node: &Node) -> Result<usize, String> {
    let size = 512 + text.len() + of_node(node);
    if size > MAX_NODE {
        return Err(format!(
            "its record takes {size} bytes of memory, over the limit of {MAX_NODE}"
        ));
    }
    Ok(size)
}

pub(super) fn of_node(node: &Node) -> usize {
    let metadata = node.metadata.iter().map(|(key, value)| 96 + key.len() + value.len());
    let endpoints = of_endpoints(&node.endpoints);
    size_of::<Node>() + node.version.len() + metadata.sum::<usize>() + endpoints
}

pub(super) fn of_endpoints(endpoints: &[Endpoint]) -> usize {
    endpoints.iter().map(of_endpoint).sum()
}

fn of_endpoint(endpoint: &Endpoint) -> usize {
    let metadata = endpoint.metadata.iter().map(|(key, value)| 96 + key.len() + value.len());
    let values = [&endpoint.request, &endpoint.response].into_iter().flatten().map(of_value);
    size_of::<Endpoint>() + endpoint.name.len() + metadata.chain(values).sum::<usize>()
}

fn of_value(value: &Value) -> usize {
    let values: usize = value.values.iter().map(of_value).sum();
    size_of::<Value>() + value.name.len() + value.kind.len() + values
}
