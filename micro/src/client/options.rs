//! What may differ from service to service.

use std::collections::HashMap;

use crate::{
    Error,
    balance::{Balancing, Filter},
};

/// How the calls to a service go, where that differs from service to service.
///
/// [`ClientBuilder::for_all`](super::ClientBuilder::for_all) says it of every service,
/// [`ClientBuilder::for_service`](super::ClientBuilder::for_service) of one, option by option: what
/// is not set for the service is as it is for all.
#[derive(Debug, Clone, Default)]
#[must_use = "options do nothing until a builder has them"]
pub struct ChannelOptions {
    pub(super) balancing: Option<Balancing>,
    pub(super) filter: Option<Filter>,
}

impl ChannelOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How calls are spread over the nodes that are connected. Default: [`Balancing::p2c`].
    pub fn balancing(mut self, balancing: impl Into<Balancing>) -> Self {
        self.balancing = Some(balancing.into());
        self
    }

    /// Which of the registered nodes are called at all. Default: all.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = Some(filter);
        self
    }

    /// These, and what `other` says where these say nothing.
    pub(super) fn or(self, other: &Self) -> Self {
        let Self { balancing, filter } = other;
        Self {
            balancing: self.balancing.or_else(|| balancing.clone()),
            filter: self.filter.or_else(|| filter.clone()),
        }
    }

    fn check(&self) -> Result<(), Error> {
        self.balancing.iter().try_for_each(Balancing::check)?;
        self.filter.iter().try_for_each(Filter::check)
    }
}

/// What was said of all services, and of some.
#[derive(Debug, Default)]
pub(crate) struct ServiceOptions {
    pub(super) all: ChannelOptions,
    pub(super) some: HashMap<String, ChannelOptions>,
}

impl ServiceOptions {
    /// Whether all that was said can be used.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.all.check()?;
        self.some.iter().try_for_each(|(service, options)| {
            options.check().map_err(|error| error.noting(format!("for service '{service}'")))
        })
    }

    /// What holds for one.
    pub(super) fn of(&self, service: &str) -> ChannelOptions {
        self.some.get(service).cloned().unwrap_or_default().or(&self.all)
    }
}
