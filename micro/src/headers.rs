//! What holds for the head of any request or response.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use percent_encoding::percent_decode;
use tonic::{Code, Status, metadata::MetadataMap};

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

/// Drops the details of a status where they are no base64: tonic's reader of statuses panics at
/// those. Code and message stay.
pub(crate) fn drop_malformed_details(headers: &mut HeaderMap) {
    const DETAILS: HeaderName = Status::GRPC_STATUS_DETAILS;
    let Some(details) = headers.get(&DETAILS) else {
        return;
    };
    // By tonic's own decoder, so that the two agree on what is base64.
    let alone = MetadataMap::from_headers(HeaderMap::from_iter([(DETAILS, details.clone())]));
    let is_base64 =
        alone.get_bin(DETAILS.as_str()).is_some_and(|details| details.to_bytes().is_ok());
    if !is_base64 {
        tracing::debug!("grpc-status-details-bin is not base64, and left out");
        headers.remove(&DETAILS);
    }
}

/// The status that headers or trailers have, without its details: tonic panics over those that are not
/// base64.
pub(crate) fn status(headers: &HeaderMap) -> Option<(Code, Cow<'_, str>)> {
    let code = Code::from_bytes(headers.get(Status::GRPC_STATUS)?.as_bytes());
    let message = headers.get(Status::GRPC_MESSAGE).map_or(&[][..], HeaderValue::as_bytes);
    Some((code, percent_decode(message).decode_utf8_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_whatever_its_details_are() {
        let mut headers = HeaderMap::new();
        assert_eq!(status(&headers), None);
        headers.insert("grpc-status", HeaderValue::from_static("5"));
        headers.insert("grpc-message", HeaderValue::from_static("no%20such%20word"));
        headers.insert("grpc-status-details-bin", HeaderValue::from_static("= ="));
        assert_eq!(status(&headers), Some((Code::NotFound, "no such word".into())));
    }

    #[test]
    fn only_details_that_tonic_cannot_read_are_dropped() {
        for (details, expected) in [
            (&b""[..], Some(&b""[..])),
            (b"d29ybGQ=", Some(b"world")),
            (b"d29ybGQ", Some(b"world")),
            (b"d29ybGQ==", None),
            (b"d29y bGQ", None),
            (b"d29ybGQ-", None),
            (b"!", None),
            (b"\xff\xfe", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-status", HeaderValue::from_static("5"));
            headers.insert("grpc-message", HeaderValue::from_static("gone"));
            let value = HeaderValue::from_bytes(details).expect("a value");
            headers.append("grpc-status-details-bin", value.clone());
            headers.append("grpc-status-details-bin", value);
            drop_malformed_details(&mut headers);
            assert_eq!(headers.contains_key("grpc-status-details-bin"), expected.is_some());
            let status = Status::from_header_map(&headers).expect("a status");
            assert_eq!((status.code(), status.message()), (Code::NotFound, "gone"));
            assert_eq!(status.details(), expected.unwrap_or_default());
        }
    }

    #[test]
    fn every_value_counts_with_its_name_and_32_bytes() {
        let mut headers = HeaderMap::new();
        headers.append("key", HeaderValue::from_static("one"));
        headers.append("key", HeaderValue::from_static("three"));
        assert_eq!(size(&headers), (3 + 3 + 32) + (3 + 5 + 32));
    }
}
