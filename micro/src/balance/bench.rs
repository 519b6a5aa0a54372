//! What `tests/run bench pick` measures: a set and its picks, and parts of it, without connections; and
//! the way from the list to what calls see, over connections that are made at once.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::yield_now,
    time::Instant,
};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::{
    Balancer, Balancing, EndpointId, Options, Outcome, Request, Tuning,
    connect::{Connect, Dial, Ended, NotConnected},
    ewma::Load,
    health::Health,
    snapshot::{Endpoint, Picked, Snapshot},
    subset::cost,
};
use crate::{
    discovery::{Discovery, Doubts, Neighbours, Status, Update},
    registry::{Node, memory::Memory},
    transport::Disconnect,
};

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

    /// A node comes, or one of them has a new record, which calls see from then on.
    pub fn insert(&mut self, number: u64) {
        self.picked.insert(endpoint(number, Instant::now()));
        self.snapshot.store(Arc::new(self.picked.snapshot()));
    }

    /// One of the nodes goes.
    pub fn remove(&mut self, number: u64) {
        self.picked.remove(EndpointId(number + 1));
        self.snapshot.store(Arc::new(self.picked.snapshot()));
    }
}

fn node(number: u64) -> Arc<Node> {
    let mut node = Node::new("greeter", id(number), "host:1");
    let zone = if number.is_multiple_of(2) { "a" } else { "b" };
    node.metadata.insert("zone".to_owned(), zone.to_owned());
    node.metadata.insert("weight".to_owned(), (number % 10 + 1).to_string());
    Arc::new(node)
}

fn id(number: u64) -> String {
    format!("node-{number}")
}

fn endpoint(number: u64, now: Instant) -> Arc<Endpoint<()>> {
    // As one that came some time ago, and has answered.
    let now = now.checked_sub(Duration::from_secs(60)).unwrap_or(now);
    let load = Load::new(Some(Duration::from_millis(1)), Duration::from_secs(5), now);
    Endpoint::of(node(number), EndpointId(number + 1), (), load)
}

/// Connects at once; a connection ends when it is given up.
#[derive(Debug, Clone)]
struct AtOnce;

impl Connect for AtOnce {
    type Connection = Arc<Notify>;

    async fn connect(self, _: Dial<Arc<Notify>>) -> Result<Arc<Notify>, NotConnected> {
        Ok(Arc::default())
    }

    async fn ended(connection: Arc<Notify>) -> (Ended, Disconnect) {
        connection.notified().await;
        (Ended::Draining, Disconnect::UNKNOWN)
    }

    fn health(_: Arc<Notify>, _: Arc<str>) -> BoxStream<'static, Health> {
        stream::pending().boxed()
    }

    fn close(connection: &Arc<Notify>) {
        connection.notify_one();
    }
}

/// A balancer as a channel has it, and the list that it follows.
#[derive(Debug)]
pub struct Followed {
    list: mpsc::UnboundedSender<Update>,
    balancer: Balancer<Arc<Notify>>,
    _status: watch::Sender<Status>,
    _tuning: watch::Sender<Tuning>,
}

impl Followed {
    /// So many nodes, all of which calls can go to. One that goes is given up at once, and not after the
    /// TTL.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn new(balancing: &Balancing, nodes: u64) -> Self {
        let (list, updates) = mpsc::unbounded_channel();
        let status = watch::Sender::new(Status::default());
        let tuning = Tuning { balancing: balancing.clone(), ..Tuning::default() };
        let tuning = watch::Sender::new(tuning);
        let balancer = Balancer::with_connector(
            UnboundedReceiverStream::new(updates),
            status.subscribe(),
            Neighbours::new(Discovery::new(Arc::new(Memory::new())), "greeter"),
            Doubts::default(),
            AtOnce,
            Options { ttl: Duration::ZERO, ..Options::default() },
            tuning.subscribe(),
        );
        let followed = Self { list, balancer, _status: status, _tuning: tuning };
        followed.change(Update::Reset((0..nodes).map(node).collect()), nodes as usize).await;
        followed
    }

    /// The list has a node more, until calls can go to it.
    pub async fn insert(&self, number: u64) {
        self.change(Update::Insert(node(number)), self.ready() + 1).await;
    }

    /// The list has a node less, until no call goes to it.
    pub async fn remove(&self, number: u64) {
        self.change(Update::Remove(id(number).into()), self.ready() - 1).await;
    }

    async fn change(&self, update: Update, ready: usize) {
        self.list.send(update).expect("the driver runs");
        while self.ready() != ready {
            yield_now().await;
        }
    }

    fn ready(&self) -> usize {
        self.balancer.handle.shared.snapshot.load().len()
    }
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
