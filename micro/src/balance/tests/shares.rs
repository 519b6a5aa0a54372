//! How calls spread over nodes: the real costs and the real choice, on simulated nodes and time.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc, time::Duration};

use fastrand::Rng;
use tokio::time::Instant;
use tonic::Code;

use super::super::{
    Balancing, EndpointId, Outcome, Request,
    ewma::Load,
    snapshot::{Endpoint, Picked},
};
use crate::discovery::Update;

const PENALTY: Duration = Duration::from_secs(5);
const ALL: u64 = 3;

/// How a simulated node behaves.
#[derive(Debug, Clone, Copy)]
struct Behaviour {
    /// The mean latency, of which half is random.
    latency: Duration,
    /// How often a second it stalls, for 4 ms on average.
    stalls: f64,
    /// The share of calls that fail, in a fifth of the latency.
    fails: f64,
    /// Whether it lacks [`NEW`], which it says as soon as others fail.
    is_old: bool,
}

const WELL: Behaviour =
    Behaviour { latency: Duration::from_millis(1), stalls: 0.0, fails: 0.0, is_old: false };
const SHARED_MACHINE: Behaviour = Behaviour { stalls: 20.0, ..WELL };

/// A method that not all nodes have.
const NEW: &str = "/greeter.v1.Greeter/New";

struct Host {
    behaviour: Behaviour,
    next_stall: Duration,
    stalled_until: Duration,
    calls: u64,
    /// Of those, the ones of [`NEW`].
    of_new: u64,
    failed: u64,
}

struct Call {
    host: usize,
    load: Arc<Load>,
    started: Duration,
    /// What it comes to.
    outcome: Outcome,
}

/// Callers in a closed loop over nodes numbered from 0.
struct Fleet {
    start: Instant,
    now: Duration,
    rng: Rng,
    hosts: Vec<Host>,
    picked: Picked<usize>,
    /// How many of the callers call [`NEW`].
    of_new: usize,
    calls: Vec<Option<Call>>,
    ends: BinaryHeap<Reverse<(Duration, usize)>>,
}

impl Fleet {
    fn new(seed: u64, callers: usize, behaviour: Behaviour) -> Self {
        let mut fleet = Self {
            start: Instant::now(),
            now: Duration::ZERO,
            rng: Rng::with_seed(seed),
            hosts: Vec::new(),
            picked: Picked::new(&Balancing::p2c(), false),
            of_new: 0,
            calls: (0..callers).map(|_| None).collect(),
            ends: (0..callers).map(|caller| Reverse((Duration::ZERO, caller))).collect(),
        };
        for host in 0..ALL {
            fleet.hosts.push(Host {
                behaviour,
                next_stall: Duration::ZERO,
                stalled_until: Duration::ZERO,
                calls: 0,
                of_new: 0,
                failed: 0,
            });
            fleet.connect(host, host as usize);
        }
        fleet
    }

    /// What the driver does when a connection stands.
    fn connect(&mut self, id: u64, host: usize) {
        let now = self.start + self.now;
        let load = Load::new(self.picked.median_latency(now), PENALTY, now);
        self.picked.insert(Endpoint::new(EndpointId(id), host, load));
    }

    fn disconnect(&mut self, id: u64) {
        self.picked.remove(EndpointId(id));
    }

    /// Goes on for some milliseconds and returns each node's calls in them as a share of even.
    fn run(&mut self, ms: u64) -> Vec<f64> {
        let until = self.now + Duration::from_millis(ms);
        for host in &mut self.hosts {
            (host.calls, host.of_new, host.failed) = (0, 0, 0);
        }
        let snapshot = self.picked.snapshot();
        while let Some(&Reverse((now, caller))) = self.ends.peek().filter(|end| end.0.0 < until) {
            self.ends.pop();
            self.now = now;
            self.end(caller);
            let at = self.start + now;
            let method = if caller < self.of_new { NEW } else { "" };
            let request = Request { method, ..Request::default() };
            let picked = snapshot.pick(&request, at, &mut self.rng).expect("ready");
            let (host, load) = (picked.connection, picked.load.clone());
            self.begin(caller, host, load);
        }
        self.now = until;
        self.shares(|host| host.calls)
    }

    fn shares(&self, calls: impl Fn(&Host) -> u64) -> Vec<f64> {
        let even = self.hosts.iter().map(&calls).sum::<u64>() as f64 / ALL as f64;
        self.hosts.iter().map(|host| calls(host) as f64 / even).collect()
    }

    fn end(&mut self, caller: usize) {
        let Some(call) = self.calls[caller].take() else {
            return;
        };
        let (now, latency) = (self.start + self.now, self.now - call.started);
        match call.outcome {
            Outcome::Failure => {
                self.hosts[call.host].failed += 1;
                call.load.failed(now);
            }
            Outcome::Unimplemented(method) => call.load.lacks(method, now),
            _ => call.load.succeeded(latency, now),
        }
        call.load.end();
    }

    fn begin(&mut self, caller: usize, number: usize, load: Arc<Load>) {
        load.begin();
        let host = &mut self.hosts[number];
        host.calls += 1;
        host.of_new += u64::from(caller < self.of_new);
        let Behaviour { latency, stalls, fails, is_old } = host.behaviour;
        let rng = &mut self.rng;
        let mut random = |mean: Duration| mean.mul_f64(-(1.0 - rng.f64()).ln());
        while stalls > 0.0 && host.next_stall <= self.now {
            let over = host.next_stall + random(Duration::from_millis(4));
            host.stalled_until = host.stalled_until.max(over);
            host.next_stall += random(Duration::from_secs(1)).div_f64(stalls);
        }
        let mut takes = latency / 2 + random(latency / 2);
        let outcome = match self.rng.f64() < fails {
            true => Outcome::Failure,
            false if is_old && caller < self.of_new => Outcome::of_code(Code::Unimplemented, NEW),
            false => Outcome::Success,
        };
        if outcome != Outcome::Success {
            takes /= 5;
        }
        let ends = self.now.max(host.stalled_until) + takes;
        self.calls[caller] = Some(Call { host: number, load, started: self.now, outcome });
        self.ends.push(Reverse((ends, caller)));
    }
}

fn assert_even(shares: &[f64], rule: &str) {
    assert!(shares.iter().all(|share| (0.8..=1.2).contains(share)), "{rule}: {shares:?}");
}

#[test]
fn equal_nodes_share_calls_within_a_fifth_of_even() {
    for seed in 1..=3 {
        for callers in [1, 16, 128] {
            let shares = Fleet::new(seed, callers, WELL).run(1_000);
            assert_even(&shares, &format!("{callers} callers"));
        }
        let shares = Fleet::new(seed, 16, SHARED_MACHINE).run(5_000);
        assert_even(&shares, "nodes that stall");
    }
}

#[test]
fn a_slower_node_gets_less_but_is_not_starved() {
    let mut fleet = Fleet::new(4, 16, SHARED_MACHINE);
    fleet.hosts[0].behaviour.latency = Duration::from_millis(3);
    let share = fleet.run(5_000)[0];
    assert!((0.2..0.6).contains(&share), "three times slower: {share}");
}

#[test]
fn a_restarted_node_has_a_fifth_of_an_even_share_at_once_whatever_it_was_charged() {
    for (seed, id_after) in [(5, 0), (6, 9)] {
        let mut fleet = Fleet::new(seed, 16, SHARED_MACHINE);
        fleet.run(1_000);
        fleet.hosts[0].behaviour.fails = 1.0;
        let shares = fleet.run(2_000);
        assert!(shares[0] < 0.05, "it was charged: {shares:?}");
        fleet.disconnect(0);
        assert_eq!(fleet.run(2_000)[0], 0.0);

        fleet.hosts[0].behaviour = SHARED_MACHINE;
        // Cold: ten times slower in its first second.
        fleet.hosts[0].behaviour.latency = Duration::from_millis(10);
        fleet.connect(id_after, 0);
        fleet.run(1_000);
        fleet.hosts[0].behaviour = SHARED_MACHINE;
        for second in 2..=3 {
            let shares = fleet.run(1_000);
            assert!(shares[0] > 0.2, "in second {second} under id {id_after}: {shares:?}");
        }
        assert_even(&fleet.run(2_000), "then it is one of three equals");
    }
}

#[test]
fn a_new_node_is_neither_flooded_nor_left_out() {
    let mut fleet = Fleet::new(7, 16, WELL);
    fleet.disconnect(2);
    fleet.run(2_000);
    fleet.connect(2, 2);
    assert_even(&fleet.run(500), "from its first half second on");
}

#[test]
fn a_node_that_fails_fast_gets_next_to_no_calls() {
    for callers in [16, 128] {
        let mut fleet = Fleet::new(8, callers, SHARED_MACHINE);
        fleet.run(1_000);
        fleet.hosts[0].behaviour.fails = 1.0;
        fleet.run(1_000);
        let share = fleet.run(2_000)[0];
        assert!(share < 0.005, "{callers} callers: {share} of an even share");
    }
}

#[test]
fn a_node_that_failed_on_a_connection_that_stands_is_back_within_seconds() {
    for failing_ms in [2, 1_000, 20_000] {
        let mut fleet = Fleet::new(9, 16, SHARED_MACHINE);
        fleet.run(1_000);
        fleet.hosts[0].behaviour.fails = 1.0;
        fleet.run(failing_ms);
        fleet.hosts[0].behaviour = SHARED_MACHINE;
        fleet.run(2_000);
        let share = fleet.run(1_000)[0];
        assert!(share > 0.2, "in the third second after {failing_ms} ms of failures: {share}");
    }
}

#[test]
fn a_node_that_lacks_a_method_gets_next_to_none_of_its_calls_and_its_share_of_the_others() {
    let both = [Balancing::p2c(), Balancing::least_request()];
    let some = [(17, 1), (48, 3), (1, 1), (16, 16)];
    for (balancing, (callers, of_new)) in
        both.iter().flat_map(|balancing| some.map(|some| (balancing, some)))
    {
        let mut fleet = Fleet::new(16, callers, WELL);
        fleet.picked.set_balancing(balancing, &Update::Reset(Vec::new()));
        fleet.of_new = of_new;
        fleet.hosts[0].behaviour.is_old = true;
        fleet.run(6_000);
        if of_new < callers {
            let shares = fleet.shares(|host| host.calls - host.of_new);
            assert_even(&shares, &format!("{callers} callers, {of_new} of them of the new method"));
        }
        let share = fleet.shares(|host| host.of_new)[0];
        assert!(
            0.0 < share && share < 0.01,
            "{balancing:?}: {share} of those of the new one: tried now and then"
        );
    }
}

#[test]
fn failures_of_all_nodes_alike_leave_their_shares_even() {
    let mut fleet = Fleet::new(10, 16, SHARED_MACHINE);
    for host in &mut fleet.hosts {
        host.behaviour.fails = 1.0;
    }
    assert_even(&fleet.run(3_000), "while all fail");
    for host in &mut fleet.hosts {
        host.behaviour.fails = 0.0;
    }
    assert_even(&fleet.run(1_000), "when all are well again");
}

#[test]
fn the_rarer_the_failures_the_larger_the_share() {
    let share = |fails| {
        let mut fleet = Fleet::new(11, 16, WELL);
        fleet.hosts[0].behaviour.fails = fails;
        fleet.run(5_000)[0]
    };
    let shares = [0.001, 0.01, 0.1, 0.5, 1.0].map(share);
    assert!(shares.is_sorted_by(|a, b| a > b), "{shares:?}");
    assert!(shares[1] > 0.8, "one in a hundred hardly matters: {shares:?}");
}

#[test]
fn a_node_that_hung_for_a_second_and_answers_again_is_back_within_seconds() {
    let mut fleet = Fleet::new(12, 16, SHARED_MACHINE);
    fleet.run(1_000);
    fleet.hosts[0].stalled_until = fleet.now + Duration::from_millis(1_500);
    let shares = fleet.run(1_500);
    assert!(shares[0] < 0.1, "while it hangs: {shares:?}");
    fleet.run(2_000);
    let share = fleet.run(1_000)[0];
    assert!(share > 0.2, "in the third second: {share}");
}

#[test]
fn a_single_caller_finds_out_within_ten_seconds_that_a_slow_node_is_well() {
    for seed in 13..=15 {
        let mut fleet = Fleet::new(seed, 1, WELL);
        fleet.hosts[0].behaviour.latency = Duration::from_millis(10);
        let share = fleet.run(10_000)[0];
        assert!(share < 0.01, "ten times slower: {share}");
        fleet.hosts[0].behaviour = WELL;
        fleet.run(10_000);
        assert_even(&fleet.run(5_000), "then it is one of three equals");
    }
}
