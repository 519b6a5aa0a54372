//! Nodes, calls and the time, in events.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    fmt,
    time::Duration,
};

use fastrand::Rng;

use super::scenarios::{Host, Scenario};

/// A client's policy: picks a node by its number, and hears how the call went.
pub(super) trait Chooser {
    /// Nodes come, in the order of their numbers.
    fn add(&mut self, host: usize, zone: &'static str, now: Duration);
    fn pick(&mut self, key: u64, now: Duration, rng: &mut Rng) -> usize;
    fn done(&mut self, host: usize, started: Duration, is_failed: bool, now: Duration);
}

/// The calls of each client have its number modulo this.
const CLIENTS: usize = 4;
const WORKERS: usize = 4;
const DEADLINE: Duration = Duration::from_secs(1);
const SERVICE_TIME: Duration = Duration::from_millis(10);
/// What passes before a node says that it fails.
const FAILS_AFTER: Duration = Duration::from_millis(1);
/// How many keys the calls have.
const KEYS: u64 = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Call,
    Comes(usize),
    Received(usize),
    Served(usize),
    Answered(usize),
    Expired(usize),
}

#[derive(Debug, Clone, Copy)]
struct Call {
    client: usize,
    host: usize,
    started: Duration,
    is_over: bool,
}

#[derive(Debug, Default)]
struct Load {
    busy: usize,
    queue: VecDeque<usize>,
}

struct World<'a> {
    scenario: &'a Scenario,
    now: Duration,
    rng: Rng,
    clients: Vec<Box<dyn Chooser>>,
    hosts: Vec<Load>,
    calls: Vec<Call>,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    sequence: u64,
    report: Report,
}

/// What came of it, warming up aside.
#[derive(Debug, Clone, Default)]
pub(super) struct Report {
    latencies: Vec<Duration>,
    failed: usize,
    shares: Vec<usize>,
}

/// Runs a scenario with a policy.
pub(super) fn run(scenario: &Scenario, new: fn() -> Box<dyn Chooser>) -> Report {
    // What ours begin with at random.
    fastrand::seed(1);
    let mut world = World {
        scenario,
        now: Duration::ZERO,
        rng: Rng::with_seed(42),
        clients: (0..CLIENTS).map(|_| new()).collect(),
        hosts: scenario.hosts.iter().map(|_| Load::default()).collect(),
        calls: Vec::new(),
        events: BinaryHeap::new(),
        sequence: 0,
        report: Report { shares: vec![0; scenario.hosts.len()], ..Report::default() },
    };
    for (number, host) in scenario.hosts.iter().enumerate() {
        world.at(host.comes, Event::Comes(number));
    }
    world.at(Duration::ZERO, Event::Call);
    while let Some(Reverse((now, _, event))) = world.events.pop() {
        world.now = now;
        world.handle(event);
    }
    world.report.latencies.sort_unstable();
    world.report
}

impl World<'_> {
    fn at(&mut self, at: Duration, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at, self.sequence, event)));
    }

    /// From an exponential distribution.
    fn random(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(-(1.0 - self.rng.f64()).ln())
    }

    fn host(&self, call: usize) -> &Host {
        &self.scenario.hosts[self.calls[call].host]
    }

    fn is_counted(&self, call: usize) -> bool {
        self.calls[call].started >= self.scenario.warm_up
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Comes(host) => {
                for client in &mut self.clients {
                    client.add(host, self.scenario.hosts[host].zone, self.now);
                }
            }
            Event::Call => self.call(),
            Event::Received(call) if self.host(call).fails => {
                self.at(self.now + FAILS_AFTER, Event::Answered(call));
            }
            Event::Received(call) => {
                let host = self.calls[call].host;
                self.hosts[host].queue.push_back(call);
                self.serve(host);
            }
            Event::Served(call) => {
                let host = self.calls[call].host;
                self.hosts[host].busy -= 1;
                let back = self.now + self.host(call).distance / 2;
                self.at(back, Event::Answered(call));
                self.serve(host);
            }
            Event::Answered(call) => self.end(call, self.host(call).fails),
            Event::Expired(call) => self.end(call, true),
        }
    }

    fn call(&mut self) {
        let between = self.random(Duration::from_secs(1).div_f64(self.scenario.calls_a_second));
        let next = self.now + between;
        if next < self.scenario.warm_up + self.scenario.lasts {
            self.at(next, Event::Call);
        }
        let (client, key) = (self.rng.usize(..CLIENTS), self.rng.u64(..KEYS));
        let host = self.clients[client].pick(key, self.now, &mut self.rng);
        let call = self.calls.len();
        self.calls.push(Call { client, host, started: self.now, is_over: false });
        if self.is_counted(call) {
            self.report.shares[host] += 1;
        }
        let arrives = self.now + self.host(call).distance / 2;
        self.at(arrives, Event::Received(call));
        self.at(self.now + DEADLINE, Event::Expired(call));
    }

    fn serve(&mut self, host: usize) {
        while self.hosts[host].busy < WORKERS
            && let Some(call) = self.hosts[host].queue.pop_front()
        {
            // It was reset meanwhile.
            if self.calls[call].is_over {
                continue;
            }
            self.hosts[host].busy += 1;
            let mean = SERVICE_TIME.mul_f64(self.scenario.hosts[host].slowness(self.now));
            let takes = mean / 2 + self.random(mean / 2);
            self.at(self.now + takes, Event::Served(call));
        }
    }

    fn end(&mut self, number: usize, is_failed: bool) {
        let call = self.calls[number];
        if std::mem::replace(&mut self.calls[number].is_over, true) {
            return;
        }
        self.clients[call.client].done(call.host, call.started, is_failed, self.now);
        if self.is_counted(number) {
            let latency = self.now - call.started;
            self.report.failed += usize::from(is_failed);
            if !is_failed || latency >= DEADLINE {
                self.report.latencies.push(latency);
            }
        }
    }
}

impl Report {
    pub(super) const HEAD: &str = " p50 ms   p99 ms   failed   % of the calls, by node";

    fn calls(&self) -> usize {
        self.shares.iter().sum()
    }

    /// In milliseconds.
    pub(super) fn percentile(&self, percent: usize) -> f64 {
        let at = self.latencies.len() * percent / 100;
        self.latencies.get(at).map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
    }

    /// The part of the calls that failed.
    pub(super) fn failed(&self) -> f64 {
        self.failed as f64 / self.calls() as f64
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (p50, p99, failed) = (self.percentile(50), self.percentile(99), self.failed() * 100.0);
        write!(f, "{p50:>7.1}  {p99:>7.1}  {failed:>6.2}% ")?;
        for calls in &self.shares {
            write!(f, "{:>6.1}", *calls as f64 * 100.0 / self.calls() as f64)?;
        }
        Ok(())
    }
}
