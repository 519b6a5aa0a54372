//! What this process has registered, and until when.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

use super::{
    super::{Lease, Node, RenewError},
    client::Client,
    record::Record,
};

/// By service and id.
#[derive(Debug, Default)]
pub(super) struct Leases {
    held: Mutex<HashMap<(String, String), Held>>,
    last: Mutex<i64>,
}

/// A node that is registered.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) lease: Lease,
    pub(super) node: Node,
    pub(super) records: Vec<Record>,
    pub(super) client: Arc<Client>,
    pub(super) ttl: Duration,
    expires: Instant,
}

impl Held {
    pub(super) fn new(
        lease: Lease,
        node: &Node,
        records: Vec<Record>,
        client: Arc<Client>,
        ttl: Duration,
    ) -> Self {
        let expires = Instant::now() + ttl;
        Self { lease, node: node.clone(), records, client, ttl, expires }
    }
}

/// It is held no more.
pub(super) fn over() -> RenewError {
    RenewError::Lost(
        "it is not registered any more: its TTL was over, or it was deregistered".to_owned(),
    )
}

fn key(node: &Node) -> (String, String) {
    (node.service.clone(), node.id.clone())
}

impl Leases {
    /// A new lease, later than all others of this process and, by the clock, of others.
    pub(super) fn next(&self) -> Lease {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = i64::try_from(now).unwrap_or(i64::MAX - 1).max(*last + 1);
        Lease(*last)
    }

    /// What is held of the node.
    ///
    /// # Errors
    /// `Lost` when nothing is, `Taken` when it is held under another lease or as another node.
    pub(super) fn get(&self, node: &Node, lease: Lease) -> Result<Held, RenewError> {
        match self.held().get(&key(node)) {
            None => Err(over()),
            Some(held) if held.lease != lease || held.node != *node => {
                Err(RenewError::taken_by(node, &held.node))
            }
            Some(held) => Ok(held.clone()),
        }
    }

    /// Holds the node no more, under whichever lease, if that is wanted: whoever has what was held writes
    /// it anew or takes it back, and no lease that ends does so meanwhile.
    pub(super) fn take_if(
        &self,
        node: &Node,
        is_wanted: impl FnOnce(&Held) -> bool,
    ) -> Option<Held> {
        let mut all = self.held();
        all.get(&key(node)).filter(|held| is_wanted(held))?;
        all.remove(&key(node))
    }

    /// Holds a node, and returns what was held in its place.
    pub(super) fn hold(&self, held: Held) -> Option<Held> {
        self.held().insert(key(&held.node), held)
    }

    /// Holds it for another TTL; false if it is held no more.
    pub(super) fn extend(&self, node: &Node, lease: Lease) -> bool {
        let mut all = self.held();
        let held = all.get_mut(&key(node)).filter(|held| held.lease == lease);
        held.map(|held| held.expires = Instant::now() + held.ttl).is_some()
    }

    /// Holds it no more.
    pub(super) fn take(&self, node: &Node, lease: Lease) -> Option<Held> {
        let mut all = self.held();
        all.get(&key(node)).filter(|held| held.lease == lease)?;
        all.remove(&key(node))
    }

    /// When it expires; none if it is not held.
    pub(super) fn expiry(&self, node: &Node, lease: Lease) -> Option<Instant> {
        let all = self.held();
        all.get(&key(node)).filter(|held| held.lease == lease).map(|held| held.expires)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<(String, String), Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lease_is_later_than_the_one_before() {
        let leases = Leases::default();
        let given: Vec<_> = (0..1000).map(|_| leases.next().0).collect();
        assert!(given.is_sorted_by(|one, other| one < other));
        assert!(!leases.extend(&Node::new("a", "a-1", "h:1"), Lease(1)), "nothing is held");
    }
}
