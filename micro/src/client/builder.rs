//! The client: a registry, and the channels that it keeps to services.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::{runtime, time::Instant};

use super::{
    Channel, ChannelOptions,
    advertised::Advertised,
    budget::Budget,
    channel::{Settings, Shared},
    latency::Latencies,
    live_config::{LiveConfig, Source},
    options::ServiceOptions,
    retry::Purse,
};
use crate::{
    Error,
    balance::{self, Balancer, Tuning},
    config::{Given, Setting},
    discovery::{Discovery, Update},
    layer::Row,
    metrics::{BudgetMetrics, ChannelMetrics},
    transport::{self, LARGEST_WINDOW},
};

/// Calls services by their names in the registry.
///
/// A clone is cheap, and all clones share one set of connections a service. The watch on a service
/// is one for all clients of a process on the same registry, that of a
/// [`Service`](crate::Service) included. Stubs and [`channel`](Self::channel)s keep what they need
/// alive by themselves.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    discovery: Discovery,
    settings: Settings,
    layers: Arc<Row>,
    options: ServiceOptions,
    channels: Mutex<Channels>,
}

/// By service name, and by the runtime that the connections live in.
type Channels = HashMap<(Arc<str>, runtime::Id), Weak<Shared>>;

impl Client {
    /// A client with options of its own.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::new()
    }

    /// A client of the registry that `MICRO_REGISTRY` names, else of `mdns://`, with the defaults, or
    /// what the other [variables](ClientBuilder) say.
    ///
    /// # Errors
    /// `Config` when a variable's value cannot be used, or no registry is named and the feature `mdns`
    /// is off.
    pub fn from_env() -> Result<Self, Error> {
        Self::builder().build()
    }

    /// The channel to a service, by its name in the registry.
    ///
    /// The first channel to a service starts its watch and its connections in the background, in
    /// the tokio runtime that it is made in, and they end with that runtime. Nodes need not exist
    /// yet: calls wait for them within their deadlines.
    ///
    /// # Panics
    /// When called outside a tokio runtime.
    pub fn channel(&self, service: &str) -> Channel {
        let inner = &self.inner;
        let key = (Arc::from(service), runtime::Handle::current().id());
        let mut channels = inner.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = channels.get(&key).and_then(Weak::upgrade) {
            return Channel::new(shared);
        }
        channels.retain(|_, shared| shared.strong_count() > 0);
        let options = inner.options.of(service);
        let tuning = Tuning {
            balancing: options.balancing.clone().unwrap_or_default(),
            health_check: options.health_check.clone(),
            ..Tuning::default()
        };
        let config = Arc::new(LiveConfig::new(key.0.clone(), tuning));
        // Before the code, by which no call then goes.
        if let Some(file) = &options.service_config_file {
            file.follow(service, &config);
        }
        config.say(Source::Code, options.service_config.clone());
        let budget = Arc::new(Budget::new(Instant::now()));
        let budget_metrics = BudgetMetrics::start(key.0.clone(), {
            let (config, budget) = (config.clone(), budget.clone());
            move || Purse::of(&config, &budget).left(Instant::now())
        });
        let shared = Arc::new(Shared {
            service: key.0.clone(),
            balancer: self.balancer(service, &options, config.clone()),
            settings: inner.settings,
            layers: inner.layers.clone(),
            budget,
            config,
            latencies: Latencies::default(),
            metrics: ChannelMetrics::new(key.0.clone()),
            _budget_metrics: budget_metrics,
        });
        channels.insert(key, Arc::downgrade(&shared));
        Channel::new(shared)
    }

    /// The discovery that this client's channels share.
    pub fn discovery(&self) -> &Discovery {
        &self.inner.discovery
    }

    pub(crate) fn over(
        discovery: Discovery,
        settings: Settings,
        layers: Row,
        options: ServiceOptions,
    ) -> Self {
        let (layers, channels) = (Arc::new(layers), Mutex::default());
        Self { inner: Arc::new(Inner { discovery, settings, layers, options, channels }) }
    }

    fn balancer(
        &self,
        service: &str,
        options: &ChannelOptions,
        config: Arc<LiveConfig>,
    ) -> Balancer {
        let settings = &self.inner.settings;
        let ChannelOptions { subset, filter, .. } = options;
        #[cfg(feature = "tls")]
        let ChannelOptions { tls, .. } = options;
        let options = balance::Options {
            transport: transport::Config {
                max_message_size: settings.max_message_size,
                stream_window: settings.stream_window,
                connection_window: settings.connection_window,
                #[cfg(feature = "tls")]
                tls: tls.as_ref().map(|tls| tls.connector().expect("checked when it was built")),
                ..transport::Config::default()
            },
            penalty: settings.request_timeout,
            subset: *subset,
            limits: options.limits(),
            filter: filter.clone().unwrap_or_default(),
            ..balance::Options::default()
        };
        let tuning = config.tuning();
        let mut advertised = Advertised::new(service, config);
        let tap = move |update: &Update| advertised.apply(update);
        Balancer::new(self.inner.discovery.subscribe(service), tap, options, tuning)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("registry", &self.inner.discovery.name())
            .field("settings", &self.inner.settings)
            .finish_non_exhaustive()
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(5),
            max_message_size: 4 * 1024 * 1024,
            max_attempts: MOST_ATTEMPTS,
            stream_window: 1024 * 1024,
            connection_window: 4 * 1024 * 1024,
        }
    }
}

impl Settings {
    /// These, and laid over them what environment and flags say.
    pub(crate) fn given(
        self,
        given: &Given,
        request_timeout: Option<Duration>,
        retries: Option<u32>,
    ) -> Result<Self, Error> {
        let timeout = given.duration(Setting::ClientRequestTimeout, request_timeout)?;
        let retries = given.number(Setting::ClientRetries, retries)?;
        Ok(Self {
            request_timeout: timeout.map_or(self.request_timeout, |it| it.value),
            max_attempts: retries
                .map_or(self.max_attempts, |it| it.value.saturating_add(1).min(MOST_ATTEMPTS)),
            ..self
        })
    }
}

/// The attempts of gRFC A6, the first included; a greater number counts as this.
pub(super) const MOST_ATTEMPTS: u32 = 5;

/// Options of a [`Client`].
///
/// What the environment says goes before the code, and a command line flag (`args`, with the
/// feature `args`) before both. A variable that is empty counts as not set; all are read when the
/// builder is made. Durations are written `5s`, `200ms`, `1m30s`, or `5` for seconds.
///
/// | variable | flag | in code |
/// |---|---|---|
/// | `MICRO_REGISTRY` | `--registry` | [`registry`](Self::registry) |
/// | `MICRO_CLIENT_REQUEST_TIMEOUT` | `--client-request-timeout` | [`request_timeout`](Self::request_timeout) |
/// | `MICRO_CLIENT_RETRIES` | `--client-retries` | [`retries`](Self::retries) |
///
/// In go-micro's way, `MICRO_REGISTRY` may also be a word, `etcd` or `memory`, and
/// `MICRO_REGISTRY_ADDRESS` beside it the registry's addresses: `h1:2379,h2:2379`.
#[must_use = "a builder does nothing until build()"]
pub struct ClientBuilder {
    registry: Option<String>,
    /// Open already: a service's own.
    discovery: Option<Discovery>,
    request_timeout: Option<Duration>,
    retries: Option<u32>,
    settings: Settings,
    given: Given,
    pub(super) layers: Row,
    options: ServiceOptions,
}

impl ClientBuilder {
    fn new() -> Self {
        Self::given(Given::by_process())
    }

    /// One of clients on that discovery.
    pub(crate) fn over(discovery: Discovery, given: Given) -> Self {
        Self { discovery: Some(discovery), ..Self::given(given) }
    }

    fn given(given: Given) -> Self {
        Self {
            registry: None,
            discovery: None,
            request_timeout: None,
            retries: None,
            settings: Settings::default(),
            given,
            layers: Row::default(),
            options: ServiceOptions::default(),
        }
    }

    /// Takes the client's flags from the command line, which go before environment and code.
    #[cfg(feature = "args")]
    pub fn args(mut self, args: crate::args::ClientArgs) -> Self {
        self.given.set_flags(args.into_flags());
        self
    }

    /// Ignores the environment: a test's client must not call what `MICRO_REGISTRY` names.
    pub fn without_env(mut self) -> Self {
        self.given.without_environment();
        self
    }

    /// The URL of the registry, as [`registry::open`](crate::registry::open) takes it, or a word as
    /// in `MICRO_REGISTRY`. Default: `mdns://` (with the feature `mdns`).
    pub fn registry(mut self, url: impl Into<String>) -> Self {
        self.registry = Some(url.into());
        self.discovery = None;
        self
    }

    /// The deadline of a unary call that names none. Default: 5 s. Zero fails every such call;
    /// [`Duration::MAX`] is as good as none.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = Some(timeout);
        self
    }

    /// How often a call to a method that is declared idempotent is tried again within its deadline
    /// after a failure. Default: 4. Over 4 counts as 4, as [gRFC A6] has it (go-micro's default of
    /// 5 included). 0: only what no handler can have seen is tried again, which is not counted.
    ///
    /// It bounds the attempts of a [policy](super::RetryPolicy), a [hedge](super::Hedge) and a
    /// [service config](super::ServiceConfig) too.
    ///
    /// [gRFC A6]: https://github.com/grpc/proposal/blob/master/A6-client-retries.md
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = Some(retries);
        self
    }

    /// The largest message sent or received, in bytes. Default: 4 MiB. 0 leaves empty messages only;
    /// gRPC's own limit of 4 GiB - 1 holds beyond it.
    pub fn max_message_size(mut self, bytes: usize) -> Self {
        self.settings.max_message_size = bytes;
        self
    }

    /// How many bytes of one response may be on their way unread. Default: 1 MiB. 0, and 2 GiB or
    /// more, are errors of [`build`](Self::build).
    pub fn stream_window(mut self, bytes: u32) -> Self {
        self.settings.stream_window = bytes;
        self
    }

    /// How many bytes of all responses on one connection may be on their way unread. Default:
    /// 4 MiB. 0, and 2 GiB or more, are errors of [`build`](Self::build).
    pub fn connection_window(mut self, bytes: u32) -> Self {
        self.settings.connection_window = bytes;
        self
    }

    /// What is said of every service, where [`for_service`](Self::for_service) says nothing else.
    pub fn for_all(mut self, options: ChannelOptions) -> Self {
        self.options.all = options;
        self
    }

    /// What is said of the service of this name in the registry.
    pub fn for_service(mut self, service: &str, options: ChannelOptions) -> Self {
        self.options.some.insert(service.to_owned(), options);
        self
    }

    /// The client. The registry need not be reachable: calls wait for it within their deadlines.
    ///
    /// # Errors
    /// `Config` when the URL is malformed, or of a registry that is not built in, when a window is out
    /// of its range, when a [file](ChannelOptions::service_config_file) cannot be read or is no service
    /// config, when a layer's scope can be no service's or method's name, when an option of a service
    /// cannot be used, and when a variable or flag cannot be read; the text says where the value came
    /// from.
    pub fn build(self) -> Result<Client, Error> {
        let Settings { stream_window, connection_window, .. } = self.settings;
        for (name, value) in
            [("stream_window", stream_window), ("connection_window", connection_window)]
        {
            if !(1..=LARGEST_WINDOW).contains(&value) {
                return Err(Error::config(format!(
                    "the client's {name} is {value}: set it to 1 up to {LARGEST_WINDOW}"
                )));
            }
        }
        self.layers.check_names()?;
        self.options.check()?;
        self.options.read_files()?;
        let discovery = match self.discovery {
            Some(discovery) => discovery,
            None => self.given.discovery(self.registry)?.value,
        };
        let settings = self.settings.given(&self.given, self.request_timeout, self.retries)?;
        Ok(Client::over(discovery, settings, self.layers, self.options))
    }
}

impl fmt::Debug for ClientBuilder {
    /// Without the registry's URL, which may have a password in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder").field("settings", &self.settings).finish_non_exhaustive()
    }
}
