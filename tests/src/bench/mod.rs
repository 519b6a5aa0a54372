//! The benchmarks' parts: what is compared ([`contestants`]), how it is measured ([`measure`]), and
//! how it is told ([`table`]); and those of the benchmarks of registries ([`registry`]).

pub mod contestants;
pub mod measure;
pub mod nodes;
pub mod registry;
pub mod table;
