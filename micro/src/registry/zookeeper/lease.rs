//! The sessions that keep nodes' records: one a lease.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};
use zookeeper_client::{Client, SessionState, StateWatcher};

use super::super::Lease;

/// The leases of this process, each a session whose id it is.
///
/// A session lives for as long as its process has a connection, renewed or not; so one whose lease
/// nobody renews within its TTL is closed here. A closed session takes its records along.
#[derive(Debug, Default)]
pub(super) struct Leases(Arc<Mutex<HashMap<Lease, Held>>>);

#[derive(Debug)]
struct Held {
    /// None once it is being closed.
    client: Option<Client>,
    states: StateWatcher,
    ttl: Duration,
    expires: Instant,
}

impl Leases {
    /// Keeps a session as a lease of this TTL, from now on.
    pub(super) fn hold(&self, client: Client, ttl: Duration) -> Lease {
        let lease = Lease(client.session_id().0);
        let expires = Instant::now() + ttl;
        let states = client.state_watcher();
        lock(&self.0).insert(lease, Held { client: Some(client), states, ttl, expires });
        let leases = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            while let Some(leases) = leases.upgrade() {
                let expires = {
                    let mut leases = lock(&leases);
                    let Some(held) = leases.get(&lease) else { return };
                    if held.expires <= Instant::now() {
                        leases.remove(&lease);
                        return;
                    }
                    held.expires
                };
                drop(leases);
                sleep_until(expires).await;
            }
        });
        lease
    }

    /// The session of a lease that is held.
    pub(super) fn session(&self, lease: Lease) -> Option<Client> {
        lock(&self.0).get(&lease)?.client.clone()
    }

    /// Extends a lease by its TTL.
    pub(super) fn extend(&self, lease: Lease) {
        if let Some(held) = lock(&self.0).get_mut(&lease) {
            held.expires = Instant::now() + held.ttl;
        }
    }

    pub(super) fn forget(&self, lease: Lease) {
        lock(&self.0).remove(&lease);
    }

    /// Closes the session of a lease and waits for ZooKeeper's word on it.
    pub(super) async fn close(&self, lease: Lease) {
        let mut states = {
            let mut leases = lock(&self.0);
            let Some(held) = leases.get_mut(&lease) else { return };
            held.client = None;
            held.states.clone()
        };
        let mut state = states.state();
        while !state.is_terminated() {
            state = states.changed().await;
        }
        self.forget(lease);
    }
}

/// Waits until a session has a connection again, or never will.
pub(super) async fn resumed(client: &Client) -> bool {
    let mut states = client.state_watcher();
    let mut state = states.state();
    while !state.is_terminated() {
        if state == SessionState::SyncConnected {
            return true;
        }
        state = states.changed().await;
    }
    false
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
