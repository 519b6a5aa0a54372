//! What the nodes are like.

use std::time::Duration;

#[derive(Debug, Clone, Copy)]
pub(super) struct Host {
    pub(super) comes: Duration,
    /// How long a call is on its way there and back.
    pub(super) distance: Duration,
    pub(super) zone: &'static str,
    /// How many times longer than others it takes.
    pub(super) slow: f64,
    /// How many times longer in its first two seconds.
    pub(super) cold: f64,
    pub(super) fails: bool,
}

impl Host {
    pub(super) fn slowness(&self, now: Duration) -> f64 {
        let is_cold = now < self.comes + Duration::from_secs(2);
        self.slow * if is_cold { self.cold } else { 1.0 }
    }
}

#[derive(Debug)]
pub(super) struct Scenario {
    pub(super) text: &'static str,
    pub(super) hosts: Vec<Host>,
    pub(super) calls_a_second: f64,
    pub(super) warm_up: Duration,
    pub(super) lasts: Duration,
}

impl Scenario {
    /// About how many calls are looked at.
    pub(super) fn calls(&self) -> f64 {
        self.calls_a_second * self.lasts.as_secs_f64()
    }
}

const WELL: Host = Host {
    comes: Duration::ZERO,
    distance: Duration::from_micros(500),
    zone: "a",
    slow: 1.0,
    cold: 1.0,
    fails: false,
};

fn five(text: &'static str, first: Host) -> Scenario {
    Scenario {
        text,
        hosts: vec![first, WELL, WELL, WELL, WELL],
        calls_a_second: 1_000.0,
        warm_up: Duration::from_secs(5),
        lasts: Duration::from_secs(15),
    }
}

pub(super) fn all() -> [Scenario; 5] {
    let far = Host { zone: "b", distance: Duration::from_millis(10), ..WELL };
    let cold = Host { comes: Duration::from_secs(20), cold: 10.0, ..WELL };
    [
        five("Five equal nodes at half of what they can do (1 000 calls/s)", WELL),
        five("The first of five ten times slower (1 000 calls/s)", Host { slow: 10.0, ..WELL }),
        five("The first of five fails within 1 ms (1 000 calls/s)", Host { fails: true, ..WELL }),
        Scenario {
            text: "The last of five has just come, ten times slower for 2 s (40 calls/s, 30 s from then)",
            hosts: vec![WELL, WELL, WELL, WELL, cold],
            calls_a_second: 40.0,
            warm_up: cold.comes,
            lasts: Duration::from_secs(30),
        },
        Scenario {
            text: "Three nodes in the own zone, five 10 ms away (800 calls/s)",
            hosts: vec![WELL, WELL, WELL, far, far, far, far, far],
            calls_a_second: 800.0,
            ..five("", WELL)
        },
    ]
}
