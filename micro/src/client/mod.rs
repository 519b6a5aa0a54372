//! Calls by service name: [`Client`], the [`Channel`] to one service, and the calls that generated
//! stubs return.
//!
//! A stub is made of a service's name in the registry and a [`Client`], which a program has one of.
//! Its methods return a [`Call`]: it may be given a deadline and the like, and is awaited.
//! [`Client::channel`] is for stubs that tonic generated.
//!
//! A call's way: its deadline starts, one of the connected nodes is picked, and it is sent there as
//! one HTTP/2 stream. When no handler can have seen the call it moves to another node by itself.

// A node is picked from the balancer's snapshot, and the outcome is reported back to it. This room
// decides on deadlines and retries; it knows nothing of registries' formats, and of HTTP/2 only what
// `transport` says.

mod advertised;
mod budget;
mod builder;
mod call;
mod channel;
mod config_file;
mod deadline;
mod hedge;
mod hedged;
mod latency;
mod layers;
mod limit;
mod live_config;
mod observed;
mod options;
mod p95;
mod policy;
mod race;
mod replay;
mod retry;
mod served;
mod service_config;
mod slot;
mod status;
mod stream;
#[cfg(test)]
mod tests;
mod throttle;
mod unary;

pub use builder::{Client, ClientBuilder};
pub use call::{
    BidiStreaming, BidiStreamingCall, Call, ClientStreaming, ClientStreamingCall, ServerStreaming,
    ServerStreamingCall, Unary, UnaryCall,
};
pub use channel::Channel;
pub(crate) use channel::Settings;
pub use hedge::Hedge;
pub use options::ChannelOptions;
pub(crate) use options::ServiceOptions;
pub use policy::RetryPolicy;
pub use served::Served;
pub use service_config::ServiceConfig;
