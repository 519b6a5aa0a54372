//! Registries that never come to rest, done to anybody's client alike.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use micro::registry::{self, Lease, Node, Registry};
use tokio::time::{interval, sleep};

use super::{Fleet, PAUSE, SERVICE, Trial, Who, flap, now, of_node::LASTS};

/// What the records of a registry do. Callers make pauses: what its changes cost is to leave no call
/// waiting for a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordsFault {
    /// Of 10 000 nodes one comes, goes or changes 333 times a second; three of them can be called.
    Churn,
    /// All three go and come again at once, 100 times a second for 5 s.
    Flap,
}

const NODES: usize = 10_000;

/// For longer than any test.
const TTL: Duration = Duration::from_secs(3600);

impl RecordsFault {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Churn, Self::Flap];

    /// What it is called in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Churn => "10 000 nodes churning",
            Self::Flap => "all records flap 100 times a second",
        }
    }

    /// Does it in a registry of this process, whose nodes register in that one, until there were so
    /// many calls.
    ///
    /// # Panics
    /// When a node does not start, or too little happened.
    pub async fn done(self, registry: &str, who: Who, at_least: u64) -> Trial {
        let url = format!("memory://{self:?}-{who:?}");
        let fleet = Fleet::start(registry).await;
        let mut nodes = fleet.records().await;
        let real = nodes.len();
        if self == Self::Churn {
            // Nobody listens there.
            nodes.extend((real..NODES).map(|n| {
                let address = format!("127.1.{}.{}:9", n / 250, 1 + n % 250);
                Node::new(SERVICE, format!("n-{n}"), address)
            }));
        }
        let mut hand = Hand::listing(&url, nodes).await;
        let mut trial = Trial::over(fleet, &url, &who.line(self.name()), who, PAUSE).await;
        trial.measured_from(now());
        match self {
            Self::Churn => {
                let changes = AtomicUsize::new(0);
                let lasts = async {
                    sleep(LASTS).await;
                    trial.until_made(at_least).await;
                };
                tokio::select! {
                    () = hand.churn(real, &changes) => {}
                    () = lasts => {}
                }
                let changes = changes.into_inner();
                println!("{changes} changes");
                assert!(changes > 1000, "only {changes} changes");
            }
            Self::Flap => {
                flap(async |is_there| {
                    for node in 0..real {
                        hand.list(node, is_there).await;
                    }
                })
                .await;
                trial.until_made(at_least).await;
            }
        }
        trial
    }
}

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

    /// For ever; the first so many can be called.
    async fn churn(&mut self, real: usize, changes: &AtomicUsize) {
        let mut random = fastrand::Rng::with_seed(7);
        let mut ticks = interval(Duration::from_millis(3));
        loop {
            ticks.tick().await;
            let change = changes.fetch_add(1, Ordering::Relaxed);
            let node = random.usize(real..NODES);
            match change % 50 {
                // One of those that can be called, and back before the next goes.
                0 => self.list(change / 50 % real, false).await,
                25 => self.list(change / 50 % real, true).await,
                it if it % 5 == 1 => self.rewrite(random.usize(real..NODES), change).await,
                _ => self.list(node, !self.is_listed(node)).await,
            }
        }
    }
}
