//! The header `grpc-timeout`: one to eight digits and a unit
//! ([gRPC over HTTP/2](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md)).

use std::time::Duration;

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

/// Writes a `grpc-timeout`, rounded up to three digits as grpc-core does: the few values that calls
/// of one timeout then have are one byte each in HPACK's table. Written to the microsecond they
/// would all differ, and push everything else out of it.
pub(crate) fn format(left: Duration) -> HeaderValue {
    const MOST: u64 = 99_999_999;
    const UNITS: [(u64, u8); 4] =
        [(1_000_000_000, b'S'), (1_000_000, b'm'), (1_000, b'u'), (1, b'n')];
    // Over five hundred years is as good as what eight digits of seconds can say.
    let nanos = u64::try_from(left.as_nanos()).unwrap_or(u64::MAX / 2).max(1);
    let step = 10_u64.pow(nanos.ilog10().saturating_sub(2));
    let nanos = nanos.next_multiple_of(step);
    let (size, unit) = UNITS.into_iter().find(|(size, _)| nanos % size == 0).unwrap_or(UNITS[3]);
    // Digit by digit: this is on every call's way, and `write!` costs three times as much.
    let mut text = [unit; 9];
    let mut begin = text.len() - 1;
    let mut rest = (nanos / size).min(MOST);
    while rest > 0 {
        begin -= 1;
        text[begin] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    HeaderValue::from_bytes(&text[begin..]).expect("digits and a letter")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_rounded_up_to_three_digits() {
        for (left, header) in [
            (Duration::ZERO, "1n"),
            (Duration::from_nanos(123_456), "124u"),
            (Duration::from_micros(299_980), "300m"),
            (Duration::from_micros(4_999_980), "5S"),
            (Duration::from_micros(4_980_001), "4990m"),
            (Duration::from_millis(1_234), "1240m"),
            (Duration::from_secs(1_001), "1010S"),
            (Duration::from_secs(1_000_000), "1000000S"),
            (Duration::MAX, "99999999S"),
        ] {
            assert_eq!(format(left), header, "{left:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_as_no_less_and_at_most_a_hundredth_more() {
        for exponent in 0..50 {
            for offset in [0, 1, 7, 99, 12_345] {
                let left = Duration::from_nanos((1 << exponent) + offset);
                let read = parse(format(left).as_bytes()).expect("well formed");
                assert!(left <= read && read <= left.mul_f64(1.01), "{left:?} became {read:?}");
            }
        }
    }
}
