//! How long nearly all calls take, at most.

use std::{
    sync::atomic::Ordering::{Acquire, Relaxed, Release},
    time::Duration,
};

use crate::sync::{AtomicU32, AtomicU64};

/// What 19 of 20 calls take less than, of late.
///
/// A stochastic approximation (Robbins and Monro, 1951) of the quantile's logarithm: a call that took
/// longer raises it by 19 parts, one that did not lowers it by one, so it rests where one of twenty
/// takes longer. The parts grow while no call takes longer, as those of Frugal-2U do (Ma,
/// Muthukrishnan and Sandler, 2013), and for the call that ends this too: a size that only the past
/// decides on moves the place of rest nowhere. Three words, no lock, no window; and all that it asks of
/// a call is whether it took longer, which is known also of one that was given up. It begins with the
/// second longest of 20 calls, which is their own p95, whatever the first on a new connection took.
#[derive(Debug, Default)]
pub(super) struct P95 {
    nanos: AtomicU64,
    /// The longest of the first calls.
    longest: AtomicU64,
    /// Calls up to the first twenty; from there on as many more as none has taken longer.
    seen: AtomicU32,
}

const FIRST: u32 = 20;

/// A step of 5% at the most, unless it has grown: it settles within 15% or so, and a method that
/// becomes ten times as slow is known to be after fifty calls.
const STEP: f64 = 0.05;
const QUANTILE: f64 = 0.95;
/// Where there is nothing to tell apart, and nothing to win.
const LEAST_NANOS: f64 = 1e3;

/// The step doubles after 80 calls none of which took longer, which by chance one of sixty such runs
/// is, and after each 20 more, up to 16 times: a method that becomes ten times as fast is known to be
/// after 150 calls.
const CHANCE: u32 = 60;
const DOUBLES_EVERY: u32 = 20;
const MOST_DOUBLINGS: u32 = 4;

impl P95 {
    /// None until enough calls were seen.
    pub(super) fn get(&self) -> Option<Duration> {
        // Whoever sees that there were enough sees all of them.
        let is_known = self.seen.load(Acquire) >= FIRST;
        is_known.then(|| Duration::from_nanos(self.nanos.load(Relaxed)))
    }

    /// A call took so long.
    pub(super) fn took(&self, latency: Duration) {
        match self.get() {
            Some(known) => self.step(latency > known),
            None => self.first(latency),
        }
    }

    /// A call was given up after so long.
    pub(super) fn lasted(&self, at_least: Duration) {
        match self.get() {
            Some(known) if at_least > known => self.step(true),
            // It might yet have been either.
            Some(_) => {}
            None => self.first(at_least),
        }
    }

    fn first(&self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).max(LEAST_NANOS as u64);
        // Of each two the shorter: all but the longest are that once.
        let longest = self.longest.fetch_max(nanos, Relaxed);
        self.nanos.fetch_max(nanos.min(longest), Relaxed);
        self.seen.fetch_add(1, Release);
    }

    fn step(&self, is_longer: bool) {
        let run = self.seen.load(Relaxed).saturating_sub(FIRST);
        if is_longer {
            self.seen.store(FIRST, Release);
        } else if run < CHANCE + MOST_DOUBLINGS * DOUBLES_EVERY {
            self.seen.fetch_add(1, Release);
        }
        let doublings = (run.saturating_sub(CHANCE) / DOUBLES_EVERY).min(MOST_DOUBLINGS);
        let most = STEP * f64::from(1_u32 << doublings);
        let step = most * (f64::from(u8::from(is_longer)) - (1.0 - QUANTILE));
        let stepped = |nanos: u64| Some((nanos as f64 * step.exp()).max(LEAST_NANOS) as u64);
        let _ = self.nanos.fetch_update(Relaxed, Relaxed, stepped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The share of calls that take longer than what is said of them before, after a while.
    fn longer(p95: &P95, rng: &mut fastrand::Rng, millis: impl Fn(f64) -> f64) -> f64 {
        let mut longer = 0.0;
        for call in 0..20_000 {
            let latency = Duration::from_secs_f64(millis(rng.f64()) / 1e3);
            if call >= 10_000 && p95.get().is_some_and(|known| latency > known) {
                longer += 1.0 / 10_000.0;
            }
            p95.took(latency);
        }
        longer
    }

    #[test]
    fn one_call_of_twenty_takes_longer() {
        let mut rng = fastrand::Rng::with_seed(7);
        let p95 = P95::default();
        let even = longer(&p95, &mut rng, |u| 10.0 + u);
        assert!((0.04..0.06).contains(&even), "{even}");
        let exponential = longer(&p95, &mut rng, |u| -10.0 * (1.0 - u).ln());
        assert!((0.04..0.06).contains(&exponential), "{exponential}");
        let known = p95.get().expect("known").as_secs_f64() * 1e3;
        assert!((25.0..36.0).contains(&known), "10 ms * ln 20 is 30 ms, not {known}");
        let heavy_tailed = longer(&p95, &mut rng, |u| (1.0 - u).powf(-1.0 / 1.5));
        assert!((0.04..0.06).contains(&heavy_tailed), "{heavy_tailed}");
        let one_of_25_hangs =
            longer(&p95, &mut rng, |u| if u < 0.04 { 5000.0 } else { 1.0 + 10.0 * u });
        assert!((0.04..0.06).contains(&one_of_25_hangs), "{one_of_25_hangs}");
        let one_of_ten_hangs = longer(&p95, &mut rng, |u| if u < 0.1 { 5000.0 } else { 1.0 });
        assert!(one_of_ten_hangs < 0.11, "{one_of_ten_hangs}");
    }

    #[test]
    fn nothing_is_said_of_fewer_than_twenty_calls() {
        let p95 = P95::default();
        for millis in 1..=20 {
            assert_eq!(p95.get(), None);
            p95.took(Duration::from_millis(millis));
        }
        assert_eq!(p95.get(), Some(Duration::from_millis(19)), "19 of 20 take no longer");
    }

    /// How many calls that take about so long it needs until that is known.
    fn calls_until(
        p95: &P95,
        rng: &mut fastrand::Rng,
        millis: f64,
        is_known: impl Fn(f64) -> bool,
    ) -> u32 {
        let mut calls = 0;
        while p95.get().is_none_or(|known| !is_known(known.as_secs_f64() * 1e3)) {
            p95.took(Duration::from_secs_f64(millis * (0.9 + 0.2 * rng.f64()) / 1e3));
            calls += 1;
            assert!(calls < 10_000, "it never is: {:?}", p95.get());
        }
        calls
    }

    #[test]
    fn one_cold_call_is_forgotten_at_once_and_several_soon() {
        for (cold, millis, most) in [(1, 100, 20), (1, 5000, 20), (2, 100, 250), (10, 1000, 300)] {
            for is_last in [false, true] {
                let (p95, mut rng) = (P95::default(), fastrand::Rng::with_seed(7));
                if is_last {
                    (cold..FIRST).for_each(|_| p95.took(Duration::from_millis(1)));
                }
                (0..cold).for_each(|_| p95.lasted(Duration::from_millis(millis)));
                let calls = calls_until(&p95, &mut rng, 1.0, |known| known < 5.0);
                assert!(calls <= most, "{cold} calls of {millis} ms: {calls} until p95 < 5 ms");
            }
        }
    }

    #[test]
    fn latencies_that_change_tenfold_are_followed() {
        let mut rng = fastrand::Rng::with_seed(7);
        let p95 = P95::default();
        for _ in 0..10 {
            for _ in 0..400 {
                p95.took(Duration::from_secs_f64(0.1 * (0.9 + 0.2 * rng.f64())));
            }
            let down = calls_until(&p95, &mut rng, 10.0, |known| known < 20.0);
            assert!(down <= 200, "{down} calls until 20 ms");
            for _ in 0..400 {
                p95.took(Duration::from_secs_f64(0.01 * (0.9 + 0.2 * rng.f64())));
            }
            let up = calls_until(&p95, &mut rng, 100.0, |known| known > 80.0);
            assert!(up <= 50, "{up} calls until 80 ms");
        }
    }

    #[test]
    fn a_call_given_up_counts_once_it_has_taken_longer() {
        let p95 = P95::default();
        (0..20).for_each(|_| p95.took(Duration::from_millis(10)));
        p95.lasted(Duration::from_millis(9));
        assert_eq!(p95.get(), Some(Duration::from_millis(10)));
        (0..60).for_each(|_| p95.lasted(Duration::from_millis(500)));
        assert!(p95.get() > Some(Duration::from_millis(100)), "{:?}", p95.get());
    }
}
