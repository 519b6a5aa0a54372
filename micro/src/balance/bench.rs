//! What `tests/run bench pick` measures: a set and its picks, and parts of it, without connections.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::time::Instant;

use super::{
    Balancing, EndpointId, Outcome, Request,
    ewma::Load,
    snapshot::{Endpoint, Picked, Snapshot},
    subset::cost,
};
use crate::registry::Node;

/// The ready nodes of one service, as a balancer keeps and picks them.
#[derive(Debug)]
pub struct Set {
    picked: Picked<()>,
    snapshot: ArcSwap<Snapshot<()>>,
}

impl Set {
    /// So many nodes, half of them in the zone `a`, of weights from 1 to 10.
    pub fn new(balancing: &Balancing, nodes: u64) -> Self {
        let mut picked = Picked::new(balancing, false);
        let now = Instant::now();
        for number in 0..nodes {
            picked.insert(endpoint(number, now));
        }
        let snapshot = ArcSwap::from_pointee(picked.snapshot());
        Self { picked, snapshot }
    }

    /// A node for a call of this key, and the call's end.
    pub fn call(&self, key: u64) {
        let request = Request { hash: Some(key), ..Request::default() };
        let pick = super::shared::pick(&self.snapshot, None, &mut None, &request, Instant::now())
            .expect("there are nodes");
        pick.finish(Outcome::Success);
    }

    /// One of the nodes has a new record, which calls see from then on.
    pub fn update(&mut self, number: u64) {
        self.picked.insert(endpoint(number, Instant::now()));
        self.snapshot.store(Arc::new(self.picked.snapshot()));
    }
}

fn endpoint(number: u64, now: Instant) -> Arc<Endpoint<()>> {
    let mut node = Node::new("greeter", format!("node-{number}"), "host:1");
    let zone = if number.is_multiple_of(2) { "a" } else { "b" };
    node.metadata.insert("zone".to_owned(), zone.to_owned());
    node.metadata.insert("weight".to_owned(), (number % 10 + 1).to_string());
    // As one that came some time ago, and has answered.
    let now = now.checked_sub(Duration::from_secs(60)).unwrap_or(now);
    let load = Load::new(Some(Duration::from_millis(1)), Duration::from_secs(5), now);
    Endpoint::of(Arc::new(node), EndpointId(number + 1), (), load)
}

/// A client that connects to `size` of so many nodes: how many it connects to anew with each of so many
/// changes. By turns a node comes and one goes.
pub fn moves(size: usize, nodes: usize, changes: usize) -> impl Iterator<Item = usize> {
    cost::moves(size, nodes, changes).map(|(moved, _)| moved)
}

/// How many times the mean the busiest of so many nodes has of clients that connect to `size` each: by
/// their choice, and with nodes drawn at random.
pub fn busiest_over_mean(clients: usize, size: usize, nodes: usize, seed: u64) -> (f64, f64) {
    cost::busiest_over_mean(clients, size, nodes, &mut fastrand::Rng::with_seed(seed))
}
