//! What may differ from service to service.

use std::{collections::HashMap, sync::Arc};

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
    pub(super) subset: Option<usize>,
    pub(super) health_check: Option<Arc<str>>,
    pub(super) balancing: Option<Balancing>,
    pub(super) filter: Option<Filter>,
}

impl ChannelOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Connects to so many of the service's nodes and not to all: for 1 000 clients of 10 000 nodes,
    /// which would otherwise have ten million connections. Default: all. 0 counts as 1.
    ///
    /// Which ones is each client's own choice, at random and stable: a node that comes or goes moves
    /// one connection at most ([gRFC A68]). One that cannot be connected to has another in its place
    /// until it can be. The price is an uneven load: with 32 each the busiest of those nodes has over
    /// four times the mean.
    ///
    /// [gRFC A68]: https://github.com/grpc/proposal/blob/master/A68-random-subsetting.md
    pub fn subset(mut self, nodes: usize) -> Self {
        self.subset = Some(nodes);
        self
    }

    /// Asks each node whether the service of this name is well (in `grpc.health.v1`, where a service is
    /// named as in its `.proto`, and `""` is the whole server), and calls those that are. Default: does
    /// not ask.
    ///
    /// The node is asked over the connection for calls, and tells of changes by itself ([gRFC A17]).
    /// One without the method is taken to be well. A [`Service`](crate::Service) answers, and is well
    /// until it leaves, which it tells the registry too: to ask is for nodes that the registry lists
    /// whatever they say, and for servers that can tell one of their services from another.
    ///
    /// [gRFC A17]: https://github.com/grpc/proposal/blob/master/A17-client-side-health-checking.md
    pub fn health_check(mut self, service: &str) -> Self {
        self.health_check = Some(service.into());
        self
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
        let Self { subset, health_check, balancing, filter } = other;
        Self {
            subset: self.subset.or(*subset),
            health_check: self.health_check.or_else(|| health_check.clone()),
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

    /// What holds for one service.
    pub(super) fn of(&self, service: &str) -> ChannelOptions {
        self.some.get(service).cloned().unwrap_or_default().or(&self.all)
    }
}
