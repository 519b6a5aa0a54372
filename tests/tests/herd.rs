//! A thousand registrations after their registry was away, on a simulated clock: how many come back
//! at a time, beside what go-micro's and go-zero's rules make of the same outage. `tests/run bench
//! herd` shows the table.

use std::{collections::BTreeMap, fmt, sync::Arc, sync::Mutex, time::Duration};

use micro::{
    Error, ErrorKind,
    registration::{Options, Registration},
    registry::{BoxFuture, Lease, Listing, Node, Registry, RenewError, Watch},
};
use tests::bench::{
    measure::Spread,
    table::{Better, Row, report},
};
use tokio::time::{Instant, sleep, sleep_until};

const NODES: usize = 1_000;

/// When the registry fails, and for how long if it goes away, in ms: all have been registered by then.
const FAILS_AT: u64 = 62_000;
const AWAY: u64 = 60_000;

/// How often the simulation is made with other chances.
const SEEDS: u64 = 3;

/// In any 100 ms no more than this share of the nodes come back from an outage. Drawn from nothing to
/// TTL/5 = 3 s, two waits meet the registry's return in the first 100 ms with a chance of 0.1 / 1.5.
const PEAK: f64 = 0.10;

/// TTL/3 + 1 s: by then all are back.
const ALL_BACK: f64 = 6.0;

/// What happens to the registry, to all nodes at the same moment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Every connection is lost; every lease has expired when it returns.
    Away,
    /// Every lease is gone, and it answers all the while.
    Expired,
}

impl Fault {
    /// From when on a node can be back.
    fn over(self) -> u64 {
        if self == Self::Expired { FAILS_AT } else { FAILS_AT + AWAY }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Away => "connections lost for 60 s",
            Self::Expired => "leases expired",
        })
    }
}

// ===== ours =====

/// A registry with that fault, which notes when each node is back.
#[derive(Debug)]
struct Faulty {
    start: Instant,
    /// When it does not answer: then, or at that moment, leases go.
    away: std::ops::Range<u64>,
    back: Mutex<BTreeMap<String, u64>>,
}

impl Faulty {
    fn new(fault: Fault) -> Self {
        Self { start: Instant::now(), away: FAILS_AT..fault.over(), back: Mutex::default() }
    }

    /// One exchange over the network.
    async fn exchange(&self) -> Result<u64, Error> {
        sleep(Duration::from_millis(1)).await;
        let now = self.start.elapsed().as_millis() as u64;
        match self.away.contains(&now) {
            true => Err(Error::new(ErrorKind::Registry, "connection refused")),
            false => Ok(now),
        }
    }

    fn note(&self, node: &Node, now: u64) {
        if now >= self.away.end {
            self.back.lock().unwrap().entry(node.id.clone()).or_insert(now);
        }
    }
}

impl Registry for Faulty {
    fn name(&self) -> &str {
        "faulty://"
    }

    fn spread(&self) -> Duration {
        Duration::ZERO
    }

    fn min_ttl(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn register<'a>(&'a self, node: &'a Node, _: Duration) -> BoxFuture<'a, Result<Lease, Error>> {
        Box::pin(async move {
            let now = self.exchange().await?;
            self.note(node, now);
            Ok(Lease(now.cast_signed()))
        })
    }

    fn renew<'a>(&'a self, node: &'a Node, lease: Lease) -> BoxFuture<'a, Result<(), RenewError>> {
        Box::pin(async move {
            let now = self.exchange().await.map_err(RenewError::Failed)?;
            if now >= self.away.end && lease.0 < self.away.start.cast_signed() {
                return Err(RenewError::Lost("the lease has expired".to_owned()));
            }
            self.note(node, now);
            Ok(())
        })
    }

    fn deregister<'a>(&'a self, _: &'a Node, _: Lease) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async { self.exchange().await.map(drop) })
    }

    fn read<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Listing, Error>> {
        unreachable!("a registration reads no lists")
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<String>, Error>> {
        unreachable!("a registration reads no lists")
    }

    fn watch(&self, _: &str, _: u64) -> Watch {
        unreachable!("a registration watches nothing")
    }
}

/// Our own registrations, each started at its time, to the last one's return.
async fn ours(fault: Fault, starts: &[u64]) -> Vec<u64> {
    let registry = Arc::new(Faulty::new(fault));
    let mut registrations = Vec::new();
    let mut starts = starts.to_vec();
    starts.sort_unstable();
    for (index, at) in starts.into_iter().enumerate() {
        sleep_until(registry.start + Duration::from_millis(at)).await;
        let node = Node::new("herd", format!("n{index}"), "127.0.0.1:1");
        registrations.push(Registration::start(registry.clone(), node, Options::default()));
    }
    sleep_until(registry.start + Duration::from_millis(fault.over() + 20_000)).await;
    let back = registry.back.lock().unwrap();
    assert_eq!(back.len(), NODES, "all nodes are back within 20 s");
    back.values().copied().collect()
}

// ===== the peers =====

/// When a stream of keep-alives of etcd's client for Go ends (`client/v3/lease.go`). It asks at every
/// third of the TTL, and ends when an answer says that the lease is gone, or when the last answer is
/// older than the TTL, which is looked at every second: before an outage of 60 s is over.
fn keep_alive_ends(fault: Fault, started: u64, ttl: u64) -> u64 {
    let every = ttl / 3;
    let asked = started + (FAILS_AT - started) / every * every;
    match fault {
        Fault::Expired => asked + every,
        Fault::Away => started + (asked + ttl - started).div_ceil(1_000) * 1_000,
    }
}

/// go-micro v5.30 with etcd: a keep-alive with a TTL of 60 s, and a look at every tick of 30 s, counted
/// from its start, whether the lease must be made anew (`registry/etcd`, `cmd/cmd.go`); a tick tries
/// three times, 0.1 and 0.66 s apart (`server/grpc`, `internal/util/backoff`). With its other
/// registries the tick alone counts, and every tick writes.
fn go_micro(fault: Fault, started: u64) -> u64 {
    const INTERVAL: u64 = 30_000;
    const TRIES: [u64; 3] = [0, 100, 758];
    let ended = keep_alive_ends(fault, started, 60_000);
    let ticks = (1..).map(|tick| started + tick * INTERVAL);
    let mut tries = ticks.flat_map(|tick| TRIES.map(|wait| tick + wait));
    tries.find(|at| *at >= ended.max(fault.over())).expect("it ticks for ever")
}

/// go-zero: a keep-alive with a TTL of 10 s (`TimeToLive`); when its stream ends, a ticker of 1 s at
/// each of whose ticks lease and key are written anew, for ever (`core/discov/publisher.go`).
fn go_zero(fault: Fault, started: u64) -> u64 {
    const TICK: u64 = 1_000;
    let ended = keep_alive_ends(fault, started, 10_000);
    let over = fault.over();
    (1..).map(|tick| ended + tick * TICK).find(|at| *at >= over).expect("it ticks for ever")
}

// ===== the comparison =====

/// What came of it, of one simulation.
struct Return {
    /// The most that came back in any 100 ms, and in any second.
    peak: [usize; 2],
    /// From the registry's return to the last one's, in seconds.
    last: f64,
}

impl Return {
    fn of(fault: Fault, mut back: Vec<u64>) -> Self {
        back.sort_unstable();
        let peak = [100, 1_000].map(|window| {
            let within = |from: usize| back.partition_point(|at| *at < back[from] + window) - from;
            (0..back.len()).map(within).max().unwrap_or_default()
        });
        let last = back.last().expect("there are nodes") - fault.over();
        Self { peak, last: last as f64 / 1e3 }
    }
}

/// When the nodes start: within so many ms.
fn starts(rng: &mut fastrand::Rng, within: u64) -> Vec<u64> {
    (0..NODES).map(|_| rng.u64(0..within)).collect()
}

fn simulate(within: u64, fault: Fault, whose: &str) -> Vec<Return> {
    let simulation = |seed| {
        let mut rng = fastrand::Rng::with_seed(seed);
        let starts = starts(&mut rng, within);
        let back = match whose {
            "go-micro" => starts.iter().map(|started| go_micro(fault, *started)).collect(),
            "go-zero" => starts.iter().map(|started| go_zero(fault, *started)).collect(),
            _ => {
                // What micro draws on this thread comes from here.
                fastrand::seed(seed);
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_time()
                    .start_paused(true)
                    .build();
                runtime.expect("a runtime").block_on(ours(fault, &starts))
            }
        };
        Return::of(fault, back)
    };
    (1..=SEEDS).map(simulation).collect()
}

#[test]
fn a_thousand_nodes_come_back_from_an_outage_spread_in_time() {
    let mut rows = Vec::new();
    let mut broken = Vec::new();
    for (within, started) in [(60_000, "started in 60 s"), (1_000, "started in 1 s")] {
        for fault in [Fault::Away, Fault::Expired] {
            for whose in ["micro", "go-micro", "go-zero"] {
                let returns = simulate(within, fault, whose);
                let spread = |of: fn(&Return) -> f64| Spread::of(returns.iter().map(of));
                let peak = spread(|it| it.peak[0] as f64);
                let second = spread(|it| it.peak[1] as f64);
                let last = spread(|it| it.last);
                let row = |what| format!("{fault}, {started}: {whose}, {what}");
                let (in_100_ms, all_back) = (row("most in 100 ms"), row("last back after, s"));
                let most = PEAK * NODES as f64;
                let is_promised = whose == "micro";
                rows.push(match is_promised {
                    true => Row::new(in_100_ms, peak, most, Better::Lower),
                    false => Row::told(in_100_ms, peak),
                });
                rows.push(Row::told(row("most in 1 s"), second));
                rows.push(match whose {
                    "micro" => Row::new(all_back, last, ALL_BACK, Better::Lower),
                    _ => Row::told(all_back, last),
                });
                if is_promised && peak.high > most || whose == "micro" && last.high > ALL_BACK {
                    broken.push(format!("{fault}, {started}: {peak:?}, {last:?}"));
                }
            }
        }
    }
    // Every seed is to hold, and not their median alone.
    let _ = report("herd", &rows);
    assert!(broken.is_empty(), "no herd, and all back within TTL/3 + 1 s: {broken:#?}");
}
