//! What may differ from service to service.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use super::{ServiceConfig, config_file::ConfigFile};
use crate::{
    Error,
    balance::{Balancing, Filter, Limits},
};

#[cfg(feature = "tls")]
use crate::tls::ClientTls;

/// How the calls to a service go, where that differs from service to service.
///
/// [`ClientBuilder::for_all`](super::ClientBuilder::for_all) says it of every service,
/// [`ClientBuilder::for_service`](super::ClientBuilder::for_service) of one, option by option: what
/// is not set for the service is as it is for all. What an option turns on for all
/// ([`fail_when_full`](Self::fail_when_full), [`health_check`](Self::health_check), TLS) none turns off
/// for one service: where one is to do without, say it of the others by name.
#[derive(Debug, Clone, Default)]
#[must_use = "options do nothing until a builder has them"]
pub struct ChannelOptions {
    pub(super) subset: Option<usize>,
    pub(super) max_in_flight: Option<u32>,
    pub(super) max_in_flight_per_node: Option<u32>,
    pub(super) fails_when_full: bool,
    pub(super) health_check: Option<Arc<str>>,
    pub(super) balancing: Option<Balancing>,
    pub(super) filter: Option<Filter>,
    pub(super) service_config: Option<ServiceConfig>,
    pub(super) service_config_file: Option<ConfigFile>,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<ClientTls>,
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
    /// one connection at most ([gRFC A68]). One that cannot be connected to, says that it is
    /// [not well](Self::health_check) or is ejected has another in its place as long as that is so; while no
    /// call could go to any, four more a second. Take two or more: the only one is never ejected, and a call
    /// that it failed has nowhere else to go. The price is an uneven load: with 32 each the busiest of those
    /// nodes has about four times the mean.
    ///
    /// Nodes that do not pass the [`filter`](Self::filter) are not chosen. Beyond that they are chosen
    /// without a look at what calls ask for, which have the chosen ones alone to choose from:
    /// [`Balancing::zone_first`] knows no others of its zone, with [`Balancing::consistent_hash`] each
    /// client has a node of its own for a key, a method that none of the chosen lists fails with
    /// [`Filter::serving`], though others list it, and so does a call that is
    /// [pinned](crate::client::Call::node) to a node which is not among them, each after its deadline.
    ///
    /// [gRFC A68]: https://github.com/grpc/proposal/blob/master/A68-random-subsetting.md
    pub fn subset(mut self, nodes: usize) -> Self {
        self.subset = Some(nodes);
        self
    }

    /// How many of the channel's calls may be in flight, on all nodes together; an attempt that is made
    /// beside another counts too, and a stream until it ends. Default: any number. 0 counts as 1.
    ///
    /// One more waits until another has ended, first come first served; one that waits until its
    /// deadline fails with `ResourceExhausted`. See [`fail_when_full`](Self::fail_when_full).
    pub fn max_in_flight(mut self, calls: u32) -> Self {
        self.max_in_flight = Some(calls.max(1));
        self
    }

    /// The same for each node: one that has as many is not picked. Those count, too, that finish on a
    /// connection which it has asked to leave (GOAWAY). Default: any number. 0 counts as 1.
    pub fn max_in_flight_per_node(mut self, calls: u32) -> Self {
        self.max_in_flight_per_node = Some(calls.max(1));
        self
    }

    /// A call beyond these limits fails at once, with `ResourceExhausted`. Default: it waits.
    pub fn fail_when_full(mut self) -> Self {
        self.fails_when_full = true;
        self
    }

    /// Asks each node whether the service of this name is well (in `grpc.health.v1`, where a service is
    /// named as in its `.proto`, and `""` is the whole server), and calls those that are. Default: does
    /// not ask.
    ///
    /// The node is asked over the connection for calls, and tells of changes by itself ([gRFC A17]). Where
    /// that ends while it is well, as behind a proxy that bounds streams, it is asked again at once, and
    /// called while it has a second to answer.
    /// One without the method is taken to be well. A [`Service`](crate::Service) answers: its services are
    /// well from when it is registered until it leaves or its `register_check` fails, which it tells the
    /// registry too; `""` is not, either, while the registry has lost it and does not take it again. To ask
    /// is for nodes that the registry lists whatever they say, and for servers that can tell one of their
    /// services from another.
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

    /// How the service wants to be called, where neither a
    /// [file](Self::service_config_file) nor the service's own nodes say it. Default: nothing beyond
    /// what the `.proto` and the calls themselves say.
    ///
    /// Nodes say it with the JSON under `service_config` in the metadata of their record:
    /// `ServiceBuilder::metadata("service_config", json)`. As in gRPC, where a resolver brings it, it
    /// goes before the code. What most of the nodes that say anything say holds: a canary that says
    /// something else than the others is not heard, and one that alone says anything is, for all of
    /// them. A config that breaks a rule leaves the last good one in force, and the log says so.
    pub fn service_config(mut self, config: ServiceConfig) -> Self {
        self.service_config = Some(config);
        self
    }

    /// A file with the service's [config](ServiceConfig), which goes before what the service's nodes
    /// and the code say. Default: none.
    ///
    /// It is read by [`ClientBuilder::build`](super::ClientBuilder::build), which fails where it cannot
    /// be, and looked at every 500 ms from then on while there is a channel to the service. A later
    /// version that cannot be read, or is no service config, leaves the last good one in force, and
    /// the log says so.
    pub fn service_config_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.service_config_file = Some(ConfigFile::at(path.into()));
        self
    }

    /// Connects to nodes with TLS. Default: plaintext.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), micro::Error> {
    /// use micro::{ChannelOptions, Client, tls::ClientTls};
    ///
    /// let tls = ClientTls::new().ca_file("ca.pem").server_name("greeter.internal");
    /// let client = Client::builder()
    ///     .for_service("greeter", ChannelOptions::new().tls(tls))
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: ClientTls) -> Self {
        self.tls = Some(tls);
        self
    }

    pub(super) fn limits(&self) -> Limits {
        Limits {
            in_all: self.max_in_flight,
            per_node: self.max_in_flight_per_node,
            fails: self.fails_when_full,
        }
    }

    /// These, and what `other` says where these say nothing.
    pub(super) fn or(self, other: &Self) -> Self {
        let Self {
            subset,
            max_in_flight,
            max_in_flight_per_node,
            fails_when_full,
            health_check,
            balancing,
            filter,
            service_config,
            service_config_file,
            #[cfg(feature = "tls")]
            tls,
        } = self;
        Self {
            subset: subset.or(other.subset),
            max_in_flight: max_in_flight.or(other.max_in_flight),
            max_in_flight_per_node: max_in_flight_per_node.or(other.max_in_flight_per_node),
            fails_when_full: fails_when_full || other.fails_when_full,
            health_check: health_check.or_else(|| other.health_check.clone()),
            balancing: balancing.or_else(|| other.balancing.clone()),
            filter: filter.or_else(|| other.filter.clone()),
            service_config: service_config.or_else(|| other.service_config.clone()),
            service_config_file: service_config_file.or_else(|| other.service_config_file.clone()),
            #[cfg(feature = "tls")]
            tls: tls.or_else(|| other.tls.clone()),
        }
    }

    /// # Errors
    /// `Config` when one of them cannot be used.
    fn check(&self) -> Result<(), Error> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            tls.connector()?;
        }
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
    /// # Errors
    /// `Config` when what is said of a service, which is named, cannot be used.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.all.check()?;
        self.some.iter().try_for_each(|(service, options)| {
            options.check().map_err(|error| error.noting(format!("for service '{service}'")))
        })
    }

    /// Reads the files that are named.
    pub(super) fn read_files(&self) -> Result<(), Error> {
        for options in self.some.values().chain([&self.all]) {
            if let Some(file) = &options.service_config_file {
                file.read()?;
            }
        }
        Ok(())
    }

    /// What holds for one service.
    pub(super) fn of(&self, service: &str) -> ChannelOptions {
        self.some.get(service).cloned().unwrap_or_default().or(&self.all)
    }
}
