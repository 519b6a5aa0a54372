//! From a change in a registry to what callers do of it, beside what the registry's own client hears of
//! the same change: a node's coming to the first call that it answers, its end to the last call that
//! goes to it. The nodes are in processes of their own, but for `memory://`, which is within one.

use std::{env, error::Error, time::Duration};

use tests::{
    bench::{
        measure::Spread,
        registry::{
            host,
            routed::{Routed, connects},
            server::Server,
        },
        table::{Better, Row, report},
    },
    consul::Consul,
    dns::Dns,
    etcd::Etcd,
    nats::Nats,
    zookeeper::ZooKeeper,
};

const ROUNDS: usize = 60;

/// Of those that take a second each, for want of a watch.
const SLOW_ROUNDS: usize = ROUNDS / 3;

/// In milliseconds: of mDNS as it is, of the others what is added to one connect.
const MDNS_BUDGET: f64 = 50.0;
const ADDED: f64 = 5.0;

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Of that many hundredths of the times none is longer, in milliseconds.
fn percentile(times: &[Duration], percent: usize) -> f64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    ms(times[(times.len() * percent).div_ceil(100).max(1) - 1])
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    if let [_, word, url] = &env::args().collect::<Vec<_>>()[..]
        && word == "host"
    {
        return host::run(url).await;
    }
    let connect = percentile(&connects(ROUNDS).await?, 99);
    let servers = [
        Server::Mdns,
        Server::Memory,
        Server::Etcd(Etcd::start().await),
        Server::Consul(Consul::start().await),
        Server::kubernetes().await,
        Server::ZooKeeper(ZooKeeper::start().await),
        Server::Nats(Nats::start().await),
        Server::Dns(Dns::start().await, Default::default()),
        Server::file(),
    ];
    let mut benches = Vec::new();
    for server in servers {
        benches.push(Routed::start(server).await?);
    }
    for number in 0..ROUNDS {
        for bench in &mut benches {
            if bench.within().is_none() || number < SLOW_ROUNDS {
                bench.round(number).await?;
            }
        }
    }
    println!("one connect: {connect:.2} ms at p99");
    let mut rows = Vec::new();
    for bench in &benches {
        let (name, times) = (bench.name(), bench.times());
        let within = bench.within().map_or(0.0, ms);
        let budget = if name == "mdns" { MDNS_BUDGET } else { within + connect + ADDED };
        let (told, gone) = match bench.within() {
            None => ("told to first call", "gone to last call"),
            Some(_) => ("written to first call", "removed to last call"),
        };
        let own = "written to its own client told";
        for (what, times, budget) in [
            (own, &times.own, None),
            (told, &times.first, Some(budget)),
            (gone, &times.last, Some(budget)),
        ] {
            if what == own && bench.within().is_some() {
                continue;
            }
            let spread = Spread::of(times.iter().map(|time| ms(*time)));
            for percent in [50, 99] {
                let spread = Spread { median: percentile(times, percent), ..spread };
                let row = format!("{name}, {what}, p{percent}, ms");
                rows.push(match budget {
                    Some(budget) => Row::new(row, spread, budget, Better::Lower),
                    None => Row::told(row, spread),
                });
            }
        }
    }
    report("registry", &rows);
    Ok(())
}
