//! placeholder

pub mod conformance;
pub mod etcd;
pub mod ports;
