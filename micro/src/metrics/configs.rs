//! The service configs that a channel comes to hear.

use opentelemetry::KeyValue;

use super::instruments::{attribute, counters};

/// One cannot be used, and the last good one from this source stays in force.
pub(crate) fn service_config_refused(target: &str, source: &'static str) {
    let attributes = [
        KeyValue::new(attribute::TARGET, target.to_owned()),
        KeyValue::new(attribute::SOURCE, source),
    ];
    counters().refused_configs.add(1, &attributes);
}
