//! The client of the soak: 16 callers call the nodes of a registry, `soak-client URL`, a quarter of them
//! with hedged reads, and each call is a line when it has ended, as is each stream that is read beside
//! them. For each line that it is told, it says how many tasks its runtime has and how many bytes its heap:
//! `# 23 1048576`. It ends with its input.

use std::{alloc::System, io, path::PathBuf, time::Duration};

use clap::Parser;
use micro::{
    ChannelOptions, Client, Code, Status,
    client::{Hedge, ServiceConfig},
};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tests::{
    certificates,
    fault::{CALLERS, Call, DEADLINE, Hedged, Ledger, Method, SERVICE, now},
    proto::ledger::{Entry, FollowerClient, LedgerClient},
    soak::{FIRST_STREAM, Stream},
};
use tokio::{runtime::Handle, task::block_in_place, time::sleep};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// After each call, so that nodes, registry and this fit two cores.
const PAUSE: Duration = Duration::from_millis(10);

/// How many streams are read at a time.
const FOLLOWERS: u64 = 4;

#[derive(Parser)]
struct Args {
    /// The registry's URL.
    url: String,
    /// Whether it asks nodes whether they are well.
    #[arg(long)]
    health_checks: bool,
    /// The folder with `ca`, `cert` and `key`; plaintext without.
    #[arg(long)]
    tls: Option<PathBuf>,
}

impl Args {
    fn options(&self) -> Result<ChannelOptions, micro::Error> {
        // More than there ever are: each call takes its place and gives it back.
        let mut options = ChannelOptions::new().max_in_flight(1_000).max_in_flight_per_node(500);
        if self.health_checks {
            let config = r#"{ "healthCheckConfig": { "serviceName": "ledger.v1.Ledger" } }"#;
            options = options.service_config(config.parse::<ServiceConfig>()?);
        }
        if let Some(folder) = &self.tls {
            options = options.tls(certificates::tls(folder));
        }
        Ok(options)
    }
}

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

/// Calls, and tells of each call.
async fn go_on(mut ledger: impl Ledger) {
    loop {
        println!("{}", Call::make(&mut ledger).await);
        sleep(PAUSE).await;
    }
}

/// Reads streams, and tells of each.
async fn follow(followers: FollowerClient, follower: u64) {
    let mut random = fastrand::Rng::with_seed(follower);
    for id in (FIRST_STREAM + follower..).step_by(FOLLOWERS as usize) {
        println!("{}", read(&followers, id, random.usize(1..200)).await);
        sleep(PAUSE).await;
    }
}

/// Reads a stream up to so many messages: most are left amid them.
async fn read(followers: &FollowerClient, id: u64, most: usize) -> Stream {
    let (began, mut node) = (now(), None);
    let broken = async {
        let call = followers.follow(Entry { id }).timeout(DEADLINE).idempotent();
        let mut receipts = call.await?.into_inner();
        for _ in 0..most {
            match receipts.message().await? {
                Some(receipt) => node = Some(receipt.node),
                None => break,
            }
        }
        Ok::<_, Status>(())
    };
    let broken = broken.await.err();
    let ended = now();
    let outcome = match (&node, broken) {
        // It would not end by itself.
        (Some(node), Some(status)) if status.code() == Code::DeadlineExceeded => Ok(node.clone()),
        (_, Some(status)) => Err((status.code(), status.message().to_owned())),
        (Some(node), None) => Ok(node.clone()),
        (None, None) => Err((Code::Unknown, "it ended without a message".to_owned())),
    };
    Stream { node, call: Call { id, method: Method::Read, began, ended, outcome } }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), micro::Error> {
    let filter = EnvFilter::from_default_env(); // RUST_LOG; errors unless set
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    let args = Args::parse();
    let client = Client::builder().registry(&args.url).for_service(SERVICE, args.options()?);
    let client = client.build()?;
    let ledger = LedgerClient::new(SERVICE, &client);
    for _ in 0..3 {
        crowd(&ledger).await;
    }
    for caller in 0..CALLERS {
        match caller % 4 {
            0 => tokio::spawn(go_on(Hedged(ledger.clone(), Hedge::at_p95()))),
            _ => tokio::spawn(go_on(ledger.clone())),
        };
    }
    for follower in 0..FOLLOWERS {
        tokio::spawn(follow(FollowerClient::new(SERVICE, &client), follower));
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
