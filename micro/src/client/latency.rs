//! How long the calls of each method take.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;

use super::p95::P95;

/// By method, for those that are hedged at their p95: only generated stubs ask for that.
#[derive(Debug, Default)]
pub(super) struct Latencies(ArcSwap<HashMap<Box<str>, Arc<P95>>>);

impl Latencies {
    pub(super) fn of(&self, path: &str) -> Arc<P95> {
        if let Some(p95) = self.0.load().get(path) {
            return p95.clone();
        }
        self.0.rcu(|known| {
            let mut known = HashMap::clone(known);
            known.entry(path.into()).or_default();
            known
        });
        self.0.load().get(path).cloned().unwrap_or_default()
    }
}
