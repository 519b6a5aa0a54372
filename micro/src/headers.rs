//! What holds for the head of any request or response.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tonic::Code;

/// Fields of a connection (RFC 9113, section 8.2.2): HTTP/2 refuses a request that has any.
pub(crate) const CONNECTION_SPECIFIC: [HeaderName; 5] = [
    header::CONNECTION,
    header::UPGRADE,
    header::TRANSFER_ENCODING,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// The size of a header block as HTTP/2's SETTINGS_MAX_HEADER_LIST_SIZE counts it (RFC 9113,
/// section 6.5.2): names and values uncompressed, and 32 bytes a field.
pub(crate) fn size(headers: &HeaderMap) -> usize {
    let size = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 32;
    headers.iter().map(size).sum()
}

/// What the HTTP status of a response without a `grpc-status` says (gRPC's
/// `http-grpc-status-mapping.md`).
pub(crate) fn code_of_http(status: StatusCode) -> Code {
    match status.as_u16() {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502 | 503 | 504 => Code::Unavailable,
        _ => Code::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_counts_with_its_name_and_32_bytes() {
        let mut headers = HeaderMap::new();
        headers.append("key", HeaderValue::from_static("one"));
        headers.append("key", HeaderValue::from_static("three"));
        assert_eq!(size(&headers), (3 + 3 + 32) + (3 + 5 + 32));
    }
}
