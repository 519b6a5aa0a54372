//! What the tests against real programs share: the servers and peers, the fault
//! suite's parts, the benchmarks' parts and the generated code.

pub mod away;
pub mod bench;
pub mod certificates;
pub mod consul;
pub mod datagrams;
pub mod dead_link;
pub mod dns;
pub mod echo;
pub mod etcd;
pub mod fault;
pub mod gate;
pub mod gomicro;
pub mod interop;
pub mod kubernetes;
pub mod lines;
pub mod link;
pub mod log;
pub mod multicast;
pub mod nacos;
pub mod namespace;
pub mod nats;
pub mod peers;
pub mod ports;
pub mod process;
pub mod programs;
pub mod projects;
pub mod raw;
pub mod soak;
pub mod unregistered;
pub mod zookeeper;

/// The generated code of the shared protos.
pub mod proto {
    /// `proto/echo.proto`.
    pub mod echo {
        micro::include_proto!("echo.v1");
    }

    /// `proto/ledger.proto`.
    pub mod ledger {
        micro::include_proto!("ledger.v1");
    }

    /// `proto/echo.proto` as `tonic-prost-build` generates it.
    #[allow(missing_docs, reason = "tonic's generated code, beyond our control")]
    pub mod tonic_echo {
        tonic::include_proto!("tonic/echo.v1");
    }
    /// `proto/ledger.proto` as `tonic-prost-build` generates it.
    #[allow(missing_docs, reason = "tonic's generated code, beyond our control")]
    pub mod tonic_ledger {
        tonic::include_proto!("tonic/ledger.v1");
    }
}
