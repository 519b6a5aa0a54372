//! The guide, a chapter at a time.
//!
//! | chapter | |
//! |---|---|
//! | [first service](first_service) | from a `.proto` to a running node and a call |
//! | [calling] | stubs, deadlines, attempts, metadata, errors |
//! | [failing nodes](failing_nodes) | a node dies, hangs, slows down, lies: what follows, and what to set |
//! | [streaming] | the four kinds of calls, both ways |
//! | [registries] | which one when, and what happens when it fails |
//! | [configuration] | code, environment, flags; hooks, layers, logs |
//! | [shutdown] | leaving without dropping a call |
//! | [metrics] | what is told to OpenTelemetry, and what to be woken by |
//! | [tracing] | one trace for a request and the calls that it causes |
//! | [TLS](tls) | certificates of nodes and callers, and their renewal |
//! | [testing] | services and clients in one test; a fleet with faults on command, in paused time |
//! | [from tonic](from_tonic) | what stays, what changes, one step at a time |
//! | [errors] | every error's text, its cause and its remedy |
//! | [examples] | whole programs, each one idea |

#[doc = include_str!("calling.md")]
pub mod calling {}
#[doc = include_str!("configuration.md")]
pub mod configuration {}
#[doc = include_str!("errors.md")]
pub mod errors {}
// The code is compiled, and run, as programs.
#[cfg(not(doctest))]
pub mod examples;
#[doc = include_str!("failing_nodes.md")]
pub mod failing_nodes {}
#[doc = include_str!("first_service.md")]
pub mod first_service {}
#[doc = include_str!("from_tonic.md")]
pub mod from_tonic {}
#[doc = include_str!("metrics.md")]
pub mod metrics {}
#[doc = include_str!("registries.md")]
pub mod registries {
    #[doc = include_str!("registries/own.md")]
    ///
    /// ```
    #[doc = include_str!("../../tests/own_registry/table.rs")]
    /// ```
    pub mod own {}
    #[doc = include_str!("registries/mdns.md")]
    pub mod mdns {}
    #[doc = include_str!("registries/memory.md")]
    pub mod memory {}
    #[doc = include_str!("registries/static.md")]
    pub mod static_list {}
    #[doc = include_str!("registries/etcd.md")]
    pub mod etcd {}
    #[doc = include_str!("registries/kubernetes.md")]
    pub mod kubernetes {}
    #[doc = include_str!("registries/dns.md")]
    pub mod dns {}
    #[doc = include_str!("registries/file.md")]
    pub mod file {}
    #[doc = include_str!("registries/zookeeper.md")]
    pub mod zookeeper {}
    #[doc = include_str!("registries/consul.md")]
    pub mod consul {}
    #[doc = include_str!("registries/nacos.md")]
    pub mod nacos {}
    #[doc = include_str!("registries/nats.md")]
    pub mod nats {}
}
#[doc = include_str!("shutdown.md")]
pub mod shutdown {}
#[doc = include_str!("streaming.md")]
pub mod streaming {}
#[doc = include_str!("testing.md")]
#[cfg_attr(feature = "testing", doc = include_str!("testing/fleet.md"))]
#[cfg_attr(
    not(feature = "testing"),
    doc = "\nA whole fleet in one process, with faults on command, needs the feature `testing`."
)]
pub mod testing {}
#[cfg_attr(feature = "tls", doc = include_str!("tls.md"))]
#[cfg_attr(not(feature = "tls"), doc = "Needs the feature `tls`.")]
pub mod tls {}
#[cfg_attr(feature = "trace", doc = include_str!("tracing.md"))]
#[cfg_attr(not(feature = "trace"), doc = "Needs the feature `trace`.")]
pub mod tracing {}
