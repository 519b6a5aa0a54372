//! A watch, seen from a test.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use futures_util::StreamExt as _;
use tokio::time::timeout;

use crate::registry::{Batch, Entry, Event, Listing, Registry, Watch, WatchError};

/// How long a change may take to be told. An expiry counts from its end.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

/// A watch on a service from some revision on. One that tells how all stands is seen as if it told
/// the changes.
pub struct Watching {
    watch: Watch,
    /// What has been told so far under each key, to tell what has changed in a reset.
    known: BTreeMap<String, Option<Entry>>,
}

impl fmt::Debug for Watching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watching").field("known", &self.known).finish_non_exhaustive()
    }
}

impl Watching {
    /// Watches from now on.
    ///
    /// # Panics
    /// When the registry cannot be read.
    pub async fn from_now(registry: &Arc<dyn Registry>, service: &str) -> Self {
        let listing = registry.read(service).await.expect("the registry is read");
        Self::after(registry, service, &listing)
    }

    /// Watches from what was read on.
    pub fn after(registry: &Arc<dyn Registry>, service: &str, listing: &Listing) -> Self {
        let entries = listing.entries.iter().map(|it| (it.key.clone(), Some(it.clone())));
        let malformed = listing.malformed.iter().map(|it| (it.key.clone(), None));
        let known = entries.chain(malformed).collect();
        Self { watch: registry.watch(service, listing.revision), known }
    }

    /// Watches from that revision on, as if nothing had been there.
    pub fn after_revision(registry: &Arc<dyn Registry>, service: &str, revision: u64) -> Self {
        Self::after(registry, service, &Listing { revision, ..Listing::default() })
    }

    /// What comes next, changes or the end.
    ///
    /// # Panics
    /// When nothing does.
    pub async fn next_or_end(&mut self) -> Result<Batch, WatchError> {
        loop {
            let next = timeout(TOLD_WITHIN * 2, self.watch.next()).await;
            match next.expect("the watch says something") {
                Some(Ok(Batch { revision, events })) => {
                    let events: Vec<_> =
                        events.into_iter().flat_map(|event| self.changes(event)).collect();
                    // Else it is progress without a change.
                    if !events.is_empty() {
                        return Ok(Batch { revision, events });
                    }
                }
                Some(Err(error)) => return Err(error),
                None => panic!("a watch ends with an error"),
            }
        }
    }

    /// The event, or what has changed in a reset.
    fn changes(&mut self, event: Event) -> Vec<Event> {
        match event {
            Event::Put(entry) => {
                self.known.insert(entry.key.clone(), Some(entry.clone()));
                vec![Event::Put(entry)]
            }
            Event::Malformed(malformed) => {
                self.known.insert(malformed.key.clone(), None);
                vec![Event::Malformed(malformed)]
            }
            Event::Delete(key) => {
                self.known.remove(&key);
                vec![Event::Delete(key)]
            }
            Event::Reset(listing) => {
                let entries = listing.entries.iter().map(|entry| &entry.key);
                let malformed = listing.malformed.iter().map(|malformed| &malformed.key);
                let listed: BTreeSet<_> = entries.chain(malformed).collect();
                let gone = self.known.keys().filter(|key| !listed.contains(key));
                let mut events: Vec<_> = gone.cloned().map(Event::Delete).collect();
                let is_new = |entry: &&Entry| {
                    let known = self.known.get(&entry.key).and_then(Option::as_ref);
                    known.is_none_or(|known| {
                        (known.revision, &known.node) != (entry.revision, &entry.node)
                    })
                };
                let puts = listing.entries.iter().filter(is_new).cloned();
                events.extend(puts.map(Event::Put));
                let is_new = |key: &String| self.known.get(key).is_none_or(Option::is_some);
                let malformed = listing.malformed.iter().filter(|it| is_new(&it.key)).cloned();
                events.extend(malformed.map(Event::Malformed));
                events.into_iter().flat_map(|event| self.changes(event)).collect()
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
        self.watch.next().await
    }

    /// Whether the stream ended after its error, as a watch must.
    pub async fn has_ended(&mut self) -> bool {
        matches!(timeout(TOLD_WITHIN, self.watch.next()).await, Ok(None))
    }
}

/// A change in short: `+ID@ADDRESS`, `-KEY`'s last part, `?KEY`'s last part; of a reset, how many
/// records there are.
pub fn told(event: &Event) -> String {
    let last = |key: &str| key.rsplit('/').next().unwrap_or_default().to_owned();
    match event {
        Event::Put(entry) => format!("+{}@{}", entry.node.id, entry.node.address),
        Event::Delete(key) => format!("-{}", last(key)),
        Event::Malformed(malformed) => format!("?{}", last(&malformed.key)),
        Event::Reset(listing) => format!("={}", listing.entries.len()),
    }
}
