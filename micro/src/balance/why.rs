//! Why there is no node for a call, for people.

use std::sync::atomic::Ordering::Relaxed;

use super::{Balancer, Progress, Request};
use crate::discovery::Status;

impl<C: Clone + Send + Sync + 'static> Balancer<C> {
    /// Why there is no node for a call, for people: what it asks for, or why none at all is ready,
    /// which is the last connect or registry error.
    pub(crate) fn why_not_ready(&self, request: &Request<'_>) -> String {
        let shared = &*self.handle.shared;
        let listed = shared.listed.load(Relaxed);
        let ready = shared.snapshot.load().len();
        if let Some(node) = request.node {
            let last = shared.last_error.load_full();
            let last = last.map(|error| format!("; the last error: {error}")).unwrap_or_default();
            return format!(
                "node {node}, which the call is pinned to, is none of the {ready} that are ready, \
                 of {listed} that are registered{last}"
            );
        }
        if ready > 0 && shared.filter.serving {
            let method = request.method;
            return format!("{method} is in the record of none of the {ready} that are ready");
        }
        if ready > 0 {
            return format!("the balancing policy chose none of the {ready} that are ready");
        }
        let status = shared.registry.borrow();
        // By what they are, and not by what is asked of them: that can change meanwhile.
        let state = if shared.unwell.load(Relaxed) > 0 { "well" } else { "connected" };
        match (&status.error, shared.last_error.load_full()) {
            (Some(error), _) if listed == 0 => error.to_string(),
            _ if *shared.progress.borrow() == Progress::Unread => {
                format!("{} has not answered yet", shared.neighbours.registry())
            }
            _ if listed == 0 => self.none_registered(&status),
            (_, Some(error)) => format!("none of {listed} nodes is {state}: {error}"),
            (_, None) => format!("none of {listed} nodes is {state} yet"),
        }
    }
}

impl<C: Send + Sync + 'static> Balancer<C> {
    /// Why the registry's answer has no node in it, with what it has instead if that is known by
    /// now. If not, the next call to fail will say it.
    fn none_registered(&self, status: &Status) -> String {
        let shared = &*self.handle.shared;
        let registry = shared.neighbours.registry();
        let others = shared.left_out.load(Relaxed);
        if others > 0 {
            let filter = &shared.filter;
            return format!("none of the {others} in {registry} passes the filter: {filter}");
        }
        let left_out = status.malformed + status.not_grpc;
        if left_out > 0 {
            return format!(
                "{registry} has {left_out} records of it and none that can be used: {} of nodes \
                 that do not speak gRPC, {} that cannot be decoded",
                status.not_grpc, status.malformed,
            );
        }
        shared.missed.store(true, Relaxed);
        shared.wanted.notify_one();
        let why = match shared.found.load_full() {
            Some(found) => found.to_string(),
            None => shared.neighbours.no_idea(),
        };
        format!("none is registered in {registry}; {why}")
    }
}
