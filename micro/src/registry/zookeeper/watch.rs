//! Watching the folders of a service.

use std::{collections::HashMap, sync::Arc};

use futures_util::{FutureExt, StreamExt, future::try_join_all, stream};
use zookeeper_client::{AddWatchMode, Client, EventType, PersistentWatcher, WatchedEvent};

use super::{
    super::{Batch, Event, Watch, WatchError},
    known::{Change, Known},
    listing,
    reader::{Reader, children, records},
    record::{Folder, revision},
};
use crate::Error;

/// How many changes that have come already are read together.
const TOGETHER: usize = 64;

/// Watches a service, from how it stands now on.
///
/// # Recovery
/// None of its own: every trouble ends the stream. `Compacted` when ZooKeeper is behind that
/// revision: it was wiped, or restored from an older state, or this is a member that lags. All else
/// is `Disconnected`, also a connection that could be taken up again, since nothing of what
/// happened meanwhile would be told.
pub(super) fn watch(reader: Arc<Reader>, service: String, after: u64) -> Watch {
    let watcher = Watcher { reader, service, after, open: None };
    stream::unfold(Some(watcher), |watcher| async {
        let mut watcher = watcher?;
        let next = watcher.next().await;
        let watcher = next.is_ok().then_some(watcher);
        Some((next, watcher))
    })
    .boxed()
}

struct Watcher {
    reader: Arc<Reader>,
    service: String,
    after: u64,
    open: Option<Open>,
}

struct Open {
    client: Client,
    folders: Vec<Folder>,
    events: stream::SelectAll<stream::BoxStream<'static, WatchedEvent>>,
    known: Known,
}

impl Watcher {
    async fn next(&mut self) -> Result<Batch, WatchError> {
        if self.open.is_none() {
            return self.open().await;
        }
        loop {
            let changes = self.changes().await?;
            let Some(Open { client, folders, known, .. }) = &mut self.open else {
                return Err(WatchError::Ended);
            };
            let what = format!("watch service {}", self.service);
            let paths = changes.iter().map(|change| change.path.clone());
            let found = self
                .reader
                .call_on(client, &what, records(client, paths))
                .await
                .map_err(WatchError::Disconnected)?;
            if let Some(batch) = known.told(&self.service, folders, changes.into_iter().zip(found))
            {
                return Ok(batch);
            }
        }
    }

    /// Sets the watches, and then reads all: what happens from the one to the other is told, and
    /// what happened before is in what was read.
    async fn open(&mut self) -> Result<Batch, WatchError> {
        let options = self.reader.options();
        let folders = Folder::all(&options.formats, &options.root, &self.service)
            .map_err(|why| WatchError::Disconnected(Error::config(why)))?;
        let what = format!("watch service {}", self.service);
        let paths: Vec<_> = folders.iter().map(|folder| folder.path.clone()).collect();
        let open = |client: Client| {
            let paths = paths.clone();
            async move {
                // A member that is behind would tell what was seen to change once more.
                client.sync("/").await?;
                let watch = |path| client.watch(path, AddWatchMode::PersistentRecursive);
                let watchers = try_join_all(paths.iter().map(|path| watch(path))).await?;
                let found = try_join_all(paths.iter().map(|path| children(&client, path))).await?;
                Ok((client, watchers, found))
            }
        };
        let opened = async {
            let (client, watchers, found) = self.reader.call(&what, open).await?;
            let read = listing::of(&self.reader, &client, &self.service, &folders, found);
            let (listing, written) = read.await?;
            Ok((client, watchers, listing, written))
        };
        let (client, watchers, listing, written) =
            opened.await.map_err(WatchError::Disconnected)?;
        let revision = listing.revision;
        if revision < self.after {
            return Err(WatchError::Compacted);
        }
        let events = stream::select_all(watchers.into_iter().map(told));
        let known = Known::new(written, revision);
        self.open = Some(Open { client, folders, events, known });
        Ok(Batch { revision, events: vec![Event::Reset(listing)] })
    }

    /// The next changes: those that have come already, one a path.
    async fn changes(&mut self) -> Result<Vec<Change>, WatchError> {
        let Some(Open { folders, events, .. }) = &mut self.open else {
            return Err(WatchError::Ended);
        };
        let mut changes: HashMap<String, u64> = HashMap::new();
        let mut order = Vec::new();
        let mut next = events.next().await;
        while let Some(event) = next {
            if event.event_type == EventType::Session {
                let (name, service) = (&self.reader.options().name, &self.service);
                return Err(WatchError::Disconnected(Error::registry(format!(
                    "{name}: the watch on service {service} broke: the connection was lost"
                ))));
            }
            if folders.iter().any(|folder| folder.has(&event.path)) {
                let at = changes.entry(event.path).or_insert_with_key(|path| {
                    order.push(path.clone());
                    0
                });
                *at = revision(event.zxid).max(*at);
            }
            next = match order.len() {
                0 => events.next().await,
                TOGETHER.. => None,
                _ => events.next().now_or_never().flatten(),
            };
        }
        if order.is_empty() {
            return Err(WatchError::Ended);
        }
        let change = |path| Change { revision: changes[&path], path };
        Ok(order.into_iter().map(change).collect())
    }
}

/// What a watcher tells, to the end of its session and no further, where it would panic.
fn told(watcher: PersistentWatcher) -> stream::BoxStream<'static, WatchedEvent> {
    stream::unfold(Some(watcher), |watcher| async {
        let mut watcher = watcher?;
        let event = watcher.changed().await;
        let watcher = (event.event_type != EventType::Session).then_some(watcher);
        Some((event, watcher))
    })
    .boxed()
}
