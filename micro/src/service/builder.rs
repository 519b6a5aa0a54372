//! The options of a service.

use std::{collections::BTreeMap, fmt, time::Duration};

use uuid::Uuid;

use super::Service;
use crate::{
    Error, Server,
    discovery::Discovery,
    registration,
    registry::{self, BoxFuture, Node, Registry},
};

/// Options of a [`Service`].
#[must_use = "a builder does nothing until build()"]
pub struct ServiceBuilder {
    name: String,
    version: Option<String>,
    id: Option<String>,
    metadata: BTreeMap<String, String>,
    address: Option<String>,
    advertise: Option<String>,
    registry: Option<String>,
    ttl: Option<Duration>,
    interval: Option<Duration>,
    check: Option<registration::Check>,
    shutdown: Option<BoxFuture<'static, ()>>,
    drain_timeout: Option<Duration>,
}

/// Options that hold together.
pub(super) struct Settings {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) id: String,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) address: String,
    pub(super) advertise: Option<String>,
    pub(super) registration: registration::Options,
    pub(super) shutdown: Option<BoxFuture<'static, ()>>,
    pub(super) drain_timeout: Duration,
}

impl ServiceBuilder {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            version: None,
            id: None,
            metadata: BTreeMap::new(),
            address: None,
            advertise: None,
            registry: None,
            ttl: None,
            interval: None,
            check: None,
            shutdown: None,
            drain_timeout: None,
        }
    }

    /// The version in the record: any text, of which callers make nothing. Default: `latest`, as
    /// go-micro has it.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// The node's id, unique within the service, of 1 to 255 bytes; over mDNS of no more than 63
    /// between two dots. Default: the name, a dash and a new UUID, for which a name of over 218 bytes
    /// leaves no room; the UUID alone where that is too long for mDNS. A process that starts under the id of one that is gone takes its record over; two
    /// that live at once would take it from each other.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Adds a fact to the node's record. Default: none but `protocol`, `server` and `transport`,
    /// which are `grpc` unless set here. A record that the registry cannot hold (etcd: over 1 MiB)
    /// is an error at the start.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// The address to listen on, `host:port`; port 0 is any that is free, host `0.0.0.0` every
    /// interface by IPv4, `[::]` by IPv6 too, unless the system keeps them apart. Default:
    /// `127.0.0.1:0`, loopback and a free port.
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// The address for the record, `host:port`; without a port, or with port 0, the bound one.
    /// Default: the bound address. A wildcard is not advertised: it stands for the bound address,
    /// and where that is one too, for one of this machine's that takes its calls: the first private
    /// one, else the first that other machines may reach, else loopback; IPv4 before IPv6.
    pub fn advertise(mut self, address: impl Into<String>) -> Self {
        self.advertise = Some(address.into());
        self
    }

    /// The URL of the registry, as [`registry::open`] takes it. Default: `MICRO_REGISTRY`, else
    /// `mdns://` (with the feature `mdns`).
    pub fn registry(mut self, url: impl Into<String>) -> Self {
        self.registry = Some(url.into());
        self
    }

    /// How long the registry keeps the record of a node that has died. Default: 15 s. Less than the
    /// registry can grant (mDNS and etcd 1 s, memory 1 ms) is refused, and so are 0 and more than a day. etcd
    /// counts whole seconds and rounds up; over mDNS a node is forgotten after 120 s whatever this
    /// is.
    pub fn register_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// How often the record is renewed and checked. Default: a third of the TTL; more than half
    /// of it is refused, since one lost renewal would then remove the node, and so is 0.
    pub fn register_interval(mut self, interval: Duration) -> Self {
        self.interval = Some(interval);
        self
    }

    /// Asked before registering and at each interval: while it fails the node is kept out of the
    /// registry, and comes back when it passes. No answer within the interval, or 1 s if that is
    /// less, is a failure, and so is a panic. Default: none.
    pub fn register_check<F, Fut, E>(mut self, check: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.check = Some(std::sync::Arc::new(move || {
            let check = check();
            Box::pin(async move { check.await.map_err(Into::into) })
        }));
        self
    }

    /// The service leaves when this future ends, as it does on SIGTERM. Default: none. If it panics
    /// the service leaves too, and the panic then goes on in [`Service::run`].
    pub fn shutdown(mut self, shutdown: impl Future<Output = ()> + Send + 'static) -> Self {
        self.shutdown = Some(Box::pin(shutdown));
        self
    }

    /// How long calls under way may take to finish when the service leaves. Default: 30 s; zero
    /// cuts them, [`Duration::MAX`] waits for them however long they take.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = Some(timeout);
        self
    }

    /// The service, not yet bound. The registry need not be reachable.
    ///
    /// # Errors
    /// `Config` when an option cannot be used, with its name and the remedy.
    #[expect(clippy::unused_async, reason = "registries to come connect here")]
    pub async fn build(self) -> Result<Service, Error> {
        let registry = registry::open(&registry::url_or_env(self.registry)?)?;
        check_name("name", &self.name)?;
        let id = match self.id {
            Some(id) => id,
            None => default_id(&self.name, &*registry)?,
        };
        check_name("id", &id)?;
        let mut options = registration::Options { check: self.check, ..Default::default() };
        if let Some(ttl) = self.ttl {
            options.ttl = ttl;
            options.interval = ttl / 3;
        }
        if let Some(interval) = self.interval {
            options.interval = interval;
        }
        options.validate(&*registry)?;
        let settings = Settings {
            name: self.name,
            version: self.version.unwrap_or_else(|| "latest".to_owned()),
            id,
            metadata: self.metadata,
            address: self.address.unwrap_or_else(|| "127.0.0.1:0".to_owned()),
            advertise: self.advertise,
            registration: options,
            shutdown: self.shutdown,
            drain_timeout: self.drain_timeout.unwrap_or(Duration::from_secs(30)),
        };
        Ok(Service { settings, discovery: Discovery::new(registry), server: Server::new() })
    }
}

/// The name, a dash and a new UUID, or the UUID alone where the registry has no room for both.
fn default_id(name: &str, registry: &dyn Registry) -> Result<String, Error> {
    let uuid = Uuid::new_v4().to_string();
    let id = format!("{name}-{uuid}");
    if id.len() > LONGEST {
        return Err(Error::config(format!(
            "the service's name {name:?} is longer than {} bytes, which leaves no room for the \
             default id, the name and a UUID: set an id, or shorten the name",
            LONGEST - (id.len() - name.len())
        )));
    }
    let fits = registry.validate(&Node::new(name, &id, "127.0.0.1:1")).is_ok();
    Ok(if fits { id } else { uuid })
}

/// The most bytes of a name or id.
const LONGEST: usize = 255;

/// Names and ids become part of registry keys, DNS labels and log lines.
fn check_name(what: &str, value: &str) -> Result<(), Error> {
    let reason = if value.is_empty() {
        "is empty"
    } else if value.len() > LONGEST {
        "is longer than 255 bytes"
    } else if value.chars().any(|c| c.is_control() || c.is_whitespace()) {
        "has white space or control characters in it"
    } else if matches!(value, "." | "..") {
        "is no name in a path, which registry keys are"
    } else {
        return Ok(());
    };
    Err(Error::config(format!("the service's {what} {value:?} {reason}")))
}

impl fmt::Debug for ServiceBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceBuilder").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("id", &self.id)
            .field("metadata", &self.metadata)
            .field("address", &self.address)
            .field("drain_timeout", &self.drain_timeout)
            .finish_non_exhaustive()
    }
}
