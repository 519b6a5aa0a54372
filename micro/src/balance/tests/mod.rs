//! The balancer over a scripted network, on paused time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{StreamExt as _, stream::BoxStream};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep, timeout},
};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::{
    Balancer, Balancing, EndpointId, Filter, Options, Outcome, Pick, Request, Tuning,
    connect::{Connect, Ended},
    health::Health,
};
use crate::{
    discovery::{Discovery, Doubts, Neighbours, Status, Update},
    registry::{Endpoint, Node, Registry, memory::Memory},
};

mod ejecting;
mod explaining;
mod fail_fast;
mod health;
mod limits;
mod shares;
mod simulation;

/// What an address does when it is dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Host {
    Accepts,
    Refuses,
    /// Takes a second to fail, as a peer that never sends its SETTINGS.
    Silent,
}

#[derive(Debug, Clone, Default)]
struct Network(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    hosts: HashMap<String, Host>,
    dials: Vec<(String, Instant)>,
    connections: Vec<watch::Sender<Option<Ended>>>,
    closed: Vec<usize>,
    /// Of which service each address was last asked, and where to tell how it is.
    health: HashMap<String, (Arc<str>, mpsc::UnboundedSender<Health>)>,
}

#[derive(Debug, Clone)]
struct Connection {
    number: usize,
    address: String,
    network: Network,
}

impl Network {
    fn set(&self, address: &str, host: Host) {
        self.0.lock().unwrap().hosts.insert(address.to_owned(), host);
    }

    fn end(&self, connection: &Connection, ended: Ended) {
        self.0.lock().unwrap().connections[connection.number].send_replace(Some(ended));
    }

    fn dials(&self, address: &str) -> Vec<Instant> {
        let inner = self.0.lock().unwrap();
        inner.dials.iter().filter(|(to, _)| to == address).map(|(_, at)| *at).collect()
    }

    fn closed(&self) -> usize {
        self.0.lock().unwrap().closed.len()
    }
}

impl Connect for Network {
    type Connection = Connection;

    async fn connect(
        self,
        address: String,
        _previous: Option<Connection>,
    ) -> Result<Connection, String> {
        let host = {
            let mut inner = self.0.lock().unwrap();
            inner.dials.push((address.clone(), Instant::now()));
            inner.hosts.get(&address).copied().unwrap_or(Host::Accepts)
        };
        sleep(Duration::from_millis(if host == Host::Silent { 1_000 } else { 1 })).await;
        if host != Host::Accepts {
            return Err(format!("cannot connect to {address}: {host:?}"));
        }
        let mut inner = self.0.lock().unwrap();
        inner.connections.push(watch::Sender::new(None));
        let number = inner.connections.len() - 1;
        drop(inner);
        Ok(Connection { number, address, network: self })
    }

    async fn ended(connection: Connection) -> Ended {
        let mut state = {
            let inner = connection.network.0.lock().unwrap();
            inner.connections[connection.number].subscribe()
        };
        let ended = state.wait_for(Option::is_some).await.expect("the network lives on").clone();
        ended.expect("waited for")
    }

    fn health(connection: Connection, service: Arc<str>) -> BoxStream<'static, Health> {
        let mut inner = connection.network.0.lock().unwrap();
        let (tell, told) = mpsc::unbounded_channel();
        inner.health.insert(connection.address.clone(), (service, tell));
        UnboundedReceiverStream::new(told).boxed()
    }

    fn close(connection: &Connection) {
        connection.network.0.lock().unwrap().closed.push(connection.number);
    }
}

struct World {
    balancer: Balancer<Connection>,
    network: Network,
    updates: mpsc::UnboundedSender<Update>,
    status: watch::Sender<Status>,
    doubted: Arc<Notify>,
    tuning: watch::Sender<Tuning>,
    /// Only for what else is registered.
    registry: Memory,
}

fn world() -> World {
    let registry = Memory::new();
    world_with(registry.clone(), Arc::new(registry))
}

fn world_of(options: Options) -> World {
    let registry = Memory::new();
    world_of_all(registry.clone(), Arc::new(registry), options, Tuning::default())
}

fn world_tuned(tuning: Tuning) -> World {
    let registry = Memory::new();
    world_of_all(registry.clone(), Arc::new(registry), Options::default(), tuning)
}

/// With `asked` for what else is registered.
fn world_with(registry: Memory, asked: Arc<dyn Registry>) -> World {
    world_of_all(registry, asked, Options::default(), Tuning::default())
}

fn world_of_all(
    registry: Memory,
    asked: Arc<dyn Registry>,
    options: Options,
    tuning: Tuning,
) -> World {
    let tuning = watch::Sender::new(tuning);
    let (updates, stream) = mpsc::unbounded_channel();
    let status = watch::Sender::new(Status::default());
    let (network, mut doubts) = (Network::default(), Doubts::default());
    let doubted = doubts.listener();
    let balancer = Balancer::with_connector(
        UnboundedReceiverStream::new(stream),
        status.subscribe(),
        Neighbours::new(Discovery::new(asked), "greeter"),
        doubts,
        network.clone(),
        options,
        tuning.subscribe(),
    );
    World { balancer, network, updates, status, doubted, tuning, registry }
}

fn nodes(ids: &[&str]) -> Update {
    let node = |id: &&str| Arc::new(Node::new("greeter", *id, format!("{id}:1")));
    Update::Reset(ids.iter().map(node).collect())
}

/// Waits for whatever node there is.
async fn ready(balancer: &Balancer<Connection>, fail_fast: bool) -> bool {
    balancer.wait(&Request::default(), fail_fast).await.is_some()
}

impl World {
    async fn with(ids: &[&str]) -> Self {
        let world = world();
        world.send(nodes(ids));
        sleep(Duration::from_millis(10)).await;
        world
    }

    fn send(&self, update: Update) {
        if matches!(update, Update::Reset(_)) {
            self.status.send_modify(|status| status.synced = true);
        }
        self.updates.send(update).expect("the driver runs");
    }

    /// The ids of the nodes that a hundred picks come to.
    fn picks(&self) -> Vec<String> {
        let picks = (0..100).filter_map(|_| self.balancer.pick(&Request::default()));
        let mut ids: Vec<_> = picks.map(|pick| pick.node().id.clone()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    async fn settle(&self) {
        sleep(Duration::from_millis(1)).await;
    }

    fn pick(&self) -> Pick<Connection> {
        self.balancer.pick(&Request::default()).expect("a node is ready")
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_keeps_no_other_waiting_and_gets_no_call() {
    let world = world();
    world.network.set("silent:1", Host::Silent);
    world.network.set("refusing:1", Host::Refuses);
    let start = Instant::now();
    world.send(nodes(&["silent", "a", "refusing", "b"]));
    ready(&world.balancer, false).await;
    assert!(start.elapsed() < Duration::from_millis(5), "{:?}", start.elapsed());
    sleep(Duration::from_secs(30)).await;
    assert_eq!(world.picks(), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_to_pick_is_none_and_ready_waits_for_ever() {
    let world = World::with(&[]).await;
    assert!(world.balancer.pick(&Request::default()).is_none());
    assert!(timeout(Duration::from_secs(3600), ready(&world.balancer, false)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_served_first_come_first_served() {
    let world = World::with(&[]).await;
    let (order, mut served) = mpsc::unbounded_channel();
    for number in 0..100 {
        let (balancer, order) = (world.balancer.clone(), order.clone());
        tokio::spawn(async move {
            ready(&balancer, false).await;
            order.send(number).unwrap();
        });
        tokio::task::yield_now().await;
    }
    world.send(nodes(&["a"]));
    for number in 0..100 {
        assert_eq!(served.recv().await, Some(number));
    }
}

#[tokio::test(start_paused = true)]
async fn why_nothing_is_ready_is_told() {
    let world = world();
    let why = |world: &World| world.balancer.why_not_ready(&Request::default());
    assert_eq!(why(&world), "memory:// has not answered yet");
    world.status.send_modify(|status| status.error = Some("etcd://h:1: refused".into()));
    assert_eq!(why(&world), "etcd://h:1: refused");
    world.status.send_modify(|status| status.error = None);
    world.send(nodes(&[]));
    sleep(Duration::from_millis(10)).await;
    let none = "none is registered in memory://; is 'greeter' running, and on the same registry? \
                memory:// is within one process";
    assert_eq!(why(&world), none);
    world.network.set("a:1", Host::Refuses);
    world.send(nodes(&["a"]));
    sleep(Duration::from_millis(10)).await;
    let expected = "none of 1 nodes is connected: node a: cannot connect to a:1: Refuses";
    assert_eq!(why(&world), expected);
}

#[tokio::test(start_paused = true)]
async fn records_that_cannot_be_used_are_told() {
    let world = World::with(&[]).await;
    world.status.send_modify(|status| (status.malformed, status.not_grpc) = (1, 2));
    assert_eq!(
        world.balancer.why_not_ready(&Request::default()),
        "memory:// has 3 records of it and none that can be used: 2 of nodes that do not speak \
         gRPC, 1 that cannot be decoded"
    );
}

#[tokio::test(start_paused = true)]
async fn who_waits_in_vain_learns_what_else_is_registered() {
    let why = |found: &str| {
        format!(
            "none is registered in memory://; {found}; is 'greeter' running, and on the same \
             registry? memory:// is within one process"
        )
    };
    let world = world();
    let wait = async || {
        let waited = timeout(Duration::from_millis(100), ready(&world.balancer, false)).await;
        assert!(waited.is_err(), "there is no node");
        world.balancer.why_not_ready(&Request::default())
    };
    assert_eq!(wait().await, "memory:// has not answered yet");
    world.send(nodes(&[]));
    assert_eq!(wait().await, why("no service at all is registered there"));

    let register = async |service| {
        let node = Node::new(service, "1", "host:1");
        world.registry.register(&node, Duration::from_secs(3600)).await.expect("a lease");
    };
    register("users").await;
    assert_eq!(wait().await, why("no service at all is registered there"), "not asked each time");
    sleep(Duration::from_secs(10)).await;
    assert_eq!(wait().await, why("registered there: 'users'"));
    register("greeters").await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(
        wait().await,
        "none is registered in memory://; did you mean 'greeters'? registered there: 'greeters' \
         and 'users'"
    );
}

#[tokio::test(start_paused = true)]
async fn who_does_not_wait_has_the_next_one_learn_what_else_is_registered() {
    let world = World::with(&[]).await;
    assert!(
        !world.balancer.why_not_ready(&Request::default()).contains("registered there"),
        "nothing is waited for"
    );
    sleep(Duration::from_millis(1)).await;
    assert!(
        world
            .balancer
            .why_not_ready(&Request::default())
            .contains("no service at all is registered there")
    );
    let node = Node::new("greeters", "1", "host:1");
    world.registry.register(&node, Duration::from_secs(3600)).await.expect("a lease");
    sleep(Duration::from_secs(10)).await;
    assert!(
        !world.balancer.why_not_ready(&Request::default()).contains("greeters"),
        "what was known"
    );
    sleep(Duration::from_millis(1)).await;
    assert!(
        world.balancer.why_not_ready(&Request::default()).contains("registered there: 'greeters'")
    );

    world.send(nodes(&["a"]));
    ready(&world.balancer, false).await;
    world.send(nodes(&[]));
    let mut gone = world.balancer.why_not_ready(&Request::default());
    while !gone.contains("none is registered") {
        sleep(Duration::from_secs(1)).await;
        gone = world.balancer.why_not_ready(&Request::default());
    }
    assert!(!gone.contains("registered there"), "from before: {gone}");
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_service_that_cannot_be_is_told_at_once() {
    let world = World::with(&[]).await;
    let balancer = world.balancer.clone();
    assert_eq!(balancer.refused(), None);
    let waiting = tokio::spawn(async move {
        ready(&balancer, false).await;
        balancer.refused()
    });
    tokio::task::yield_now().await;
    world.status.send_modify(|status| {
        status.error = Some("no name".into());
        status.refused = true;
    });
    let refused = timeout(Duration::from_millis(1), waiting).await.expect("at once");
    assert_eq!(refused.expect("no panic").as_deref(), Some("no name"));
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_has_a_node_dialled_once_a_second() {
    let world = world();
    world.network.set("a:1", Host::Refuses);
    world.send(nodes(&["a"]));
    sleep(Duration::from_secs(60)).await;
    let before = world.network.dials("a:1").len();
    assert!(timeout(Duration::from_secs(10), ready(&world.balancer, false)).await.is_err());
    let dials = world.network.dials("a:1");
    assert!((10..=11).contains(&(dials.len() - before)), "{} dials", dials.len() - before);
    world.network.set("a:1", Host::Accepts);
    let start = Instant::now();
    ready(&world.balancer, false).await;
    assert!(start.elapsed() <= Duration::from_millis(1_001), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn goaway_ends_picks_while_calls_under_way_keep_their_connection() {
    let world = World::with(&["a"]).await;
    sleep(Duration::from_secs(5)).await;
    let old = world.pick();
    world.network.end(old.connection(), Ended::Draining);
    // The driver hears of it; connecting takes longer than that.
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    assert!(
        world.balancer.pick(&Request::default()).is_none(),
        "no new call on a draining connection"
    );
    ready(&world.balancer, false).await;
    let new = world.pick();
    assert_eq!((old.connection().number, new.connection().number), (0, 1));
    assert_eq!(old.endpoint(), new.endpoint(), "the same node");
    assert_eq!(world.network.closed(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lost_node_is_dialled_at_once_and_the_others_are_picked_meanwhile() {
    let world = World::with(&["a", "b"]).await;
    sleep(Duration::from_secs(5)).await;
    let lost = world.pick();
    let address = lost.connection().address.clone();
    world.network.set(&address, Host::Refuses);
    let now = Instant::now();
    world.network.end(lost.connection(), Ended::Closed("reset".to_owned()));
    sleep(Duration::from_millis(10)).await;
    assert_eq!(world.network.dials(&address).last(), Some(&now));
    assert_eq!(world.picks().len(), 1);
    assert!(!world.picks().contains(&lost.node().id));
    world.network.set(&address, Host::Accepts);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.picks(), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_new_connection_starts_without_the_failures_of_the_old() {
    let world = World::with(&["a", "b"]).await;
    sleep(Duration::from_secs(5)).await;
    let mut late = world.pick();
    let id = late.node().id.clone();
    // Five eject it.
    for _ in 0..3 {
        late.report(Outcome::Failure);
    }
    let share = |world: &World| {
        let picks: Vec<_> = (0..1_000).map(|_| world.pick().node().id == id).collect();
        picks.iter().filter(|hit| **hit).count()
    };
    assert_eq!(share(&world), 0, "charged");
    world.network.end(late.connection(), Ended::Closed("killed".to_owned()));
    sleep(Duration::from_millis(10)).await;
    late.finish(Outcome::Failure);
    let share = share(&world);
    assert!((300..700).contains(&share), "{share} of 1000");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_call_counts_nothing() {
    let world = World::with(&["a", "b"]).await;
    let first = world.pick();
    let id = first.node().id.clone();
    drop(first);
    for _ in 0..1_000 {
        let pick = world.pick();
        if pick.node().id == id {
            pick.finish(Outcome::Cancelled);
        }
    }
    let hits = (0..1_000).filter(|_| world.pick().node().id == id).count();
    assert!((400..600).contains(&hits), "{hits} of 1000");
}

#[tokio::test(start_paused = true)]
async fn a_wiped_registry_leaves_the_connected_nodes() {
    let world = World::with(&["a", "b"]).await;
    world.send(nodes(&[]));
    sleep(Duration::from_secs(44)).await;
    assert_eq!(world.picks(), ["a", "b"]);
    world.send(nodes(&["a"]));
    sleep(Duration::from_secs(2)).await;
    assert_eq!(world.picks(), ["a"], "three TTLs after its removal b is given up");
    assert_eq!(world.network.closed(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_the_last_handle_and_closes_the_connections() {
    let world = World::with(&["a", "b"]).await;
    let (clone, pick) = (world.balancer.clone(), world.pick());
    drop(world.balancer);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.network.closed(), 0, "one handle is left");
    drop(clone);
    sleep(Duration::from_secs(1)).await;
    assert!(world.updates.is_closed(), "the subscription is dropped");
    assert_eq!(world.network.closed(), 2);
    pick.finish(Outcome::Success);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_nodes_connect_and_change_without_ado() {
    let ids: Vec<_> = (0..10_000).map(|number| number.to_string()).collect();
    let world = world();
    world.send(nodes(&ids.iter().map(String::as_str).collect::<Vec<_>>()));
    sleep(Duration::from_secs(1)).await;
    assert!(format!("{:?}", world.balancer).contains("ready: 10000"));
    for id in &ids[..9_999] {
        world.send(Update::Remove(id.as_str().into()));
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.picks(), ["9999"]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_cannot_be_reached_puts_the_registrys_word_in_doubt() {
    let world = world();
    let is_doubted = async || {
        let raised = timeout(Duration::from_millis(100), world.doubted.notified()).await;
        raised.is_ok()
    };
    world.updates.send(nodes(&["a"])).unwrap();
    ready(&world.balancer, false).await;
    assert!(!is_doubted().await, "all is well");
    let pick = world.balancer.pick(&Request::default()).expect("a is ready");
    let connection = pick.connection().clone();
    drop(pick);
    world.network.end(&connection, Ended::Draining);
    assert!(is_doubted().await, "it is leaving");

    ready(&world.balancer, false).await;
    let connection =
        world.balancer.pick(&Request::default()).expect("a is ready").connection().clone();
    world.network.set("a:1", Host::Refuses);
    world.network.end(&connection, Ended::Closed("reset".to_owned()));
    assert!(is_doubted().await, "it was lost");
    let again = timeout(Duration::from_secs(10), world.doubted.notified()).await;
    assert!(again.is_ok(), "and each attempt that fails says so again");
}

#[tokio::test(start_paused = true)]
async fn what_does_not_pass_the_filter_is_not_connected_to() {
    let filter = Filter::new().label("track", "stable");
    let world = world_of(Options { filter, ..Options::default() });
    let node = |id: &str, track: &str| {
        let mut node = Node::new("greeter", id, format!("{id}:1"));
        node.metadata.insert("track".to_owned(), track.to_owned());
        Arc::new(node)
    };
    world.send(Update::Reset(vec![node("a", "canary"), node("b", "canary")]));
    sleep(Duration::from_millis(10)).await;
    assert_eq!(
        world.balancer.why_not_ready(&Request::default()),
        "none of the 2 in memory:// passes the filter: track=stable"
    );
    world.send(Update::Insert(node("b", "stable")));
    world.send(Update::Insert(node("c", "stable")));
    sleep(Duration::from_millis(10)).await;
    assert_eq!(world.picks(), ["b", "c"]);
    world.send(Update::Insert(node("b", "canary")));
    sleep(Duration::from_millis(10)).await;
    assert_eq!(world.picks(), ["c"]);
    assert!(world.network.dials("a:1").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_a_node_that_has_its_method() {
    let filter = Filter::new().serving();
    let world = world_of(Options { filter, ..Options::default() });
    let node = |id: &str, method: &str| {
        let mut node = Node::new("greeter", id, format!("{id}:1"));
        let name = format!("Greeter.{method}");
        node.endpoints = vec![Endpoint { name, ..Endpoint::default() }];
        Arc::new(node)
    };
    world.send(Update::Reset(vec![node("a", "Hello")]));
    sleep(Duration::from_millis(10)).await;
    let wave = Request { method: "/greeter.v1.Greeter/Wave", ..Request::default() };
    assert!(world.balancer.wait(&wave, true).await.is_none(), "it fails fast");
    assert_eq!(
        world.balancer.why_not_ready(&wave),
        "/greeter.v1.Greeter/Wave is in the record of none of the 1 that are connected"
    );
    let waiting = world.balancer.wait(&wave, false);
    tokio::pin!(waiting);
    assert!(timeout(Duration::from_secs(1), &mut waiting).await.is_err());
    world.send(Update::Insert(node("b", "Wave")));
    assert_eq!(waiting.await.expect("it came").node().id, "b");
}

#[tokio::test(start_paused = true)]
async fn a_zones_share_goes_by_what_the_registry_lists_of_it() {
    let balancing = Balancing::zone_first("a");
    let world = world_tuned(Tuning { balancing, ..Tuning::default() });
    for down in ["a1:1", "a2:1"] {
        world.network.set(down, Host::Refuses);
    }
    let node = |id: &str| {
        let mut node = Node::new("greeter", id, format!("{id}:1"));
        node.metadata.insert("zone".to_owned(), id[..1].to_owned());
        Arc::new(node)
    };
    world.send(Update::Reset(["a1", "a2", "a3", "b1"].map(node).into()));
    sleep(Duration::from_millis(10)).await;
    let own = (0..3_000).filter(|_| world.pick().node().id == "a3").count();
    assert!((1_250..1_550).contains(&own), "1.4 of a third: {own} of 3000");
    world.network.set("a1:1", Host::Accepts);
    world.network.set("a2:1", Host::Accepts);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(world.picks(), ["a1", "a2", "a3"], "its own zone is well");
}

#[tokio::test(start_paused = true)]
async fn another_policy_and_other_rules_hold_from_when_they_are_said() {
    let world = World::with(&["a", "b", "c"]).await;
    world.tuning.send_modify(|tuning| tuning.balancing = Balancing::pick_first());
    world.settle().await;
    assert_eq!(world.picks().len(), 1);
    let zone = |zone: &str| Balancing::zone_first(zone);
    let mut node = Node::new("greeter", "c", "c:1");
    node.metadata.insert("zone".to_owned(), "z".to_owned());
    world.send(Update::Insert(Arc::new(node)));
    world.tuning.send_modify(|tuning| tuning.balancing = zone("z"));
    world.settle().await;
    assert_eq!(world.picks(), ["c"], "what is listed and connected is known to the new one");
    world.tuning.send_modify(|tuning| tuning.balancing = zone("y"));
    world.settle().await;
    assert_eq!(world.picks(), ["a", "b", "c"]);
}
