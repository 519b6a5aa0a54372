//! Registries that never come to rest, under 16 callers: the nodes that can be called are, however much
//! else is listed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use micro::registry::{self, Lease, Node, Registry};
use tests::{
    etcd::Etcd,
    fault::{CALLS, Fleet, SERVICE, Trial, Who, flap, now},
};
use tokio::time::interval;

/// After each call of a caller: what a registry's changes cost is to leave no call waiting for a core.
const PAUSE: Duration = Duration::from_millis(20);

const NODES: usize = 10_000;

/// For longer than any test.
const TTL: Duration = Duration::from_secs(3600);

/// A registry in this process, written by one hand.
struct Hand {
    registry: Arc<dyn Registry>,
    /// Each node that is known here, with its lease while it is listed.
    nodes: Vec<(Node, Option<Lease>)>,
}

impl Hand {
    async fn listing(url: &str, nodes: Vec<Node>) -> Self {
        let registry = registry::open(url).expect("a registry's URL");
        let nodes = nodes.into_iter().map(|node| (node, None)).collect();
        let mut hand = Self { registry, nodes };
        for node in 0..hand.nodes.len() {
            hand.list(node, true).await;
        }
        hand
    }

    fn is_listed(&self, node: usize) -> bool {
        self.nodes[node].1.is_some()
    }

    async fn list(&mut self, node: usize, is_listed: bool) {
        let (node, lease) = &mut self.nodes[node];
        if is_listed {
            let registered = self.registry.register(node, TTL).await;
            *lease = Some(registered.expect("it takes a record"));
        } else if let Some(lease) = lease.take() {
            let gone = self.registry.deregister(node, lease).await;
            gone.expect("it takes a record back");
        }
    }

    async fn rewrite(&mut self, node: usize, change: usize) {
        self.nodes[node].0.metadata.insert("change".to_owned(), change.to_string());
        self.list(node, true).await;
    }
}

/// No call fails, and all nodes are called.
async fn finish(trial: Trial) {
    let ids = trial.fleet.ids();
    let audit = trial.finish(CALLS).await;
    for id in ids {
        let visits = audit.visits_between(Some(&id), Duration::ZERO, Duration::MAX);
        assert!(visits > 0, "{id} was never called");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_nodes_that_come_and_go_fail_no_call() {
    let url = "memory://churn";
    let etcd = Etcd::start().await;
    let fleet = Fleet::start(&etcd.url()).await;
    let mut nodes = fleet.records().await;
    let real = nodes.len();
    // Nobody listens there.
    nodes.extend((real..NODES).map(|n| {
        Node::new(SERVICE, format!("n-{n}"), format!("127.1.{}.{}:9", n / 250, 1 + n % 250))
    }));
    let mut hand = Hand::listing(url, nodes).await;
    let mut trial = Trial::over(fleet, url, "10 000 nodes churning", Who::Micro, PAUSE).await;

    trial.measured_from(now());
    let changes = AtomicUsize::new(0);
    let churn = async {
        let mut random = fastrand::Rng::with_seed(7);
        let mut ticks = interval(Duration::from_millis(3));
        loop {
            ticks.tick().await;
            let change = changes.fetch_add(1, Ordering::Relaxed);
            let node = random.usize(real..NODES);
            match change % 50 {
                // One of those that can be called, and back before the next goes.
                0 => hand.list(change / 50 % real, false).await,
                25 => hand.list(change / 50 % real, true).await,
                it if it % 5 == 1 => hand.rewrite(random.usize(real..NODES), change).await,
                _ => hand.list(node, !hand.is_listed(node)).await,
            }
        }
    };
    tokio::select! {
        () = churn => {}
        () = trial.until_made(CALLS) => {}
    }
    let changes = changes.into_inner();
    println!("{changes} changes");
    assert!(changes > 1000, "only {changes} changes");
    finish(trial).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_all_flap_100_times_a_second_fail_no_call() {
    let url = "memory://flapping";
    let etcd = Etcd::start().await;
    let fleet = Fleet::start(&etcd.url()).await;
    let mut hand = Hand::listing(url, fleet.records().await).await;
    let mut trial =
        Trial::over(fleet, url, "all records flap 100 times a second", Who::Micro, PAUSE).await;

    trial.measured_from(now());
    flap(async |is_there| {
        for node in 0..hand.nodes.len() {
            hand.list(node, is_there).await;
        }
    })
    .await;
    finish(trial).await;
}
