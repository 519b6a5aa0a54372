//! What may differ from service to service.

use std::collections::HashMap;

/// How the calls to a service go, where that differs from service to service.
///
/// [`ClientBuilder::for_all`](super::ClientBuilder::for_all) says it of every service,
/// [`ClientBuilder::for_service`](super::ClientBuilder::for_service) of one, option by option: what
/// is not set for the service is as it is for all.
#[derive(Debug, Clone, Default)]
#[must_use = "options do nothing until a builder has them"]
pub struct ChannelOptions {}

impl ChannelOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// These, and what `other` says where these say nothing.
    pub(super) fn or(self, other: &Self) -> Self {
        let Self {} = other;
        self
    }
}

/// What was said of all services, and of some.
#[derive(Debug, Default)]
pub(crate) struct ServiceOptions {
    pub(super) all: ChannelOptions,
    pub(super) some: HashMap<String, ChannelOptions>,
}

impl ServiceOptions {
    /// What holds for one.
    pub(super) fn of(&self, service: &str) -> ChannelOptions {
        self.some.get(service).cloned().unwrap_or_default().or(&self.all)
    }
}
