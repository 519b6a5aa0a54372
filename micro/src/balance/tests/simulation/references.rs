//! The rules of go-zero, Kratos and tower, as of their sources in 2026.

use std::time::Duration;

use fastrand::Rng;

use super::world::Chooser;

/// Two different places of so many.
fn two(len: usize, rng: &mut Rng) -> (usize, usize) {
    let first = rng.usize(..len);
    let second = rng.usize(..len - 1);
    (first, second + usize::from(second >= first))
}

/// What is left of 1 after a time.
fn decay(elapsed: Duration, over: Duration) -> f64 {
    (-elapsed.as_secs_f64() / over.as_secs_f64()).exp()
}

/// `zrpc/internal/balancer/p2c/p2c.go`.
#[derive(Debug, Default)]
pub(super) struct GoZero(Vec<GoZeroNode>);

#[derive(Debug)]
struct GoZeroNode {
    /// In nanoseconds.
    lag: f64,
    success: f64,
    in_flight: i64,
    last: Duration,
    picked: Duration,
}

impl GoZero {
    const DECAY: Duration = Duration::from_secs(10);
    const FORCE_PICK: Duration = Duration::from_secs(1);
    const PICK_TIMES: usize = 3;

    fn load(&self, node: usize) -> i64 {
        let GoZeroNode { lag, in_flight, .. } = self.0[node];
        (lag + 1.0).sqrt() as i64 * (in_flight + 1)
    }

    fn choose(&mut self, first: usize, second: usize, now: Duration) -> usize {
        let is_sorted = self.load(first) <= self.load(second);
        let (cheaper, dearer) = if is_sorted { (first, second) } else { (second, first) };
        let is_forced = now - self.0[dearer].picked > Self::FORCE_PICK;
        let chosen = if is_forced { dearer } else { cheaper };
        self.0[chosen].picked = now;
        chosen
    }
}

impl Chooser for GoZero {
    fn add(&mut self, _: usize, _: &'static str, now: Duration) {
        // Any change of the set makes its statistics anew.
        self.0.push(GoZeroNode {
            lag: 0.0,
            success: 1000.0,
            in_flight: 0,
            last: now,
            picked: Duration::ZERO,
        });
        for node in &mut self.0 {
            (node.lag, node.success, node.last) = (0.0, 1000.0, now);
        }
    }

    fn pick(&mut self, _: u64, now: Duration, rng: &mut Rng) -> usize {
        let mut pair = (0, 0);
        for _ in 0..Self::PICK_TIMES {
            pair = two(self.0.len(), rng);
            let is_healthy = |node: usize| self.0[node].success > 500.0;
            if is_healthy(pair.0) && is_healthy(pair.1) {
                break;
            }
        }
        let chosen = self.choose(pair.0, pair.1, now);
        self.0[chosen].in_flight += 1;
        chosen
    }

    fn done(&mut self, host: usize, started: Duration, is_failed: bool, now: Duration) {
        let node = &mut self.0[host];
        node.in_flight -= 1;
        let kept = decay(now - node.last, Self::DECAY);
        node.last = now;
        let sample = (now - started).as_nanos() as f64;
        let lag_kept = if node.lag == 0.0 { 0.0 } else { kept };
        node.lag = node.lag * lag_kept + sample * (1.0 - lag_kept);
        let success = if is_failed { 0.0 } else { 1000.0 };
        node.success = node.success * lag_kept + success * (1.0 - lag_kept);
    }
}

/// `selector/p2c/p2c.go` and `selector/node/ewma/node.go`.
#[derive(Debug, Default)]
pub(super) struct Kratos(Vec<KratosNode>);

#[derive(Debug)]
struct KratosNode {
    /// In nanoseconds.
    lag: f64,
    success: f64,
    /// When each call in flight began; Kratos keeps 200 of them at most.
    began: Vec<Duration>,
    last: Duration,
    picked: Duration,
    weight: Option<(f64, Duration)>,
}

impl Kratos {
    const TAU: Duration = Duration::from_millis(600);
    const FORCE_PICK: Duration = Duration::from_secs(3);
    const PENALTY: f64 = 100_000.0;
    const CACHED: Duration = Duration::from_millis(5);
    const ZONE_GAP: f64 = 5e6;

    fn weight(&mut self, node: usize, now: Duration) -> f64 {
        let node = &mut self.0[node];
        if let Some((weight, at)) = node.weight
            && now - at <= Self::CACHED
        {
            return weight;
        }
        let weight = node.success * 1000.0 * 10.0 / node.load(now);
        node.weight = Some((weight, now));
        weight
    }
}

impl KratosNode {
    fn load(&self, now: Duration) -> f64 {
        let in_flight = (self.began.len() + 1) as f64;
        if self.lag == 0.0 {
            return Kratos::PENALTY * in_flight;
        }
        let lag = self.lag.max(self.predicted(now)) + Kratos::ZONE_GAP;
        lag.sqrt().floor() * in_flight
    }

    /// The mean age of the calls that are older than the average, if those are most.
    fn predicted(&self, now: Duration) -> f64 {
        let ages = self.began.iter().map(|began| (now - *began).as_nanos() as f64);
        let slow: Vec<_> = ages.filter(|age| *age > self.lag).collect();
        if slow.len() > self.began.len() / 2 {
            slow.iter().sum::<f64>() / slow.len() as f64
        } else {
            0.0
        }
    }
}

impl Chooser for Kratos {
    fn add(&mut self, _: usize, _: &'static str, now: Duration) {
        self.0.push(KratosNode {
            lag: 0.0,
            success: 1000.0,
            began: Vec::new(),
            last: now,
            picked: Duration::ZERO,
            weight: None,
        });
        // Any change of the set makes its statistics anew: each is picked once as the worse.
        for node in &mut self.0 {
            (node.lag, node.success, node.last, node.weight) = (0.0, 1000.0, now, None);
            node.picked = Duration::ZERO;
        }
    }

    fn pick(&mut self, _: u64, now: Duration, rng: &mut Rng) -> usize {
        let (first, second) = two(self.0.len(), rng);
        let is_second = self.weight(second, now) > self.weight(first, now);
        let (better, worse) = if is_second { (second, first) } else { (first, second) };
        let is_forced = now - self.0[worse].picked > Self::FORCE_PICK;
        let chosen = if is_forced { worse } else { better };
        self.0[chosen].picked = now;
        self.0[chosen].began.push(now);
        chosen
    }

    fn done(&mut self, host: usize, started: Duration, is_failed: bool, now: Duration) {
        let node = &mut self.0[host];
        let place = node.began.iter().position(|began| *began == started).expect("it began");
        node.began.swap_remove(place);
        let kept = if node.lag == 0.0 { 0.0 } else { decay(now - node.last, Self::TAU) };
        node.last = now;
        let sample = (now - started).as_nanos() as f64;
        node.lag = node.lag * kept + sample * (1.0 - kept);
        let success = if is_failed { 0.0 } else { 1000.0 };
        node.success = node.success * kept + success * (1.0 - kept);
    }
}

/// `tower/src/load/peak_ewma.rs` beneath `tower/src/balance/p2c`, with linkerd's constants.
#[derive(Debug, Default)]
pub(super) struct Tower(Vec<TowerNode>);

#[derive(Debug)]
struct TowerNode {
    /// In seconds.
    estimate: f64,
    at: Duration,
    pending: u32,
}

impl Tower {
    const DEFAULT_RTT: f64 = 0.03;
    const DECAY: Duration = Duration::from_secs(10);

    fn cost(&mut self, node: usize, now: Duration) -> f64 {
        let node = &mut self.0[node];
        // Reading takes a sample of zero.
        node.update(0.0, now);
        node.estimate * f64::from(node.pending + 1)
    }
}

impl TowerNode {
    fn update(&mut self, sample: f64, now: Duration) {
        if self.estimate < sample {
            self.estimate = sample;
        } else {
            let kept = decay(now - self.at, Tower::DECAY);
            self.estimate = self.estimate * kept + sample * (1.0 - kept);
        }
        self.at = now;
    }
}

impl Chooser for Tower {
    fn add(&mut self, _: usize, _: &'static str, now: Duration) {
        self.0.push(TowerNode { estimate: Self::DEFAULT_RTT, at: now, pending: 0 });
    }

    fn pick(&mut self, _: u64, now: Duration, rng: &mut Rng) -> usize {
        let (first, second) = two(self.0.len(), rng);
        let is_first = self.cost(first, now) <= self.cost(second, now);
        let chosen = if is_first { first } else { second };
        self.0[chosen].pending += 1;
        chosen
    }

    fn done(&mut self, host: usize, started: Duration, _: bool, now: Duration) {
        let node = &mut self.0[host];
        node.pending -= 1;
        node.update((now - started).as_secs_f64(), now);
    }
}
