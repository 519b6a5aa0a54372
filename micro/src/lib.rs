//! `micro`: a gRPC-native microservice toolkit.

pub mod descriptor;
mod error;
pub mod registry;

pub use error::{Error, ErrorKind};
