//! `micro`: a gRPC-native microservice toolkit.

pub mod descriptor;
mod error;
pub mod registry;
mod transport;

pub use error::{Error, ErrorKind};
