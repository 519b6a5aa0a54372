//! What a channel's calls may spend on attempts beyond their first.

use std::{collections::BTreeMap, fmt, sync::Arc};

use opentelemetry::{KeyValue, metrics::Meter};

use super::{
    instruments::{attribute, counters},
    live::{Held, Live},
};

static BUDGETS: Live<Budget> = Live::new();

/// Is asked for the budget of one channel. Its gauge ends when this is dropped.
#[derive(Debug)]
pub(crate) struct BudgetMetrics {
    _held: Held<Budget>,
}

struct Budget {
    target: Arc<str>,
    left: Box<dyn Fn() -> f64 + Send + Sync>,
}

impl BudgetMetrics {
    pub(crate) fn start(target: Arc<str>, left: impl Fn() -> f64 + Send + Sync + 'static) -> Self {
        let held = BUDGETS.hold(Budget { target, left: Box::new(left) });
        counters();
        Self { _held: held }
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").field("target", &self.target).finish_non_exhaustive()
    }
}

pub(super) fn observe(meter: &Meter) {
    meter
        .f64_observable_gauge("micro.client.retry_budget")
        .with_unit("{retry}")
        .with_description("Further attempts that calls can pay for.")
        .with_callback(|observer| {
            // Of a service that has two channels, in two clients or runtimes, the worse off.
            let mut least = BTreeMap::<Arc<str>, f64>::new();
            for budget in BUDGETS.all() {
                let left = (budget.left)();
                least
                    .entry(budget.target.clone())
                    .and_modify(|known| *known = known.min(left))
                    .or_insert(left);
            }
            for (target, left) in least {
                observer.observe(left, &[KeyValue::new(attribute::TARGET, target)]);
            }
        })
        .build();
}
