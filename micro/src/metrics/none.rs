//! The same names without the feature: nobody is told anything.

use super::Found;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_feature_metrics_take_no_room() {
        assert_eq!(size_of::<(RegistrationMetrics, DiscoveryMetrics)>(), 0);
    }
}
