//! The registry of a fleet: `memory://`, which may be away, and forget.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Duration,
};

use futures_util::{StreamExt as _, future, stream};
use tokio::sync::watch;

use crate::{
    Error,
    registry::{
        self, BoxFuture, Lease, Listing, Node, Registry, RenewError, Watch, WatchError,
        memory::Memory,
    },
    transport::pipe::Wire,
};

/// By URL.
static FLEETS: Mutex<BTreeMap<String, Weak<FleetRegistry>>> = Mutex::new(BTreeMap::new());

/// The registry of a [`Fleet`](super::Fleet): it does what [`Memory`] does, unless it is told to fail.
#[derive(Debug)]
pub struct FleetRegistry {
    url: String,
    store: Arc<watch::Sender<Store>>,
    /// What leads to it, if that may hang: it does with the node that uses it.
    wire: Option<Arc<Wire>>,
}

#[derive(Debug, Clone, Default)]
struct Store {
    memory: Memory,
    is_away: bool,
}

impl FleetRegistry {
    /// Every request fails from now on, and watches break, until [`heal`](Self::heal). Records expire
    /// meanwhile.
    pub fn fail(&self) {
        self.store.send_modify(|store| store.is_away = true);
    }

    /// Ends [`fail`](Self::fail).
    pub fn heal(&self) {
        self.store.send_modify(|store| store.is_away = false);
    }

    /// Forgets everything, its revisions included, as one that lost its disk; watches break. Nodes
    /// register anew when they renew.
    pub fn wipe(&self) {
        self.store.send_modify(|store| store.memory = Memory::new());
    }

    /// The registry of that fleet, which its URL opens as long as this is held.
    pub(super) fn found(fleet: u32) -> Result<Arc<Self>, Error> {
        static INSTALLED: OnceLock<Result<(), String>> = OnceLock::new();
        let install = || registry::install("fleet", open).map_err(|error| error.to_string());
        INSTALLED.get_or_init(install).clone().map_err(Error::config)?;
        Ok(Self::listed(format!("fleet://{fleet}"), Arc::default(), None))
    }

    /// The same as a node at the end of that wire has it.
    pub(super) fn seen_over(&self, wire: &Arc<Wire>, node: &str) -> Arc<Self> {
        Self::listed(format!("{}/{node}", self.url), self.store.clone(), Some(wire.clone()))
    }

    fn listed(url: String, store: Arc<watch::Sender<Store>>, wire: Option<Arc<Wire>>) -> Arc<Self> {
        let registry = Arc::new(Self { url: url.clone(), store, wire });
        fleets().insert(url, Arc::downgrade(&registry));
        registry
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Where a request ends up, once it gets through.
    async fn memory(&self) -> Result<Memory, Error> {
        if let Some(wire) = &self.wire {
            wire.moves().await;
        }
        let store = self.store.borrow();
        if store.is_away { Err(self.away()) } else { Ok(store.memory.clone()) }
    }

    fn away(&self) -> Error {
        Error::registry(format!("{}: away, as the test has told it to be", self.url))
    }
}

impl Drop for FleetRegistry {
    fn drop(&mut self) {
        fleets().remove(&self.url);
    }
}

fn fleets() -> MutexGuard<'static, BTreeMap<String, Weak<FleetRegistry>>> {
    FLEETS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(url: &str) -> Result<Arc<dyn Registry>, Error> {
    match fleets().get(url).and_then(Weak::upgrade) {
        Some(registry) => Ok(registry),
        None => Err(Error::config(format!(
            "registry URL `{url}`: no such fleet runs in this process; its URL is that of \
             Fleet::registry_url, as long as the Fleet is not dropped"
        ))),
    }
}

impl Registry for FleetRegistry {
    fn name(&self) -> &str {
        &self.url
    }

    fn hint(&self) -> Option<&str> {
        Some("fleet:// has the services that the test gave its fleet")
    }

    fn spread(&self) -> Duration {
        Duration::ZERO
    }

    fn min_ttl(&self) -> Duration {
        Memory::new().min_ttl()
    }

    fn register<'a>(
        &'a self,
        node: &'a Node,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Lease, Error>> {
        Box::pin(async move { self.memory().await?.register(node, ttl).await })
    }

    fn renew<'a>(&'a self, node: &'a Node, lease: Lease) -> BoxFuture<'a, Result<(), RenewError>> {
        Box::pin(async move {
            let memory = self.memory().await.map_err(RenewError::Failed)?;
            memory.renew(node, lease).await
        })
    }

    fn deregister<'a>(&'a self, node: &'a Node, lease: Lease) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move { self.memory().await?.deregister(node, lease).await })
    }

    fn read<'a>(&'a self, service: &'a str) -> BoxFuture<'a, Result<Listing, Error>> {
        Box::pin(async move { self.memory().await?.read(service).await })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<String>, Error>> {
        Box::pin(async move { self.memory().await?.list().await })
    }

    fn watch(&self, service: &str, after: u64) -> Watch {
        let mut changes = self.store.subscribe();
        let Store { memory, is_away } = changes.borrow_and_update().clone();
        let broken = WatchError::Disconnected(self.away());
        let broken = stream::once(future::ready(Err(broken)));
        if is_away {
            return broken.boxed();
        }
        let wire = self.wire.clone();
        let told = memory.watch(service, after).then(move |batch| {
            let wire = wire.clone();
            async move {
                if let Some(wire) = wire {
                    wire.moves().await;
                }
                batch
            }
        });
        told.take_until(async move { changes.changed().await }).chain(broken).boxed()
    }
}
