/// Includes the code that `micro-build` generated for a package of `.proto` files.
///
/// The argument is the package: `include_proto!("greeter.v1")`, or `include_proto!("_")` for files
/// that have no `package`. The file is looked for in `OUT_DIR`; one written elsewhere with
/// `micro_build::configure().out_dir(..)` is an ordinary module.
///
/// A package whose messages refer to another package's expects both in modules nested like the
/// packages:
///
/// ```text
/// mod common {
///     pub mod v1 {
///         micro::include_proto!("common.v1");
///     }
/// }
/// mod orders {
///     pub mod v1 {
///         micro::include_proto!("orders.v1"); // refers to `super::super::common::v1`
///     }
/// }
/// ```
#[macro_export]
macro_rules! include_proto {
    ($package:tt) => {
        ::core::include!(::core::concat!(::core::env!("OUT_DIR"), "/", $package, ".rs"));
    };
}
