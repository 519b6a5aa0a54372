//! How often a unary call's client allocates: a JSON object with a count for each contestant.
//!
//! The caller's own two messages are not counted.

use std::{alloc::System, collections::BTreeMap};

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tests::bench::{
    contestants::{BareH2, Contestant, Micro, Tonic, messages_alone},
    nodes::Nodes,
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const CALLS: u32 = 2_000;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let nodes = Nodes::start();
    let counts = BTreeMap::from([
        ("micro", count(Micro::new(&nodes.addresses)).await),
        ("micro intercepted", count(Micro::intercepted(&nodes.addresses)).await),
        ("tonic balanced", count(Tonic::balanced(&nodes.addresses)).await),
        ("tonic raw", count(Tonic::raw(&nodes.addresses[0])).await),
        ("bare h2", count(BareH2::connect(&nodes.addresses).await).await),
    ]);
    println!("{}", serde_json::to_string(&counts).expect("names and numbers"));
}

/// Allocations a call; growth of what was allocated counts too.
async fn count(mut contestant: impl Contestant) -> f64 {
    for _ in 0..500 {
        contestant.call().await; // connects, and fills what is reused
    }
    let region = Region::new(ALLOCATOR);
    for _ in 0..CALLS {
        contestant.call().await;
    }
    let calls = allocated(&region);
    let region = Region::new(ALLOCATOR);
    for _ in 0..CALLS {
        messages_alone();
    }
    let count = (calls - allocated(&region)) / f64::from(CALLS);
    (count * 10.0).round() / 10.0 // a table that grew once in all these calls is no call's
}

fn allocated(region: &Region<'_, System>) -> f64 {
    let stats = region.change();
    (stats.allocations + stats.reallocations) as f64
}
