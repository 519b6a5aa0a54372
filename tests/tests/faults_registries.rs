//! What may happen to a registry while calls go on, to each registry: none of it may fail a call, and
//! every node is back within a renewal's time of the server's return.
//!
//! The faults wait more than they work, so several are done side by side, each to a server and a
//! fleet of its own.

#[macro_use]
mod every_fault;

use tests::{consul::Consul, etcd::Etcd, nats::Nats, zookeeper::ZooKeeper};

every_server! { consul: Consul, etcd: Etcd, nats: Nats, zookeeper: ZooKeeper }
