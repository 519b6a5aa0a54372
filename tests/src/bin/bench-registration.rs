//! What a node costs a registry's server a minute, with the default TTL of 15 s, beside go-micro's
//! rules with its own defaults: counted at the server, over 20 nodes for a minute.

use std::{error::Error, process::ExitCode, time::Duration};

use tests::{
    bench::{
        measure::Spread,
        registry::{
            cost::{Asked, Kept},
            server::Server,
        },
        table::{Better, Row, report},
    },
    consul::Consul,
    etcd::Etcd,
    nats::Nats,
    zookeeper::ZooKeeper,
};
use tokio::time::{Instant, sleep, sleep_until};

const NODES: usize = 20;

/// Windows of four renewals each: the minute in thirds.
const WINDOWS: u32 = 3;
const WINDOW: Duration = Duration::from_secs(20);

/// In a minute, with one at every third of the TTL of 15 s.
const RENEWALS: f64 = 12.0;

/// What one renewal may ask, and what a node of go-micro asks a minute.
fn rules(name: &str) -> (f64, f64) {
    match name {
        // Ours: the lease's keep-alive, and whether the record stands. go-micro v5.30
        // (`registry/etcd/etcd.go`): one stream of keep-alives a lease, an answer to which etcd's
        // client awaits every TTL/3 = 20 s; a tick with an unchanged node asks nothing, and so a
        // record that somebody has deleted stays deleted.
        "etcd" => (2.0, 3.0),
        // Ours: the agent and the catalog are asked whether the service stands, and the check is
        // passed. go-micro (`registry/consul/consul.go`): the check is passed at every interval of
        // 30 s.
        "consul" => (3.0, 2.0),
        // Ours: whether the pod has the record. go-micro's plugin (`v4/registry/kubernetes`): the
        // pod is patched at every interval.
        "kubernetes" => (1.0, 2.0),
        // Ours: whether the record stands, and a ping of the session. go-micro's plugin
        // (`v4/registry/zookeeper`) asks nothing of an unchanged node, and its client pings for a
        // session of 5 s at every third of that.
        "zookeeper" => (2.0, 36.0),
        // The node's word to all; go-micro (`registry/nats/nats.go`) at every interval.
        "nats" => (1.0, 2.0),
        // Ours: whether the record stands, and a health check of the connection. go-micro's plugin
        // leaves it to Nacos's client for Go, which checks a connection without use every 5 s
        // (`KEEP_ALIVE_TIME` in `common/constant/const.go`).
        "nacos" => (2.0, 12.0),
        _ => unreachable!("{name} has no rules here"),
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let servers = [
        Server::Etcd(Etcd::start().await),
        Server::Consul(Consul::start().await),
        Server::kubernetes().await,
        Server::ZooKeeper(ZooKeeper::start().await),
        Server::Nats(Nats::start().await),
        #[cfg(feature = "nacos")]
        Server::Nacos(tests::nacos::Nacos::start().await),
    ];
    let mut all = Vec::new();
    for server in servers {
        all.push(Kept::start(server, NODES).await?);
    }
    // What goes on at the start is no renewal's.
    sleep(Duration::from_secs(6)).await;
    let begin = Instant::now();
    let mut asked: Vec<Vec<Asked>> = Vec::new();
    for window in 0..=WINDOWS {
        sleep_until(begin + window * WINDOW).await;
        let mut now = Vec::new();
        for kept in &mut all {
            now.push(kept.asked().await);
        }
        asked.push(now);
    }
    let mut rows = Vec::new();
    for (index, kept) in all.iter().enumerate() {
        let share = 60.0 / WINDOW.as_secs_f64() / kept.count() as f64;
        let each = |of: fn(&Asked) -> f64, own: f64| -> Spread {
            let took = asked.windows(2).map(|it| of(&it[1][index]) - of(&it[0][index]) - own);
            Spread::of(took.map(|it| it * share))
        };
        let (name, requests) = (kept.name(), each(|it| it.requests, kept.own()));
        let (budget, go_micro) = rules(name);
        let row = |what| format!("{name}, {what}");
        // A renewal more may fall into a window.
        let budget = (budget * RENEWALS * 1.05).ceil();
        rows.push(Row::new(row("requests a node and minute"), requests, budget, Better::Lower));
        let Spread { median, low, high } = requests;
        let [median, low, high] = [median, low, high].map(|it| it / go_micro);
        let of_go_micro = row("of what go-micro's rule makes");
        rows.push(Row::told(of_go_micro, Spread { median, low, high }));
        let bytes = each(|it| it.bytes, 0.0);
        if bytes.high > 0.0 {
            rows.push(Row::told(row("bytes a node and minute"), bytes));
        }
    }
    println!(
        "mdns: not among them: no server is asked. A node says itself when it comes and goes, and \
         answers whoever asks"
    );
    Ok(report("registration", &rows))
}
