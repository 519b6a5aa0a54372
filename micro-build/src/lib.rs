//! Turns `.proto` files into `micro`'s handler traits and client stubs, from a build script and
//! without `protoc`.
//!
//! ```no_run
//! // build.rs
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     micro_build::compile_protos(&["proto/greeter.proto"], &["proto"])?;
//!     Ok(())
//! }
//! ```
//!
//! `micro::include_proto!("greeter.v1");` in `src/main.rs` puts the code of the package there. It
//! needs `micro` among the crate's dependencies, and nothing else.
//!
//! # What is generated
//!
//! Messages and enums are `prost`'s. For `service Greeter` there is besides:
//!
//! | item | is |
//! |---|---|
//! | `GREETER` | the `micro::descriptor::ServiceDescriptor`: full name, comments, what is deprecated and idempotent, and the shape of each message as go-micro advertises it |
//! | `trait GreeterHandler` | what a server implements: one `async fn` a method |
//! | `register_greeter_handler(server, handler)` | puts a handler on a `micro::Server` |
//! | `GreeterClient` | what a client calls: `GreeterClient::new("name in the registry", &client)`, then `greeter.hello(request).await` |
//!
//! What the `.proto` marks `deprecated` is `#[deprecated]`: fields and values of enums, a method on
//! both sides, a service on the client's alone, since whoever still serves it must not be warned
//! for that. (Messages and enums as such are not: every stub that names one would be warned.)
//! Comments become documentation, read as Markdown: whatever code is in them becomes text, so that
//! `cargo test` does not take it for an example, and `[a]` or `<b>` stand for themselves, so that
//! `cargo doc` does not take them for a link or a tag.
//!
//! The code fits the `micro` of the same version, and does not compile with one that it does not fit.
//!
//! # Names
//!
//! Names follow Rust's customs, `GetURL` being `get_url`. Reserved words are raw (`r#type`), or get
//! an underscore where Rust allows no raw form (`self_`, `super_`, `crate_`, `Self_`). Rpcs called
//! `New`, `Clone`, `Into` and `TryInto` get one as well, since a stub has methods of these names
//! already: `new_`, `clone_`, `into_`, `try_into_`.
//!
//! Two names of the `.proto` that become one stop the build, and so does one of underscores alone,
//! which Rust's customs leave nothing of. What is nested in a message lies in a module named after
//! it, so a package cannot have that name.
//!
// With generated code in it, the example is a test of `tests/codegen`.
#![cfg_attr(not(doctest), doc = include_str!("../docs/packages.md"))]
//!
//! # Methods that stream
//!
//! A method whose response is a stream returns it from the `async fn` itself: any `Stream` that
//! owns its data, with no associated type to name and nothing to box.
//!
//! ```
//! # use micro::{Request, Response, Status, Stream};
//! # struct Number { value: i32 }
//! # trait CounterHandler {
//! #     fn count(&self, request: Request<Number>) -> impl Future<Output = Result<Response<
//! #         impl Stream<Item = Result<Number, Status>> + Send + 'static>, Status>> + Send;
//! # }
//! # struct Counter;
//! impl CounterHandler for Counter {
//!     async fn count(
//!         &self,
//!         request: Request<Number>,
//!     ) -> Result<Response<impl Stream<Item = Result<Number, Status>> + Send + 'static>, Status> {
//!         let upto = request.into_inner().value;
//!         if upto < 0 {
//!             return Err(Status::invalid_argument("below zero"));
//!         }
//!         let numbers = (0..upto).map(|value| Ok(Number { value }));
//!         Ok(Response::new(micro::stream::iter(numbers)))
//!     }
//! }
//! ```
//!
//! * **`Send + 'static` is part of the signature.** Without `'static` the compiler says that the
//!   type "does not fulfill the required lifetime". The stream outlives the call of the method, so
//!   it takes what it needs of `self` by value, cloned or behind an `Arc`.
//! * **A body that only fails** has no stream to tell its type by. `Err(status)` alone is "type
//!   annotations needed"; write `micro::stream::fails(status)`.
//! * **A named stream type**, `Response<Numbers>` with `type Numbers = Pin<Box<dyn Stream<..> +
//!   Send>>` or `micro::Streaming<Number>`, promises more than the trait asks for, which rustc
//!   warns of (`refining_impl_trait`). It is meant here: put `#[allow(refining_impl_trait)]` on the
//!   method. Then `Err(status)` alone does as well.
//!
//! A method whose *request* is a stream gets `Request<micro::Streaming<Number>>` and takes the
//! messages from it with `message().await`.

mod accessor;
mod builder;
mod clash;
mod compile;
mod derive;
mod docs;
mod error;
mod external;
mod locate;
mod names;
mod near;
mod output;
mod service;
mod shape;
mod target;

use std::path::Path;

pub use builder::Builder;
pub use error::Error;

/// Generates the code of `protos`, and of what they import, into `OUT_DIR`: both sides of every
/// service, a file for each package.
///
/// `protos` are paths, relative to the package's folder or to one of `includes`. `includes` are the
/// folders that imports are looked for in, the first that has the file; they must exist. Google's
/// well-known files (`google/protobuf/empty.proto` and the like) need no folder, and their types
/// are taken from `micro::prost_types`. A file that is given twice is read once. Files are `proto2`
/// or `proto3`; editions are not supported.
///
/// Cargo is told to run the build script again when one of the files read has changed, imports
/// included.
///
/// # Errors
/// One message with file, remedy and, for whatever is wrong within a file, the line: a `.proto`
/// that is broken, is missing or lies in no include folder; a missing import or include folder;
/// files that import each other in a circle; two names that would be one in Rust, or one that would
/// be none; a file that cannot be read or written.
/// For what is wrong with the arguments or the options, file and line are those of this call.
#[track_caller]
pub fn compile_protos(
    protos: &[impl AsRef<Path>],
    includes: &[impl AsRef<Path>],
) -> Result<(), Error> {
    configure().compile_protos(protos, includes)
}

/// Starts from the default options, for those who want others.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// micro_build::configure()
///     .client_only()
///     .extern_path(".common.v1", "::common::v1")
///     .bytes(["."])
///     .compile_protos(&["proto/greeter.proto"], &["proto"])?;
/// # Ok(())
/// # }
/// ```
pub fn configure() -> Builder {
    Builder::default()
}
