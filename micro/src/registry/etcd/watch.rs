//! Watching a service's prefix.

use std::{collections::VecDeque, sync::Arc};

use etcd_client::{Error as ClientError, KeyValue, WatchOptions, WatchResponse, WatchStream};
use futures_util::{StreamExt, stream};

use super::{
    super::{Batch, Event, Watch, WatchError},
    key::{self, Record},
    members::{Connection, Members, describe},
};
use crate::Error;

/// The largest response taken, in bytes. A watch that resumes far behind gets a thousand revisions
/// at once, and a revision is never split over two responses unless asked for: were it, half of
/// one could pass for the whole.
const MAX_RESPONSE: usize = 64 * 1024 * 1024;

/// Watches a service from `after`.
///
/// # Recovery
/// None of its own: every trouble ends the stream. `Compacted` when etcd has forgotten what came
/// after that revision, or has yet to reach it, since then it was restored from an older state;
/// `Ended` when etcd cancelled the watch without a reason; all else is `Disconnected`.
pub(super) fn watch(members: Arc<Members>, service: String, after: u64) -> Watch {
    let watcher = Watcher { members, service, seen: after, open: None, ready: VecDeque::new() };
    stream::unfold(Some(watcher), |watcher| async {
        let mut watcher = watcher?;
        let next = watcher.next().await;
        let watcher = next.is_ok().then_some(watcher);
        Some((next, watcher))
    })
    .boxed()
}

struct Watcher {
    members: Arc<Members>,
    service: String,
    seen: u64,
    open: Option<(u64, WatchStream)>,
    ready: VecDeque<Batch>,
}

impl Watcher {
    async fn next(&mut self) -> Result<Batch, WatchError> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                self.seen = batch.revision;
                return Ok(batch);
            }
            let response = match &mut self.open {
                Some((_, stream)) => stream.message().await,
                None => Ok(Some(self.open().await?)),
            };
            match response {
                Ok(Some(response)) => self.take(&response)?,
                Ok(None) => return Err(self.broken("etcd closed the stream")),
                Err(error) => return Err(self.broken(&describe(&error))),
            }
        }
    }

    /// Opens the watch and waits for etcd to confirm it.
    async fn open(&mut self) -> Result<WatchResponse, WatchError> {
        let prefix = key::prefix(&self.service)
            .map_err(|why| WatchError::Disconnected(Error::config(why)))?;
        let from = i64::try_from(self.seen.saturating_add(1)).unwrap_or(i64::MAX);
        // Progress tells how far etcd has come while nothing happens here, so that a watch which
        // resumes after a quiet day needs not begin before the last compaction.
        let options = WatchOptions::new()
            .with_range(key::prefix_end(&prefix))
            .with_start_revision(from)
            .with_progress_notify();
        let open = |connection: Connection| {
            let (prefix, options) = (prefix.clone(), options.clone());
            async move {
                let mut client =
                    connection.client.watch_client().max_decoding_message_size(MAX_RESPONSE);
                let mut stream = client.watch(prefix, Some(options)).await?;
                match stream.message().await? {
                    // Refused, as with a token that expired or that a restarted etcd does not
                    // know. Nothing but a new connection signs in anew.
                    Some(created) if created.canceled() && created.compact_revision() == 0 => {
                        Err(ClientError::WatchError(created.cancel_reason().to_owned()))
                    }
                    Some(created) => Ok((connection.id, stream, created)),
                    None => Err(ClientError::WatchError("the stream ended".to_owned())),
                }
            }
        };
        let what = format!("watch service {}", self.service);
        let (connection, stream, created) = self
            .members
            .call(&what, open)
            .await
            .map_err(|error| WatchError::Disconnected(error.into()))?;
        self.open = Some((connection, stream));
        let revision = created.header().map_or(0, |header| header.revision());
        // etcd would wait in silence for the revision to come, and tell of nothing until then.
        if !created.canceled() && u64::try_from(revision).unwrap_or(0) < self.seen {
            return Err(WatchError::Compacted);
        }
        Ok(created)
    }

    fn take(&mut self, response: &WatchResponse) -> Result<(), WatchError> {
        if response.compact_revision() > 0 {
            return Err(WatchError::Compacted);
        }
        if response.canceled() {
            return Err(match response.cancel_reason() {
                "" => WatchError::Ended,
                why => self.broken(why),
            });
        }
        for kv in response.events().iter().filter_map(|event| event.kv()) {
            let revision = u64::try_from(kv.mod_revision()).unwrap_or(0);
            let event = self.event(kv);
            match self.ready.back_mut() {
                Some(batch) if batch.revision == revision => batch.events.push(event),
                _ => self.ready.push_back(Batch { revision, events: vec![event] }),
            }
        }
        let revision = response.header().map_or(0, |header| header.revision());
        let revision = u64::try_from(revision).unwrap_or(0);
        if response.events().is_empty() && !response.created() && revision > self.seen {
            self.ready.push_back(Batch { revision, events: Vec::new() });
        }
        Ok(())
    }

    fn event(&self, kv: &KeyValue) -> Event {
        // A deletion has a key and a revision alone. (etcd-client's word for the kind of event
        // panics at one it does not know.)
        if kv.version() == 0 {
            return Event::Delete(key::text(kv));
        }
        match Record::of(kv).read(&self.service) {
            Ok(Some(entry)) => Event::Put(entry),
            // Another service's, whose keys look the same: whoever had this one has it no more.
            Ok(None) => Event::Delete(key::text(kv)),
            Err(malformed) => Event::Malformed(malformed),
        }
    }

    fn broken(&mut self, why: &str) -> WatchError {
        // It may be the connection that broke; the next exchange finds out on a new one.
        if let Some((connection, _)) = self.open.take() {
            self.members.discard(connection);
        }
        let (name, service) = (self.members.name(), &self.service);
        WatchError::Disconnected(Error::registry(format!(
            "{name}: the watch on service {service} broke: {why}"
        )))
    }
}
