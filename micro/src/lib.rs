//! `micro`: a gRPC-native microservice toolkit.

mod backoff;
pub mod descriptor;
mod error;
pub mod registration;
pub mod registry;

pub use error::{Error, ErrorKind};
