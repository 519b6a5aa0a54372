//! The one table of what environment and flags can set: errors, `--help` and docs speak from it.

/// A setting, by what it sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Setting {
    Registry,
    RegistryAddress,
    ServerName,
    ServerVersion,
    ServerId,
    ServerAddress,
    ServerAdvertise,
    ServerMetadata,
    RegisterTtl,
    RegisterInterval,
    ClientRequestTimeout,
    ClientRetries,
}

/// What people call a setting, and what to write.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The environment variable, as go-micro names it.
    pub(crate) variable: &'static str,
    /// The flag, without its dashes.
    #[cfg_attr(not(feature = "args"), allow(dead_code, reason = "only flags have it"))]
    pub(crate) flag: Option<&'static str>,
    /// The method of the builder.
    pub(crate) method: &'static str,
    /// What `--help` calls the value.
    #[cfg_attr(not(feature = "args"), allow(dead_code, reason = "only --help says it"))]
    pub(crate) placeholder: &'static str,
    /// What to write, for errors: "write ..".
    pub(crate) form: &'static str,
    /// What `--help` says it is.
    #[cfg_attr(not(feature = "args"), allow(dead_code, reason = "only --help says it"))]
    pub(crate) help: &'static str,
    /// What holds if nobody sets it, the program's code included.
    #[cfg_attr(not(feature = "args"), allow(dead_code, reason = "only --help says it"))]
    pub(crate) default: &'static str,
}

#[cfg_attr(not(feature = "args"), allow(dead_code, reason = "only --help says it"))]
const WITHOUT_REGISTRY: &str =
    if cfg!(feature = "mdns") { "mdns://" } else { "none, one must be named" };

impl Setting {
    pub(crate) const ALL: [Self; 12] = [
        Self::Registry,
        Self::RegistryAddress,
        Self::ServerName,
        Self::ServerVersion,
        Self::ServerId,
        Self::ServerAddress,
        Self::ServerAdvertise,
        Self::ServerMetadata,
        Self::RegisterTtl,
        Self::RegisterInterval,
        Self::ClientRequestTimeout,
        Self::ClientRetries,
    ];

    pub(crate) const fn entry(self) -> &'static Entry {
        match self {
            Self::Registry => &Entry {
                variable: "MICRO_REGISTRY",
                flag: Some("registry"),
                method: "registry()",
                placeholder: "URL",
                form: "a URL such as etcd://127.0.0.1:2379",
                help: "The registry, such as etcd://127.0.0.1:2379, or a word such as etcd with its \
                       addresses in MICRO_REGISTRY_ADDRESS",
                default: WITHOUT_REGISTRY,
            },
            Self::RegistryAddress => &Entry {
                variable: "MICRO_REGISTRY_ADDRESS",
                flag: None,
                method: "registry()",
                placeholder: "ADDRESSES",
                form: "host:port,..",
                help: "The addresses of a registry that is named by a word, as go-micro has it",
                default: "none",
            },
            Self::ServerName => &Entry {
                variable: "MICRO_SERVER_NAME",
                flag: Some("server-name"),
                method: "Service::builder()",
                placeholder: "NAME",
                form: "a name such as greeter",
                help: "The service's name in the registry",
                default: "the program's choice",
            },
            Self::ServerVersion => &Entry {
                variable: "MICRO_SERVER_VERSION",
                flag: Some("server-version"),
                method: "version()",
                placeholder: "VERSION",
                form: "a version such as 1.2.0",
                help: "The version in the node's record",
                default: "latest",
            },
            Self::ServerId => &Entry {
                variable: "MICRO_SERVER_ID",
                flag: Some("server-id"),
                method: "id()",
                placeholder: "ID",
                form: "an id such as greeter-1",
                help: "The node's id, unique within the service",
                default: "the name, a dash and a new UUID",
            },
            Self::ServerAddress => &Entry {
                variable: "MICRO_SERVER_ADDRESS",
                flag: Some("server-address"),
                method: "address()",
                placeholder: "HOST:PORT",
                form: "host:port, such as 0.0.0.0:8080 for every interface",
                help: "The address to listen on; 0.0.0.0 is every interface, port 0 a free one",
                default: "127.0.0.1:0",
            },
            Self::ServerAdvertise => &Entry {
                variable: "MICRO_SERVER_ADVERTISE",
                flag: Some("server-advertise"),
                method: "advertise()",
                placeholder: "HOST[:PORT]",
                form: "host:port or host",
                help: "The address for the node's record",
                default: "the address listened on",
            },
            Self::ServerMetadata => &Entry {
                variable: "MICRO_SERVER_METADATA",
                flag: Some("server-metadata"),
                method: "metadata()",
                placeholder: "KEY=VALUE,..",
                form: "key=value pairs with commas between them, such as zone=a,rack=7",
                help: "Facts for the node's record, laid over the program's own",
                default: "none",
            },
            Self::RegisterTtl => &Entry {
                variable: "MICRO_REGISTER_TTL",
                flag: Some("register-ttl"),
                method: "register_ttl()",
                placeholder: "DURATION",
                form: "a duration over 0, such as 15s, 200ms or 15 (seconds)",
                help: "How long the registry keeps the record of a node that has died; over mDNS 120 s, \
                       whatever this is",
                default: "15s",
            },
            Self::RegisterInterval => &Entry {
                variable: "MICRO_REGISTER_INTERVAL",
                flag: Some("register-interval"),
                method: "register_interval()",
                placeholder: "DURATION",
                form: "a duration over 0, such as 5s, 200ms or 5 (seconds)",
                help: "How often the record is renewed, at most half of the TTL",
                default: "a third of the TTL",
            },
            Self::ClientRequestTimeout => &Entry {
                variable: "MICRO_CLIENT_REQUEST_TIMEOUT",
                flag: Some("client-request-timeout"),
                method: "request_timeout()",
                placeholder: "DURATION",
                form: "a duration over 0, such as 5s, 200ms or 5 (seconds)",
                help: "The deadline of a unary call that names none",
                default: "5s",
            },
            Self::ClientRetries => &Entry {
                variable: "MICRO_CLIENT_RETRIES",
                flag: Some("client-retries"),
                method: "retries()",
                placeholder: "NUMBER",
                form: "a number such as 3; what is over 4 counts as 4",
                help: "How often an idempotent call is tried again; over 4 counts as 4",
                default: "4",
            },
        }
    }
}
