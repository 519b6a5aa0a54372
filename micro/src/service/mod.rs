//! A whole service: options, server and registration, from start to a clean exit.
//!
//! This is the top floor: it puts `server`, `registration` and `client` together and decides on
//! their order. Nothing else may know it.

mod address;
mod builder;
mod claim;
mod handle;
mod hooks;
mod leave;
mod signals;
#[cfg(test)]
mod tests;

pub use builder::ServiceBuilder;
pub use handle::Handle;

use crate::{
    Client, ClientBuilder, Error, ErrorKind, Server,
    client::ServiceOptions,
    config::Value,
    discovery::Discovery,
    layer::Row,
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
/// #   .without_env()
/// #   .shutdown(async {})
///     .build()
///     .await?;
/// register_greeter_handler(service.server(), Greeter);
/// service.run().await
/// # }
/// ```
///
/// # Starting
/// 1. the hooks [before the start](ServiceBuilder::before_start) run;
/// 2. the listener is bound and accepts;
/// 3. the registration begins, and beside it the hooks [after the start](ServiceBuilder::after_start)
///    run.
///
/// # Leaving
/// On SIGTERM, SIGINT, the [shutdown future](ServiceBuilder::shutdown) or a failure of a hook after
/// the start, in this order, each phase bounded:
/// 1. the hooks [before the stop](ServiceBuilder::before_stop) run, while the node is registered
///    and takes calls (each at most for the [hook timeout](ServiceBuilder::hook_timeout));
/// 2. `grpc.health.v1` says `NOT_SERVING`;
/// 3. the record is removed from the registry (at most 1 s, or 3 s if it is being written or
///    removed just then, or 4 s if a [check](ServiceBuilder::register_check) blocks its thread;
///    after that its TTL removes it);
/// 4. calls are still taken for as long as the registry needs to spread the removal
///    (memory 0, mDNS 0.2 s, etcd 1 s, Consul 2 s, Kubernetes 5 s);
/// 5. the listener closes, connections get a GOAWAY, and calls under way finish or are cut after
///    the [drain timeout](ServiceBuilder::drain_timeout);
/// 6. the hooks [after the stop](ServiceBuilder::after_stop) run.
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
        &self.settings.name.value
    }

    /// The node's id.
    pub fn id(&self) -> &str {
        &self.settings.id.value
    }

    /// A client on the service's own registry, which follows the client's environment variables and
    /// flags as a [`ClientBuilder`](crate::ClientBuilder) does, and has no [layers](crate::layer).
    pub fn client(&self) -> Client {
        Client::over(
            self.discovery.clone(),
            self.settings.client,
            Row::default(),
            ServiceOptions::default(),
        )
    }

    /// A client as [`client`](Self::client) is, with options of its own:
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), micro::Error> {
    /// # use std::time::Duration;
    /// let service = micro::Service::builder("shop")
    /// #   .without_env()
    ///     .registry("memory://client-builder-docs")
    ///     .build()
    ///     .await?;
    /// let client = service.client_builder().request_timeout(Duration::from_secs(1)).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn client_builder(&self) -> ClientBuilder {
        ClientBuilder::over(self.discovery.clone(), self.settings.given.clone())
    }

    /// Serves until SIGTERM, SIGINT or the shutdown future, then leaves.
    ///
    /// Several services may run in one process: a signal asks all of them to leave. After a `run`
    /// that no signal has ended, signals are the program's own again; their default action does
    /// not come back by itself, as after any use of [`tokio::signal`].
    ///
    /// # Errors
    /// `Bind` when the address cannot be listened on; `Config` when it cannot be advertised, the
    /// registry cannot hold a record of that name or size, or cannot work on this machine at all, as
    /// `mdns://` where there is no multicast, or a node of the same id runs in this process; `Hook`
    /// with the first failure of a [hook](ServiceBuilder::before_start).
    /// A registry that cannot be reached is no error: the service serves and keeps trying.
    pub async fn run(self) -> Result<(), Error> {
        let mut signals = signals::Signals::new()?;
        let not_started = |signal| {
            tracing::info!(signal, "not started; a second signal ends the process");
            Ok(())
        };
        let ready = tokio::select! {
            biased;
            signal = signals.next() => return not_started(signal),
            ready = self.prepare() => ready?,
        };
        // While a hook held this thread nobody could tell us.
        if let Some(signal) = signals.came().await {
            return not_started(signal);
        }
        let mut handle = tokio::select! {
            biased;
            signal = signals.next() => return not_started(signal),
            started = ready.serve() => started?,
        };
        tokio::select! {
            signal = signals.next() => tracing::info!(signal, "leaving; a second signal ends the process"),
            ended = handle.ended() => return ended,
        }
        handle.stop().await
    }

    /// Serves in the background, for a test or several services in one process: signals are the
    /// caller's. Returns once the hooks before the start have run and the listener accepts;
    /// registration follows, see [`Handle::registration`].
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn start(self) -> Result<Handle, Error> {
        self.prepare().await?.serve().await
    }

    /// What goes before the listener.
    async fn prepare(mut self) -> Result<Self, Error> {
        self.settings.hooks.before_start.run().await?;
        let source = self.settings.registry;
        for registry in self.discovery.registries() {
            registry.prepare().await.map_err(|error| source.note(error))?;
        }
        Ok(self)
    }

    async fn serve(self) -> Result<Handle, Error> {
        let Self { settings, discovery, server } = self;
        let mut endpoints: Vec<_> = server.descriptors().flat_map(Endpoint::of).collect();
        endpoints.sort_by(|a, b| a.name.cmp(&b.name));
        let Value { value: address, source } = settings.address;
        let listening = server.bind(&address).await.map_err(|error| match error.kind() {
            ErrorKind::Bind => error.noting(format_args!("the address is from {source}")),
            _ => error,
        })?;
        let (asked, bound) = (address, listening.local_addr());
        address::check_bound(bound)
            .map_err(|error| error.noting(format_args!("the address is from {source}")))?;
        let advertise = settings.advertise.as_ref();
        let address =
            address::advertised(advertise.map(|it| it.value.as_str()), bound, &Machine::this())
                .map_err(|error| match advertise {
                    Some(Value { source, .. }) => error.noting(format_args!("from {source}")),
                    None => error,
                })?;

        let source = advertise.map_or(source, |it| it.source);
        let (name, id) = (settings.name, settings.id);
        let mut node = Node::new(&name.value, &id.value, &address);
        node.version = settings.version;
        node.metadata.extend(settings.metadata.pairs.clone());
        node.endpoints = endpoints;
        // Else it would be tried for ever: nothing but other options can change it.
        let registries = discovery.registries().to_vec();
        for registry in &registries {
            registry.validate(&node).map_err(|error| {
                let (name, id, metadata) = (name.source, id.source, settings.metadata.sources());
                error.noting(format_args!(
                    "the name is from {name}, the id from {id}, the address from {source}, the \
                     metadata from {metadata}"
                ))
            })?;
        }
        let shown = discovery.name();
        let is_shared = registries.iter().any(|registry| registry.is_shared());
        let gap = registries.iter().map(|registry| registry.spread()).max().unwrap_or_default();
        let (claim, registration) = Claim::register(&shown, &node, || {
            tracing::info!(service = node.service, node = node.id, address, "serving");
            Registration::start_in(registries, node.clone(), settings.registration)
        })?;
        if let Some(warning) = address::unreachable(&asked, bound, &address, is_shared) {
            tracing::warn!(service = node.service, node = node.id, registry = shown, "{warning}");
        }
        let leaving = leave::Leaving {
            service: name.value,
            gap,
            drain_timeout: settings.drain_timeout,
            listening,
            registration,
        };
        Ok(Handle::start(leaving, claim, address, id.value, settings.shutdown, settings.hooks))
    }
}
