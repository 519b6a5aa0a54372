use std::io::{self, IsTerminal as _};

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// Writes what the process logs to its standard error: for programs that have no `tracing`
/// subscriber of their own.
///
/// `RUST_LOG` says what, `info` unless it is set: the changes of this node's registration and of the
/// sets of nodes that are called, and what goes wrong. `RUST_LOG=micro=debug` adds connections and
/// calls that move on. What in `RUST_LOG` cannot be read is named on standard error and left out.
///
/// Does nothing if the process has a global subscriber already.
///
/// ```
/// micro::init_tracing();
/// ```
pub fn init_tracing() {
    let filter =
        EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    // The only error is that there is one.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .try_init();
}
