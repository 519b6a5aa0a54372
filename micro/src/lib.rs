//! `micro`: a gRPC-native microservice toolkit.

pub mod descriptor;
mod error;
mod include;
pub mod registry;
pub mod stream;

pub use error::{Error, ErrorKind};

pub use futures_core::Stream;
pub use prost;
pub use prost_types;
pub use tonic::{
    Code, IntoRequest, IntoStreamingRequest, Request, Response, Status, Streaming, metadata,
};
