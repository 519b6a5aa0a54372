//! Calls by service name: [`Client`], the [`Channel`] to one service, and the calls that generated
//! stubs return.
//!
//! A call's way: its deadline starts, a node is picked from the balancer's snapshot, one HTTP/2
//! stream is opened on that node's connection, and the outcome is reported back. When no handler
//! can have seen the call it moves to another node by itself. This room decides on deadlines and
//! retries; it knows nothing of registries' formats, and of HTTP/2 only what `transport` says.

mod builder;
mod call;
mod channel;
mod deadline;
mod layers;
mod replay;
mod retry;
mod status;
mod stream;
#[cfg(test)]
mod tests;
mod unary;

pub use builder::{Client, ClientBuilder};
pub use call::{
    BidiStreaming, BidiStreamingCall, Call, ClientStreaming, ClientStreamingCall, ServerStreaming,
    ServerStreamingCall, Unary, UnaryCall,
};
pub use channel::Channel;
pub(crate) use channel::Settings;
