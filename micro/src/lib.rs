//! `micro`: a gRPC-native microservice toolkit.
//!
//! Write a `.proto`, add `micro-build` to `build.rs`, implement the generated handler trait or
//! call the generated stub by service name. The service registers itself with a TTL, is found, is
//! balanced over, survives its neighbours' failures, and leaves without dropping a call.
//!
//! | to | see |
//! |---|---|
//! | serve | [`Service`] |
//! | call | [`Client`]; [`client::Call`] for deadlines, retries and errors |
//! | choose a registry | [`registry::open`] |
//! | stream | [`stream`] |
//! | keep what tonic generated | [`Server::add_service`], [`Channel`] |
//! | understand an error | [`guide::errors`] |
//!
//! # Features
//! All are off by default; `memory://` and `static://` are always there.
//!
//! | feature | brings |
//! |---|---|
//! | `etcd` | `etcd://` registries; its build runs `protoc` |
//! | `tonic-channel` | `discovery::tonic_channel`: discovery beneath tonic's own balanced channel |

mod backoff;
mod balance;
pub mod client;
mod deadline;
pub mod descriptor;
pub mod discovery;
mod error;
#[cfg(test)]
mod fixture;
mod framing;
mod grpc_timeout;
pub mod guide;
mod headers;
mod include;
mod near;
pub mod registration;
pub mod registry;
pub mod server;
mod service;
pub mod stream;
mod transport;

pub use client::{Channel, Client, ClientBuilder};
pub use error::{Error, ErrorKind};
pub use futures_core::Stream;
pub use server::Server;
pub use service::{Handle, Service, ServiceBuilder};
pub use tonic::{
    Code, IntoRequest, IntoStreamingRequest, Request, Response, Status, Streaming, metadata,
};

/// What generated messages are made with, for attributes and extern paths that name it.
pub use prost;
/// For generated code: the well-known types of `google.protobuf`.
pub use prost_types;
