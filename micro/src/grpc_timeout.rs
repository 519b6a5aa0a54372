//! The header `grpc-timeout`: one to eight digits and a unit
//! ([gRPC over HTTP/2](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md)).

use std::{io::Write as _, time::Duration};

use http::{HeaderName, HeaderValue};

pub(crate) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Reads the header's value, as strictly as grpc-go's `decodeTimeout`.
///
/// # Errors
/// What is malformed in it, for people.
pub(crate) fn parse(value: &[u8]) -> Result<Duration, String> {
    let malformed =
        |why| format!("malformed grpc-timeout {:?}: {why}", value.escape_ascii().to_string());
    let Some((unit, digits)) = value.split_last().filter(|(_, digits)| !digits.is_empty()) else {
        return Err(malformed("too short"));
    };
    if digits.len() > 8 {
        return Err(malformed("more than eight digits"));
    }
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(malformed("not a number"));
    }
    let amount = digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Ok(Duration::from_secs(amount * 60 * 60)),
        b'M' => Ok(Duration::from_secs(amount * 60)),
        b'S' => Ok(Duration::from_secs(amount)),
        b'm' => Ok(Duration::from_millis(amount)),
        b'u' => Ok(Duration::from_micros(amount)),
        b'n' => Ok(Duration::from_nanos(amount)),
        _ => Err(malformed("its unit is not one of H, M, S, m, u, n")),
    }
}

/// Writes a `grpc-timeout` in the finest unit that eight digits can hold, at least `1n`.
pub(crate) fn format(left: Duration) -> HeaderValue {
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
            assert_eq!(format(left), header, "{left:?}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for timeout in [1, 99, 300_000, 5_000_000].map(Duration::from_micros) {
            assert_eq!(parse(format(timeout).as_bytes()), Ok(timeout));
        }
    }
}
