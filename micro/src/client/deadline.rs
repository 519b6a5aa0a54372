//! When a call must be over, and how that is said on the wire.

use std::{io::Write as _, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

pub(super) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// How long a call without a deadline waits for a node before it fails.
pub(super) const WAIT_WITHOUT_DEADLINE: Duration = Duration::from_secs(5);

/// The most that eight digits of hours can say is beyond any clock; this is "never" to tokio too.
const FAR: Duration = Duration::from_secs(86400 * 365 * 30);

/// The instant `timeout` from `now`, also for a timeout that no clock can hold.
pub(super) fn after(now: Instant, timeout: Duration) -> Instant {
    now.checked_add(timeout).unwrap_or(now + FAR)
}

/// The sooner of two deadlines, either of which may be none.
pub(super) fn sooner(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

/// What `grpc-timeout` says, if it is there and well formed.
pub(super) fn from_headers(headers: &HeaderMap) -> Option<Duration> {
    parse(headers.get(GRPC_TIMEOUT)?.to_str().ok()?)
}

/// Reads a `grpc-timeout`: one to eight digits and a unit
/// ([gRPC over HTTP/2](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md)).
fn parse(value: &str) -> Option<Duration> {
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// Writes a `grpc-timeout` in the finest unit that eight digits can hold, at least `1n`.
pub(super) fn to_header(left: Duration) -> HeaderValue {
    const MOST: u128 = 99_999_999;
    let nanos = left.as_nanos().max(1);
    let units = [(1, "n"), (1_000, "u"), (1_000_000, "m"), (1_000_000_000, "S")];
    let (amount, unit) = units
        .into_iter()
        .map(|(size, unit)| (nanos / size, unit))
        .find(|(amount, _)| *amount <= MOST)
        .unwrap_or((MOST, "S"));
    // Without a String: this is on every call's way.
    let mut text = [0; 9];
    let mut rest = &mut text[..];
    write!(rest, "{amount}{unit}").expect("at most eight digits and a letter");
    let unused = rest.len();
    HeaderValue::from_bytes(&text[..text.len() - unused]).expect("digits and a letter")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_written_in_the_finest_unit_that_fits() {
        for (left, header) in [
            (Duration::ZERO, "1n"),
            (Duration::from_micros(99), "99000n"),
            (Duration::from_millis(300), "300000u"),
            (Duration::from_secs(5), "5000000u"),
            (Duration::from_secs(1_000), "1000000m"),
            (Duration::from_secs(1_000_000), "1000000S"),
            (Duration::MAX, "99999999S"),
        ] {
            assert_eq!(to_header(left), header, "{left:?}");
        }
    }

    #[test]
    fn what_is_not_a_timeout_is_not_read_as_one() {
        for (header, timeout) in [
            ("5S", Some(Duration::from_secs(5))),
            ("00000100m", Some(Duration::from_millis(100))),
            ("1H", Some(Duration::from_secs(3600))),
            ("", None),
            ("S", None),
            ("5", None),
            ("5s", None),
            ("-5S", None),
            ("+5S", None),
            ("123456789n", None),
            ("5é", None),
        ] {
            assert_eq!(parse(header), timeout, "{header:?}");
        }
    }
}
