//! From `Service::builder` to serving and registered, on the registry in memory and on etcd.

use std::{process::ExitCode, time::Duration};

use micro::{Service, registration::RegistrationState};
use tests::{
    bench::{
        measure::Spread,
        table::{Better, Row, report},
    },
    etcd::Etcd,
    proto::ledger::{Entry, LedgerHandler, Receipt, register_ledger_handler},
};
use tokio::time::Instant;

const ROUNDS: usize = 31;
/// In milliseconds.
const BUDGET: f64 = 50.0;

struct Ledger;

impl LedgerHandler for Ledger {
    async fn read(
        &self,
        _: micro::Request<Entry>,
    ) -> Result<micro::Response<Receipt>, micro::Status> {
        Ok(micro::Response::new(Receipt::default()))
    }

    async fn write(
        &self,
        _: micro::Request<Entry>,
    ) -> Result<micro::Response<Receipt>, micro::Status> {
        Ok(micro::Response::new(Receipt::default()))
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode, micro::Error> {
    let etcd = Etcd::start().await;
    let (mut memory, mut remote) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        memory.push(start("memory://").await?);
        remote.push(start(&etcd.url()).await?);
    }
    let mut rows = Vec::new();
    for (name, times) in [("memory", memory), ("etcd", remote)] {
        let ms = Spread::of(times.iter().map(|time| time.as_secs_f64() * 1e3));
        rows.push(Row::new(format!("start to registered, {name}, ms"), ms, BUDGET, Better::Lower));
    }
    Ok(report("start", &rows))
}

async fn start(registry: &str) -> Result<Duration, micro::Error> {
    let begin = Instant::now();
    let mut service = Service::builder("ledger").registry(registry).build().await?;
    register_ledger_handler(service.server(), Ledger);
    let node = service.start().await?;
    let mut state = node.registration();
    let registered = state.wait_for(|state| *state == RegistrationState::Registered).await;
    registered.expect("a node tells its state while it runs");
    let took = begin.elapsed();
    node.stop().await?;
    Ok(took)
}
