//! What is left out of all that others say.

use std::time::Duration;

use tokio::time::Instant;

/// From one warning to the next, at least: whoever can send to the network could fill the log.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Counts what is left out, and tells of it: in a warning once a minute at most, of the rest at the
/// level of debug.
#[derive(Debug)]
pub(super) struct LeftOut {
    /// The registry's scheme.
    by: &'static str,
    count: u64,
    warned: Option<Instant>,
}

impl LeftOut {
    pub(super) fn by(by: &'static str) -> Self {
        Self { by, count: 0, warned: None }
    }

    pub(super) fn tell(&mut self, now: Instant, why: &str) {
        self.count += 1;
        let (by, left_out) = (self.by, self.count);
        let lately = |at: Instant| now.saturating_duration_since(at) < WARN_EVERY;
        if self.warned.is_some_and(lately) {
            tracing::debug!(left_out, "{by}: left out: {why}");
        } else {
            self.warned = Some(now);
            tracing::warn!(left_out, "{by}: left out: {why}; more within a minute at level debug");
        }
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;
    use crate::fixture::Log;

    #[test]
    fn a_warning_comes_once_a_minute_with_the_count() {
        let log = Log::down_to(Level::WARN);
        let (mut left_out, start) = (LeftOut::by("mdns"), Instant::now());
        for second in 0..=60 {
            left_out.tell(start + Duration::from_secs(second), "a packet from 10.0.0.9:1: why");
        }
        let lines = log.lines_with("mdns: left out: a packet from 10.0.0.9:1: why");
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].ends_with("left_out=1") && lines[1].ends_with("left_out=61"), "{lines:?}");
    }
}
