//! The benchmarks' parts: what is compared ([`contestants`]), how it is measured ([`measure`]), and
//! how it is told ([`table`]).

pub mod contestants;
pub mod measure;
pub mod nodes;
pub mod table;
