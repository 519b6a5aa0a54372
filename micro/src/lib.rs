//! `micro`: a gRPC-native microservice toolkit.

mod deadline;
pub mod descriptor;
mod error;
pub mod registry;
pub mod server;
mod transport;

pub use error::{Error, ErrorKind};
pub use server::Server;
