//! Durations as Go writes them.

use std::time::Duration;

/// The units of Go's `time.ParseDuration` in nanoseconds; both signs for micro are in use.
const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3600 * 1_000_000_000),
];

/// Digits behind the point beyond which nothing is left of any unit.
const FRACTION_DIGITS: usize = 15;

/// `15s`, `1.5s`, `1m30s`, and a bare number, which is seconds, as go-micro's flags of the registry
/// have it.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    if is_digits(text) {
        return text.parse().ok().map(Duration::from_secs);
    }
    let (mut rest, mut nanos) = (text, 0_u128);
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, from_unit) = rest.split_at(unit_at);
        let end =
            from_unit.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(from_unit.len());
        let (unit, behind) = from_unit.split_at(end);
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit)?;
        nanos = nanos.checked_add(times(number, *unit)?)?;
        rest = behind;
    }
    let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
    let below = u32::try_from(nanos % 1_000_000_000).ok()?;
    (!text.is_empty()).then(|| Duration::new(seconds, below))
}

/// A decimal number of units, in nanoseconds rounded down.
fn times(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let fraction = &fraction[..fraction.len().min(FRACTION_DIGITS)];
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let part = fraction.parse::<u128>().ok()? * unit / scale;
    whole.parse::<u128>().ok()?.checked_mul(unit)?.checked_add(part)
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gos_forms_and_bare_seconds_are_read() {
        for (text, millis) in [
            ("15s", 15_000),
            ("200ms", 200),
            ("1m30s", 90_000),
            ("1h0m0.5s", 3_600_500),
            ("1.5s", 1_500),
            ("2000us", 2),
            ("2000µs", 2),
            ("2000μs", 2),
            ("3000000ns", 3),
            ("15", 15_000),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse("0.0000000019999999999999999s"), Some(Duration::from_nanos(1)));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            " ",
            "s",
            "15 s",
            "15 parsecs",
            "-15s",
            "-1",
            "+1",
            "1.5",
            ".s",
            "1.s",
            ".5s",
            "1..5s",
            "1e3",
            "1s 2s",
            "15S",
            "٣s",
            "99999999999999999999",
            "99999999999999999999h",
            "999999999999999999999999999999999999999999s",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
