//! What may happen to a registry while calls go on, to each registry: none of it may fail a call, and
//! every node is back within a renewal's time of the server's return.
//!
//! The faults wait more than they work, so several are done side by side, each to a server and a
//! fleet of its own.

#[macro_use]
mod every_fault;

use tests::{consul::Consul, etcd::Etcd, kubernetes::Kubernetes, nats::Nats, zookeeper::ZooKeeper};

every_server! {
    consul: Consul, not {};
    etcd: Etcd, not {};
    kubernetes: Kubernetes, not {
        every_lease_lost: "nothing expires: a record goes with its pod"
    };
    nats: Nats, not {
        every_lease_lost: "the server keeps no leases: a node's TTL is its listeners'"
        wiped: "nothing is stored: a restart is all that can be done to it"
        restored_to_an_older_state: "nothing is stored: a restart is all that can be done to it"
    };
    zookeeper: ZooKeeper, not {};
}
