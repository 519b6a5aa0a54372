//! For tests: what a registry of your own is held to.

pub mod registry;
