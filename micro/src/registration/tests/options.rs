use std::time::Duration;

use super::scripted::Scripted;
use crate::registration::Options;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn options_that_would_lose_the_record_are_refused_with_the_reason() {
    let registry = Scripted::new();
    for (ttl, interval, expected) in [
        (15_000, 5000, Ok(())),
        (15_000, 7500, Ok(())),
        (1000, 1, Ok(())),
        (15_000, 7501, Err("over half the TTL of 15s: after one late renewal")),
        (15_000, 0, Err("interval of 0")),
        (999, 300, Err("TTL of 999ms is too short: scripted:// grants no less than 1s")),
        (0, 0, Err("TTL of 0ns is too short")),
    ] {
        let options = Options { interval: ms(interval), ..Options::new(ms(ttl)) };
        match (options.validate(&*registry), expected) {
            (Ok(()), Ok(())) => {}
            (Err(error), Err(text)) => {
                assert!(error.is_config());
                assert!(error.to_string().contains(text), "{text:?} should be in {error}");
            }
            (outcome, _) => panic!("TTL {ttl}, interval {interval}: {outcome:?}"),
        }
    }
}

#[test]
fn the_default_is_fifteen_seconds_renewed_at_every_third() {
    let Options { ttl, interval, check } = Options::default();
    assert_eq!((ttl, interval, check.is_none()), (ms(15_000), ms(5000), true));
}
