//! From a change in a registry to what callers do of it, beside what the registry's own client hears of
//! the same change: a node's coming to the first call that it answers, its end to the last call that
//! goes to it. The nodes are in processes of their own, but for `memory://`, which is within one.
//!
//! All of it is in a network namespace, where there are addresses that pods may have.

use std::{env, error::Error, process::ExitCode, time::Duration};

use futures_util::future::try_join_all;
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
    namespace::{self, Network},
    nats::Nats,
    zookeeper::ZooKeeper,
};

/// The p99 is the fourth worst.
const ROUNDS: usize = 300;

/// Of those that go by a clock, where how long a round takes is a matter of when it comes.
const SLOW_ROUNDS: usize = 60;

/// In milliseconds, what is added to what the registry's own client takes and to one connect.
const ADDED: f64 = 5.0;

/// Of how often something is looked at: two who look equally often look at different moments, and we
/// use an answer of DNS's for up to a tenth of its TTL longer, so that not all ask at once.
const APART: f64 = 0.2;

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Of that many hundredths of the times none is longer.
fn percentile(times: &[f64], percent: usize) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    times[(times.len() * percent).div_ceil(100).max(1) - 1]
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    if let Some(ended) = namespace::again(Network::Pods) {
        return Ok(ended);
    }
    measure()
}

#[tokio::main]
async fn measure() -> Result<ExitCode, Box<dyn Error>> {
    if let [_, word, url] = &env::args().collect::<Vec<_>>()[..]
        && word == "host"
    {
        host::run(url).await?;
        return Ok(ExitCode::SUCCESS);
    }
    // The first is the process's first of all.
    let connects: Vec<_> = connects(ROUNDS + 1).await?.into_iter().skip(1).map(ms).collect();
    let connect = percentile(&connects, 99);
    let servers = [
        Server::Memory,
        Server::Etcd(Etcd::start().await),
        Server::Consul(Consul::start().await),
        Server::kubernetes().await,
        Server::slices().await,
        Server::ZooKeeper(ZooKeeper::start().await),
        Server::Nats(Nats::start().await),
    ];
    let mut benches = Vec::new();
    for server in servers {
        benches.push(Routed::start(server).await?);
    }
    for number in 0..ROUNDS {
        for bench in &mut benches {
            bench.round(number).await?;
        }
    }
    let slow = [
        // A node asks for half a second whether its name is free.
        (Server::Mdns, ROUNDS),
        (Server::Dns(Dns::start().await, Default::default()), SLOW_ROUNDS),
        (Server::file(), SLOW_ROUNDS),
        // rnacos takes from half a second to a second to tell.
        #[cfg(feature = "nacos")]
        (Server::Nacos(tests::nacos::Nacos::start().await), SLOW_ROUNDS),
    ];
    let mut slow_benches = Vec::new();
    for (server, rounds) in slow {
        slow_benches.push((Routed::start(server).await?, rounds));
    }
    // They wait more than they work, and so go side by side.
    let side_by_side = slow_benches.into_iter().map(|(mut bench, rounds)| async move {
        for number in 0..rounds {
            bench.round(number).await?;
        }
        Ok::<_, Box<dyn Error>>(bench)
    });
    benches.extend(try_join_all(side_by_side).await?);
    println!("one connect: {connect:.2} ms at p99");
    let mut rows = Vec::new();
    for bench in &benches {
        let (name, times) = (bench.name(), bench.times());
        let apart = bench.looked_at_every().map_or(0.0, |every| APART * ms(every));
        for (own, ours, own_times, our_times) in [
            (
                "written to its own client told",
                "written to first call",
                &times.own_came,
                &times.first,
            ),
            (
                "removed to its own client told",
                "removed to last call",
                &times.own_went,
                &times.last,
            ),
        ] {
            for percent in [50, 99] {
                let row = |what, times: &[f64], budget: Option<f64>| {
                    let spread = Spread::of(times.iter().copied());
                    let spread = Spread { median: percentile(times, percent), ..spread };
                    let row = format!("{name}, {what}, p{percent}, ms");
                    match budget {
                        Some(budget) => Row::new(row, spread, budget, Better::Lower),
                        None => Row::told(row, spread),
                    }
                };
                let budget = percentile(own_times, percent) + apart + connect + ADDED;
                rows.push(row(own, own_times, None));
                // By chance, of those who look, the median is anywhere.
                let is_promised = percent == 99 || apart == 0.0;
                rows.push(row(ours, our_times, is_promised.then_some(budget)));
            }
        }
    }
    println!("static: not among them: its list does not change");
    Ok(report("registry", &rows))
}
