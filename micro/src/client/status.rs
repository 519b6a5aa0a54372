//! The one place where a call's failure becomes a [`Status`].

use std::time::Duration;

use http::HeaderMap;
use tonic::{Code, Status};

use super::{deadline::WAIT_WITHOUT_DEADLINE, limit::Limit};
use crate::{
    headers,
    registry::Node,
    transport::{Failure, FailureKind},
};

/// The most metadata that a call may carry, as HTTP/2 counts it (32 bytes a field more): what our
/// server and most others take. A server that is sent much more closes the connection, and with it
/// the calls of everybody else.
const MOST_METADATA: usize = 16 * 1024;

/// What to do about a message that is over the limit.
const REMEDY: &str = "raise ClientBuilder::max_message_size";

/// Refuses a call whose metadata no server would take.
pub(super) fn check_metadata(metadata: &HeaderMap) -> Result<(), Status> {
    let total = headers::size(metadata);
    if total <= MOST_METADATA {
        return Ok(());
    }
    Err(Status::resource_exhausted(format!(
        "the call's metadata takes {total} bytes, the limit is {MOST_METADATA}; send less, or \
         what is large in the message"
    )))
}

/// The call was given metadata that cannot be sent.
pub(super) fn bad_metadata_name(name: &str) -> Status {
    Status::invalid_argument(format!(
        "the call's metadata cannot have the name '{}': write lower case letters, digits, '-', '_' \
         and '.', and put binary values (`-bin`) into the request's own metadata",
        name.escape_default()
    ))
}

/// Likewise; the value may be a secret.
pub(super) fn bad_metadata_value(name: &str) -> Status {
    Status::invalid_argument(format!(
        "the call's metadata '{name}' has a value that cannot be sent: write printable ASCII, or put \
         bytes into the request's own metadata, under a name that ends in `-bin`"
    ))
}

/// Refuses a request message that the channel is set not to send.
pub(super) fn request_too_large(length: usize, limit: Limit) -> Status {
    Status::resource_exhausted(format!(
        "the request of {length} bytes is over {limit}; {}",
        limit.remedy()
    ))
}

/// A stream brought a message that the channel is set not to take.
pub(super) fn reply_too_large(node: &Node, length: usize, limit: Limit) -> Status {
    let Node { service, id, address, .. } = node;
    Status::resource_exhausted(format!(
        "service '{service}', node {id} at {address}: a message of {length} bytes is over {limit}; {}",
        limit.remedy()
    ))
}

/// Nothing to pick until the deadline, or at once for a call that fails fast.
pub(super) fn no_node(service: &str, why: &str) -> Status {
    Status::unavailable(format!("no node of service '{service}' is ready: {why}"))
}

/// No node has room for the call, by the channel's own limits.
pub(super) fn full(service: &str, why: &str) -> Status {
    Status::resource_exhausted(format!("service '{service}' is not sent this call: {why}"))
}

/// The registry cannot hold a service of this name, or not work here at all. `Internal`, since what a control plane finds
/// invalid is no invalid argument of the call's (gRFC A54).
pub(super) fn refused(service: &str, why: &str) -> Status {
    Status::internal(format!("service '{service}' cannot be looked up: {why}"))
}

/// The deadline struck while a node had the call.
pub(super) fn no_answer(service: &str, node: &Node, timeout: Duration) -> Status {
    let Node { id, address, .. } = node;
    Status::deadline_exceeded(format!(
        "service '{service}': no answer from node {id} at {address} within the call's deadline of \
         {timeout:?}"
    ))
}

/// The deadline struck while the call stood in line for a place among a node's streams.
pub(super) fn in_line(service: &str, node: &Node, timeout: Duration) -> Status {
    let Node { id, address, .. } = node;
    Status::deadline_exceeded(format!(
        "service '{service}': node {id} at {address} has as many streams as it allows, and none of \
         them ended within the call's deadline of {timeout:?}"
    ))
}

/// A call without a deadline waited long enough for a place among a node's streams.
pub(super) fn no_stream(service: &str, node: &Node) -> Status {
    let Node { id, address, .. } = node;
    Status::unavailable(format!(
        "service '{service}': node {id} at {address} has as many streams as it allows, and none of \
         them ended within {WAIT_WITHOUT_DEADLINE:?}"
    ))
}

/// The deadline struck between two attempts.
pub(super) fn between_attempts(service: &str, timeout: Duration, last: &Status) -> Status {
    Status::deadline_exceeded(format!(
        "service '{service}': the call's deadline of {timeout:?} struck between attempts; the last \
         one failed with: {}",
        last.message()
    ))
}

/// What ended a call that had been made before, and was to be made again.
pub(super) fn after(last: Option<&Status>, ended: Status) -> Status {
    let Some(last) = last else {
        return ended;
    };
    let text = format!("{}; the last attempt failed with: {}", ended.message(), last.message());
    Status::new(ended.code(), text)
}

/// The deadline struck while no node had the call, but the client's own layers.
pub(super) fn in_layers(service: &str, timeout: Duration) -> Status {
    Status::deadline_exceeded(format!(
        "service '{service}': the call's deadline of {timeout:?} struck in the client's layers"
    ))
}

/// The deadline struck in a stream whose response had begun.
pub(super) fn mid_stream(node: &Node) -> Status {
    let Node { service, id, address, .. } = node;
    Status::deadline_exceeded(format!(
        "service '{service}', node {id} at {address}: the call's deadline struck amid its responses"
    ))
}

/// A stream whose response had begun ended without a status from the server.
pub(super) fn broken(node: &Node, status: &Status) -> Status {
    Status::new(status.code(), of_node(&node.service, node, status))
}

/// The attempt failed without a status from the server.
pub(super) fn failed(service: &str, node: &Node, failure: &Failure) -> Status {
    let status = failure.to_status();
    let mut text = of_node(service, node, &status);
    if failure.kind() == FailureKind::TooLarge {
        text.extend(["; ", REMEDY]);
    }
    Status::new(status.code(), text)
}

fn of_node(service: &str, node: &Node, status: &Status) -> String {
    format!("service '{service}', node {}: {}", node.id, status.message())
}

/// What ended a call: the status in the trailers, or in the headers when there is nothing else.
///
/// # Errors
/// Any status but OK.
pub(super) fn of_reply(headers: &HeaderMap, trailers: &HeaderMap) -> Result<(), Status> {
    // `Status` copies the headers it is read from, which a call that went well need not pay for.
    let is_ok =
        |headers: &HeaderMap| headers.get(Status::GRPC_STATUS).is_some_and(|status| status == "0");
    if is_ok(trailers) {
        return Ok(());
    }
    let status = Status::from_header_map(trailers)
        .or_else(|| Status::from_header_map(headers))
        .unwrap_or_else(|| {
            Status::internal("the layers have left the response without a grpc-status")
        });
    if status.code() == Code::Ok { Ok(()) } else { Err(status) }
}
