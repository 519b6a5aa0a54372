//! The nodes that a channel's calls may go to.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use opentelemetry::{KeyValue, metrics::Meter};

use super::{
    Balanced,
    instruments::{and, attribute, counters},
    live::{Held, Live},
};

static SETS: Live<Set> = Live::new();

/// Is told of the set of nodes of one channel. Its gauges end when this is dropped.
#[derive(Debug)]
pub(crate) struct BalanceMetrics(Held<Set>);

#[derive(Debug)]
struct Set {
    target: Arc<str>,
    now: Mutex<Balanced>,
}

impl BalanceMetrics {
    pub(crate) fn start(service: &str) -> Self {
        let held = SETS.hold(Set { target: service.into(), now: Mutex::default() });
        counters();
        Self(held)
    }

    /// How the set stands.
    pub(crate) fn stands(&self, now: Balanced) {
        *self.0.now.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// A node is ejected, as found by this method.
    pub(crate) fn ejected(&self, method: &'static str) {
        let target = [KeyValue::new(attribute::TARGET, self.0.target.clone())];
        counters().ejections.add(1, &and(&target, attribute::DETECTION, method));
    }
}

pub(super) fn observe(meter: &Meter) {
    meter
        .u64_observable_gauge("micro.client.nodes")
        .with_unit("{node}")
        .with_description("The nodes that calls may go to, by what they are in.")
        .with_callback(|observer| {
            // Of a service that has two channels, in two clients or runtimes, the worse off.
            let mut worst = BTreeMap::<Arc<str>, Balanced>::new();
            for set in SETS.all() {
                let now = *set.now.lock().unwrap_or_else(PoisonError::into_inner);
                let known = worst.entry(set.target.clone()).or_insert(now);
                if now.ready < known.ready {
                    *known = now;
                }
            }
            for (target, Balanced { listed, ready, ejected }) in worst {
                let target = [KeyValue::new(attribute::TARGET, target)];
                for (state, nodes) in [("listed", listed), ("ready", ready), ("ejected", ejected)] {
                    observer.observe(nodes as u64, &and(&target, attribute::NODE_STATE, state));
                }
            }
        })
        .build();
}
