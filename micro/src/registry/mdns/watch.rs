//! Watching a service.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use tokio::{sync::watch, time::Instant};

use super::{
    super::{Batch, Watch, WatchError, store::Since},
    driver::Driver,
};
use crate::Error;

/// Watches a service from `after`, which a read told: until one has, there is nothing to watch.
pub(super) fn watch(driver: Option<Arc<Driver>>, name: &str, service: String, after: u64) -> Watch {
    let Some(driver) = driver else {
        let why = format!("{name}: nothing of service {service} has been read yet");
        let error = WatchError::Disconnected(Error::registry(why));
        return stream::iter([Err(error)]).boxed();
    };
    driver.act(|state, now| {
        state.browse(now, &service);
        state.browser.watched(now, &service, true);
    });
    let changed = driver.changed();
    let watcher = Watcher { driver, changed, service, seen: after, ready: Vec::new().into_iter() };
    stream::unfold(Some(watcher), |watcher| async {
        let mut watcher = watcher?;
        let next = watcher.next().await;
        let watcher = next.is_ok().then_some(watcher);
        Some((next, watcher))
    })
    .boxed()
}

struct Watcher {
    driver: Arc<Driver>,
    changed: watch::Receiver<u64>,
    service: String,
    seen: u64,
    ready: std::vec::IntoIter<Batch>,
}

impl Watcher {
    async fn next(&mut self) -> Result<Batch, WatchError> {
        loop {
            if let Some(batch) = self.ready.next() {
                return Ok(batch);
            }
            self.changed.mark_unchanged();
            let since = self.driver.look(|state| {
                let since = state.browser.since(&self.service, self.seen);
                (since, state.browser.revision())
            });
            match since {
                (Since::Compacted, _) => return Err(WatchError::Compacted),
                (Since::Batches(batches), revision) => {
                    self.ready = batches.into_iter();
                    self.seen = revision;
                }
            }
            if self.ready.len() == 0 {
                self.changed.changed().await.map_err(|_| WatchError::Ended)?;
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.driver.act(|state, now: Instant| state.browser.watched(now, &self.service, false));
    }
}
