//! `micro`: a gRPC-native microservice toolkit.

mod backoff;
mod balance;
pub mod descriptor;
mod error;
pub mod registry;

pub use error::{Error, ErrorKind};
