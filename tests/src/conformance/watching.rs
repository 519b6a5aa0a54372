//! A watch, seen from a test.

use std::{fmt::Write, sync::Arc, time::Duration};

use micro::registry::{Batch, Event, Registry, Watch, WatchError};
use tokio::time::timeout;
use tokio_stream::StreamExt;

/// How long a change may take to be told. An expiry counts from its end.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

/// A watch on a service from some revision on.
pub struct Watching(Watch);

impl std::fmt::Debug for Watching {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watching")
    }
}

impl Watching {
    /// Watches from now on.
    pub async fn from_now(registry: &Arc<dyn Registry>, service: &str) -> Self {
        let listing = registry.read(service).await.expect("the registry is read");
        Self::after(registry, service, listing.revision)
    }

    /// Watches from that revision on.
    pub fn after(registry: &Arc<dyn Registry>, service: &str, revision: u64) -> Self {
        Self(registry.watch(service, revision))
    }

    /// What comes next, changes or the end.
    ///
    /// # Panics
    /// When nothing does.
    pub async fn next_or_end(&mut self) -> Result<Batch, WatchError> {
        loop {
            match timeout(TOLD_WITHIN * 2, self.0.next()).await.expect("the watch says something") {
                // Progress without a change.
                Some(Ok(batch)) if batch.events.is_empty() => {}
                Some(next) => return next,
                None => panic!("a watch ends with an error"),
            }
        }
    }

    /// The next changes.
    ///
    /// # Panics
    /// When there are none, or the watch ends.
    pub async fn next(&mut self) -> Batch {
        self.next_or_end().await.unwrap_or_else(|error| panic!("the watch ended: {error:?}"))
    }

    /// So many changes, of as many revisions as it takes, as [`told`] tells each.
    ///
    /// # Panics
    /// As [`Watching::next`].
    pub async fn events(&mut self, count: usize) -> Vec<String> {
        let mut events = Vec::new();
        let mut revision = 0;
        while events.len() < count {
            let batch = self.next().await;
            assert!(batch.revision > revision, "revisions only rise: {batch:?}");
            revision = batch.revision;
            events.extend(batch.events.iter().map(told));
        }
        assert_eq!(events.len(), count, "{events:?}");
        events
    }

    /// Waits for as long as nothing comes.
    pub async fn quiet(&mut self) -> Option<Result<Batch, WatchError>> {
        self.0.next().await
    }

    /// Whether the stream ended after its error, as a watch must.
    pub async fn has_ended(&mut self) -> bool {
        matches!(timeout(TOLD_WITHIN, self.0.next()).await, Ok(None))
    }
}

/// A change in short: `+ID@ADDRESS`, `-KEY`'s last part, `?KEY`'s last part.
pub fn told(event: &Event) -> String {
    let last = |key: &str| key.rsplit('/').next().unwrap_or_default().to_owned();
    let mut text = String::new();
    let _ = match event {
        Event::Put(entry) => write!(text, "+{}@{}", entry.node.id, entry.node.address),
        Event::Delete(key) => write!(text, "-{}", last(key)),
        Event::Malformed(malformed) => write!(text, "?{}", last(&malformed.key)),
    };
    text
}
