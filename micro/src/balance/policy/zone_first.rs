//! The own zone while it is well.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use fastrand::Rng;
use tokio::time::Instant;

use super::{
    super::{request::Asked, set::Set, snapshot::Endpoint},
    p2c,
};
use crate::{discovery::Update, registry::Node};

/// Envoy's overprovisioning factor: so much more than its share each node of a zone can take.
const OVERPROVISIONED: f32 = 1.4;

#[derive(Debug, Clone)]
pub(in super::super) struct Zone {
    name: Arc<str>,
    /// The ids of the nodes there that the registry lists. Only where the set changes: snapshots have
    /// the number.
    ids: Listed,
    listed: Arc<AtomicUsize>,
}

/// Left behind by a clone.
#[derive(Debug, Default)]
struct Listed(HashSet<Box<str>>);

impl Clone for Listed {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Zone {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self { name, ids: Listed::default(), listed: Arc::default() }
    }

    pub(super) fn is_own(&self, node: &Node) -> bool {
        node.metadata.get("zone").is_some_and(|zone| **zone == *self.name)
    }

    pub(super) fn listed(&mut self, update: &Update) {
        match update {
            Update::Reset(nodes) => {
                self.ids.0.clear();
                for node in nodes {
                    self.list(node);
                }
            }
            Update::Insert(node) => self.list(node),
            Update::Remove(id) => drop(self.ids.0.remove(&**id)),
            Update::Forget => self.ids.0.clear(),
        }
        self.listed.store(self.ids.0.len(), Relaxed);
    }

    fn list(&mut self, node: &Node) {
        if self.is_own(node) {
            self.ids.0.insert(node.id.as_str().into());
        } else {
            self.ids.0.remove(node.id.as_str());
        }
    }

    /// The part of the calls that the own zone gets; all from 1 on.
    pub(super) fn share<C>(&self, set: &Set<C>) -> f32 {
        let (ready, listed) = (set.own().len(), self.listed.load(Relaxed).max(1));
        OVERPROVISIONED * ready as f32 / listed as f32
    }

    pub(super) fn pick<'a, C>(
        &self,
        set: &'a Set<C>,
        asked: &Asked<'_>,
        now: Instant,
        rng: &mut Rng,
    ) -> Option<&'a Arc<Endpoint<C>>> {
        let share = self.share(set);
        let (first, second) = if share >= 1.0 || rng.f32() < share {
            (set.own(), set.others())
        } else {
            (set.others(), set.own())
        };
        p2c::pick(set, first, asked, now, rng).or_else(|| p2c::pick(set, second, asked, now, rng))
    }
}
