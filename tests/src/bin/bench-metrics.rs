//! What metrics cost a unary call's client: CPU time a call with OpenTelemetry's SDK installed, beside
//! the same client with nothing installed.

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use opentelemetry::{global, metrics::noop::NoopMeterProvider};
use opentelemetry_sdk::metrics::{InMemoryMetricExporter, SdkMeterProvider};
use tests::bench::{
    contestants::{Contestant as _, Micro},
    measure::{Sample, Spread, burst},
    nodes::Nodes,
    table::{Better, Row, report},
};
use tokio::time::sleep;

#[derive(Parser)]
struct Args {
    /// How many rounds for each number of workers and callers.
    #[arg(long, default_value_t = 11)]
    rounds: usize,
}

/// Callers at once, and the calls of a burst.
const LOADS: [(u32, u32); 3] = [(1, 4_000), (16, 12_000), (128, 20_000)];

/// With metrics, as a multiple of without.
const BUDGET: f64 = 1.05;

fn main() -> ExitCode {
    let args = Args::parse();
    let nodes = Nodes::start();
    let exporter = InMemoryMetricExporter::default();
    let provider = SdkMeterProvider::builder().with_periodic_exporter(exporter.clone()).build();
    let mut rows = Vec::new();
    for workers in [1, 2] {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers)
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let micro = Micro::new(&nodes.addresses);
            for (callers, calls) in LOADS {
                let mut ratios = Vec::new();
                let mut sums = [0.0; 2];
                for round in 0..args.rounds {
                    // In turn the first, since what else the machine does may grow or shrink.
                    let mut cpu = [0.0; 2];
                    for turn in [round % 2, (round + 1) % 2] {
                        let with_metrics = turn == 1;
                        let sample =
                            measure(&micro, with_metrics.then_some(&provider), callers, calls);
                        cpu[turn] = sample.await.cpu.as_secs_f64() * 1e6;
                        sums[turn] += cpu[turn];
                    }
                    ratios.push(cpu[1] / cpu[0]);
                }
                let s = if workers == 1 { "" } else { "s" };
                let name = format!("{workers} worker{s}, C = {callers}");
                let [without, with] = sums.map(|sum| sum / args.rounds as f64);
                println!("{name}: {without:.2} us of CPU a call without, {with:.2} us with");
                let spread = Spread::of(ratios);
                rows.push(Row::new(format!("CPU a call, {name}"), spread, BUDGET, Better::Lower));
            }
        });
    }
    provider.force_flush().expect("it is there");
    let told = exporter.get_finished_metrics().expect("metrics");
    let mut names = told.iter().flat_map(|it| it.scope_metrics()).flat_map(|it| it.metrics());
    assert!(names.any(|it| it.name() == "grpc.client.call.duration"), "the calls were told");
    report("metrics", &rows)
}

async fn measure(
    micro: &Micro,
    provider: Option<&SdkMeterProvider>,
    callers: u32,
    calls: u32,
) -> Sample {
    match provider {
        Some(provider) => global::set_meter_provider(provider.clone()),
        None => global::set_meter_provider(NoopMeterProvider::new()),
    }
    // Calls look once a second which one it is.
    sleep(Duration::from_millis(1100)).await;
    micro.clone().call().await;
    burst(micro, callers, calls / 10).await;
    burst(micro, callers, calls).await
}
