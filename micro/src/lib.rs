//! `micro`: a gRPC-native microservice toolkit.
//!
//! Write a `.proto`, add `micro-build` to `build.rs`, implement the generated handler trait or
//! call the generated stub by service name. The service registers itself with a TTL, is found, is
//! balanced over, survives its neighbours' failures, and leaves without dropping a call.
//!
//! | to | see |
//! |---|---|
//! | learn it, a chapter at a time | the [`guide`] |
//! | serve | [`Service`] |
//! | call | [`Client`]; [`client::Call`] for deadlines, retries and errors |
//! | choose a registry | [`registry::open`] |
//! | configure from outside | [`ServiceBuilder`], [`ClientBuilder`] |
//! | choose which node is called | [`balance`] |
//! | stream | [`stream`] |
//! | surround calls: request ids, tokens, limits | [`layer`] |
//! | keep what tonic generated | [`Server::add_service`], [`Channel`] |
//! | understand an error | [`guide::errors`] |
//!
//! # Features
//! `memory://` and `static://` are always there. Of the features `mdns` alone is on by default.
//!
//! | feature | brings |
//! |---|---|
//! | `mdns` | `mdns://`, the registry of those who name none: nothing to install |
//! | `args` | `args`: command line flags for `clap` |
//! | `dns` | `dns://` registries |
//! | `consul` | `consul://` registries |
//! | `etcd` | `etcd://` registries; its build runs `protoc` |
//! | `kubernetes` | `kubernetes://` registries |
//! | `file` | `file://` registries |
//! | `init-tracing` | `init_tracing`: logs on standard error, for programs without a subscriber of their own |
//! | `metrics` | registration, discovery, balancing and calls as OpenTelemetry metrics: the [guide](guide::metrics) |
//! | `nacos` | `nacos://` registries |
//! | `nats` | `nats://` registries |
//! | `testing` | `testing`: a fleet in one process, for the tests of your service; the conformance suite for a registry of your own |
//! | `tls` | `tls`: TLS and mTLS between nodes and their callers: the [guide](guide::tls) |
//! | `tonic-channel` | `discovery::tonic_channel`: discovery beneath tonic's own balanced channel |
//! | `trace` | calls and their attempts as OpenTelemetry spans: the [guide](guide::tracing) |
//! | `zookeeper` | `zookeeper://` registries |

#[cfg(feature = "args")]
pub mod args;
mod backoff;
pub mod balance;
pub mod client;
mod config;
mod deadline;
pub mod descriptor;
pub mod discovery;
mod disk;
mod duration;
mod error;
#[cfg(test)]
mod fixture;
mod framing;
mod grpc_timeout;
#[cfg(any(doc, doctest))]
pub mod guide;
mod headers;
mod include;
#[cfg(feature = "init-tracing")]
mod init_tracing;
pub mod layer;
mod metrics;
mod near;
pub mod registration;
pub mod registry;
pub mod server;
mod service;
pub mod stream;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "tls")]
pub mod tls;
mod trace;
mod transport;

pub use client::{Channel, ChannelOptions, Client, ClientBuilder};
pub use error::{Error, ErrorKind};
pub use futures_core::Stream;
#[cfg(feature = "init-tracing")]
pub use init_tracing::init_tracing;
pub use server::Server;
pub use service::{Handle, Service, ServiceBuilder};
pub use tonic::{
    Code, IntoRequest, IntoStreamingRequest, Request, Response, Status, Streaming, metadata,
};

/// What generated messages are made with, for attributes and extern paths that name it.
pub use prost;
/// For generated code: the well-known types of `google.protobuf`.
pub use prost_types;
