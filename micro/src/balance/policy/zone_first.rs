//! The own zone while it is well.

use std::{collections::HashSet, sync::Arc};

use fastrand::Rng;
use tokio::time::Instant;

use super::{
    super::{request::Asked, set::Set, snapshot::Endpoint},
    listed::Listed,
    p2c,
};
use crate::{discovery::Update, registry::Node};

/// Envoy's overprovisioning factor: so much more than its share each node of a zone can take.
const OVERPROVISIONED: f32 = 1.4;

#[derive(Debug, Clone)]
pub(in super::super) struct Zone {
    name: Arc<str>,
    listed: Listed,
}

impl Zone {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self { name, listed: Listed::default() }
    }

    pub(super) fn is_own(&self, node: &Node) -> bool {
        is_in(&self.name, node)
    }

    pub(super) fn listed(&mut self, update: &Update) {
        let Self { name, listed } = self;
        let list = |ids: &mut HashSet<Box<str>>, node: &Node| {
            if is_in(name, node) {
                ids.insert(node.id.as_str().into());
            } else {
                ids.remove(node.id.as_str());
            }
        };
        listed.update(|ids| match update {
            Update::Reset(nodes) => {
                ids.clear();
                nodes.iter().for_each(|node| list(ids, node));
            }
            Update::Insert(node) => list(ids, node),
            Update::Remove(id) => drop(ids.remove(&**id)),
            Update::Forget => ids.clear(),
        });
    }

    /// The part of the calls that the own zone gets; all from 1 on.
    pub(super) fn share<C>(&self, set: &Set<C>) -> f32 {
        let (ready, listed) = (set.own().len(), self.listed.len().max(1));
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

fn is_in(zone: &str, node: &Node) -> bool {
    node.metadata.get("zone").is_some_and(|it| it == zone)
}
