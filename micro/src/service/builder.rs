//! The options of a service.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use uuid::Uuid;

use super::{Service, hooks::Hooks};
use crate::{
    Error, Server, client,
    config::{Given, Pairs, Setting, Source, Value},
    registration,
    registry::{BoxFuture, Node, Registry},
};

/// Options of a [`Service`].
///
/// What the environment says goes before the code, and a command line flag (`args`, with the
/// feature `args`) before both. A variable that is empty counts as not set; all are read when the
/// builder is made. Durations are written `15s`, `200ms`, `1m30s`, or `15` for seconds.
///
/// | variable | flag | in code |
/// |---|---|---|
/// | `MICRO_REGISTRY` | `--registry` | [`registry`](Self::registry) |
/// | `MICRO_SERVER_NAME` | `--server-name` | [`Service::builder`] |
/// | `MICRO_SERVER_VERSION` | `--server-version` | [`version`](Self::version) |
/// | `MICRO_SERVER_ID` | `--server-id` | [`id`](Self::id) |
/// | `MICRO_SERVER_ADDRESS` | `--server-address` | [`address`](Self::address) |
/// | `MICRO_SERVER_ADVERTISE` | `--server-advertise` | [`advertise`](Self::advertise) |
/// | `MICRO_SERVER_METADATA` | `--server-metadata` | [`metadata`](Self::metadata) |
/// | `MICRO_REGISTER_TTL` | `--register-ttl` | [`register_ttl`](Self::register_ttl) |
/// | `MICRO_REGISTER_INTERVAL` | `--register-interval` | [`register_interval`](Self::register_interval) |
///
/// Metadata is `zone=a,rack=7`: its keys are laid over the code's. go-micro's address `:8080` is
/// written `0.0.0.0:8080` here. A registry may also be named in go-micro's way, and
/// [`Service::client`] follows the client's variables and flags: see
/// [`ClientBuilder`](crate::ClientBuilder).
///
/// Two services in one process both follow these, `MICRO_SERVER_NAME` included: build all but one
/// [`without_env`](Self::without_env).
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
    pub(super) given: Given,
    pub(super) hooks: Hooks,
}

/// Options that hold together.
pub(super) struct Settings {
    pub(super) name: Value<String>,
    pub(super) version: String,
    pub(super) id: Value<String>,
    pub(super) metadata: Pairs,
    pub(super) address: Value<String>,
    pub(super) advertise: Option<Value<String>>,
    /// Where the registry's URL is from.
    pub(super) registry: Source,
    pub(super) client: client::Settings,
    pub(super) given: Given,
    pub(super) registration: registration::Options,
    pub(super) shutdown: Option<BoxFuture<'static, ()>>,
    pub(super) drain_timeout: Duration,
    pub(super) hooks: Hooks,
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
            given: Given::by_process(),
            hooks: Hooks::new(),
        }
    }

    /// Takes the service's flags from the command line, which go before environment and code.
    #[cfg(feature = "args")]
    pub fn args(mut self, args: crate::args::ServiceArgs) -> Self {
        self.given.set_flags(args.into_flags());
        self
    }

    /// Ignores the environment: a test's node must not register where `MICRO_REGISTRY` says.
    pub fn without_env(mut self) -> Self {
        self.given.without_environment();
        self
    }

    /// The version in the record: any text, of which callers make nothing. Default: `latest`, as
    /// go-micro has it.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// The node's id, unique within the service, of 1 to 255 bytes; over mDNS of no more than 63
    /// between two dots. Default: the name, a dash and a new UUID, for which a name of over 218 bytes
    /// leaves no room; the UUID alone where that is too long for mDNS.
    ///
    /// A process that starts under the id of one that is gone takes its record over. Two that live at
    /// once would take it from each other; over mDNS the second is refused, and keeps trying until
    /// the first has left.
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

    /// The URL of the registry, as [`registry::open`](crate::registry::open) takes it, or a word as
    /// in `MICRO_REGISTRY`. Default: `mdns://` (with the feature `mdns`).
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

    /// The service leaves when this future ends, as it does on SIGTERM; it is polled once the service
    /// has started. Default: none. If it panics the service leaves too, and the panic then goes on in [`Service::run`].
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
    /// `Config` when an option cannot be used, with its name, where its value came from (the code,
    /// an environment variable, a flag), and the remedy.
    #[expect(clippy::unused_async, reason = "registries to come connect here")]
    pub async fn build(self) -> Result<Service, Error> {
        let given = self.given;
        let Value { value: discovery, source: registry_source } = given.discovery(self.registry)?;
        let registries = discovery.registries();
        let name = Value { value: self.name, source: Source::Code(Setting::ServerName) };
        let name = given.string(Setting::ServerName, None)?.unwrap_or(name);
        check_name("name", &name)?;
        let id = match given.string(Setting::ServerId, self.id)? {
            Some(id) => id,
            None => Value::by_default(default_id(&name, registries)?),
        };
        check_name("id", &id)?;
        let version = given.string(Setting::ServerVersion, self.version)?;
        let address = given.string(Setting::ServerAddress, self.address)?;
        let ttl = given.duration(Setting::RegisterTtl, self.ttl)?;
        let interval = given.duration(Setting::RegisterInterval, self.interval)?;
        let settings = Settings {
            name,
            version: version.map_or_else(|| "latest".to_owned(), |it| it.value),
            id,
            metadata: given.pairs(Setting::ServerMetadata, self.metadata)?,
            address: address.unwrap_or_else(|| Value::by_default("127.0.0.1:0".to_owned())),
            advertise: given.string(Setting::ServerAdvertise, self.advertise)?,
            registry: registry_source,
            client: client::Settings::default().given(&given, None, None)?,
            given,
            registration: registration_options(ttl, interval, self.check, registries)?,
            shutdown: self.shutdown,
            drain_timeout: self.drain_timeout.unwrap_or(Duration::from_secs(30)),
            hooks: self.hooks,
        };
        Ok(Service { settings, discovery, server: Server::new() })
    }
}

/// The options, which must hold together.
fn registration_options(
    ttl: Option<Value<Duration>>,
    interval: Option<Value<Duration>>,
    check: Option<registration::Check>,
    registries: &[Arc<dyn Registry>],
) -> Result<registration::Options, Error> {
    let source = |value: &Option<Value<_>>| value.as_ref().map_or(Source::Default, |it| it.source);
    let sources = (source(&ttl), source(&interval));
    let mut options = match ttl {
        Some(ttl) => registration::Options::new(ttl.value),
        None => registration::Options::default(),
    };
    if let Some(interval) = interval {
        options.interval = interval.value;
    }
    options.check = check;
    for registry in registries {
        options.validate(&**registry).map_err(|error| {
            let (ttl, interval) = sources;
            error.noting(format_args!("the TTL is from {ttl}, the interval from {interval}"))
        })?;
    }
    Ok(options)
}

/// The name, a dash and a new UUID, or the UUID alone where a registry has no room for both.
fn default_id(name: &Value<String>, registries: &[Arc<dyn Registry>]) -> Result<String, Error> {
    let Value { value: name, source } = name;
    let uuid = Uuid::new_v4().to_string();
    let id = format!("{name}-{uuid}");
    if id.len() > LONGEST {
        return Err(Error::config(format!(
            "the service's name {name:?} is longer than {} bytes, which leaves no room for the \
             default id, the name and a UUID: set an id, or shorten the name (from {source})",
            LONGEST - (id.len() - name.len())
        )));
    }
    let node = Node::new(name, &id, "127.0.0.1:1");
    let fits = registries.iter().all(|registry| registry.validate(&node).is_ok());
    Ok(if fits { id } else { uuid })
}

/// The most bytes of a name or id.
const LONGEST: usize = 255;

/// Names and ids become part of registry keys, DNS labels and log lines.
fn check_name(what: &str, value: &Value<String>) -> Result<(), Error> {
    let Value { value, source } = value;
    let reason = if value.is_empty() {
        "is empty"
    } else if value.len() > LONGEST {
        "is longer than 255 bytes"
    } else if value.chars().any(|c| c.is_control() || c.is_whitespace()) {
        "has white space or control characters in it"
    } else if matches!(&**value, "." | "..") {
        "is no name in a path, which registry keys are"
    } else {
        return Ok(());
    };
    Err(Error::config(format!("the service's {what} {value:?} {reason} (from {source})")))
}

impl fmt::Debug for ServiceBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceBuilder").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("name", &self.name.value)
            .field("version", &self.version)
            .field("id", &self.id.value)
            .field("metadata", &self.metadata.pairs)
            .field("address", &self.address.value)
            .field("drain_timeout", &self.drain_timeout)
            .finish_non_exhaustive()
    }
}
