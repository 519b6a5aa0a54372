//! What is told to people: in the log, in errors, and to whoever asks how it stands.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Driver, Link};
use crate::{
    balance::{
        connect::Connect,
        ejection::Reason,
        explain::{Explanation, NodeReport, OneLine},
    },
    registry::Node,
};

impl<K: Connect> Driver<K> {
    /// One line a change of what is picked, and none otherwise: a node that is down fails to connect
    /// many times, and who waits for it gets the reason in the error.
    pub(super) fn log(&self, node: &Node, change: &str) {
        tracing::debug!(
            service = node.service,
            node = node.id,
            address = node.address,
            ready = self.picked.len(),
            listed = self.members.listed(),
            "{change}"
        );
    }

    /// That a node is left out is for whoever runs it to know.
    pub(super) fn log_ejection(&self, node: &Node, reason: Reason, until: Instant) {
        tracing::info!(
            service = node.service,
            node = node.id,
            address = node.address,
            reason = %reason,
            seconds = until.saturating_duration_since(Instant::now()).as_secs(),
            "node is ejected"
        );
    }

    /// That a node is called whatever its health is for whoever asks for health to know.
    pub(super) fn log_mute(&self, node: &Node) {
        tracing::warn!(
            service = node.service,
            node = node.id,
            address = node.address,
            "a node does not tell its health (it has no grpc.health.v1.Health/Watch): it is taken for well"
        );
    }

    pub(super) fn remember(&self, node: &Node, error: String) -> Arc<str> {
        let last = format!("node {}: {}", OneLine(&node.id), OneLine(&error));
        self.shared.last_error.store(Some(Arc::new(last)));
        error.into()
    }

    pub(super) fn explain(&self, now: Instant) -> Explanation {
        let told = |(mut report, link): (NodeReport, Option<&Link<K::Connection>>)| {
            if let Some(Link { load, .. }) = link {
                report.latency = load.latency(now);
                report.health = Some(load.health(now));
            }
            report
        };
        let mut nodes: Vec<_> = self.members.reports(now).map(told).collect();
        nodes.sort_by(|a, b| a.node.id.cmp(&b.node.id));
        let listed = self.listed();
        let neighbours = &self.shared.neighbours;
        let status = self.shared.registry.borrow();
        Explanation {
            service: neighbours.service().to_owned(),
            registry: neighbours.registry().to_owned(),
            revision: status.revision,
            stale: status.stale.map(|since| now.saturating_duration_since(since)),
            error: status.error.as_deref().map(str::to_owned),
            listed,
            subset: self.subset.as_ref().map(|_| self.members.listed()),
            left_out: status.malformed + status.not_grpc,
            filtered: self.filtered.left_out(),
            unchanged: now.saturating_duration_since(self.changed),
            nodes,
        }
    }
}
