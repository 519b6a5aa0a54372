//! The nodes known last, in a file: with these a client starts whose registry is down.

mod contents;
mod pending;
mod writer;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::task::spawn_blocking;

use self::{pending::REFRESH, writer::Writer};
use crate::registry::Node;

/// By registry and service.
type Key = (String, String);

/// One service's place in the file, which other services, registries and processes share. Of two
/// processes that write in the same moment, the later may take out what the other has just written:
/// it is there again with that one's next write.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    key: Key,
    refresh: Duration,
    writer: Arc<Writer>,
}

impl Cache {
    /// What is kept is no use once it is older than `max_stale`, and is refreshed accordingly.
    pub(super) fn new(
        path: PathBuf,
        registry: &str,
        service: &str,
        max_stale: Option<Duration>,
    ) -> Self {
        let refresh = max_stale.map_or(REFRESH, |max_stale| REFRESH.min(max_stale / 4));
        let key = (registry.to_owned(), service.to_owned());
        Self { key, refresh, writer: Writer::of(path) }
    }

    /// What was known last, and how long ago. A file that is not there, or is none of ours, has
    /// nothing.
    pub(super) async fn load(self) -> Option<(Vec<Arc<Node>>, Duration)> {
        let Self { key, writer, .. } = self;
        let contents = writer.load().await;
        spawn_blocking(move || contents.nodes(&key, wall())).await.ok().flatten()
    }

    /// These are the nodes, as of now. Waits for nothing: they are written within a second or so.
    pub(super) fn tell(&self, nodes: Vec<Arc<Node>>) {
        self.writer.tell(self.key.clone(), nodes, wall(), self.refresh);
    }
}

/// In seconds since 1970.
fn wall() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
