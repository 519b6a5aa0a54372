//! The methods that a node has answered not to have.

use std::sync::atomic::Ordering::Relaxed;

use crate::sync::AtomicU64;

/// How many are known: as many as a release may bring. The one told of longest ago makes room.
const MOST: usize = 8;

/// Each by its hash, and when it was told of last, in milliseconds of the load's clock. Two threads that
/// tell of two at once may leave one: it is told of again.
#[derive(Debug)]
pub(super) struct Lacking([AtomicU64; MOST]);

impl Lacking {
    pub(super) fn new() -> Self {
        Self([(); MOST].map(|()| AtomicU64::new(0)))
    }

    /// Whether none was ever told of, as of most nodes: their calls are spared the hash.
    pub(super) fn is_empty(&self) -> bool {
        self.0[0].load(Relaxed) == 0
    }

    /// A method was asked for in vain. The hash is not zero.
    pub(super) fn tell(&self, method: u32, now: u32) {
        let last = |place: &usize| {
            let (known, at) = unpack(self.0[*place].load(Relaxed));
            (known != method, at)
        };
        let place = (0..MOST).min_by_key(last).expect("there are some");
        self.0[place].store(u64::from(method) << 32 | u64::from(now), Relaxed);
    }

    /// Whether that was so within the last `millis`.
    pub(super) fn has(&self, method: u32, millis: u32, now: u32) -> bool {
        let mut known = self.0.iter().map(|it| unpack(it.load(Relaxed)));
        // As signed: another thread's clock may have been read a moment later.
        known.any(|(it, at)| it == method && (now.wrapping_sub(at) as i32) < millis as i32)
    }
}

fn unpack(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_lacking_for_a_while_from_when_that_was_last_told() {
        let lacking = Lacking::new();
        assert!(lacking.is_empty() && !lacking.has(7, 5_000, 0));
        lacking.tell(7, 1_000);
        assert!(!lacking.is_empty());
        for (method, millis, now, expected) in [
            (7, 5_000, 999, true),
            (7, 5_000, 5_999, true),
            (7, 5_000, 6_000, false),
            (7, 0, 1_000, false),
            (8, 5_000, 1_000, false),
        ] {
            assert_eq!(lacking.has(method, millis, now), expected, "{method} at {now}");
        }
        lacking.tell(7, 4_000);
        assert!(lacking.has(7, 5_000, 8_999));
    }

    #[test]
    fn of_too_many_the_one_told_of_longest_ago_is_forgotten() {
        let lacking = Lacking::new();
        (1..=8).for_each(|method| lacking.tell(method, method));
        lacking.tell(1, 9);
        lacking.tell(10, 10);
        let known: Vec<_> = (1..=10).filter(|method| lacking.has(*method, 5_000, 10)).collect();
        assert_eq!(known, [1, 3, 4, 5, 6, 7, 8, 10]);
    }
}
