//! The signals that end a service: the first asks it to leave, a second ends the process.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use signal_hook::{
    SigId,
    consts::{SIGINT, SIGTERM},
    flag, low_level,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{Error, ErrorKind};

/// SIGTERM and SIGINT, from now on: once made, the first of them is only [told](Self::next).
///
/// The second takes its default action within the signal handler itself: it ends the process also
/// when handlers block every thread, and then nobody else would see it. So it stays after a first
/// one: the runtime that waits for such a thread outlasts the service. Dropped before any came,
/// it leaves the signals to whoever else listens.
pub(super) struct Signals {
    term: Signal,
    int: Signal,
    came: Arc<AtomicBool>,
    actions: Vec<SigId>,
}

impl Signals {
    pub(super) fn new() -> Result<Self, Error> {
        Self::listen().map_err(|error| {
            Error::new(ErrorKind::Config, "cannot listen for SIGTERM and SIGINT").with_source(error)
        })
    }

    fn listen() -> io::Result<Self> {
        let came = Arc::new(AtomicBool::new(false));
        let mut actions = Vec::new();
        for signal in [SIGTERM, SIGINT] {
            // In this order, which is that in which they run: the first signal must not find the
            // flag that it sets itself, and whom tokio tells of it must find the flag set.
            actions.push(flag::register_conditional_default(signal, came.clone())?);
            actions.push(flag::register(signal, came.clone())?);
        }
        let (term, int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { term, int, came, actions })
    }

    /// The name of the signal that came already, if one did: known at once, also when the thread
    /// that would tell tokio of it was held up.
    pub(super) async fn came(&mut self) -> Option<&'static str> {
        if self.came.load(Ordering::SeqCst) { Some(self.next().await) } else { None }
    }

    /// The next signal's name. Cancel safe.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        if !self.came.load(Ordering::SeqCst) {
            for action in self.actions.drain(..) {
                low_level::unregister(action);
            }
        }
    }
}
