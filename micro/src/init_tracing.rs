use std::{
    env,
    io::{self, IsTerminal as _},
};

use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

/// Writes what the process logs to its standard error: for programs that have no `tracing`
/// subscriber of their own.
///
/// `RUST_LOG` says what, `info` unless it is set: the changes of this node's registration and of the
/// sets of nodes that are called, and what goes wrong. `RUST_LOG=info,micro=debug` adds connections
/// and calls that move on. It is a list of levels, each for a target if it names one; a `RUST_LOG`
/// that is not is told on standard error, and `info` taken.
///
/// Does nothing if the process has a global subscriber already.
///
/// ```
/// micro::init_tracing();
/// ```
pub fn init_tracing() {
    let info = Targets::new().with_default(LevelFilter::INFO);
    let targets = match env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => text.parse().unwrap_or_else(|error| {
            eprintln!(
                "RUST_LOG is '{text}', which cannot be read ({error}); write levels, such as \
                 info,micro=debug"
            );
            info
        }),
        _ => info,
    };
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    // The only error is that there is one.
    let _ = tracing_subscriber::registry().with(lines).with(targets).try_init();
}
