//! The same names without the feature: nobody is told anything.

use std::sync::Arc;

use tokio::time::Instant;
use tonic::Code;

use super::{AttemptKind, Balanced, Found, Picked};
use crate::registry::{Node, Registry, RenewError};

pub(crate) struct RegistrationMetrics;

impl RegistrationMetrics {
    pub(crate) fn start(_: &dyn Registry, _: &Node, _: &'static [&'static str]) -> Self {
        Self
    }

    pub(crate) fn entered(&self, _: &'static str) {}

    pub(crate) fn registered(&self) {}

    pub(crate) fn renewed(&self, _: &Result<(), RenewError>) {}
}

pub(crate) struct DiscoveryMetrics;

impl DiscoveryMetrics {
    pub(crate) fn start(_: &dyn Registry, _: &str) -> Self {
        Self
    }

    pub(crate) fn read(&self, _is_ok: bool) {}

    pub(crate) fn found(&self, _: Found, _updates: usize) {}
}

pub(crate) struct BalanceMetrics;

impl BalanceMetrics {
    pub(crate) fn start(_: &str) -> Self {
        Self
    }

    pub(crate) fn stands(&self, _: Balanced) {}

    pub(crate) fn ejected(&self, _: &'static str) {}

    pub(crate) fn connected(&self) {}

    pub(crate) fn not_connected(&self) {}

    pub(crate) fn disconnected(&self, _: &'static str) {}
}

pub(crate) struct BudgetMetrics;

impl BudgetMetrics {
    pub(crate) fn start(_: Arc<str>, _left: impl Fn() -> f64) -> Self {
        Self
    }
}

pub(crate) fn service_config_refused(_target: &str, _source: &'static str) {}

pub(crate) struct ChannelMetrics;

impl ChannelMetrics {
    pub(crate) fn new(_: Arc<str>) -> Self {
        Self
    }

    pub(crate) fn call(&self, _path: Option<&str>, _start: Instant) -> CallMetrics {
        CallMetrics
    }
}

pub(crate) struct CallMetrics;

impl CallMetrics {
    pub(crate) fn attempt(&self, _: AttemptKind) -> AttemptMetrics {
        AttemptMetrics
    }

    pub(crate) fn idle(&self) {}

    pub(crate) fn retry_refused(&self) {}

    pub(crate) fn ended(self, _: Code) {}
}

pub(crate) struct AttemptMetrics;

impl AttemptMetrics {
    pub(crate) fn picked(&self, _: Picked) {}

    pub(crate) fn sent(&mut self, _bytes: usize) {}

    pub(crate) fn weigh<B>(&mut self, body: B) -> Weighed<B> {
        body
    }

    pub(crate) fn received(&mut self, _bytes: usize) {}

    pub(crate) fn received_data(&mut self, _: &[u8]) {}

    pub(crate) fn ended(self, _: Code) {}
}

pub(crate) struct ServerMetrics;

impl ServerMetrics {
    pub(crate) fn new() -> Self {
        Self
    }

    pub(crate) fn call(&self, _path: Option<&str>) -> HandledMetrics {
        HandledMetrics
    }

    pub(crate) fn call_mounted(&self, _path: &str) -> HandledMetrics {
        HandledMetrics
    }
}

#[derive(Debug)]
pub(crate) struct HandledMetrics;

impl HandledMetrics {
    pub(crate) fn weigh<B>(&mut self, body: B) -> Weighed<B> {
        body
    }

    pub(crate) fn sent_data(&mut self, _: &[u8]) {}

    pub(crate) fn ended(self, _: Code) {}
}

/// A body that nobody weighs.
pub(crate) type Weighed<B> = B;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_feature_metrics_take_no_room() {
        assert_eq!(size_of::<(RegistrationMetrics, DiscoveryMetrics)>(), 0);
        assert_eq!(size_of::<(BalanceMetrics, ChannelMetrics, BudgetMetrics)>(), 0);
        assert_eq!(size_of::<(CallMetrics, AttemptMetrics)>(), 0);
        assert_eq!(size_of::<(ServerMetrics, HandledMetrics)>(), 0);
    }
}
