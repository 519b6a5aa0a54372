//! What may differ from service to service.

use std::collections::HashMap;

use crate::Error;
#[cfg(feature = "tls")]
use crate::tls::ClientTls;

/// How the calls to a service go, where that differs from service to service.
///
/// [`ClientBuilder::for_all`](super::ClientBuilder::for_all) says it of every service,
/// [`ClientBuilder::for_service`](super::ClientBuilder::for_service) of one, option by option: what
/// is not set for the service is as it is for all.
#[derive(Debug, Clone, Default)]
#[must_use = "options do nothing until a builder has them"]
pub struct ChannelOptions {
    #[cfg(feature = "tls")]
    pub(super) tls: Option<ClientTls>,
}

impl ChannelOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
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

    /// These, and what `other` says where these say nothing.
    pub(super) fn or(self, other: &Self) -> Self {
        let Self {
            #[cfg(feature = "tls")]
            tls,
        } = other;
        Self {
            #[cfg(feature = "tls")]
            tls: self.tls.or_else(|| tls.clone()),
        }
    }

    /// # Errors
    /// `Config` when one of them cannot be used.
    fn check(&self) -> Result<(), Error> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            tls.connector()?;
        }
        Ok(())
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
        for (service, options) in &self.some {
            options.check().map_err(|error| error.noting(format_args!("for service {service}")))?;
        }
        Ok(())
    }

    /// What holds for one.
    pub(super) fn of(&self, service: &str) -> ChannelOptions {
        self.some.get(service).cloned().unwrap_or_default().or(&self.all)
    }
}
