//! A whole service: options, server and registration, from start to a clean exit.
//!
//! This is the top floor: it puts `server`, `registration` and `client` together and decides on
//! their order. Nothing else may know it.

mod address;
mod builder;
mod claim;
mod handle;
mod leave;
mod signals;
#[cfg(test)]
mod tests;

pub use builder::ServiceBuilder;
pub use handle::Handle;

use crate::{
    Client, Error, Server,
    discovery::Discovery,
    registration::Registration,
    registry::{Endpoint, Node},
};
use address::Machine;
use builder::Settings;
use claim::Claim;

/// A service: a server that registers itself while it can answer, and leaves without dropping a
/// call.
///
/// ```
/// use micro::{Request, Response, Status};
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doc/greeter.v1.rs"));
/// struct Greeter;
///
/// impl GreeterHandler for Greeter {
///     async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
///         let greeting = format!("Hello, {}!", request.into_inner().name);
///         Ok(Response::new(HelloReply { greeting, node: String::new() }))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), micro::Error> {
/// let mut service = micro::Service::builder("greeter")
///     .version("1.0.0")
///     .registry("memory://service-docs")
/// #   .shutdown(async {})
///     .build()
///     .await?;
/// register_greeter_handler(service.server(), Greeter);
/// service.run().await
/// # }
/// ```
///
/// # Leaving
/// On SIGTERM, SIGINT or the [shutdown future](ServiceBuilder::shutdown), in this order, each
/// phase bounded:
/// 1. `grpc.health.v1` says `NOT_SERVING`;
/// 2. the record is removed from the registry (at most 1 s, or 2 s if it is being written or
///    removed just then, or 3 s if a [check](ServiceBuilder::register_check) blocks its thread;
///    after that its TTL removes it);
/// 3. calls are still taken for as long as the registry needs to spread the removal
///    (memory 0, etcd 1 s);
/// 4. the listener closes, connections get a GOAWAY, and calls under way finish or are cut after
///    the [drain timeout](ServiceBuilder::drain_timeout).
///
/// A second signal ends the process at once and by its default action (a shell sees 143 or 130), in
/// whatever phase, also after [`run`](Service::run) has returned and when handlers block all
/// threads.
#[derive(Debug)]
pub struct Service {
    settings: Settings,
    discovery: Discovery,
    server: Server,
}

impl Service {
    /// A service of this name, which is what callers find it by.
    pub fn builder(name: impl Into<String>) -> ServiceBuilder {
        ServiceBuilder::new(name.into())
    }

    /// Where handlers are registered.
    pub fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    /// The name in the registry.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// The node's id.
    pub fn id(&self) -> &str {
        &self.settings.id
    }

    /// A client on the service's own registry.
    pub fn client(&self) -> Client {
        Client::over(self.discovery.clone())
    }

    /// Serves until SIGTERM, SIGINT or the shutdown future, then leaves.
    ///
    /// Several services may run in one process: a signal asks all of them to leave. After a `run`
    /// that no signal has ended, signals are the program's own again; their default action does
    /// not come back by itself, as after any use of [`tokio::signal`].
    ///
    /// # Errors
    /// `Bind` when the address cannot be listened on; `Config` when it cannot be advertised, or the
    /// registry cannot hold a record of that name or size, or a node of the same id runs in this
    /// process.
    /// A registry that cannot be reached is no error: the service serves and keeps trying.
    pub async fn run(self) -> Result<(), Error> {
        let mut signals = signals::Signals::new()?;
        let mut handle = self.start().await?;
        tokio::select! {
            signal = signals.next() => tracing::info!(signal, "leaving; a second signal ends the process"),
            () = handle.ended() => return Ok(()),
        }
        handle.stop().await;
        Ok(())
    }

    /// Serves in the background, for a test or several services in one process: signals are the
    /// caller's. Returns once the listener accepts; registration follows, see
    /// [`Handle::registration`].
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn start(self) -> Result<Handle, Error> {
        let Self { settings, discovery, server } = self;
        let mut endpoints: Vec<_> = server.descriptors().flat_map(Endpoint::of).collect();
        endpoints.sort_by(|a, b| a.name.cmp(&b.name));
        let listening = server.bind(&settings.address).await?;
        let address = address::advertised(
            settings.advertise.as_deref(),
            listening.local_addr(),
            &Machine::this(),
        )?;

        let mut node = Node::new(&settings.name, &settings.id, &address);
        node.version = settings.version;
        node.metadata.extend(settings.metadata);
        node.endpoints = endpoints;
        // Else it would be tried for ever: nothing but other options can change it.
        let registry = discovery.registry().clone();
        registry.validate(&node)?;
        let name = registry.name().to_owned();
        let (claim, registration) = Claim::register(&name, &node, || {
            Registration::start(registry, node.clone(), settings.registration)
        })?;
        tracing::info!(service = %node.service, node = %node.id, %address, "serving");
        if discovery.registry().is_shared()
            && let Some(warning) = address::only_for_this_machine(&address)
        {
            tracing::warn!(service = %node.service, node = %node.id, registry = name, "{warning}");
        }
        let leaving = leave::Leaving {
            service: settings.name,
            gap: discovery.registry().spread(),
            drain_timeout: settings.drain_timeout,
            listening,
            registration,
        };
        Ok(Handle::start(leaving, claim, address, settings.id, settings.shutdown))
    }
}
