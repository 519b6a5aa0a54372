//! A node's registration in one registry.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use opentelemetry::{KeyValue, metrics::Meter};

use super::{
    instruments::{and, attribute, counters},
    live::{Held, Live},
};
use crate::registry::{Node, Registry, RenewError};

static REGISTERED: Live<Registered> = Live::new();

/// Is told what happens to a node's registration in one registry. Its gauges end when this is dropped.
#[derive(Debug)]
pub(crate) struct RegistrationMetrics(Held<Registered>);

#[derive(Debug)]
struct Registered {
    attributes: Vec<KeyValue>,
    states: &'static [&'static str],
    now: Mutex<Now>,
}

#[derive(Debug)]
struct Now {
    state: &'static str,
    last_success: Option<SystemTime>,
}

impl RegistrationMetrics {
    /// Begins in the first of all states.
    pub(crate) fn start(
        registry: &dyn Registry,
        node: &Node,
        states: &'static [&'static str],
    ) -> Self {
        let text = |text: &str| Arc::<str>::from(text);
        let held = REGISTERED.hold(Registered {
            attributes: vec![
                KeyValue::new(attribute::REGISTRY, text(registry.name())),
                KeyValue::new(attribute::SERVICE, text(&node.service)),
                KeyValue::new(attribute::NODE, text(&node.id)),
            ],
            states,
            now: Mutex::new(Now { state: states[0], last_success: None }),
        });
        counters();
        Self(held)
    }

    pub(crate) fn entered(&self, state: &'static str) {
        self.0.now().state = state;
        counters().transitions.add(1, &and(&self.0.attributes, attribute::STATE, state));
    }

    pub(crate) fn registered(&self) {
        self.0.now().last_success = Some(SystemTime::now());
    }

    pub(crate) fn renewed(&self, outcome: &Result<(), RenewError>) {
        let outcome = match outcome {
            Ok(()) => {
                self.registered();
                "ok"
            }
            Err(RenewError::Lost(_)) => "lost",
            Err(RenewError::Taken(_)) => "taken",
            Err(RenewError::Failed(_)) => "failed",
        };
        counters().renewals.add(1, &and(&self.0.attributes, attribute::RENEWAL, outcome));
    }
}

impl Registered {
    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn observe(meter: &Meter) {
    // A state is an up-down counter, not a gauge, as OpenTelemetry's conventions for status metrics
    // have it: the sum over many is how many are in that state.
    meter
        .i64_observable_up_down_counter("micro.registration.status")
        .with_unit("1")
        .with_description("1 for the state that the registration is in, 0 for every other.")
        .with_callback(|observer| {
            for registered in REGISTERED.all() {
                let now = registered.now().state;
                for state in registered.states {
                    let attributes = and(&registered.attributes, attribute::STATE, state);
                    observer.observe((*state == now).into(), &attributes);
                }
            }
        })
        .build();
    meter
        .f64_observable_gauge("micro.registration.last_success")
        .with_unit("s")
        .with_description("When the node was registered or renewed last, since 1970.")
        .with_callback(|observer| {
            for registered in REGISTERED.all() {
                let at = registered.now().last_success;
                if let Some(since) = at.and_then(|at| at.duration_since(UNIX_EPOCH).ok()) {
                    observer.observe(since.as_secs_f64(), &registered.attributes);
                }
            }
        })
        .build();
}
