//! What the caller says about its patience: gRPC's `grpc-timeout` and go-micro's `timeout`.

use std::time::Duration;

use http::{HeaderMap, HeaderName};

use crate::grpc_timeout::{GRPC_TIMEOUT, parse};

/// go-micro's: nanoseconds, decimal.
const MICRO_TIMEOUT: HeaderName = HeaderName::from_static("timeout");
/// go-micro's copy of the content type, which its server takes out of the metadata too.
const MICRO_CONTENT_TYPE: HeaderName = HeaderName::from_static("x-content-type");

/// The longest timeout that is kept. Go clamps at 292 years; a clock may not reach that far.
const LONGEST: Duration = Duration::from_secs(60 * 60 * 24 * 365);

/// Takes go-micro's own headers out and returns the smaller of both timeouts.
///
/// A `timeout` that is not a number is the user's metadata and stays.
///
/// # Errors
///
/// The reason why `grpc-timeout` is malformed.
pub(super) fn take(headers: &mut HeaderMap) -> Result<Option<Duration>, String> {
    let mut grpc = None;
    for value in headers.get_all(GRPC_TIMEOUT) {
        grpc = Some(parse(value.as_bytes())?);
    }
    let micro = headers
        .get(MICRO_TIMEOUT)
        .and_then(|value| value.to_str().ok()?.parse().ok().map(Duration::from_nanos));
    if micro.is_some() {
        headers.remove(MICRO_TIMEOUT);
    }
    headers.remove(MICRO_CONTENT_TYPE);
    let smaller = match (grpc, micro) {
        (Some(grpc), Some(micro)) => Some(grpc.min(micro)),
        (grpc, micro) => grpc.or(micro),
    };
    Ok(smaller.map(|timeout| timeout.min(LONGEST)))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let value = |text: &str| HeaderValue::from_str(text).expect("a header value");
        pairs.iter().map(|(name, text)| (HeaderName::from_static(name), value(text))).collect()
    }

    #[test]
    fn reads_every_unit() {
        let cases = [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("4m", Duration::from_millis(4)),
            ("5u", Duration::from_micros(5)),
            ("99999999n", Duration::from_nanos(99_999_999)),
            ("0S", Duration::ZERO),
            ("99999999H", LONGEST),
        ];
        for (text, expected) in cases {
            assert_eq!(take(&mut headers(&[("grpc-timeout", text)])), Ok(Some(expected)), "{text}");
        }
    }

    #[test]
    fn refuses_what_grpc_refuses() {
        for text in ["", "S", "1", "1s", "-1S", "+1S", "1.5S", "123456789S", "1 S", "\u{e9}S"] {
            let error = take(&mut headers(&[("grpc-timeout", text)])).expect_err(text);
            assert!(error.starts_with("malformed grpc-timeout"), "{error}");
        }
    }

    #[test]
    fn the_smaller_of_both_wins() {
        let mut both = headers(&[("grpc-timeout", "2S"), ("timeout", "1000000000")]);
        assert_eq!(take(&mut both), Ok(Some(Duration::from_secs(1))));
        let mut both = headers(&[("grpc-timeout", "1m"), ("timeout", "1000000000")]);
        assert_eq!(take(&mut both), Ok(Some(Duration::from_millis(1))));
        assert_eq!(take(&mut HeaderMap::new()), Ok(None));
    }

    #[test]
    fn go_micros_headers_do_not_reach_the_handler() {
        let mut sent =
            headers(&[("timeout", "5000000000"), ("x-content-type", "application/grpc")]);
        assert_eq!(take(&mut sent), Ok(Some(Duration::from_secs(5))));
        assert!(sent.is_empty(), "{sent:?}");

        let mut foreign = headers(&[("timeout", "five minutes")]);
        assert_eq!(take(&mut foreign), Ok(None));
        assert!(foreign.contains_key("timeout"), "not go-micro's: the user's own metadata");
    }
}
