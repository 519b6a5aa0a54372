//! The nodes that a channel's calls may go to.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
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
    /// Connections that take calls.
    open: AtomicU64,
}

impl BalanceMetrics {
    pub(crate) fn start(service: &str) -> Self {
        let held = SETS.hold(Set {
            target: service.into(),
            now: Mutex::default(),
            open: AtomicU64::new(0),
        });
        counters();
        Self(held)
    }

    /// How the set stands.
    pub(crate) fn stands(&self, now: Balanced) {
        *self.0.now.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// A node is ejected, as found by this method.
    pub(crate) fn ejected(&self, method: &'static str) {
        counters().ejections.add(1, &and(&self.target(), attribute::DETECTION, method));
    }

    /// An attempt to connect has succeeded.
    pub(crate) fn connected(&self) {
        self.0.open.fetch_add(1, Relaxed);
        counters().connected.add(1, &self.target());
    }

    /// An attempt to connect has failed.
    pub(crate) fn not_connected(&self) {
        counters().not_connected.add(1, &self.target());
    }

    /// A connection takes no more calls, for a reason of gRFC A94's.
    pub(crate) fn disconnected(&self, why: &'static str) {
        self.0.open.fetch_sub(1, Relaxed);
        counters().disconnections.add(1, &and(&self.target(), attribute::DISCONNECT, why));
    }

    fn target(&self) -> [KeyValue; 1] {
        [KeyValue::new(attribute::TARGET, self.0.target.clone())]
    }
}

impl Drop for BalanceMetrics {
    /// The channel's last connections go with it, and nobody waits for their ends.
    fn drop(&mut self) {
        let left = self.0.open.load(Relaxed);
        if left > 0 {
            let why = crate::transport::Disconnect::SHUTDOWN.name();
            let attributes = and(&self.target(), attribute::DISCONNECT, why);
            counters().disconnections.add(left, &attributes);
        }
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
            for (target, now) in worst {
                let target = [KeyValue::new(attribute::TARGET, target)];
                for (state, nodes) in [
                    ("listed", now.listed),
                    ("ready", now.ready),
                    ("retained", now.retained),
                    ("ejected", now.ejected),
                ] {
                    observer.observe(nodes as u64, &and(&target, attribute::NODE_STATE, state));
                }
            }
        })
        .build();
    meter
        .i64_observable_up_down_counter("grpc.subchannel.open_connections")
        .with_unit("{connection}")
        .with_description("Connections that take calls.")
        .with_callback(|observer| {
            let mut open = BTreeMap::<Arc<str>, i64>::new();
            for set in SETS.all() {
                let its = i64::try_from(set.open.load(Relaxed)).unwrap_or(i64::MAX);
                *open.entry(set.target.clone()).or_default() += its;
            }
            for (target, open) in open {
                observer.observe(open, &[KeyValue::new(attribute::TARGET, target)]);
            }
        })
        .build();
}
