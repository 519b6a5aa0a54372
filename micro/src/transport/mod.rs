//! One HTTP/2 connection to a node.

pub(crate) mod gather;
