//! The signals that end a service.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{Error, ErrorKind};

/// SIGTERM and SIGINT, from now on: once made, neither ends the process by itself any more.
pub(super) struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, Error> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Error::new(ErrorKind::Config, "cannot listen for SIGTERM and SIGINT")
                    .with_source(error)
            })
        };
        Ok(Self { term: listen(SignalKind::terminate())?, int: listen(SignalKind::interrupt())? })
    }

    /// The next signal's name. Cancel safe.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}
