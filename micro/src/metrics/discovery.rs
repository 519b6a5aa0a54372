//! A service's nodes in one registry.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use opentelemetry::{KeyValue, metrics::Meter};
use tokio::time::Instant;

use super::{
    Found,
    instruments::{and, attribute, counters},
    live::{Held, Live},
};
use crate::registry::Registry;

static FOLLOWED: Live<Followed> = Live::new();

/// Is told how a service is followed in one registry. Its gauges end when this is dropped.
#[derive(Debug)]
pub(crate) struct DiscoveryMetrics(Held<Followed>);

#[derive(Debug)]
struct Followed {
    registry: Arc<str>,
    service: Arc<str>,
    now: Mutex<Found>,
}

impl DiscoveryMetrics {
    pub(crate) fn start(registry: &dyn Registry, service: &str) -> Self {
        let held = FOLLOWED.hold(Followed {
            registry: registry.name().into(),
            service: service.into(),
            now: Mutex::default(),
        });
        counters();
        Self(held)
    }

    pub(crate) fn read(&self, is_ok: bool) {
        let outcome = if is_ok { "ok" } else { "failed" };
        let attributes = attributes(&self.0.registry, &self.0.service);
        counters().reads.add(1, &and(&attributes, attribute::READ, outcome));
    }

    /// How it stands, and how many updates led to it.
    pub(crate) fn found(&self, now: Found, updates: usize) {
        *self.0.now.lock().unwrap_or_else(PoisonError::into_inner) = now;
        let counters = counters();
        if updates > 0 {
            counters.updates.add(updates as u64, &attributes(&self.0.registry, &self.0.service));
        }
    }
}

fn attributes(registry: &Arc<str>, service: &Arc<str>) -> [KeyValue; 2] {
    [
        KeyValue::new(attribute::REGISTRY, registry.clone()),
        KeyValue::new(attribute::SERVICE, service.clone()),
    ]
}

impl Found {
    /// Of one service that is followed twice, in two runtimes or with other options, the worse: two
    /// values of one series would leave it to chance which is seen.
    fn worse(self, other: Self) -> Self {
        Self {
            revision: self.revision.min(other.revision),
            nodes: self.nodes.min(other.nodes),
            synced: self.synced && other.synced,
            stale: self.stale.into_iter().chain(other.stale).min(),
            malformed: self.malformed.max(other.malformed),
            not_grpc: self.not_grpc.max(other.not_grpc),
        }
    }
}

fn each(mut observe: impl FnMut(Found, &[KeyValue])) {
    let mut all = BTreeMap::new();
    for followed in FOLLOWED.all() {
        let now = *followed.now.lock().unwrap_or_else(PoisonError::into_inner);
        let of = (followed.registry.clone(), followed.service.clone());
        all.entry(of).and_modify(|found: &mut Found| *found = found.worse(now)).or_insert(now);
    }
    for ((registry, service), found) in all {
        observe(found, &attributes(&registry, &service));
    }
}

pub(super) fn observe(meter: &Meter) {
    meter
        .u64_observable_gauge("micro.discovery.revision")
        .with_unit("{revision}")
        .with_description("The registry's last revision that was seen.")
        .with_callback(|observer| each(|found, of| observer.observe(found.revision, of)))
        .build();
    meter
        .f64_observable_gauge("micro.discovery.staleness")
        .with_unit("s")
        .with_description("How old the registry's last word is; 0 while all is followed.")
        .with_callback(|observer| {
            let now = Instant::now();
            each(|found, of| {
                let stale = found.stale.map(|since| now.saturating_duration_since(since));
                observer.observe(stale.unwrap_or_default().as_secs_f64(), of);
            });
        })
        .build();
    meter
        .u64_observable_gauge("micro.discovery.nodes")
        .with_unit("{node}")
        .with_description("The nodes of the service that are known.")
        .with_callback(|observer| each(|found, of| observer.observe(found.nodes as u64, of)))
        .build();
    meter
        .i64_observable_up_down_counter("micro.discovery.synced")
        .with_unit("1")
        .with_description("Whether all nodes have been read once: 1 or 0.")
        .with_callback(|observer| each(|found, of| observer.observe(found.synced.into(), of)))
        .build();
    meter
        .u64_observable_gauge("micro.discovery.skipped_records")
        .with_unit("{record}")
        .with_description("Records that are left out, by what is wrong with them.")
        .with_callback(|observer| {
            each(|found, of| {
                for (fault, count) in [("malformed", found.malformed), ("not_grpc", found.not_grpc)]
                {
                    observer.observe(count as u64, &and(of, attribute::SKIPPED, fault));
                }
            });
        })
        .build();
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn of_a_service_that_is_followed_twice_the_worse_is_told() {
        let now = Instant::now();
        let earlier = now.checked_sub(Duration::from_secs(1));
        let well =
            Found { revision: 9, nodes: 3, synced: true, stale: None, malformed: 0, not_grpc: 2 };
        let ill = Found {
            revision: 7,
            nodes: 1,
            synced: false,
            stale: earlier,
            malformed: 1,
            not_grpc: 0,
        };
        let worse = Found { not_grpc: 2, ..ill };
        assert_eq!(well.worse(ill), worse);
        assert_eq!(ill.worse(well), worse);
        assert_eq!(
            ill.worse(Found { stale: Some(now), ..ill }).stale,
            earlier,
            "the longer silence"
        );
    }
}
