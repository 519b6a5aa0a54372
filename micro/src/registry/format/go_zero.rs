//! go-zero's records: an address, and nothing else.
//!
//! Version, metadata and endpoints are lost, and the id is the last part of the key: the lease in
//! decimal, unless configured.

use super::{
    super::{Node, url::host_and_port},
    json::{shorten, within_limit},
};

/// The node's record, as a go-zero server writes it.
pub(in crate::registry) fn encode(node: &Node) -> Vec<u8> {
    node.address.as_bytes().to_vec()
}

/// The node of this service and id in a record.
///
/// # Errors
/// When it is not `host:port`.
pub(in crate::registry) fn decode(bytes: &[u8], service: &str, id: &str) -> Result<Node, String> {
    within_limit(bytes)?;
    match str::from_utf8(bytes) {
        Ok(address) if matches!(host_and_port(address), Some((_, Some(_)))) => {
            Ok(Node::new(service, id, address))
        }
        Ok(address) => Err(shorten(format!("it is {address:?}, not `host:port`"))),
        Err(_) => Err("it is not UTF-8".to_owned()),
    }
}
