//! What the headers of a request must say before anybody handles it. Where the gRPC specification
//! leaves the answer open it is grpc-go's.

use http::{
    HeaderName, HeaderValue, Method, StatusCode,
    header::{ALLOW, CONTENT_TYPE},
    request::Parts,
};
use tonic::{Code, Status};

use super::reply::{self, Content};

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const IDENTITY: &str = "identity";
const GRPC: &str = "application/grpc";

/// Why a request is not handled, and how that is said.
#[derive(Debug)]
pub(super) struct Refusal {
    http: StatusCode,
    status: Status,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Refusal {
    fn new(http: StatusCode, status: Status) -> Self {
        Self { http, status, header: None }
    }

    /// For a malformed `grpc-timeout`.
    pub(super) fn malformed_timeout(reason: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Status::internal(reason))
    }

    fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.header = Some((name, HeaderValue::from_static(value)));
        self
    }

    pub(super) fn code(&self) -> Code {
        self.status.code()
    }

    pub(super) fn into_response(self) -> http::Response<Content> {
        let mut response = reply::refuse(&self.status);
        *response.status_mut() = self.http;
        response.headers_mut().extend(self.header);
        response
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self::new(StatusCode::OK, status)
    }
}

/// Refuses what is no gRPC call at all.
pub(super) fn check(parts: &Parts) -> Result<(), Refusal> {
    if parts.method != Method::POST {
        let status = Status::internal(format!("a gRPC call is a POST, not a {}", parts.method));
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, status).with(ALLOW, "POST"));
    }
    if subtype(parts).is_none() {
        let status = Status::invalid_argument(format!(
            "the content-type {:?} is not {GRPC}",
            content_type(parts).escape_ascii().to_string()
        ));
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, status));
    }
    Ok(())
}

/// Refuses what our own handlers do not speak: another codec than protobuf, compression. A mounted
/// service says for itself what it speaks.
pub(super) fn check_codec(parts: &Parts) -> Result<(), Refusal> {
    let subtype = subtype(parts).unwrap_or_default();
    let codec = subtype.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if !(codec.is_empty() || codec.eq_ignore_ascii_case(b"+proto")) {
        let status = Status::unimplemented(format!(
            "the content-type {:?} is not served: send {GRPC} or {GRPC}+proto",
            content_type(parts).escape_ascii().to_string()
        ));
        return Err(status.into());
    }
    match parts.headers.get(GRPC_ENCODING) {
        Some(encoding) if encoding != IDENTITY => {
            let status = Status::unimplemented(format!(
                "the grpc-encoding {:?} is not served: send messages uncompressed",
                encoding.as_bytes().escape_ascii().to_string()
            ));
            Err(Refusal::from(status).with(GRPC_ACCEPT_ENCODING, IDENTITY))
        }
        _ => Ok(()),
    }
}

fn content_type(parts: &Parts) -> &[u8] {
    parts.headers.get(CONTENT_TYPE).map_or(b"", |value| value.as_bytes())
}

/// What follows `application/grpc`: nothing, `+proto`, `;charset=..`, or `-web` and its like.
fn subtype(parts: &Parts) -> Option<&[u8]> {
    let (base, rest) = content_type(parts).split_at_checked(GRPC.len())?;
    let is_grpc = base.eq_ignore_ascii_case(GRPC.as_bytes())
        && matches!(rest.first(), None | Some(b'+' | b';' | b'-'));
    is_grpc.then_some(rest)
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
        let refusal = check(parts).and_then(|()| check_codec(parts)).err()?;
        let response = refusal.into_response();
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
            assert_eq!(refusal(&parts(Method::POST, &[("content-type", name)])), None, "{name}");
        }
    }

    #[test]
    fn another_codec_is_unimplemented() {
        for name in ["application/grpc+json", "application/grpc+bytes", "application/grpc-web"] {
            let refused = refusal(&parts(Method::POST, &[("content-type", name)]));
            assert_eq!(refused, Some((200, Code::Unimplemented)), "{name}");
        }
    }

    #[test]
    fn what_is_not_grpc_gets_http_415() {
        for name in ["", "application/json", "application/grpcx", "text/plain", "application"] {
            let refused = refusal(&parts(Method::POST, &[("content-type", name)]));
            assert_eq!(refused, Some((415, Code::InvalidArgument)), "{name}");
        }
        assert_eq!(refusal(&parts(Method::POST, &[])), Some((415, Code::InvalidArgument)));
    }

    #[test]
    fn only_post_is_a_call() {
        let refused = refusal(&parts(Method::GET, &[("content-type", GRPC)]));
        assert_eq!(refused, Some((405, Code::Internal)));
    }

    #[test]
    fn compression_is_refused_with_what_would_be_taken() {
        let head =
            |encoding| parts(Method::POST, &[("content-type", GRPC), ("grpc-encoding", encoding)]);
        assert_eq!(refusal(&head("identity")), None);
        let refused = check_codec(&head("gzip")).expect_err("gzip is not served");
        let response = refused.into_response();
        assert_eq!(response.headers()["grpc-accept-encoding"], "identity");
        assert_eq!(refusal(&head("gzip")), Some((200, Code::Unimplemented)));
    }
}
