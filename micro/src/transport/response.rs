//! Whether a response is gRPC's at all.

use http::{HeaderMap, HeaderName, StatusCode, header::CONTENT_TYPE};
use tonic::{Code, Status};

use super::{Failure, FailureKind};
use crate::headers::code_of_http;

/// The call's own status, in trailers or, without a message, in the headers.
static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Whether trailers (or the headers of a response without a message) say that the call failed.
pub(super) fn is_error(trailers: &HeaderMap) -> bool {
    trailers.get(&GRPC_STATUS).is_some_and(|status| status != "0")
}

/// What follows the head of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// Messages and trailers.
    Body,
    /// Nothing that matters: the headers carry the call's status.
    Nothing,
}

/// Checks the head of a response. One with a `grpc-status` speaks gRPC, whatever else it says; of
/// the others, the HTTP status is the error's (gRPC's `http-grpc-status-mapping.md`), and a body
/// that is not gRPC's is not read.
///
/// The mapping gives 431 no code: `ResourceExhausted` here, as gRPC's C core has it for metadata over
/// the limit, and the request's own fault.
pub(super) fn check(peer: &str, status: StatusCode, headers: &HeaderMap) -> Result<Rest, Failure> {
    let malformed = |code, why: String| {
        let status = Status::new(code, format!("{peer}: {why}"));
        Err(Failure::new(FailureKind::Malformed, status))
    };
    if headers.contains_key(&GRPC_STATUS) {
        return Ok(Rest::Nothing);
    }
    if status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE {
        let text = format!(
            "{peer}: the call's metadata is more than the peer takes (HTTP status {status}); send \
             less, or raise the server's limit on headers"
        );
        return Err(Failure::new(FailureKind::Body, Status::resource_exhausted(text)));
    }
    if status != StatusCode::OK {
        let text = format!("the peer answered with HTTP status {status} and no gRPC status");
        return malformed(code_of_http(status), text);
    }
    let content_type = headers.get(CONTENT_TYPE);
    if content_type.is_some_and(|value| is_grpc(value.as_bytes())) {
        return Ok(Rest::Body);
    }
    let text = match content_type {
        Some(value) => format!("the peer's answer is not gRPC: its content-type is {value:?}"),
        None => "the peer's answer is not gRPC: it has no content-type".into(),
    };
    malformed(Code::Unknown, text)
}

/// Checks the end of a response to one message: it says how the call went, and had a message if well.
pub(super) fn check_end(peer: &str, end: &HeaderMap, has_message: bool) -> Result<(), Failure> {
    match end.get(&GRPC_STATUS) {
        None => Err(Failure::without_status(peer)),
        Some(status) if status == "0" && !has_message => {
            let text =
                format!("{peer}: the peer ended the call with status OK and without a message");
            Err(Failure::new(FailureKind::Malformed, Status::internal(text)))
        }
        Some(_) => Ok(()),
    }
}

fn is_grpc(content_type: &[u8]) -> bool {
    let rest = content_type.strip_prefix(b"application/grpc");
    matches!(rest, Some([] | [b'+' | b';' | b' ', ..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (name.parse().unwrap(), value.parse().unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn http_statuses_map_as_grpc_says() {
        for (status, code) in [
            (400, Code::Internal),
            (401, Code::Unauthenticated),
            (403, Code::PermissionDenied),
            (404, Code::Unimplemented),
            (429, Code::Unavailable),
            (431, Code::ResourceExhausted),
            (500, Code::Unknown),
            (502, Code::Unavailable),
            (503, Code::Unavailable),
            (504, Code::Unavailable),
            (204, Code::Unknown),
            (302, Code::Unknown),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let error = check("node:1", status, &headers(&[("content-type", "application/grpc")]));
            assert_eq!(error.unwrap_err().to_status().code(), code, "{status}");
        }
    }

    #[test]
    fn a_grpc_status_outranks_the_http_status_and_the_content_type() {
        let headers = headers(&[("grpc-status", "5"), ("content-type", "text/html")]);
        assert_eq!(check("node:1", StatusCode::BAD_GATEWAY, &headers).unwrap(), Rest::Nothing);
    }

    #[test]
    fn only_grpc_content_types_are_read() {
        for good in ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"]
        {
            assert!(
                check("node:1", StatusCode::OK, &headers(&[("content-type", good)])).is_ok(),
                "{good}"
            );
        }
        for bad in ["text/html", "application/grpc-web", "application/grpcx", "application/json"] {
            let error =
                check("node:1", StatusCode::OK, &headers(&[("content-type", bad)])).unwrap_err();
            assert_eq!(error.to_status().code(), Code::Unknown);
            assert!(error.to_string().contains(bad), "{error}");
        }
        let error = check("node:1", StatusCode::OK, &headers(&[])).unwrap_err();
        assert!(error.to_string().contains("no content-type"), "{error}");
    }
}
