//! One process runs a node of a service once.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::{
    Error,
    registration::{Registration, RegistrationState},
    registry::Node,
};

/// Registry, service and id.
type Key = (String, String, String);

static RUNNING: Mutex<BTreeMap<Key, Running>> = Mutex::new(BTreeMap::new());

#[derive(Debug)]
struct Running {
    address: String,
    state: watch::Receiver<RegistrationState>,
}

impl Running {
    /// Whether it holds its record still: whoever leaves may be succeeded already.
    fn holds(&self) -> bool {
        let state = *self.state.borrow();
        !matches!(state, RegistrationState::Leaving | RegistrationState::Gone)
            && self.state.has_changed().is_ok()
    }
}

/// A node's id in its service and registry, this process's until it is dropped. Two of one id would
/// take the record from each other for ever, and either would log that of "another process".
#[derive(Debug)]
pub(super) struct Claim {
    key: Key,
    state: watch::Receiver<RegistrationState>,
}

impl Claim {
    /// Starts a node's registration under its id.
    ///
    /// # Errors
    /// `Config` when a node of this id runs in this process, on the same registry and in the same
    /// service.
    pub(super) fn register(
        registry: &str,
        node: &Node,
        register: impl FnOnce() -> Registration,
    ) -> Result<(Self, Registration), Error> {
        let key = (registry.to_owned(), node.service.clone(), node.id.clone());
        let mut running = running();
        if let Some(other) = running.get(&key).filter(|other| other.holds()) {
            return Err(Error::config(format!(
                "a node of id '{}' of service '{}' runs in this process already, at {}: they would \
                 take the record in {registry} from each other; give each an id of its own, or leave \
                 the id out for a new one at each start",
                node.id, node.service, other.address,
            )));
        }
        let registration = register();
        let state = registration.state();
        let address = node.address.clone();
        running.insert(key.clone(), Running { address, state: state.clone() });
        Ok((Self { key, state }, registration))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut running = running();
        // A successor may have come while this one left.
        if running.get(&self.key).is_some_and(|it| it.state.same_channel(&self.state)) {
            running.remove(&self.key);
        }
    }
}

fn running() -> MutexGuard<'static, BTreeMap<Key, Running>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}
