//! Watching a service.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use tokio::sync::watch;

use super::{
    super::{Batch, Watch, WatchError, store::Since},
    driver::Driver,
};
use crate::Error;

/// Watches a service from `after`, which a read told.
///
/// # Recovery
/// None of its own. It ends with its connection, as `Disconnected`; and as `Compacted` when it began
/// on an earlier one, or lags too far behind.
pub(super) fn watch(driver: Arc<Driver>, service: String, after: u64) -> Watch {
    driver.act(|bus, now| bus.watched(now, &service, true));
    let changed = driver.changed();
    let link = driver.look(|state| state.link());
    let watcher =
        Watcher { driver, changed, link, service, seen: after, ready: Vec::new().into_iter() };
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
    /// The connection that it began on.
    link: Option<u64>,
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
            let (since, revision) = self.driver.look(|state| {
                if self.link.is_none() || state.link() != self.link {
                    return Err(self.disconnected(state.why()));
                }
                Ok((state.bus.since(&self.service, self.seen), state.bus.revision()))
            })?;
            match since {
                Since::Compacted => return Err(WatchError::Compacted),
                Since::Batches(batches) => {
                    self.ready = batches.into_iter();
                    self.seen = revision;
                }
            }
            if self.ready.len() == 0 {
                self.changed.changed().await.map_err(|_| WatchError::Ended)?;
            }
        }
    }

    fn disconnected(&self, why: &str) -> WatchError {
        let (name, service) = (&self.driver.options().name, &self.service);
        WatchError::Disconnected(Error::registry(format!(
            "{name}: the watch on service {service} broke: {why}"
        )))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.driver.act(|bus, now| bus.watched(now, &self.service, false));
    }
}
