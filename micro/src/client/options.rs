//! What may differ from service to service.

use std::{collections::HashMap, path::PathBuf};

use super::{ServiceConfig, config_file::ConfigFile};
use crate::Error;

/// How the calls to a service go, where that differs from service to service.
///
/// [`ClientBuilder::for_all`](super::ClientBuilder::for_all) says it of every service,
/// [`ClientBuilder::for_service`](super::ClientBuilder::for_service) of one, option by option: what
/// is not set for the service is as it is for all.
#[derive(Debug, Clone, Default)]
#[must_use = "options do nothing until a builder has them"]
pub struct ChannelOptions {
    pub(super) service_config: Option<ServiceConfig>,
    pub(super) service_config_file: Option<ConfigFile>,
}

impl ChannelOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How the service wants to be called, where neither a
    /// [file](Self::service_config_file) nor the service's own nodes say it. Default: nothing beyond
    /// what the `.proto` and the calls themselves say.
    ///
    /// Nodes say it with the JSON under `service_config` in the metadata of their record:
    /// `ServiceBuilder::metadata("service_config", json)`. As in gRPC, where a resolver brings it, it
    /// goes before the code. What most of the nodes that say anything say holds, so that a canary
    /// does not; a config that breaks a rule leaves the last good one in force, and the log says so.
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

    /// These, and what `other` says where these say nothing.
    pub(super) fn or(self, other: &Self) -> Self {
        let Self { service_config, service_config_file } = self;
        Self {
            service_config: service_config.or_else(|| other.service_config.clone()),
            service_config_file: service_config_file.or_else(|| other.service_config_file.clone()),
        }
    }
}

/// What was said of all services, and of some.
#[derive(Debug, Default)]
pub(crate) struct ServiceOptions {
    pub(super) all: ChannelOptions,
    pub(super) some: HashMap<String, ChannelOptions>,
}

impl ServiceOptions {
    /// Reads the files that are named.
    pub(super) fn read_files(&mut self) -> Result<(), Error> {
        for options in self.some.values_mut().chain([&mut self.all]) {
            if let Some(file) = &mut options.service_config_file {
                file.read()?;
            }
        }
        Ok(())
    }

    /// What holds for one.
    pub(super) fn of(&self, service: &str) -> ChannelOptions {
        self.some.get(service).cloned().unwrap_or_default().or(&self.all)
    }
}
