//! What the headers of a request must say before anybody handles it. Where the gRPC specification
//! leaves the answer open it is grpc-go's.

use http::{
    HeaderName, HeaderValue, Method, StatusCode,
    header::{ALLOW, CONTENT_TYPE},
    request::Parts,
};
use tonic::Status;

use super::reply::{self, Content};

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const IDENTITY: &str = "identity";
const GRPC: &str = "application/grpc";

/// Refuses what is no gRPC call at all.
pub(super) fn check(parts: &Parts) -> Result<(), http::Response<Content>> {
    if parts.method != Method::POST {
        let status = Status::internal(format!("a gRPC call is a POST, not a {}", parts.method));
        let mut response = with_http_status(StatusCode::METHOD_NOT_ALLOWED, &status);
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("POST"));
        return Err(response);
    }
    if subtype(parts).is_none() {
        let status = Status::invalid_argument(format!(
            "the content-type {:?} is not {GRPC}",
            content_type(parts).escape_ascii().to_string()
        ));
        return Err(with_http_status(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            &status,
        ));
    }
    Ok(())
}

/// Refuses what our own handlers do not speak: another codec than protobuf, compression. A mounted
/// service says for itself what it speaks.
pub(super) fn check_codec(parts: &Parts) -> Result<(), http::Response<Content>> {
    let subtype = subtype(parts).unwrap_or_default();
    let codec = subtype
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default()
        .trim_ascii();
    if !(codec.is_empty() || codec.eq_ignore_ascii_case(b"+proto")) {
        return Err(reply::refuse(&Status::unimplemented(format!(
            "the content-type {:?} is not served: send {GRPC} or {GRPC}+proto",
            content_type(parts).escape_ascii().to_string()
        ))));
    }
    match parts.headers.get(GRPC_ENCODING) {
        Some(encoding) if encoding != IDENTITY => {
            let mut response = reply::refuse(&Status::unimplemented(format!(
                "the grpc-encoding {:?} is not served: send messages uncompressed",
                encoding.as_bytes().escape_ascii().to_string()
            )));
            let accepted = HeaderValue::from_static(IDENTITY);
            response
                .headers_mut()
                .insert(GRPC_ACCEPT_ENCODING, accepted);
            Err(response)
        }
        _ => Ok(()),
    }
}

/// Answers a malformed `grpc-timeout`.
pub(super) fn malformed_timeout(reason: String) -> http::Response<Content> {
    with_http_status(StatusCode::BAD_REQUEST, &Status::internal(reason))
}

fn content_type(parts: &Parts) -> &[u8] {
    parts
        .headers
        .get(CONTENT_TYPE)
        .map_or(b"", |value| value.as_bytes())
}

/// What follows `application/grpc`: nothing, `+proto`, `;charset=..`, or `-web` and its like.
fn subtype(parts: &Parts) -> Option<&[u8]> {
    let (base, rest) = content_type(parts).split_at_checked(GRPC.len())?;
    let is_grpc = base.eq_ignore_ascii_case(GRPC.as_bytes())
        && matches!(rest.first(), None | Some(b'+' | b';' | b'-'));
    is_grpc.then_some(rest)
}

fn with_http_status(http: StatusCode, status: &Status) -> http::Response<Content> {
    let mut response = reply::refuse(status);
    *response.status_mut() = http;
    response
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn parts(method: Method, headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder().method(method).uri("/a.B/C");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    fn refusal(parts: &Parts) -> Option<(u16, Code)> {
        let response = check(parts).and_then(|()| check_codec(parts)).err()?;
        let status = Status::from_header_map(response.headers()).expect("a refusal has a status");
        assert!(!status.message().is_empty(), "a refusal says why");
        Some((response.status().as_u16(), status.code()))
    }

    #[test]
    fn takes_protobuf_by_each_of_its_names() {
        for name in [
            "application/grpc",
            "application/grpc+proto",
            "Application/GRPC+Proto",
            "application/grpc; charset=utf-8",
            "application/grpc+proto;v=1",
        ] {
            assert_eq!(
                refusal(&parts(Method::POST, &[("content-type", name)])),
                None,
                "{name}"
            );
        }
    }

    #[test]
    fn another_codec_is_unimplemented() {
        for name in [
            "application/grpc+json",
            "application/grpc+bytes",
            "application/grpc-web",
        ] {
            let refused = refusal(&parts(Method::POST, &[("content-type", name)]));
            assert_eq!(refused, Some((200, Code::Unimplemented)), "{name}");
        }
    }

    #[test]
    fn what_is_not_grpc_gets_http_415() {
        for name in [
            "",
            "application/json",
            "application/grpcx",
            "text/plain",
            "application",
        ] {
            let refused = refusal(&parts(Method::POST, &[("content-type", name)]));
            assert_eq!(refused, Some((415, Code::InvalidArgument)), "{name}");
        }
        assert_eq!(
            refusal(&parts(Method::POST, &[])),
            Some((415, Code::InvalidArgument))
        );
    }

    #[test]
    fn only_post_is_a_call() {
        let refused = refusal(&parts(Method::GET, &[("content-type", GRPC)]));
        assert_eq!(refused, Some((405, Code::Internal)));
    }

    #[test]
    fn compression_is_refused_with_what_would_be_taken() {
        let head = |encoding| {
            parts(
                Method::POST,
                &[("content-type", GRPC), ("grpc-encoding", encoding)],
            )
        };
        assert_eq!(refusal(&head("identity")), None);
        let response = check_codec(&head("gzip")).expect_err("gzip is not served");
        assert_eq!(response.headers()["grpc-accept-encoding"], "identity");
        assert_eq!(refusal(&head("gzip")), Some((200, Code::Unimplemented)));
    }
}
