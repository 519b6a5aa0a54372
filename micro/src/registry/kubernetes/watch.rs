//! Watching a service's slices, and the pods with records of it.

use std::{future::pending, sync::Arc, time::Duration};

use futures_util::{
    FutureExt, StreamExt,
    future::select_all,
    stream::{self, BoxStream},
};
use http::StatusCode;
use k8s_openapi::api::{core::v1::Pod, discovery::v1::EndpointSlice};
use kube::{
    Api, Error as ClientError,
    api::{WatchEvent, WatchParams},
};
use tokio::time::{Instant, timeout_at};

use super::{
    super::{Batch, Event, Watch, WatchError},
    cluster::{CallError, Cluster, Right, describe},
    read::{self, Kind},
    target::Target,
    view::{View, revision},
};
use crate::Error;

/// How long the server lets a watch be, in seconds; the next goes on where it ended.
const LENGTH: u32 = 290;

/// A bookmark comes about once a minute from servers that send them: one that keeps silent for this
/// long is dead, and one that has sent none is when it should have ended the watch.
const SILENCE: Duration = Duration::from_secs(90);
const SILENCE_WITHOUT_BOOKMARKS: Duration = Duration::from_secs(LENGTH as u64 + 5);

/// A watch that ends sooner, having brought nothing, is not followed by another at once.
const SHORT: Duration = Duration::from_secs(1);

/// Watches a service from `after`: all as of then is read once more unless it is given, since what
/// follows from a change depends on it, and told as a reset that changes nothing.
///
/// # Recovery
/// A watch that the server ends in its time is opened again from the last version seen, bookmarks
/// included. All else ends the stream: `Compacted` when the server has forgotten what came after
/// that version (410 Gone), or has yet to reach it; `Ended` when it ends watches at once; all else
/// is `Disconnected`.
pub(super) fn watch(
    cluster: Arc<Cluster>,
    target: Target,
    after: u64,
    view: Option<View>,
) -> Watch {
    let what = format!("watch service {}", target.service);
    let watcher = Watcher { cluster, target, what, seen: after, view, open: None };
    stream::unfold(Some(watcher), |watcher| async {
        let mut watcher = watcher?;
        let next = watcher.next().await;
        let watcher = next.is_ok().then_some(watcher);
        Some((next, watcher))
    })
    .boxed()
}

// Its methods take `&mut self`: a stream can be sent to another thread, and not shared with it.
struct Watcher {
    cluster: Arc<Cluster>,
    target: Target,
    what: String,
    seen: u64,
    /// All as of `seen`, if it is known.
    view: Option<View>,
    open: Option<Open>,
}

struct Open {
    view: View,
    /// None for what is no Service.
    slices: Option<Feed<EndpointSlice>>,
    /// One for each of the view's places.
    pods: Vec<Feed<Pod>>,
}

/// The changes of one kind of object. Of its methods the same is true.
struct Feed<K> {
    selector: String,
    /// The version to go on from.
    seen: u64,
    stream: Option<BoxStream<'static, Result<WatchEvent<K>, ClientError>>>,
    opened: Instant,
    /// When something came last.
    last: Instant,
    has_bookmarks: bool,
}

enum Change<K> {
    Put(K),
    Gone(String),
    Progress,
}

impl Watcher {
    async fn next(&mut self) -> Result<Batch, WatchError> {
        let Some(open) = &mut self.open else {
            return self.open().await;
        };
        loop {
            let (cluster, what) = (&*self.cluster, &*self.what);
            let revision = tokio::select! {
                change = next(open.slices.as_mut_slice(), cluster, what) => {
                    let ((revision, change), _) = change?;
                    match change {
                        Change::Put(slice) => open.view.slice(&slice),
                        Change::Gone(name) => open.view.slice_gone(&name),
                        Change::Progress => {}
                    }
                    revision
                }
                change = next(&mut open.pods, cluster, what) => {
                    let ((revision, change), place) = change?;
                    match change {
                        Change::Put(pod) => open.view.pod(place, &pod),
                        Change::Gone(name) => open.view.pod_gone(place, &name),
                        Change::Progress => {}
                    }
                    revision
                }
            };
            let events = open.view.changes();
            // Of several feeds one may be behind the other.
            if !events.is_empty() || revision > self.seen {
                self.seen = self.seen.max(revision);
                return Ok(Batch { revision: self.seen, events });
            }
        }
    }

    /// Whether the server has yet to reach the version: asked for it, it waits in silence for longer
    /// than an exchange lasts.
    async fn is_ahead(&mut self) -> bool {
        let now = read::view(&self.cluster, &self.what, &self.target, None).await;
        now.is_ok_and(|(version, _)| version < self.seen)
    }

    async fn read(&mut self) -> Result<View, WatchError> {
        let at = Some(self.seen);
        match read::view(&self.cluster, &self.what, &self.target, at).await {
            Ok((_, view)) => Ok(view),
            Err(error) if error.status().is_none() && self.is_ahead().await => {
                Err(WatchError::Compacted)
            }
            Err(error) => Err(broken(error)),
        }
    }

    async fn open(&mut self) -> Result<Batch, WatchError> {
        // No version that any object has, and to the server no version at all.
        if self.seen == 0 {
            return Err(WatchError::Compacted);
        }
        let mut view = match self.view.take() {
            Some(view) => view,
            None => self.read().await?,
        };
        let is_service = self.target.check().is_ok();
        let mut slices =
            is_service.then(|| Feed::new(read::slices_of(&self.target.service), self.seen));
        let pods = view.places().iter().map(|place| Feed::new(place.selector(), self.seen));
        let mut pods: Vec<_> = pods.collect();
        // Before all is told, which is to discovery a watch that holds: where one may list and not
        // watch, it would list again and again without a pause.
        if let Some(slices) = &mut slices {
            slices.connect(&self.cluster, &self.what).await?;
        }
        for pods in &mut pods {
            pods.connect(&self.cluster, &self.what).await?;
        }
        let listing = view.listing(self.seen);
        self.open = Some(Open { view, slices, pods });
        Ok(Batch { revision: self.seen, events: vec![Event::Reset(listing)] })
    }
}

/// The next change that any of the feeds brings, and which of them did.
async fn next<K: Kind>(
    feeds: &mut [Feed<K>],
    cluster: &Cluster,
    what: &str,
) -> Result<((u64, Change<K>), usize), WatchError> {
    if feeds.is_empty() {
        return pending().await;
    }
    let nexts = feeds.iter_mut().map(|feed| feed.next(cluster, what).boxed());
    let (next, feed, _) = select_all(nexts).await;
    Ok((next?, feed))
}

impl<K: Kind> Feed<K> {
    fn new(selector: String, seen: u64) -> Self {
        let now = Instant::now();
        Self { selector, seen, stream: None, opened: now, last: now, has_bookmarks: false }
    }

    /// Dropped, it loses nothing.
    async fn next(
        &mut self,
        cluster: &Cluster,
        what: &str,
    ) -> Result<(u64, Change<K>), WatchError> {
        loop {
            let silence = if self.has_bookmarks { SILENCE } else { SILENCE_WITHOUT_BOOKMARKS };
            let Some(stream) = &mut self.stream else {
                self.connect(cluster, what).await?;
                continue;
            };
            let Ok(next) = timeout_at(self.last + silence, stream.next()).await else {
                let why = format!("nothing came for {silence:?}");
                return Err(WatchError::Disconnected(cluster.refuse(what, &why).into()));
            };
            self.last = Instant::now();
            let Some(event) = next else {
                self.stream = None;
                if self.opened.elapsed() < SHORT {
                    return Err(WatchError::Ended);
                }
                continue;
            };
            let (revision, change) = match event {
                Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                    (revision(object.meta()), Change::Put(object))
                }
                Ok(WatchEvent::Deleted(object)) => {
                    let name = object.meta().name.clone().unwrap_or_default();
                    (revision(object.meta()), Change::Gone(name))
                }
                Ok(WatchEvent::Bookmark(bookmark)) => {
                    self.has_bookmarks = true;
                    let version = bookmark.metadata.resource_version.parse().unwrap_or(0);
                    (version, Change::Progress)
                }
                Ok(WatchEvent::Error(status)) => {
                    return Err(ended(cluster, what, &ClientError::Api(status)));
                }
                Err(error) => return Err(ended(cluster, what, &error)),
            };
            self.seen = self.seen.max(revision);
            return Ok((revision, change));
        }
    }

    async fn connect(&mut self, cluster: &Cluster, what: &str) -> Result<(), WatchError> {
        let right = Right { verb: "watch", resource: K::RESOURCE };
        let version = self.seen.to_string();
        let params = WatchParams::default().labels(&self.selector).timeout(LENGTH);
        let open = |client| {
            let api = Api::<K>::namespaced(client, &cluster.options().namespace);
            let (params, version) = (params.clone(), version.clone());
            right.with(async move { Ok(api.watch(&params, &version).await?.boxed()) })
        };
        let _turn = cluster.turn(what).await.map_err(broken)?;
        self.stream = Some(cluster.call(what, open).await.map_err(broken)?);
        self.opened = Instant::now();
        self.last = self.opened;
        Ok(())
    }
}

/// The end of a watch by the server's word, or by the connection's.
fn ended(cluster: &Cluster, what: &str, error: &ClientError) -> WatchError {
    match error {
        ClientError::Api(status) if status.code == StatusCode::GONE => WatchError::Compacted,
        error => WatchError::Disconnected(cluster.refuse(what, &describe(error)).into()),
    }
}

fn broken(error: CallError) -> WatchError {
    match error.status() {
        Some(StatusCode::GONE) => WatchError::Compacted,
        _ => WatchError::Disconnected(Error::from(error)),
    }
}

#[cfg(test)]
mod tests;
