//! What a unary call costs its client: CPU time a call, micro beside tonic and `h2`.
//!
//! Three nodes in a process apart, 64 bytes each way. Each round gives every contestant a burst, the
//! first one a different one each time, and the ratios are taken within the round: what else the
//! machine does then falls on all of them.

use std::{
    collections::BTreeMap,
    pin::Pin,
    process::{Command, ExitCode},
};

use clap::Parser;
use tests::{
    bench::{
        contestants::{BareH2, Contestant, Micro, Tonic},
        measure::{Sample, Spread, burst},
        nodes::Nodes,
        table::{Better, Row, report},
    },
    programs::program,
};

#[derive(Parser)]
struct Args {
    /// How many rounds for each number of workers and callers.
    #[arg(long, default_value_t = 11)]
    rounds: usize,
}

/// Callers at once, and the calls of a burst: about a third of a second of them.
const LOADS: [(u32, u32); 3] = [(1, 4_000), (16, 12_000), (128, 20_000)];

/// The contestants beside micro, with the budgets of micro's CPU time as a multiple of theirs: for
/// each load, with one worker and with two.
const OTHERS: [(&str, [[f64; 3]; 2]); 3] = [
    ("tonic balanced", [[0.70, 0.75, 0.80], [0.60, 0.60, 0.60]]),
    ("tonic raw", [[0.75, 0.85, 0.95], [0.75, 0.85, 0.95]]),
    ("bare h2", [[1.15, 1.15, 1.15], [1.20, 1.20, 1.20]]),
];

type Burst = Box<dyn Fn(u32, u32) -> Pin<Box<dyn Future<Output = Sample>>>>;

fn contestant(contestant: impl Contestant) -> Burst {
    Box::new(move |callers, calls| {
        let contestant = contestant.clone();
        Box::pin(async move { burst(&contestant, callers, calls).await })
    })
}

fn main() -> ExitCode {
    let args = Args::parse();
    let nodes = Nodes::start();
    let mut rows = Vec::new();
    for (index, workers) in [1, 2].into_iter().enumerate() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers)
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let bursts = [
                contestant(Micro::new(&nodes.addresses)),
                contestant(Tonic::balanced(&nodes.addresses)),
                contestant(Tonic::raw(&nodes.addresses[0])),
                contestant(BareH2::connect(&nodes.addresses).await),
            ];
            for (load, (callers, calls)) in LOADS.into_iter().enumerate() {
                let rounds = measure(&bursts, args.rounds, callers, calls).await;
                let of = |who: usize, what: fn(Sample) -> f64| {
                    Spread::of(rounds.iter().map(|round| what(round[who]))).median
                };
                let setting = format!(
                    "{workers} {}, C = {callers}",
                    if workers == 1 { "worker" } else { "workers" }
                );
                println!("{setting}");
                let names = ["micro", OTHERS[0].0, OTHERS[1].0, OTHERS[2].0];
                for (who, name) in names.into_iter().enumerate() {
                    let (cpu, rate) = (of(who, microseconds), of(who, |sample| sample.rate));
                    println!("  {name:14}  {cpu:7.1} us of CPU a call  {rate:8.0} calls/s");
                }
                for (other, (name, budgets)) in OTHERS.into_iter().enumerate() {
                    let ratio = |round: &[Sample; 4]| {
                        microseconds(round[0]) / microseconds(round[other + 1])
                    };
                    let name = format!("CPU a call, {setting}, to {name}");
                    let spread = Spread::of(rounds.iter().map(ratio));
                    rows.push(Row::new(name, spread, budgets[index][load], Better::Lower));
                }
                if workers == 2 && callers > 1 {
                    let ratio = |round: &[Sample; 4]| round[0].rate / round[1].rate;
                    let name = format!("calls/s, {setting}, to {}", OTHERS[0].0);
                    let spread = Spread::of(rounds.iter().map(ratio));
                    rows.push(Row::new(name, spread, 1.4, Better::Higher));
                }
            }
        });
    }
    drop(nodes);
    rows.push(allocations());
    report("call", &rows)
}

fn microseconds(sample: Sample) -> f64 {
    sample.cpu.as_secs_f64() * 1e6
}

async fn measure(bursts: &[Burst; 4], rounds: usize, callers: u32, calls: u32) -> Vec<[Sample; 4]> {
    for burst in bursts {
        burst(callers, calls / 4).await; // connects, and warms up
    }
    let mut all = Vec::new();
    for round in 0..rounds {
        let mut samples = [None; 4];
        for turn in 0..bursts.len() {
            let who = (round + turn) % bursts.len();
            samples[who] = Some(bursts[who](callers, calls).await);
        }
        all.push(samples.map(|sample| sample.expect("each had its turn")));
    }
    all
}

/// Counted in a program of its own: counting costs time.
fn allocations() -> Row {
    let output = Command::new(program("bench-allocations")).output().expect("it can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let counts: BTreeMap<String, f64> =
        serde_json::from_slice(&output.stdout).expect("a count for each contestant");
    println!("allocations a call");
    for (name, count) in &counts {
        println!("  {name:17}  {count:7.1}");
    }
    let count = counts["micro"];
    let spread = Spread { median: count, low: count, high: count };
    Row::new("allocations a call", spread, 14.0, Better::Lower)
}
