//! A registry in memory that refuses and falls silent on command.

use std::{
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use micro::{
    Error, ErrorKind,
    registry::{
        BoxFuture, Lease, Listing, Malformed, Node, Registry, RenewError, Watch, WatchError,
        memory::Memory,
    },
};
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Up,
    /// Refuses at once, and watches end.
    Down,
    /// Does not answer.
    Silent,
}

#[derive(Debug)]
pub(crate) struct Faulty {
    name: String,
    /// What is written behind the owners' backs is written here.
    pub(crate) memory: Memory,
    mode: watch::Sender<Mode>,
    /// The lease given last.
    lease: Mutex<Option<Lease>>,
    malformed: Mutex<Vec<Malformed>>,
}

impl Faulty {
    pub(crate) fn named(name: &str) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            memory: Memory::new(),
            mode: watch::channel(Mode::Up).0,
            lease: Mutex::default(),
            malformed: Mutex::default(),
        })
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Deletes the record that was registered last.
    pub(crate) async fn delete(&self, node: &Node) {
        let lease = self.lease.lock().unwrap().expect("it is registered");
        self.memory.deregister(node, lease).await.expect("memory answers");
    }

    /// Has a record that cannot be decoded, for those who read from now on.
    pub(crate) fn malform(&self, key: &str) {
        let malformed = Malformed { key: key.to_owned(), reason: "no JSON".to_owned() };
        self.malformed.lock().unwrap().push(malformed);
    }

    async fn answer(&self) -> Result<(), Error> {
        let mode = *self.mode.borrow();
        match mode {
            Mode::Up => Ok(()),
            Mode::Down => Err(refused()),
            Mode::Silent => pending().await,
        }
    }
}

fn refused() -> Error {
    Error::new(ErrorKind::Registry, "connection refused")
}

impl Registry for Faulty {
    fn name(&self) -> &str {
        &self.name
    }

    fn spread(&self) -> Duration {
        Duration::ZERO
    }

    fn min_ttl(&self) -> Duration {
        self.memory.min_ttl()
    }

    fn register<'a>(
        &'a self,
        node: &'a Node,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Lease, Error>> {
        Box::pin(async move {
            self.answer().await?;
            let lease = self.memory.register(node, ttl).await?;
            *self.lease.lock().unwrap() = Some(lease);
            Ok(lease)
        })
    }

    fn renew<'a>(&'a self, node: &'a Node, lease: Lease) -> BoxFuture<'a, Result<(), RenewError>> {
        Box::pin(async move {
            self.answer().await.map_err(RenewError::Failed)?;
            self.memory.renew(node, lease).await
        })
    }

    fn deregister<'a>(&'a self, node: &'a Node, lease: Lease) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            self.answer().await?;
            self.memory.deregister(node, lease).await
        })
    }

    fn read<'a>(&'a self, service: &'a str) -> BoxFuture<'a, Result<Listing, Error>> {
        Box::pin(async move {
            self.answer().await?;
            let mut listing = self.memory.read(service).await?;
            listing.malformed.extend(self.malformed.lock().unwrap().iter().cloned());
            Ok(listing)
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<String>, Error>> {
        self.memory.list()
    }

    fn watch(&self, service: &str, after: u64) -> Watch {
        let mut mode = self.mode.subscribe();
        let lost = async move { mode.wait_for(|mode| *mode == Mode::Down).await.map(drop) };
        let lost_error = stream::iter([Err(WatchError::Disconnected(refused()))]);
        self.memory.watch(service, after).take_until(Box::pin(lost)).chain(lost_error).boxed()
    }
}
