//! A client with one of our policies: the real sets, costs and choices.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use tokio::time::Instant;

use super::{
    super::super::{
        Balancing, EndpointId, Request,
        ewma::Load,
        policy::Counted,
        snapshot::{Endpoint, Picked, Snapshot},
    },
    world::Chooser,
};
use crate::{discovery::Update, registry::Node};

const PENALTY: Duration = Duration::from_secs(5);

pub(super) struct Ours {
    start: Instant,
    picked: Picked<usize>,
    snapshot: Snapshot<usize>,
    loads: Vec<Arc<Load>>,
    /// Each call in flight that counts, and where it is.
    counted: Vec<(usize, Counted)>,
}

impl Ours {
    pub(super) fn boxed(balancing: &Balancing) -> Box<dyn Chooser> {
        Box::new(Self {
            start: Instant::now(),
            picked: Picked::new(balancing, false),
            snapshot: Snapshot::empty(),
            loads: Vec::new(),
            counted: Vec::new(),
        })
    }
}

impl Chooser for Ours {
    /// What the driver does when a connection stands.
    fn add(&mut self, host: usize, zone: &'static str, now: Duration) {
        let now = self.start + now;
        let mut node = Node::new("greeter", format!("node-{host}"), "host:1");
        node.metadata.insert("zone".to_owned(), zone.to_owned());
        let node = Arc::new(node);
        self.picked.listed(&Update::Insert(node.clone()));
        let load = Load::new(self.picked.median_latency(now), PENALTY, now);
        let endpoint = Endpoint::of(node, EndpointId(host as u64 + 1), host, load);
        self.loads.push(endpoint.load.clone());
        self.picked.insert(endpoint);
        self.snapshot = self.picked.snapshot();
    }

    fn pick(&mut self, key: u64, now: Duration, rng: &mut Rng) -> usize {
        let request = Request { hash: Some(key), ..Request::default() };
        let endpoint = self.snapshot.pick(&request, self.start + now, rng).expect("one is ready");
        endpoint.load.begin();
        let counted = self.snapshot.count(&endpoint.load);
        self.counted.extend(counted.map(|counted| (endpoint.connection, counted)));
        endpoint.connection
    }

    fn done(&mut self, host: usize, started: Duration, is_failed: bool, now: Duration) {
        let (load, at) = (&self.loads[host], self.start + now);
        if is_failed {
            load.failed(at);
        } else {
            load.succeeded(now - started, at);
        }
        load.end();
        if let Some(place) = self.counted.iter().position(|(at, _)| *at == host) {
            self.counted.swap_remove(place);
        }
    }
}
