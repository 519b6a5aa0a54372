//! `micro`: a gRPC-native microservice toolkit.

mod backoff;
pub mod descriptor;
pub mod discovery;
mod error;
pub mod registration;
pub mod registry;

pub use error::{Error, ErrorKind};
