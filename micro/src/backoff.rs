//! Waits between attempts, in the two shapes this crate needs.
//!
//! Pure arithmetic on a seedable generator: whoever waits, waits elsewhere. The `backon` crate has
//! neither shape (its jitter only adds to the delay).

use std::time::Duration;

use fastrand::Rng;

/// The waits between the attempts of one endeavour, growing until [`reset`](Self::reset).
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    max: Duration,
    factor: f64,
    /// What a wait is drawn from: from this share of the ceiling ..
    low: f64,
    /// .. to this one.
    high: f64,
    ceiling: Duration,
    rng: Rng,
}

impl Backoff {
    /// Full jitter: uniform between nothing and a ceiling that doubles from `first` to `max`.
    ///
    /// For what many nodes do at the same moment, such as registering anew: of the shapes in
    /// <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/> it spreads them best.
    pub(crate) fn full_jitter(first: Duration, max: Duration) -> Self {
        Self::new(first, max, 2.0, 0.0, 1.0)
    }

    /// gRPC's connection backoff with shorter bounds: 200 ms, x1.6 up to 5 s, each +-20%.
    ///
    /// <https://github.com/grpc/grpc/blob/master/doc/connection-backoff.md> starts at 1 s and ends at
    /// 120 s, which keeps a restarted node out for minutes.
    pub(crate) fn connect() -> Self {
        Self::new(Duration::from_millis(200), Duration::from_secs(5), 1.6, 0.8, 1.2)
    }

    fn new(first: Duration, max: Duration, factor: f64, low: f64, high: f64) -> Self {
        let first = first.min(max);
        Self { first, max, factor, low, high, ceiling: first, rng: Rng::new() }
    }

    /// The same waits in every run: for tests.
    #[must_use]
    pub(crate) fn with_rng(mut self, rng: Rng) -> Self {
        self.rng = rng;
        self
    }

    /// How long to wait before the next attempt.
    pub(crate) fn next(&mut self) -> Duration {
        let share = self.low + (self.high - self.low) * self.rng.f64();
        let wait = self.ceiling.mul_f64(share);
        self.ceiling = self.ceiling.mul_f64(self.factor).min(self.max);
        wait
    }

    /// Starts over after a success.
    pub(crate) fn reset(&mut self) {
        self.ceiling = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// The range of the nth wait over many seeds.
    fn range(backoff: &Backoff, nth: usize) -> (Duration, Duration) {
        let waits = (0..1000).map(|seed| {
            let mut backoff = backoff.clone().with_rng(Rng::with_seed(seed));
            (0..=nth).map(|_| backoff.next()).last().expect("at least one wait")
        });
        waits.fold((Duration::MAX, Duration::ZERO), |(low, high), wait| {
            (low.min(wait), high.max(wait))
        })
    }

    #[test]
    fn full_jitter_draws_from_nothing_to_a_ceiling_that_doubles_up_to_the_maximum() {
        let backoff = Backoff::full_jitter(ms(100), ms(3000));
        for (nth, ceiling) in [100, 200, 400, 800, 1600, 3000, 3000].into_iter().enumerate() {
            let (low, high) = range(&backoff, nth);
            assert!(low < ms(ceiling) / 50, "wait {nth} may be next to nothing, not only {low:?}");
            assert!(high <= ms(ceiling), "wait {nth} is at most {ceiling} ms, not {high:?}");
            assert!(
                high > ms(ceiling) * 49 / 50,
                "wait {nth} may be {ceiling} ms, not only {high:?}"
            );
        }
    }

    #[test]
    fn connecting_waits_stay_within_a_fifth_of_a_base_that_grows_to_five_seconds() {
        let backoff = Backoff::connect();
        for (nth, base) in [200, 320, 512, 819].into_iter().enumerate() {
            let (low, high) = range(&backoff, nth);
            assert!(low >= ms(base * 8 / 10), "wait {nth}: {low:?}");
            assert!(high <= ms(base * 12 / 10 + 1), "wait {nth}: {high:?}");
        }
        let (low, high) = range(&backoff, 30);
        assert!(low >= ms(4000) && high <= ms(6000), "the base stops at 5 s: {low:?} to {high:?}");
    }

    #[test]
    fn a_reset_starts_over() {
        let mut backoff = Backoff::connect();
        let later = (0..9).map(|_| backoff.next()).last().expect("nine waits");
        assert!(later > ms(240), "it had grown");
        backoff.reset();
        assert!(backoff.next() <= ms(240), "the first wait again");
    }

    #[test]
    fn a_maximum_below_the_first_ceiling_wins() {
        let mut backoff = Backoff::full_jitter(ms(100), ms(20));
        assert!((0..100).all(|_| backoff.next() <= ms(20)));
    }
}
