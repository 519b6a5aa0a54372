//! What a node costs: its latency, its calls in flight and its failures, in atomics alone.
//!
//! `cost = latency x (calls in flight + 1) / health^2`
//!
//! - **latency** is Finagle's peak-EWMA: slower samples raise the estimate quickly, faster ones pull
//!   it down with a decay of 10 s. Reads project the decay and change nothing (as linkerd's `ewma`
//!   crate does, and `tower::load::PeakEwma` does not), so an idle node is tried again in time.
//!   Three amendments, *simulated* at 16 callers over 3 equal nodes that stall as processes on a
//!   shared machine do (20 stalls a second, 4 ms on average): by the plain rule the shares over
//!   20 s are up to 39% off even, because one 4 ms stall makes a 0.3 ms node the dearer one for
//!   25 s; amended, 1%.
//!   - every sample weighs at least 1/16, however close to the last: 16 good calls outweigh a stall;
//!   - a sample at most doubles the estimate: one slow method is not a slow node, and one that is
//!     a thousand times slower is known for it after ten calls;
//!   - one stall is one sample: a call that began before the estimate was last raised does not raise
//!     it again. Else the eight calls that a node hung with for a second keep it away for a minute.
//!
//!   A node that is three times slower gets two thirds of what it then can do, one that is ten times
//!   slower next to nothing until its estimate has faded (*simulated* with a single caller: one call
//!   in 5 000, and it is one of equals again within 10 s of being well).
//! - **health** starts at 1. A failure halves it for the time of a `penalty`: what is missing of it
//!   fades with that time constant, and of what is missing each success takes 1/16. So a
//!   node that fails fast (linkerd#11669) is no more attractive than one that never answers: *simulated*,
//!   it gets one of 14 000 calls a second from 16 callers, 7 of 113 000 from 128: its probes. A node that
//!   fails one call in ten levels off at a health of 0.53, one in a hundred at 0.93, whatever the rate
//!   of calls. Were the penalty a latency *sample* of 5 s, it would outweigh a millisecond for 85 s, and
//!   the failures of a shared backend would leave an order behind that has nothing to do with the nodes;
//!   the square of health, which is what counts, regains an eighth, with which a node gets calls beside
//!   others that have eight in flight, in less than half the penalty.
//!
//! A node that has answered `Unimplemented` is as well as before, and calls of that method avoid it for the
//! time of a penalty (`lacking`).
//!
//! A node without a sample yet is compared as if it had the other's latency, so that its first
//! call comes in its turn: an assumed one, such as linkerd's 30 ms, is wrong for whole fleets, and
//! with a single caller would keep the nodes that were not the first away for half a minute.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

use super::{lacking::Lacking, stamped::Stamped, under_way::UnderWay};
use crate::sync::{AtomicBool, AtomicU32};

/// How fast a latency estimate follows faster samples, and fades without any (Finagle's default).
const LATENCY_DECAY: Duration = Duration::from_secs(10);

/// The least weight of a sample, however close it is to the one before.
const LEAST_WEIGHT: f32 = 1.0 / 16.0;

/// The latency below which nodes are all the same, and to which an idle estimate fades: with zero,
/// calls in flight would no longer count.
const LEAST_LATENCY: f32 = 1e-6;

/// The health that failures leave at least: its square is little enough beside nodes with thousands
/// of calls in flight.
const LEAST_HEALTH: f32 = 1.0 / 64.0;

/// The longest penalty: a node with little health is called only once that has faded, and a deadline
/// of hours, or of none, is no reason to leave it alone as long.
const LONGEST_PENALTY: Duration = Duration::from_secs(60);

/// The health from which a node is as good as one that never failed.
const WELL: f32 = 0.99;

/// One connection's load. A new connection has a new one, so that neither the failures nor the late
/// answers of the old one follow a restarted node; but the calls under way are the node's.
#[derive(Debug)]
pub(super) struct Load {
    born: Instant,
    penalty: Duration,
    calls: Arc<UnderWay>,
    /// Seconds; negative before the first sample.
    latency: Stamped,
    /// When a sample last raised it.
    raised: AtomicU32,
    /// From [`LEAST_HEALTH`] to 1.
    health: Stamped,
    /// What it was asked for in vain.
    lacking: Lacking,
    /// Whether a call was answered by it.
    has_answered: AtomicBool,
    /// Whether the connection was lost under a call.
    is_lost: AtomicBool,
}

impl Load {
    /// The load of a new connection, which starts at `latency`: the median of the ready nodes, if
    /// any has one.
    pub(super) fn new(latency: Option<Duration>, penalty: Duration, now: Instant) -> Self {
        let latency = latency.map_or(-1.0, |it| it.as_secs_f32());
        Self {
            born: now,
            penalty: penalty.min(LONGEST_PENALTY),
            calls: Arc::default(),
            latency: Stamped::new(latency),
            raised: AtomicU32::new(0),
            health: Stamped::new(1.0),
            lacking: Lacking::new(),
            has_answered: AtomicBool::new(false),
            is_lost: AtomicBool::new(false),
        }
    }

    /// The same, of a node that has these under way.
    pub(super) fn with(self, calls: Arc<UnderWay>) -> Self {
        Self { calls, ..self }
    }

    /// What one more call costs here as a multiple of what it costs there.
    pub(super) fn relative_cost(&self, other: &Self, now: Instant) -> f32 {
        // Equal unless both are known: then only calls and failures count.
        let latency = match (self.seconds(now), other.seconds(now)) {
            (Some(here), Some(there)) => here.max(LEAST_LATENCY) / there.max(LEAST_LATENCY),
            _ => 1.0,
        };
        latency * self.calls(now) / other.calls(now)
    }

    /// The measured latency as of now, or `None` before the first sample.
    pub(super) fn latency(&self, now: Instant) -> Option<Duration> {
        self.seconds(now).map(Duration::from_secs_f32)
    }

    /// How many calls the node has under way.
    pub(super) fn in_flight(&self) -> u32 {
        self.calls.all.load(Relaxed)
    }

    /// How many of them count towards the load of the whole set, where a policy bounds that.
    pub(super) fn counted(&self) -> u32 {
        self.calls.counted.load(Relaxed)
    }

    /// What failures have left of it, from next to nothing to 1.
    pub(super) fn health(&self, now: Instant) -> f32 {
        let (health, at) = self.health.load();
        self.recovered(health, at, self.stamp(now))
    }

    /// When it was new.
    pub(super) fn born(&self) -> Instant {
        self.born
    }

    fn seconds(&self, now: Instant) -> Option<f32> {
        let (latency, at) = self.latency.load();
        (latency >= 0.0).then(|| latency * decay(at, self.stamp(now), LATENCY_DECAY))
    }

    /// What latency is multiplied by.
    fn calls(&self, now: Instant) -> f32 {
        (self.in_flight() as f32 + 1.0) / self.health(now).powi(2)
    }

    /// Whether a call was answered.
    pub(super) fn has_answered(&self) -> bool {
        self.has_answered.load(Relaxed)
    }

    /// A call was lost with the connection; true for the first.
    pub(super) fn lose(&self) -> bool {
        !self.is_lost.swap(true, Relaxed)
    }

    /// A call starts.
    pub(super) fn begin(&self) {
        self.calls.all.fetch_add(1, Relaxed);
    }

    /// The same, if no more than `limit` are under way then.
    pub(super) fn begin_within(&self, limit: u32) -> bool {
        let one_more = |calls: u32| (calls < limit).then_some(calls + 1);
        self.calls.all.fetch_update(Relaxed, Relaxed, one_more).is_ok()
    }

    /// A call that began is over, however it went.
    pub(super) fn end(&self) {
        self.calls.all.fetch_sub(1, Relaxed);
    }

    /// One that has begun counts towards the load of the whole set.
    pub(super) fn count(&self) {
        self.calls.counted.fetch_add(1, Relaxed);
    }

    /// It no longer does.
    pub(super) fn discount(&self) {
        self.calls.counted.fetch_sub(1, Relaxed);
    }

    /// A call was answered after `latency`.
    pub(super) fn succeeded(&self, latency: Duration, now: Instant) {
        let began = self.stamp(now.checked_sub(latency).unwrap_or(now));
        let (sample, now) = (latency.as_secs_f32(), self.stamp(now));
        if !self.has_answered() {
            self.has_answered.store(true, Relaxed);
        }
        let raises = sample > self.latency.load().0 && self.is_another_stall(began, now);
        self.latency.update(now, |estimate, at| {
            if estimate < 0.0 {
                return sample;
            }
            if sample >= estimate {
                return if raises { raised(estimate, sample) } else { estimate };
            }
            let kept = decay(at, now, LATENCY_DECAY).min(1.0 - LEAST_WEIGHT);
            estimate * kept + sample * (1.0 - kept)
        });
        // Most nodes never fail: their calls are spared the write.
        if self.health.load().0 < 1.0 {
            self.health.update(now, |health, at| {
                let health = self.recovered(health, at, now);
                let health = health + (1.0 - health) * LEAST_WEIGHT;
                if health < WELL { health } else { 1.0 }
            });
        }
    }

    /// A call is not answered after so long.
    pub(super) fn lasted(&self, so_far: Duration, now: Instant) {
        let (sample, now) = (so_far.as_secs_f32(), self.stamp(now));
        self.latency.update(now, |estimate, at| {
            if estimate < 0.0 {
                return sample;
            }
            let known = estimate * decay(at, now, LATENCY_DECAY);
            if sample > known { raised(known, sample) } else { known }
        });
    }

    /// A call failed by the node's fault. How long it took is no measure: failing quickly is no
    /// merit, and what it took it was in flight for.
    pub(super) fn failed(&self, now: Instant) {
        let now = self.stamp(now);
        self.health
            .update(now, |health, at| (self.recovered(health, at, now) / 2.0).max(LEAST_HEALTH));
        // An estimate must not fade for want of successes: the node would seem the quicker for it.
        self.latency.update(now, |estimate, _| estimate);
    }

    /// The node has answered that it does not have the method of this hash: no failure, nor a sample.
    pub(super) fn lacks(&self, method: u32, now: Instant) {
        self.lacking.tell(method, self.stamp(now));
    }

    /// Whether it has answered so within the time of a penalty.
    pub(super) fn is_lacking(&self, method: impl FnOnce() -> u32, now: Instant) -> bool {
        let penalty = self.penalty.as_millis() as u32;
        !self.lacking.is_empty() && self.lacking.has(method(), penalty, self.stamp(now))
    }

    /// Whether a call that began then is the first to tell of its stall. Of those that end at once,
    /// one is.
    fn is_another_stall(&self, began: u32, now: u32) -> bool {
        let raised = self.raised.load(Relaxed);
        !is_before(began, raised)
            && self.raised.compare_exchange(raised, now, Relaxed, Relaxed).is_ok()
    }

    fn recovered(&self, health: f32, at: u32, now: u32) -> f32 {
        if health == 1.0 {
            return health;
        }
        1.0 - (1.0 - health) * decay(at, now, self.penalty)
    }

    /// Milliseconds since birth. It wraps after 49 days, which at worst takes a node idle for 25 of
    /// them for one that was just used.
    fn stamp(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.born).as_millis() as u32
    }
}

/// An estimate after a slower sample.
fn raised(estimate: f32, sample: f32) -> f32 {
    sample.min((estimate * 2.0).max(LEAST_LATENCY)).max(estimate)
}

/// Whether a stamp is older than another.
fn is_before(stamp: u32, other: u32) -> bool {
    stamp.wrapping_sub(other) > u32::MAX / 2
}

/// What is left of 1 between two stamps.
fn decay(from: u32, to: u32, over: Duration) -> f32 {
    // Calls finish on several threads: a stamp may be a little older than the last one.
    match i32::try_from(to.wrapping_sub(from)) {
        Ok(elapsed @ 1..) => (-(elapsed as f32 / 1e3) / over.as_secs_f32()).exp(),
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PENALTY: Duration = Duration::from_secs(5);

    fn ms(ms: f64) -> Duration {
        Duration::from_secs_f64(ms / 1e3)
    }

    fn load(start: Instant, latency: f64) -> Load {
        Load::new(Some(ms(latency)), PENALTY, start)
    }

    fn latency(load: &Load, now: Instant) -> f64 {
        load.latency(now).expect("measured").as_secs_f64() * 1e3
    }

    fn assert_near(found: f64, expected: f64, what: &str) {
        assert!((found / expected - 1.0).abs() < 0.01, "{what}: {found}, not {expected}");
    }

    #[test]
    fn an_estimate_fades_by_ten_seconds_and_reading_changes_nothing() {
        let start = Instant::now();
        let load = load(start, 100.0);
        for _ in 0..3 {
            assert_near(latency(&load, start + ms(10_000.0)), 36.8, "after one decay");
            assert_near(latency(&load, start), 100.0, "as it was");
        }
    }

    #[test]
    fn the_first_sample_is_the_estimate() {
        let start = Instant::now();
        let load = Load::new(None, PENALTY, start);
        assert_eq!(load.latency(start), None);
        load.succeeded(ms(700.0), start);
        assert_near(latency(&load, start), 700.0, "the only thing known");
    }

    #[test]
    fn a_slower_sample_at_most_doubles_the_estimate() {
        let start = Instant::now();
        let load = load(start, 1.0);
        let mut now = start + ms(10.0);
        load.succeeded(ms(1.5), now);
        assert_near(latency(&load, now), 1.5, "the peak");
        now += ms(5_000.0);
        load.succeeded(ms(5_000.0), now);
        assert_near(latency(&load, now), 3.0, "one slow call");
        for _ in 0..11 {
            now += ms(5_000.0);
            load.succeeded(ms(5_000.0), now);
        }
        assert_near(latency(&load, now), 5_000.0, "a slow node");
    }

    #[test]
    fn the_calls_of_one_stall_raise_the_estimate_once() {
        let start = Instant::now();
        let load = load(start, 1.0);
        let now = start + ms(1_000.0);
        for since in 0..8 {
            load.succeeded(ms(1_000.0 - f64::from(since)), now + ms(f64::from(since) / 8.0));
        }
        assert_near(latency(&load, now), 2.0, "all of them began before it was known");
        load.succeeded(ms(500.0), now + ms(600.0));
        assert_near(latency(&load, now + ms(600.0)), 4.0, "this one after");
    }

    #[test]
    fn faster_samples_weigh_a_sixteenth_or_their_time() {
        let start = Instant::now();
        let load = load(start, 17.0);
        load.succeeded(ms(1.0), start);
        assert_near(latency(&load, start), 16.0, "close to the last");
        load.succeeded(ms(1.0), start + ms(10_000.0));
        assert_near(latency(&load, start + ms(10_000.0)), 6.52, "one decay after the last");
    }

    #[test]
    fn a_node_with_calls_in_flight_costs_more_and_one_without_a_sample_the_same() {
        let start = Instant::now();
        let (new, known) = (Load::new(None, PENALTY, start), load(start, 900.0));
        assert_near(new.relative_cost(&known, start).into(), 1.0, "nothing is known against it");
        new.begin();
        assert_near(new.relative_cost(&known, start).into(), 2.0, "one call in flight");
        new.end();
        assert_near(new.relative_cost(&known, start).into(), 1.0, "none again");
    }

    #[test]
    fn a_failure_quadruples_the_cost_for_the_time_of_the_penalty() {
        let start = Instant::now();
        let (failed, well) = (load(start, 1.0), load(start, 1.0));
        failed.failed(start);
        assert_near(failed.relative_cost(&well, start).into(), 4.0, "one failure");
        let later = start + PENALTY;
        assert_near(failed.relative_cost(&well, later).into(), 1.502, "a penalty later");
        let later = start + 8 * PENALTY;
        assert_near(failed.relative_cost(&well, later).into(), 1.0, "forgotten");
    }

    #[test]
    fn successes_take_a_failure_back() {
        let start = Instant::now();
        let (failed, well) = (load(start, 1.0), load(start, 1.0));
        for _ in 0..1_000 {
            failed.failed(start);
        }
        assert_near(failed.relative_cost(&well, start).into(), 4096.0, "as bad as it gets");
        for _ in 0..100 {
            failed.succeeded(ms(1.0), start);
        }
        assert_near(failed.relative_cost(&well, start).into(), 1.0, "a hundred successes later");
    }

    #[test]
    fn failing_quickly_does_not_make_a_node_seem_quick() {
        let start = Instant::now();
        let load = load(start, 100.0);
        for second in 0..60 {
            load.failed(start + Duration::from_secs(second));
        }
        assert_near(latency(&load, start + Duration::from_secs(59)), 100.0, "its last success");
    }

    #[test]
    fn a_clock_reading_older_than_the_last_does_no_harm() {
        let start = Instant::now();
        let load = load(start, 4.0);
        load.succeeded(ms(4.0), start + ms(50.0));
        load.succeeded(ms(4.0), start + ms(49.0));
        load.failed(start + ms(48.0));
        assert_near(latency(&load, start + ms(47.0)), 4.0, "nothing has faded");
    }

    #[test]
    fn a_penalty_without_end_ends() {
        let start = Instant::now();
        let (failed, well) = (Load::new(None, Duration::MAX, start), load(start, 1.0));
        for _ in 0..20 {
            failed.failed(start);
        }
        let later = start + Duration::from_secs(10 * 60);
        assert_near(failed.relative_cost(&well, later).into(), 1.0, "ten minutes later");
    }

    #[test]
    fn a_penalty_of_zero_charges_for_no_longer_than_the_moment() {
        let start = Instant::now();
        let (failed, well) = (Load::new(None, Duration::ZERO, start), load(start, 1.0));
        failed.failed(start);
        let later = start + ms(1.0);
        assert_near(failed.relative_cost(&well, later).into(), 1.0, "a millisecond later");
    }
}
