//! Turns `.proto` files into `micro`'s handler traits and client stubs, from a build script and
//! without `protoc`.

mod builder;
mod clash;
mod compile;
mod descriptor;
mod docs;
mod error;
mod external;
mod locate;
mod names;
mod output;
mod service;
mod shape;

use std::path::Path;

pub use builder::Builder;
pub use error::Error;

/// Generates the code of `protos` and of what they import with default options.
///
/// # Errors
/// TODO
#[track_caller]
pub fn compile_protos(
    protos: &[impl AsRef<Path>],
    includes: &[impl AsRef<Path>],
) -> Result<(), Error> {
    configure().compile_protos(protos, includes)
}

/// Options.
pub fn configure() -> Builder {
    Builder::default()
}
