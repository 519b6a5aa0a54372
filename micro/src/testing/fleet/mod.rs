//! A fleet in one process.
//!
//! Everything is what a program has, but for the sockets, which are pipes here (`transport::pipe`),
//! and the registry, which is `memory://` behind faults of its own.

mod node;
mod registry;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

pub use self::{node::FleetNode, registry::FleetRegistry};
use crate::{
    Client, ClientBuilder, Error, Service, ServiceBuilder, registration::RegistrationState,
};

type Setup = Arc<dyn Fn(&mut Service) + Send + Sync>;
type Configure = Arc<dyn Fn(ServiceBuilder) -> ServiceBuilder + Send + Sync>;

/// Services of many nodes in one process, with clients, a registry, and faults on command: for the
/// tests of a service of your own.
///
/// ```
/// use micro::{Request, Response, Status, client::Served, testing::Fleet};
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doc/greeter.v1.rs"));
///
/// struct Greeter;
///
/// impl GreeterHandler for Greeter {
///     async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
///         let greeting = format!("Hello, {}!", request.into_inner().name);
///         Ok(Response::new(HelloReply { greeting, ..Default::default() }))
///     }
/// }
///
/// #[tokio::test(start_paused = true)]
/// # async fn unused() {}
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// #     tokio::time::pause();
/// #     a_dead_node_fails_no_call().await;
/// # }
/// async fn a_dead_node_fails_no_call() {
///     let fleet = Fleet::builder()
///         .nodes("greeter", 3, |node| register_greeter_handler(node.server(), Greeter))
///         .start()
///         .await
///         .expect("a fleet");
///     let greeter = GreeterClient::new("greeter", fleet.client());
///     for call in 0..300 {
///         if call == 100 {
///             fleet.node("greeter-1").kill();
///         }
///         let request = HelloRequest { name: "world".into() };
///         let reply = greeter.hello(request).await.expect("a reply");
///         let Served { node, .. } = reply.extensions().get().expect("every reply has it");
///         assert!(call < 100 || node.id != "greeter-1", "the dead do not answer");
///         assert_eq!(reply.into_inner().greeting, "Hello, world!");
///     }
/// }
/// ```
///
/// Servers, registrations, channels and HTTP/2 are those that a program runs on; only the sockets are
/// pipes, so that `start_paused` of `#[tokio::test]` (tokio's feature `test-util`) holds for all of it:
/// a minute's outage takes no time, and a deadline strikes when nothing else is left to happen.
///
/// With the [seed](FleetBuilder::seed), a test on tokio's current-thread runtime, which is
/// `#[tokio::test]`'s default, runs the same each time: what is drawn at random is drawn from it. A
/// handler that draws at random, or asks for the real time, is its own matter.
///
/// Dropped, it kills its nodes.
pub struct Fleet {
    client: Client,
    nodes: Vec<FleetNode>,
    registry: Arc<FleetRegistry>,
}

impl Fleet {
    /// A fleet to be.
    pub fn builder() -> FleetBuilder {
        FleetBuilder { seed: 0, services: Vec::new(), configured: BTreeMap::new() }
    }

    /// A client of the fleet, with the defaults.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// A client of the fleet with options of its own.
    pub fn client_builder(&self) -> ClientBuilder {
        Client::builder().without_env().registry(self.registry_url())
    }

    /// The URL of the fleet's registry, for what builds its client by itself. It is of use in this
    /// process and as long as the fleet is there.
    pub fn registry_url(&self) -> &str {
        self.registry.url()
    }

    /// The registry itself, to read it or to have it fail.
    pub fn registry(&self) -> &FleetRegistry {
        &self.registry
    }

    /// The node of this id: `greeter-1` is the first of the service `greeter`.
    ///
    /// # Panics
    /// When there is none.
    pub fn node(&self, id: &str) -> &FleetNode {
        self.nodes.iter().find(|node| node.id() == id).unwrap_or_else(|| {
            let ids: Vec<_> = self.nodes.iter().map(FleetNode::id).collect();
            panic!("the fleet has no node {id}, but {}", ids.join(", "))
        })
    }

    /// All nodes, in the order in which they were started first.
    pub fn nodes(&self) -> &[FleetNode] {
        &self.nodes
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.nodes.iter().for_each(FleetNode::kill);
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet")
            .field("url", &self.registry_url())
            .field("nodes", &self.nodes)
            .finish()
    }
}

/// What a [`Fleet`] is made of.
#[must_use = "a builder does nothing until start()"]
pub struct FleetBuilder {
    seed: u64,
    services: Vec<(String, u16, Setup)>,
    /// By the node's id.
    configured: BTreeMap<String, Configure>,
}

impl FleetBuilder {
    /// What chance is drawn from: which nodes are picked, how long waits and backoffs are. Default: 0.
    /// It seeds the generator of the thread that [`start`](Self::start) runs on.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// A service of so many nodes, `greeter-1` and on. `setup` is called for each of them, and again
    /// when it is restarted: it registers the handlers, which may differ by the node's
    /// [id](Service::id), and may give them a [client](Service::client), to call other services of the
    /// fleet.
    pub fn nodes<F>(mut self, service: &str, count: u16, setup: F) -> Self
    where
        F: Fn(&mut Service) + Send + Sync + 'static,
    {
        self.services.push((service.to_owned(), count, Arc::new(setup)));
        self
    }

    /// Has one node, by its id, be other than the rest: of another version or zone, say, or another
    /// weight. Called again when it is restarted, which may then be otherwise, as it is in a rollout. Its
    /// id, address and registry are the fleet's all the same. Said twice, the last holds.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # tokio::time::pause();
    /// use micro::testing::Fleet;
    ///
    /// let fleet = Fleet::builder()
    ///     .nodes("greeter", 3, |node| { /* registers the handlers */ })
    ///     .configure("greeter-2", |node| node.metadata("zone", "eu-west-1b"))
    ///     .configure("greeter-3", |node| node.version("2.0.0-rc.1").metadata("weight", "10"));
    /// # fleet.start().await.expect("a fleet");
    /// # }
    /// ```
    pub fn configure<F>(mut self, id: &str, configure: F) -> Self
    where
        F: Fn(ServiceBuilder) -> ServiceBuilder + Send + Sync + 'static,
    {
        self.configured.insert(id.to_owned(), Arc::new(configure));
        self
    }

    /// Starts all nodes, one after the other, each of them registered before the next.
    ///
    /// # Errors
    /// As [`Service::start`]: `Config` for a service's name that cannot be one, or that is there twice;
    /// and for a node that is [configured](Self::configure) and not there.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn start(mut self) -> Result<Fleet, Error> {
        /// Fleets are told apart by their numbers, within a process.
        static FLEETS: AtomicU32 = AtomicU32::new(1);
        fastrand::seed(self.seed);
        let number = FLEETS.fetch_add(1, Relaxed);
        let registry = FleetRegistry::found(number)?;
        let mut nodes = Vec::new();
        for (service, count, setup) in &self.services {
            for place in 1..=*count {
                let id = format!("{service}-{place}");
                let address = u16::try_from(nodes.len() + 1).ok();
                let address =
                    address.ok_or_else(|| Error::config("a fleet has 65535 nodes at most"))?;
                let address = crate::transport::pipe::address(number, address);
                let configure = self.configured.remove(&id);
                nodes.push(FleetNode::new(
                    service,
                    id,
                    &registry,
                    address,
                    setup.clone(),
                    configure,
                ));
            }
        }
        if let Some(id) = self.configured.keys().next() {
            let ids: Vec<_> = nodes.iter().map(FleetNode::id).collect();
            return Err(Error::config(format!(
                "the fleet has no node {id} to configure, but {}",
                ids.join(", ")
            )));
        }
        let client = Client::builder().without_env().registry(registry.url()).build()?;
        let fleet = Fleet { client, nodes, registry };
        for node in fleet.nodes() {
            let mut registration = node.start().await?;
            let is_registered = |state: &RegistrationState| *state == RegistrationState::Registered;
            // It ends with the service, which is there.
            let _ = registration.wait_for(is_registered).await;
        }
        Ok(fleet)
    }
}

impl fmt::Debug for FleetBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let services = self.services.iter().map(|(service, count, _)| (service, count));
        f.debug_struct("FleetBuilder")
            .field("seed", &self.seed)
            .field("services", &services.collect::<Vec<_>>())
            .field("configured", &self.configured.keys().collect::<Vec<_>>())
            .finish()
    }
}
