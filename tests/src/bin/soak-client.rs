//! The client of the soak: 16 callers call the nodes of a registry, `soak-client URL`, and each call is
//! a line when it has ended. For each line that it is told, it says how many tasks its runtime has and
//! how many bytes its heap: `# 23 1048576`. It ends with its input.

use std::{alloc::System, env, io, time::Duration};

use micro::Client;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tests::{
    fault::{CALLERS, Call, SERVICE},
    proto::ledger::LedgerClient,
};
use tokio::{runtime::Handle, task::block_in_place, time::sleep};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// After each call, so that nodes, registry and this fit two cores.
const PAUSE: Duration = Duration::from_millis(10);

/// Many calls at once, of which nobody is told: the allocator then holds as much as the worst of what is
/// to come needs, and takes more for what is not given back alone.
async fn crowd(ledger: &LedgerClient) {
    let calls = (0..16 * CALLERS).map(|_| {
        let mut ledger = ledger.clone();
        tokio::spawn(async move { Call::make(&mut ledger).await })
    });
    for call in calls.collect::<Vec<_>>() {
        let _ = call.await;
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), micro::Error> {
    let filter = EnvFilter::from_default_env(); // RUST_LOG; errors unless set
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    let url = env::args().nth(1).expect("the registry's URL");
    let client = Client::builder().registry(url).build()?;
    let ledger = LedgerClient::new(SERVICE, &client);
    for _ in 0..3 {
        crowd(&ledger).await;
    }
    for _ in 0..CALLERS {
        let mut ledger = ledger.clone();
        tokio::spawn(async move {
            loop {
                println!("{}", Call::make(&mut ledger).await);
                sleep(PAUSE).await;
            }
        });
    }
    let runtime = Handle::current();
    block_in_place(|| {
        for _ in io::stdin().lines().map_while(Result::ok) {
            let heap = ALLOCATOR.stats();
            let taken = heap.bytes_allocated - heap.bytes_deallocated;
            println!("# {} {taken}", runtime.metrics().num_alive_tasks());
        }
    });
    Ok(())
}
