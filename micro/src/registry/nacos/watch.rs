//! Watching a service: Nacos says that there is a change, and how all stands is read.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    super::{Batch, Event, Watch, WatchError},
    EXCHANGE, Inner,
    client::Client,
    followed::Follower,
    record::services,
};
use crate::Error;

/// How long Nacos may say nothing. The SDK connects again without a word, and what was said meanwhile
/// nobody has heard.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// No more than one look in this time: each is the whole list.
const GAP: Duration = Duration::from_millis(100);

/// Watches a service from `after`.
///
/// # Recovery
/// None of its own: every trouble ends the stream. `Compacted` when `after` is yet to come, since it is
/// another process's; all else is `Disconnected`. What is followed is asked for every 5 s at the
/// latest, so that neither a silent connection nor a new one goes unnoticed.
pub(super) fn watch(inner: Arc<Inner>, service: String, after: u64) -> Watch {
    let watcher = Watcher { inner, service, seen: after, following: None, looked: None };
    stream::unfold(Some(watcher), |watcher| async {
        let mut watcher = watcher?;
        let next = watcher.next().await;
        let watcher = next.is_ok().then_some(watcher);
        Some((next, watcher))
    })
    .boxed()
}

struct Watcher {
    inner: Arc<Inner>,
    service: String,
    /// The revision told last.
    seen: u64,
    following: Option<(Arc<Client>, Follower)>,
    looked: Option<Instant>,
}

impl Watcher {
    async fn next(&mut self) -> Result<Batch, WatchError> {
        if let (Some((_, follower)), Some(looked)) = (&mut self.following, self.looked) {
            sleep_until(looked + GAP).await;
            let _ = timeout(LOOK_EVERY, follower.changed()).await;
        }
        let deadline = Instant::now() + EXCHANGE;
        self.looked = Some(Instant::now());
        let (client, _) = match &self.following {
            Some(following) => following,
            None => {
                let following = self.follow(deadline).await.map_err(WatchError::Disconnected)?;
                self.following.insert(following)
            }
        };
        let what = format!("watch service {}", self.service);
        let listing = self.inner.read(&what, client, &self.service, deadline).await;
        let listing = listing.map_err(WatchError::Disconnected)?;
        let revision = listing.revision;
        if revision < self.seen {
            return Err(WatchError::Compacted);
        }
        let events = if revision == self.seen { Vec::new() } else { vec![Event::Reset(listing)] };
        self.seen = revision;
        Ok(Batch { revision, events })
    }

    /// First followed, then read: what changes in between is told.
    async fn follow(&self, deadline: Instant) -> Result<(Arc<Client>, Follower), Error> {
        let what = format!("watch service {}", self.service);
        let pool = &self.inner.pool;
        let client = pool.any(deadline).await.map_err(|why| self.inner.failed(&what, &why))?;
        let services = services(&self.service, &pool.options().formats);
        match client.followed().follow(&services, deadline).await {
            Ok(follower) => Ok((client, follower)),
            Err(failure) => Err(self.inner.failed(&what, &pool.failed(&client, &failure))),
        }
    }
}
