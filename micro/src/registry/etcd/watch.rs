//! Watching a service: its keys in each format by a watcher, all on one stream.

use std::{sync::Arc, time::Duration};

use etcd_client::{
    Error as ClientError, KeyValue, WatchClient, WatchOptions, WatchResponse, WatchStream,
};
use futures_util::{StreamExt, stream};
use tokio::time::{Instant, timeout_at};

use super::{
    super::{Batch, Event, Watch, WatchError},
    key,
    members::{Connection, EXCHANGE, Members, describe},
    merge::Merge,
    record::{Range, Record, key_of},
};
use crate::Error;

/// The largest response taken, in bytes. A watch that resumes far behind gets a thousand revisions
/// at once, and a revision is never split over two responses unless asked for: were it, half of
/// one could pass for the whole.
const MAX_RESPONSE: usize = 64 * 1024 * 1024;

/// How long to wait before etcd is asked anew how far all watchers have come: it says nothing while
/// one of them catches up, which it sees to every 100 ms.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Watches a service from `after`.
///
/// # Recovery
/// None of its own: every trouble ends the stream. `Compacted` when etcd has forgotten what came
/// after that revision, or has yet to reach it, since then it was restored from an older state, or
/// does not say for a second how far the watchers of several formats have come; `Ended` when etcd
/// cancelled the watch without a reason; all else is `Disconnected`.
pub(super) fn watch(members: Arc<Members>, service: String, after: u64) -> Watch {
    let watcher = Watcher { members, service, after, open: None };
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
    after: u64,
    open: Option<Open>,
}

/// The stream, and what has come on it.
struct Open {
    connection: u64,
    stream: WatchStream,
    ranges: Vec<Range>,
    /// The watchers' ids as etcd has confirmed them, which it does in the order of the ranges.
    ids: Vec<i64>,
    merge: Merge,
    asking: Option<Asking>,
}

/// What is held waits for etcd's word on how far all watchers have come.
#[derive(Clone, Copy)]
struct Asking {
    until: Instant,
    ask_at: Instant,
}

impl Watcher {
    async fn next(&mut self) -> Result<Batch, WatchError> {
        loop {
            let Some(open) = &mut self.open else {
                self.open().await?;
                continue;
            };
            if let Some(batch) = open.merge.next() {
                open.asking = None;
                return Ok(batch);
            }
            match open.message().await {
                Ok(Some(response)) => self.take(&response)?,
                Ok(None) => return Err(self.broken("etcd closed the stream")),
                Err(Silent::Broken(error)) => return Err(self.broken(&describe(&error))),
                Err(Silent::OnProgress) => return Err(WatchError::Compacted),
            }
        }
    }

    /// Opens the watch and waits for etcd to confirm it.
    async fn open(&mut self) -> Result<(), WatchError> {
        let ranges = Range::all(&self.members.options().formats, &self.service)
            .map_err(|why| WatchError::Disconnected(Error::config(why)))?;
        let open = |connection: Connection| {
            let requests = requests(&ranges, self.after);
            let client = connection.client.watch_client().max_decoding_message_size(MAX_RESPONSE);
            async move {
                let (stream, responses) = begin(client, requests).await?;
                Ok((connection.id, stream, responses))
            }
        };
        let what = format!("watch service {}", self.service);
        let (connection, stream, responses) = self
            .members
            .call(&what, open)
            .await
            .map_err(|error| WatchError::Disconnected(error.into()))?;
        let merge = Merge::new(ranges.len(), self.after);
        self.open = Some(Open { connection, stream, ranges, ids: Vec::new(), merge, asking: None });
        for response in responses {
            // etcd would wait in silence for the revision to come, and tell of nothing until then.
            if response.created() && !response.canceled() && revision_of(&response) < self.after {
                return Err(WatchError::Compacted);
            }
            self.take(&response)?;
        }
        Ok(())
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
        if let Some(open) = &mut self.open {
            open.take(&self.service, response);
        }
        Ok(())
    }

    fn broken(&mut self, why: &str) -> WatchError {
        // It may be the connection that broke; the next exchange finds out on a new one.
        if let Some(open) = self.open.take() {
            self.members.discard(open.connection);
        }
        let (name, service) = (self.members.name(), &self.service);
        WatchError::Disconnected(Error::registry(format!(
            "{name}: the watch on service {service} broke: {why}"
        )))
    }
}

/// Why there is no response.
enum Silent {
    Broken(ClientError),
    /// etcd does not say how far all watchers have come.
    OnProgress,
}

impl Open {
    /// The next response. While something is held, etcd is asked for what it waits for.
    async fn message(&mut self) -> Result<Option<WatchResponse>, Silent> {
        while self.merge.is_waiting() {
            let now = Instant::now();
            let asking = *self.asking.get_or_insert(Asking { until: now + EXCHANGE, ask_at: now });
            if asking.until <= now {
                return Err(Silent::OnProgress);
            }
            if asking.ask_at <= now {
                self.asking = Some(Asking { ask_at: now + ASK_AGAIN, ..asking });
                self.stream.request_progress().await.map_err(Silent::Broken)?;
            }
            let ask_at = self.asking.map_or(now, |asking| asking.ask_at);
            if let Ok(response) = timeout_at(ask_at, self.stream.message()).await {
                return response.map_err(Silent::Broken);
            }
        }
        self.stream.message().await.map_err(Silent::Broken)
    }

    fn take(&mut self, service: &str, response: &WatchResponse) {
        if response.created() {
            self.ids.push(response.watch_id());
        }
        let index = self.ids.iter().position(|id| *id == response.watch_id());
        if response.events().is_empty() {
            match index {
                _ if response.created() => {}
                Some(index) => self.merge.progressed(index, revision_of(response)),
                // How far all have come is said under no watcher's id.
                None => self.merge.all_progressed(revision_of(response)),
            }
            return;
        }
        let Some((index, range)) = index.and_then(|index| Some((index, self.ranges.get(index)?)))
        else {
            return;
        };
        // While a watcher catches up, the header's revision is beyond what it brings.
        let (mut at, mut events) = (0, Vec::new());
        for kv in response.events().iter().filter_map(|event| event.kv()) {
            let revision = u64::try_from(kv.mod_revision()).unwrap_or(0);
            if revision != at && !events.is_empty() {
                self.merge.changed(index, at, std::mem::take(&mut events));
            }
            at = revision;
            events.push(event(range, service, kv));
        }
        self.merge.changed(index, at, events);
    }
}

fn event(range: &Range, service: &str, kv: &KeyValue) -> Event {
    // A deletion has a key and a revision alone. (etcd-client's word for the kind of event
    // panics at one it does not know.)
    if kv.version() == 0 {
        return Event::Delete(key_of(kv));
    }
    match range.read(service, Record::of(kv)) {
        Ok(Some(entry)) => Event::Put(entry),
        // Another service's, whose keys look the same: whoever had this one has it no more.
        Ok(None) => Event::Delete(key_of(kv)),
        Err(malformed) => Event::Malformed(malformed),
    }
}

/// A watcher for every range, from the revision after this on.
fn requests(ranges: &[Range], after: u64) -> Vec<(Vec<u8>, WatchOptions)> {
    let from = i64::try_from(after.saturating_add(1)).unwrap_or(i64::MAX);
    let request = |range: &Range| {
        // Progress tells how far etcd has come while nothing happens here, so that a watch which
        // resumes after a quiet day needs not begin before the last compaction.
        let options = WatchOptions::new()
            .with_range(key::prefix_end(&range.prefix))
            .with_start_revision(from)
            .with_progress_notify();
        (range.prefix.clone().into_bytes(), options)
    };
    ranges.iter().map(request).collect()
}

/// The stream with all watchers on it, and all that etcd has said up to there.
async fn begin(
    mut client: WatchClient,
    requests: Vec<(Vec<u8>, WatchOptions)>,
) -> Result<(WatchStream, Vec<WatchResponse>), ClientError> {
    let ended = || ClientError::WatchError("the stream ended".to_owned());
    let mut missing = requests.len();
    let mut requests = requests.into_iter();
    let (prefix, options) = requests.next().ok_or_else(ended)?;
    let mut stream = client.watch(prefix, Some(options)).await?;
    for (prefix, options) in requests {
        stream.watch(prefix, Some(options)).await?;
    }
    let mut responses = Vec::new();
    while missing > 0 {
        let response = stream.message().await?.ok_or_else(ended)?;
        if response.created() {
            missing -= 1;
            // Refused, as with a token that expired or that a restarted etcd does not know. Nothing
            // but a new connection signs in anew.
            if response.canceled() && response.compact_revision() == 0 {
                return Err(ClientError::WatchError(response.cancel_reason().to_owned()));
            }
        }
        responses.push(response);
    }
    Ok((stream, responses))
}

fn revision_of(response: &WatchResponse) -> u64 {
    let revision = response.header().map_or(0, |header| header.revision());
    u64::try_from(revision).unwrap_or(0)
}
