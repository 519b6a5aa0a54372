//! A client that follows 1 000 nodes of one service, and one that follows 1 000 services: how long
//! the first read takes, what memory they take, what CPU time a change, and how many connections.
//! `bench-scale consul etcd` measures those two alone.

use std::{alloc::System, env, error::Error, process::ExitCode, time::Duration};

use micro::discovery::{Discovery, Subscription, Update};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tests::{
    bench::{
        measure::{Spread, cpu},
        registry::{
            fleet::{self, Fleet, Shape},
            server::Server,
        },
        table::{Better, Row, report},
    },
    consul::{self, Consul},
    etcd::Etcd,
    nats::Nats,
    zookeeper::ZooKeeper,
};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::StreamExt as _;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const COUNT: usize = 1_000;

/// The CPU time of a change is measured so many times, over so many changes.
const BATCHES: usize = 3;
const CHANGES: usize = 40;

/// In bytes a node that is not connected.
const MEMORY: f64 = 4096.0;

/// Longer than anything takes.
const SOON: Duration = Duration::from_secs(120);

fn in_use() -> f64 {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated as f64 - stats.bytes_deallocated as f64
}

/// All that is followed.
struct Followed(Vec<Subscription>);

impl Followed {
    /// From nothing to every node known.
    async fn start(discovery: &Discovery, shape: Shape) -> Self {
        let services = if shape == Shape::Nodes { 1 } else { COUNT };
        let subscribe = |index| discovery.subscribe(&shape.service(index));
        let mut subscriptions: Vec<_> = (0..services).map(subscribe).collect();
        for subscription in &mut subscriptions {
            let mut known = 0;
            while known < COUNT / services {
                match subscription.next().await.expect("a subscription is endless") {
                    Update::Reset(nodes) => known = nodes.len(),
                    Update::Insert(_) => known += 1,
                    Update::Remove(_) | Update::Forget => {}
                }
            }
        }
        Self(subscriptions)
    }

    /// Until the first node is as that change made it.
    async fn sees(&mut self, change: usize) {
        let zone = format!("z{change}");
        loop {
            let update = self.0[0].next().await.expect("a subscription is endless");
            let nodes = match update {
                Update::Reset(nodes) => nodes,
                Update::Insert(node) => vec![node],
                Update::Remove(_) | Update::Forget => continue,
            };
            if nodes.iter().any(|node| node.metadata.get("zone") == Some(&zone)) {
                return;
            }
        }
    }
}

/// None of mDNS, which has datagrams, and of a file.
fn connections(server: &Server) -> Option<usize> {
    match server {
        Server::Mdns | Server::File(..) => None,
        Server::Etcd(server) => Some(server.connections()),
        Server::Consul(server) => Some(server.connections()),
        Server::Kubernetes(server, _) => Some(server.connections()),
        Server::ZooKeeper(server) => Some(server.connections()),
        Server::Nats(server) => Some(server.connections()),
        Server::Nacos(server) => Some(server.connections()),
        _ => unreachable!("{} has no server", server.name()),
    }
}

async fn measure(server: &Server, shape: Shape) -> Result<Vec<Row>, Box<dyn Error>> {
    let (name, what) = match shape {
        Shape::Nodes => (server.name(), "1 000 nodes"),
        Shape::Services => (server.name(), "1 000 services"),
    };
    let row = |figure: &str| format!("{name}, {what}, {figure}");
    let once = |value| Spread::of([value]);
    let late = |what| move |_| format!("{}: not within {SOON:?}", row(what));
    let mut fleet = Fleet::start(server)?;
    let begin = Instant::now();
    fleet.fill(shape, COUNT).await?;
    println!("{} in {:.1} s", row("written"), begin.elapsed().as_secs_f64());

    let url = match server {
        // Slices alone, as in a cluster.
        Server::Kubernetes(_, namespace) => namespace.url(),
        _ => server.url(),
    };
    let discovery = Discovery::open(&url)?;
    let before = in_use();
    let begin = Instant::now();
    let followed = timeout(SOON, Followed::start(&discovery, shape)).await;
    let mut followed = followed.map_err(late("all are read"))?;
    let first_read = begin.elapsed();
    // What was there for the read alone is given back, and the watches are on.
    sleep(Duration::from_secs(1)).await;
    let memory = (in_use() - before) / COUNT as f64;

    let pause = Duration::from_millis(match name {
        // Changes are told together that follow within 100 ms.
        "consul" => 120,
        // It is looked at every 500 ms.
        "file" => 600,
        _ => 20,
    });
    let mut times = Vec::new();
    // What a node tells of itself there does not change: it leaves, and another takes its id.
    let batches = if name == "mdns" { 0 } else { BATCHES };
    for batch in 0..batches {
        let (from, to) = (batch * CHANGES + 1, (batch + 1) * CHANGES + 1);
        let begin = cpu();
        let (changed, seen) = tokio::join!(
            fleet.change(shape, from..to, pause),
            timeout(SOON, followed.sees(to - 1))
        );
        changed?;
        seen.map_err(late("a change is seen"))?;
        times.push((cpu() - begin).as_secs_f64() * 1e6 / CHANGES as f64);
    }

    let open = connections(server);
    let mut rows = vec![Row::told(row("first read, ms"), once(first_read.as_secs_f64() * 1e3))];
    rows.push(match shape {
        Shape::Nodes => Row::new(row("bytes a node"), once(memory), MEMORY, Better::Lower),
        Shape::Services => Row::told(row("bytes a service"), once(memory)),
    });
    match times.is_empty() {
        true => println!("{}: not measured: a node there does not change", row("CPU of a change")),
        false => rows.push(Row::told(row("CPU of a change, us"), Spread::of(times))),
    }
    if let Some(open) = open {
        let open = once(open as f64);
        rows.push(match name {
            // A query that waits has a connection to itself in HTTP/1.1, which is what an agent speaks
            // without TLS.
            "consul" => Row::told(row("connections"), open),
            // A hundred watches on each.
            "kubernetes" if shape == Shape::Services => {
                Row::new(row("connections"), open, 10.0, Better::Lower)
            }
            _ => Row::new(row("connections"), open, 1.0, Better::Lower),
        });
    }
    Ok(rows)
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let words: Vec<_> = env::args().skip(1).collect();
    if let [word, name, at] = &words[..]
        && word == "fleet"
    {
        fleet::run(name, at).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let is_measured = |name: &str| words.is_empty() || words.iter().any(|word| word == name);
    // An agent takes 200 connections from one address, unless it is told to take more.
    let limits = consul::Options::hcl("limits { http_max_conns_per_client = 4000 }");
    let mut rows = Vec::new();
    for shape in [Shape::Nodes, Shape::Services] {
        for name in [
            "etcd",
            "consul",
            "kubernetes",
            "zookeeper",
            "nats",
            "mdns",
            "file",
            #[cfg(feature = "nacos")]
            "nacos",
        ] {
            if !is_measured(name) {
                continue;
            }
            let server = match name {
                "etcd" => Server::Etcd(Etcd::start().await),
                "consul" => Server::Consul(Consul::start_with(limits.clone()).await),
                "kubernetes" => Server::kubernetes().await,
                #[cfg(feature = "nacos")]
                "nacos" => Server::Nacos(tests::nacos::Nacos::start().await),
                "zookeeper" => Server::ZooKeeper(ZooKeeper::start().await),
                "nats" => Server::Nats(Nats::start().await),
                "file" => Server::file(),
                _ => Server::Mdns,
            };
            rows.extend(measure(&server, shape).await?);
        }
    }
    println!(
        "dns: not among them: an answer is the whole list, of 1 000 targets at most, and is read anew at \
         each TTL, changed or not"
    );
    Ok(report("scale", &rows))
}
