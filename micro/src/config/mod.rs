//! What the program's surroundings say: environment variables and command line flags, laid over
//! what its code says.
//!
//! This room knows each setting's names, form and default ([`Setting`] is the one table of them),
//! which of several values is in force and where it came from, and how to open the registry that
//! is named. What a value is for is known to `service` and `client`, above.

mod given;
mod registry;
mod setting;
#[cfg(test)]
mod tests;
mod value;

pub(crate) use given::Given;
pub(crate) use setting::Setting;
pub(crate) use value::{Pairs, Source, Value};
