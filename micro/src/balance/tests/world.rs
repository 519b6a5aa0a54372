//! A scripted network, and a balancer in it.

use super::*;

/// What an address does when it is dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Host {
    Accepts,
    Refuses,
    /// Takes a second to fail, as a peer that never sends its SETTINGS.
    Silent,
    /// Is not asked: there is no socket for it.
    Unasked,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Network(pub(super) Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) hosts: HashMap<String, Host>,
    pub(super) dials: Vec<(String, Instant)>,
    /// Whether the last of each was said to be of an address that had been silent.
    pub(super) was_silent: HashMap<String, bool>,
    pub(super) connections: Vec<watch::Sender<Option<Ended>>>,
    pub(super) closed: Vec<usize>,
    /// Of which service each address was last asked, and where to tell how it is.
    pub(super) health: HashMap<String, (Arc<str>, mpsc::UnboundedSender<Health>)>,
}

#[derive(Debug, Clone)]
pub(super) struct Connection {
    pub(super) number: usize,
    pub(super) address: String,
    pub(super) network: Network,
}

impl Network {
    pub(super) fn set(&self, address: &str, host: Host) {
        self.0.lock().unwrap().hosts.insert(address.to_owned(), host);
    }

    pub(super) fn end(&self, connection: &Connection, ended: Ended) {
        self.0.lock().unwrap().connections[connection.number].send_replace(Some(ended));
    }

    pub(super) fn dials(&self, address: &str) -> Vec<Instant> {
        let inner = self.0.lock().unwrap();
        inner.dials.iter().filter(|(to, _)| to == address).map(|(_, at)| *at).collect()
    }

    pub(super) fn closed(&self) -> usize {
        self.0.lock().unwrap().closed.len()
    }
}

impl Connect for Network {
    type Connection = Connection;

    async fn connect(self, dial: Dial<Connection>) -> Result<Connection, NotConnected> {
        let Dial { address, was_silent, .. } = dial;
        let host = {
            let mut inner = self.0.lock().unwrap();
            inner.dials.push((address.clone(), Instant::now()));
            inner.was_silent.insert(address.clone(), was_silent);
            inner.hosts.get(&address).copied().unwrap_or(Host::Accepts)
        };
        sleep(Duration::from_millis(if host == Host::Silent { 1_000 } else { 1 })).await;
        if host != Host::Accepts {
            let why = format!("cannot connect to {address}: {host:?}");
            if host == Host::Unasked {
                return Err(NotConnected::NoSocket { why });
            }
            return Err(NotConnected::Failed { why, is_silent: host == Host::Silent });
        }
        let mut inner = self.0.lock().unwrap();
        inner.connections.push(watch::Sender::new(None));
        let number = inner.connections.len() - 1;
        drop(inner);
        Ok(Connection { number, address, network: self })
    }

    async fn ended(connection: Connection) -> (Ended, Disconnect) {
        let mut state = {
            let inner = connection.network.0.lock().unwrap();
            inner.connections[connection.number].subscribe()
        };
        let ended = state.wait_for(Option::is_some).await.expect("the network lives on").clone();
        (ended.expect("waited for"), Disconnect::UNKNOWN)
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

pub(super) struct World {
    pub(super) balancer: Balancer<Connection>,
    pub(super) network: Network,
    pub(super) updates: mpsc::UnboundedSender<Update>,
    pub(super) status: watch::Sender<Status>,
    pub(super) doubted: Arc<Notify>,
    pub(super) tuning: watch::Sender<Tuning>,
    /// Only for what else is registered.
    pub(super) registry: Memory,
}

pub(super) fn world() -> World {
    let registry = Memory::new();
    world_with(registry.clone(), Arc::new(registry))
}

pub(super) fn world_of(options: Options) -> World {
    let registry = Memory::new();
    world_of_all(registry.clone(), Arc::new(registry), options, Tuning::default())
}

pub(super) fn world_tuned(tuning: Tuning) -> World {
    let registry = Memory::new();
    world_of_all(registry.clone(), Arc::new(registry), Options::default(), tuning)
}

/// With `asked` for what else is registered.
pub(super) fn world_with(registry: Memory, asked: Arc<dyn Registry>) -> World {
    world_of_all(registry, asked, Options::default(), Tuning::default())
}

pub(super) fn world_of_all(
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

pub(super) fn nodes(ids: &[&str]) -> Update {
    let node = |id: &&str| Arc::new(Node::new("greeter", *id, format!("{id}:1")));
    Update::Reset(ids.iter().map(node).collect())
}

/// Waits for whatever node there is.
pub(super) async fn ready(balancer: &Balancer<Connection>, fail_fast: bool) -> bool {
    balancer.wait(&Request::default(), fail_fast).await.is_some()
}

impl World {
    pub(super) async fn with(ids: &[&str]) -> Self {
        let world = world();
        world.send(nodes(ids));
        sleep(Duration::from_millis(10)).await;
        world
    }

    pub(super) fn send(&self, update: Update) {
        if matches!(update, Update::Reset(_)) {
            self.status.send_modify(|status| status.synced = true);
        }
        self.updates.send(update).expect("the driver runs");
    }

    /// The ids of the nodes that a hundred picks come to.
    pub(super) fn picks(&self) -> Vec<String> {
        let picks = (0..100).filter_map(|_| self.balancer.pick(&Request::default()));
        let mut ids: Vec<_> = picks.map(|pick| pick.node().id.clone()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    pub(super) async fn settle(&self) {
        sleep(Duration::from_millis(1)).await;
    }

    pub(super) fn pick(&self) -> Pick<Connection> {
        self.pick_of(Request::default())
    }

    pub(super) fn pick_of(&self, request: Request<'_>) -> Pick<Connection> {
        self.balancer.pick(&request).expect("a node is ready")
    }
}
