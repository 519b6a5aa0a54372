//! The benchmarks of registries: which there are, each on its real server ([`server`]), who is written
//! there ([`host`]), what the registry's own client hears of it ([`own`]), and callers that are to
//! follow ([`routed`]); what keeping a node there costs the server ([`cost`], counted on the way by
//! [`proxy`]), and how a client bears many of them ([`fleet`]).

pub mod cost;
pub mod fleet;
pub mod host;
pub mod own;
pub mod proxy;
pub mod routed;
pub mod server;

/// The service that nodes come to and leave.
pub const SERVICE: &str = "bench-registry";

/// The next line of this process's input; none once its end is closed by whoever started it.
async fn next_line() -> std::io::Result<Option<String>> {
    // Another thread: to wait on a pipe for ever is a block of this one's.
    let line = tokio::task::spawn_blocking(|| std::io::stdin().lines().next().transpose());
    line.await.expect("reading does not panic")
}
