//! The instruments of the meter provider that is installed now.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use opentelemetry::{
    InstrumentationScope, KeyValue, global,
    metrics::{Counter, Meter, MeterProvider},
};

use super::{
    balance, budget, calls::CallInstruments, discovery, handled::HandledInstruments, registration,
};

/// The attributes' names.
pub(super) mod attribute {
    pub(in crate::metrics) const REGISTRY: &str = "micro.registry";
    pub(in crate::metrics) const SERVICE: &str = "micro.service";
    pub(in crate::metrics) const NODE: &str = "micro.node.id";
    pub(in crate::metrics) const STATE: &str = "micro.registration.state";
    pub(in crate::metrics) const RENEWAL: &str = "micro.renewal.outcome";
    pub(in crate::metrics) const READ: &str = "micro.read.outcome";
    pub(in crate::metrics) const SKIPPED: &str = "micro.record.fault";
    pub(in crate::metrics) const PICK: &str = "micro.pick.outcome";
    pub(in crate::metrics) const NODE_STATE: &str = "micro.node.state";
    pub(in crate::metrics) const DETECTION: &str = "grpc.lb.outlier_detection.detection_method";
    pub(in crate::metrics) const DISCONNECT: &str = "grpc.disconnect_error";
    pub(in crate::metrics) const SOURCE: &str = "micro.config.source";
    pub(in crate::metrics) const METHOD: &str = "grpc.method";
    pub(in crate::metrics) const TARGET: &str = "grpc.target";
    pub(in crate::metrics) const STATUS: &str = "grpc.status";
}

/// What counts events. What tells how things stand is asked by callback.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) transitions: Counter<u64>,
    pub(super) renewals: Counter<u64>,
    pub(super) reads: Counter<u64>,
    pub(super) updates: Counter<u64>,
    pub(super) ejections: Counter<u64>,
    pub(super) disconnections: Counter<u64>,
    pub(super) connected: Counter<u64>,
    pub(super) not_connected: Counter<u64>,
    pub(super) refused_configs: Counter<u64>,
    pub(super) calls: CallInstruments,
    pub(super) handled: HandledInstruments,
}

/// A provider, and what was made with it.
type Made = (Weak<dyn MeterProvider + Send + Sync>, Arc<Counters>);

/// The counters of the provider that is installed now. Its callbacks are there as soon as this was
/// called once.
///
/// Instruments belong for ever to the provider that they were made with, which does nothing before the
/// program has installed its own. So each event looks whether it is still the same one: what was
/// installed late, or replaced, is told from the next event on.
pub(super) fn counters() -> Arc<Counters> {
    static MADE: Mutex<Option<Made>> = Mutex::new(None);
    let provider = global::meter_provider();
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    // While there is a weak reference its address is nobody else's.
    if let Some((of, counters)) = &*made
        && of.as_ptr().addr() == Arc::as_ptr(&provider).addr()
    {
        return counters.clone();
    }
    let scope = InstrumentationScope::builder("micro").with_version(env!("CARGO_PKG_VERSION"));
    let meter = provider.meter_with_scope(scope.build());
    registration::observe(&meter);
    discovery::observe(&meter);
    balance::observe(&meter);
    budget::observe(&meter);
    let counters = Arc::new(Counters::new(&meter));
    *made = Some((Arc::downgrade(&provider), counters.clone()));
    counters
}

impl Counters {
    fn new(meter: &Meter) -> Self {
        let counter = |name, unit, description| {
            meter.u64_counter(name).with_unit(unit).with_description(description).build()
        };
        Self {
            transitions: counter(
                "micro.registration.transitions",
                "{transition}",
                "Changes of the registration's state, by the state entered.",
            ),
            renewals: counter(
                "micro.registration.renewals",
                "{renewal}",
                "Renewals of the node's record, by their outcome.",
            ),
            reads: counter(
                "micro.discovery.reads",
                "{read}",
                "Full reads of the service's records, by their outcome.",
            ),
            updates: counter(
                "micro.discovery.updates",
                "{update}",
                "Updates of the service's nodes that followed from what the registry told.",
            ),
            ejections: counter(
                "grpc.lb.outlier_detection.ejections_enforced",
                "{ejection}",
                "Nodes that were ejected, by how they were found.",
            ),
            disconnections: counter(
                "grpc.subchannel.disconnections",
                "{disconnection}",
                "Connections that take no more calls, by why.",
            ),
            connected: counter(
                "grpc.subchannel.connection_attempts_succeeded",
                "{attempt}",
                "Attempts to connect to a node that have succeeded.",
            ),
            not_connected: counter(
                "grpc.subchannel.connection_attempts_failed",
                "{attempt}",
                "Attempts to connect to a node that have failed.",
            ),
            refused_configs: counter(
                "micro.client.refused_service_configs",
                "{config}",
                "Service configs that calls do not go by, since they cannot be used.",
            ),
            calls: CallInstruments::new(meter),
            handled: HandledInstruments::new(meter),
        }
    }
}

/// These attributes and one more.
pub(super) fn and(
    attributes: &[KeyValue],
    name: &'static str,
    value: &'static str,
) -> Vec<KeyValue> {
    attributes.iter().cloned().chain([KeyValue::new(name, value)]).collect()
}
