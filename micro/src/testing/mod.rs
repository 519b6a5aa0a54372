//! For tests: [a fleet in one process](Fleet), and what [a registry of your own](registry) is held to.

mod fleet;
pub mod registry;

pub use fleet::{Fleet, FleetBuilder, FleetNode, FleetRegistry};
