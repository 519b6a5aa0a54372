//! The client: a registry, and the channels that it keeps to services.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::runtime;

use super::{
    Channel,
    channel::{Settings, Shared},
};
use crate::{
    Error,
    balance::{self, Balancer},
    discovery::Discovery,
    layer::Row,
    registry,
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
    channels: Mutex<Channels>,
}

/// By service name, and by the runtime that the connections live in.
type Channels = HashMap<(Arc<str>, runtime::Id), Weak<Shared>>;

impl Client {
    /// A client with options of its own.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// A client of the registry that `MICRO_REGISTRY` names, else of `mdns://`, with the defaults.
    ///
    /// # Errors
    /// `Config` when the URL in the variable cannot be used, or it is missing and the feature `mdns`
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
        let shared = Arc::new(Shared {
            service: key.0.clone(),
            balancer: self.balancer(service),
            settings: inner.settings,
            layers: inner.layers.clone(),
        });
        channels.insert(key, Arc::downgrade(&shared));
        Channel::new(shared)
    }

    /// The discovery that this client's channels share.
    pub fn discovery(&self) -> &Discovery {
        &self.inner.discovery
    }

    pub(crate) fn over(discovery: Discovery) -> Self {
        Self::with_settings(discovery, Settings::default(), Row::default())
    }

    fn with_settings(discovery: Discovery, settings: Settings, layers: Row) -> Self {
        let (layers, channels) = (Arc::new(layers), Mutex::default());
        Self { inner: Arc::new(Inner { discovery, settings, layers, channels }) }
    }

    fn balancer(&self, service: &str) -> Balancer {
        let settings = &self.inner.settings;
        let options = balance::Options {
            transport: transport::Config {
                max_message_size: settings.max_message_size,
                stream_window: settings.stream_window,
                connection_window: settings.connection_window,
                ..transport::Config::default()
            },
            penalty: settings.request_timeout,
            ..balance::Options::default()
        };
        Balancer::new(self.inner.discovery.subscribe(service), options)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("registry", &self.inner.discovery.registry().name())
            .field("settings", &self.inner.settings)
            .finish_non_exhaustive()
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(5),
            max_message_size: 4 * 1024 * 1024,
            max_attempts: 5,
            stream_window: 1024 * 1024,
            connection_window: 4 * 1024 * 1024,
        }
    }
}

/// Options of a [`Client`].
#[derive(Debug, Default)]
#[must_use = "a builder does nothing until build()"]
pub struct ClientBuilder {
    registry: Option<String>,
    settings: Settings,
    pub(super) layers: Row,
}

impl ClientBuilder {
    /// The URL of the registry, as [`registry::open`] takes it. Default: `MICRO_REGISTRY`, else
    /// `mdns://` (with the feature `mdns`).
    pub fn registry(mut self, url: impl Into<String>) -> Self {
        self.registry = Some(url.into());
        self
    }

    /// The deadline of a unary call that names none. Default: 5 s. Zero fails every such call;
    /// [`Duration::MAX`] is as good as none.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.settings.request_timeout = timeout;
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

    /// The client. The registry need not be reachable: calls wait for it within their deadlines.
    ///
    /// # Errors
    /// `Config` when the URL is malformed, or of a registry that is not built in, when a window is out
    /// of its range, and when a layer's scope can be no service's or method's name.
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
        let registry = registry::open(&registry::url_or_env(self.registry)?)?;
        Ok(Client::with_settings(Discovery::new(registry), self.settings, self.layers))
    }
}
