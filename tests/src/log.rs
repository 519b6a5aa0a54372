//! What is logged, for tests of it.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use tracing::{Dispatch, Level, dispatcher::DefaultGuard};

/// Keeps the warnings and errors that this thread logs, for as long as it lives: so of a test whose
/// runtime is of this thread alone.
#[derive(Debug)]
pub struct Warnings {
    lines: Sink,
    _this: DefaultGuard,
    /// With a single subscriber in the process, tracing asks the thread that comes to a log line
    /// first whether anybody listens: another test's thread, where nobody does. With two it asks both.
    _second: Dispatch,
}

#[derive(Debug, Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Warnings {
    /// Of this thread, from now on.
    pub fn kept() -> Self {
        let lines = Sink::default();
        let this = tracing::dispatcher::set_default(&listener(&lines));
        Self { _second: listener(&Sink::default()), _this: this, lines }
    }

    /// The lines so far that contain `part`.
    pub fn with(&self, part: &str) -> Vec<String> {
        let bytes = self.lines.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&bytes);
        text.lines().filter(|line| line.contains(part)).map(str::to_owned).collect()
    }
}

fn listener(lines: &Sink) -> Dispatch {
    let lines = lines.clone();
    let format = tracing_subscriber::fmt().with_ansi(false).with_max_level(Level::WARN);
    Dispatch::new(format.with_writer(move || lines.clone()).finish())
}

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
