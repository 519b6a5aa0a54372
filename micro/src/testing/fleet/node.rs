//! A node, and what befalls it.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::watch, time::sleep};

use super::{Configure, FleetRegistry, Setup};
use crate::{Error, Handle, Service, registration::RegistrationState, transport::pipe::Wire};

/// A node of a [`Fleet`](super::Fleet).
///
/// [`hang`](Self::hang), [`refuse`](Self::refuse) and [`slow`](Self::slow) last until
/// [`heal`](Self::heal) or [`restart`](Self::restart), and may be there together.
pub struct FleetNode {
    service: String,
    id: String,
    registry: Arc<FleetRegistry>,
    wire: Arc<Wire>,
    /// How much later each call is answered, in nanoseconds.
    latency: Arc<AtomicU64>,
    setup: Setup,
    /// `None` leaves it as any other.
    configure: Option<Configure>,
    handle: Mutex<Option<Handle>>,
}

impl FleetNode {
    pub(super) fn new(
        service: &str,
        id: String,
        registry: &FleetRegistry,
        address: SocketAddr,
        setup: Setup,
        configure: Option<Configure>,
    ) -> Self {
        let wire = Wire::new(address);
        let registry = registry.seen_over(&wire, &id);
        Self {
            service: service.to_owned(),
            id,
            registry,
            wire,
            latency: Arc::default(),
            setup,
            configure,
            handle: Mutex::default(),
        }
    }

    /// Its id in the registry.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its address in the registry, which leads nowhere but to it, and from within this process only.
    pub fn address(&self) -> SocketAddr {
        self.wire.address()
    }

    /// Ends it as SIGKILL does: its connections are reset, connecting to it is refused, and its record
    /// stays in the registry until its TTL is over (15 s). Handlers under way are dropped; what they
    /// have spawned goes on. One that does not run stays so.
    pub fn kill(&self) {
        let running = self.handle().take();
        self.wire.kill();
        if let Some(running) = running {
            running.kill();
        }
    }

    /// Stops it as SIGSTOP does: connections to it stand, and can be made, but nothing arrives there or
    /// comes back, and its registration is not renewed. Handlers under way go on unseen.
    pub fn hang(&self) {
        self.wire.hang();
    }

    /// Breaks all connections to it and refuses new ones, while it runs and is registered: a firewall,
    /// or a port that is not the one registered.
    pub fn refuse(&self) {
        self.wire.refuse();
    }

    /// Has each call answered so much later, streams by their headers. Zero: at once, as before. The
    /// connection itself stays prompt, so that what makes callers give the node up is their deadlines.
    pub fn slow(&self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.latency.store(nanos, Relaxed);
    }

    /// Ends [`hang`](Self::hang), [`refuse`](Self::refuse) and [`slow`](Self::slow): what was sent to it
    /// and by it meanwhile arrives.
    pub fn heal(&self) {
        self.wire.heal();
        self.slow(Duration::ZERO);
    }

    /// Has it leave as on SIGTERM: out of the registry, then no new calls, then the end of those under
    /// way; returns when all is done. One that does not run has left.
    ///
    /// # Errors
    /// As [`Handle::stop`].
    pub async fn leave(&self) -> Result<(), Error> {
        let running = self.handle().take();
        match running {
            Some(running) => running.stop().await,
            None => Ok(()),
        }
    }

    /// Starts it anew under its id and address, and well; one that runs is [killed](Self::kill) before.
    /// It listens when this returns, and is registered as soon as the registry permits.
    ///
    /// # Errors
    /// As [`Service::start`].
    pub async fn restart(&self) -> Result<(), Error> {
        self.kill();
        self.heal();
        self.start().await.map(drop)
    }

    /// The URL of the registry as this node has it, which hangs with it.
    #[cfg(test)]
    pub(super) fn registry_url(&self) -> &str {
        self.registry.url()
    }

    pub(super) async fn start(&self) -> Result<watch::Receiver<RegistrationState>, Error> {
        let builder = Service::builder(&self.service);
        let builder = match &self.configure {
            Some(configure) => configure(builder),
            None => builder,
        };
        let mut service = builder
            .without_env()
            .id(&self.id)
            .address(self.wire.address().to_string())
            .registry(self.registry.url())
            .build()
            .await?;
        (self.setup)(&mut service);
        let latency = self.latency.clone();
        service.server().intercept(move |request, next| {
            let latency = Duration::from_nanos(latency.load(Relaxed));
            async move {
                if !latency.is_zero() {
                    sleep(latency).await;
                }
                next.run(request).await
            }
        });
        let handle = service.start().await?;
        let registration = handle.registration();
        *self.handle() = Some(handle);
        Ok(registration)
    }

    fn handle(&self) -> MutexGuard<'_, Option<Handle>> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for FleetNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetNode")
            .field("id", &self.id)
            .field("address", &self.wire.address())
            .field("runs", &self.handle().is_some())
            .finish_non_exhaustive()
    }
}
