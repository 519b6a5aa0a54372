//! `file://`: nodes that a file lists, read anew when it changes.
//!
//! `nodes` takes its text apart, the crate's `disk` reads it whole. It keeps no policy: a file that cannot be
//! used is an error of every read until it can, and `discovery` then keeps what it has.

use std::{
    collections::BTreeMap,
    path::{self, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future, stream};
use percent_encoding::percent_decode_str;
use tokio::{
    sync::Mutex,
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};
use tracing::warn;

use super::{
    Batch, BoxFuture, Entry, Event, Lease, Listing, Node, Registry, RenewError, Watch, WatchError,
    share::share, url::Url,
};
use crate::{
    Error, ErrorKind,
    disk::{self, Found, Identity},
};

mod nodes;
#[cfg(test)]
mod tests;

/// How often the file is looked at.
const LOOKS_EVERY: Duration = Duration::from_millis(500);

/// How long the file system may take to answer; over a network it may be away.
const LOOK: Duration = Duration::from_secs(1);

/// A file that lists nodes, as `file://nodes.toml` names it: for machines that something else keeps
/// account of, such as a deployment's own tool or a ConfigMap.
///
/// It only reads: registering is refused as `Unsupported`. The guide has
/// [a page](crate::guide::registries::file) on the file, and on how to change it.
#[derive(Debug)]
pub struct File(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    path: PathBuf,
    state: Mutex<State>,
}

/// What is known of the file.
#[derive(Debug, Default)]
struct State {
    /// Counts the versions, good or not.
    revision: u64,
    /// The version read last, unless it may change without a new identity.
    identity: Option<Identity>,
    content: Option<Vec<u8>>,
    /// What the last good version lists.
    services: BTreeMap<String, Vec<Entry>>,
    /// What is wrong with the one read last.
    fault: Option<String>,
    looked_at: Option<Instant>,
    /// A look under way. It outlives whoever gave up waiting for it, so that of a file system that
    /// does not answer there is never more than one question open.
    look: Option<JoinHandle<Result<Found, String>>>,
}

impl File {
    pub(super) fn open(url: &Url) -> Result<Arc<dyn Registry>, Error> {
        url.without_user()?;
        url.only_keys(&[])?;
        let written = match (url.hosts.as_str(), url.path.as_str()) {
            ("", "") => {
                return Err(url.error(
                    "no file is named; write `file://nodes.toml`, or `file:///etc/micro/nodes.toml`",
                ));
            }
            ("", path) => format!("/{path}"),
            (file, "") => file.to_owned(),
            (folder, path) => format!("{folder}/{path}"),
        };
        let decoded = percent_decode_str(&written).decode_utf8();
        let decoded =
            decoded.map_err(|_| url.error("the path is not UTF-8 once percent-decoded"))?;
        let path = path::absolute(&*decoded)
            .map_err(|error| url.error("the path cannot be used").with_source(error))?;
        let name = format!("file://{written}");
        let identity = format!("file://{}", path.display());
        let state = Mutex::default();
        Ok(share(identity, || Self(Arc::new(Inner { name, path, state }))))
    }

    fn refusal(&self, what: &str, node: &Node) -> Error {
        Error::new(
            ErrorKind::Unsupported,
            format!(
                "{}: cannot {what} {} of service {}: file:// only reads, its nodes are those in the \
                 file; name the node there, or use another registry",
                self.0.name, node.id, node.service
            ),
        )
    }
}

impl Inner {
    /// What the file lists now, or for a `recent` one as of a moment ago.
    async fn look<T>(&self, recent: bool, tell: impl FnOnce(&State) -> T) -> Result<T, Error> {
        let deadline = Instant::now() + LOOK;
        let silent = |_elapsed| {
            let name = &self.name;
            Error::registry(format!("{name}: the file system gave no answer within {LOOK:?}"))
        };
        // Whoever has it waits for the same answer, and no longer.
        let mut state = timeout_at(deadline, self.state.lock()).await.map_err(silent)?;
        let state = &mut *state;
        if !recent || state.looked_at.is_none_or(|at| at.elapsed() >= LOOKS_EVERY / 2) {
            let known = state.identity.clone();
            let path = self.path.clone();
            let look = state.look.get_or_insert_with(|| {
                tokio::task::spawn_blocking(move || disk::read(&path, known.as_ref()))
            });
            let found = timeout_at(deadline, &mut *look).await.map_err(silent)?;
            state.look = None;
            state.looked_at = Some(Instant::now());
            let found = found.unwrap_or_else(|error| Err(error.to_string()));
            self.take(state, found);
        }
        match &state.fault {
            Some(fault) => Err(Error::registry(fault.clone())),
            None => Ok(tell(state)),
        }
    }

    fn take(&self, state: &mut State, found: Result<Found, String>) {
        let content = match found {
            Ok(Found::Unchanged) => return,
            Ok(Found::Torn) if state.revision > 0 => return,
            Ok(Found::Torn) => Err("it is being written".to_owned()),
            Ok(Found::Content(content, identity)) => {
                state.identity = identity;
                if state.content.as_ref() == Some(&content) {
                    return;
                }
                Ok(content)
            }
            Err(why) => Err(why),
        };
        let (content, parsed) = match content {
            Ok(content) => {
                let parsed =
                    nodes::parse(&content).map_err(|fault| format!("{}:{fault}", self.name));
                (Some(content), parsed)
            }
            Err(why) => (None, Err(format!("{}: {why}", self.name))),
        };
        state.content = content;
        if state.content.is_none() {
            state.identity = None;
        }
        match parsed {
            Ok(services) => {
                state.revision += 1;
                state.fault = None;
                let old = std::mem::take(&mut state.services);
                state.services = entries(services, &old, state.revision);
            }
            Err(fault) => {
                // Of several in a row discovery tells the first alone, and whoever mends the file
                // looks for the next.
                if state.fault.as_ref().is_some_and(|known| *known != fault) {
                    warn!(
                        registry = self.name,
                        "file: still keeping the nodes known so far: {fault}"
                    );
                }
                state.fault = Some(fault);
            }
        }
    }
}

/// The records of that revision; one that stands as it was keeps its own.
fn entries(
    services: nodes::Services,
    old: &BTreeMap<String, Vec<Entry>>,
    revision: u64,
) -> BTreeMap<String, Vec<Entry>> {
    let service = |(service, nodes): (String, Vec<Node>)| {
        let old: BTreeMap<_, _> = old
            .get(&service)
            .into_iter()
            .flatten()
            .map(|entry| (entry.key.as_str(), entry))
            .collect();
        let entry = |node: Node| match old.get(node.id.as_str()) {
            Some(entry) if *entry.node == node => (*entry).clone(),
            _ => Entry { key: node.id.clone(), revision, rank: 0, node: Arc::new(node) },
        };
        let entries = nodes.into_iter().map(entry).collect();
        (service, entries)
    };
    services.into_iter().map(service).collect()
}

impl State {
    fn listing(&self, service: &str) -> Listing {
        let entries = self.services.get(service).cloned().unwrap_or_default();
        Listing { revision: self.revision, entries, malformed: Vec::new() }
    }
}

impl Registry for File {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn spread(&self) -> Duration {
        LOOKS_EVERY
    }

    fn min_ttl(&self) -> Duration {
        Duration::ZERO
    }

    fn register<'a>(&'a self, node: &'a Node, _: Duration) -> BoxFuture<'a, Result<Lease, Error>> {
        future::ready(Err(self.refusal("register", node))).boxed()
    }

    fn renew<'a>(&'a self, node: &'a Node, _: Lease) -> BoxFuture<'a, Result<(), RenewError>> {
        future::ready(Err(RenewError::Failed(self.refusal("renew", node)))).boxed()
    }

    fn deregister<'a>(&'a self, node: &'a Node, _: Lease) -> BoxFuture<'a, Result<(), Error>> {
        future::ready(Err(self.refusal("deregister", node))).boxed()
    }

    fn read<'a>(&'a self, service: &'a str) -> BoxFuture<'a, Result<Listing, Error>> {
        self.0.look(false, |state| state.listing(service)).boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<String>, Error>> {
        self.0.look(false, |state| state.services.keys().cloned().collect()).boxed()
    }

    fn watch(&self, service: &str, after: u64) -> Watch {
        let watcher = Watcher { file: self.0.clone(), service: service.to_owned(), seen: after };
        stream::unfold(Some(watcher), |watcher| async {
            let mut watcher = watcher?;
            let next = watcher.next().await;
            let watcher = next.is_ok().then_some(watcher);
            Some((next, watcher))
        })
        .boxed()
    }
}

struct Watcher {
    file: Arc<Inner>,
    service: String,
    seen: u64,
}

impl Watcher {
    async fn next(&mut self) -> Result<Batch, WatchError> {
        loop {
            let listing = self.file.look(true, |state| {
                (state.revision != self.seen).then(|| state.listing(&self.service))
            });
            match listing.await {
                Err(error) => return Err(WatchError::Disconnected(error)),
                // Seen was another registry's.
                Ok(Some(listing)) if listing.revision < self.seen => {
                    return Err(WatchError::Compacted);
                }
                Ok(Some(listing)) => {
                    self.seen = listing.revision;
                    return Ok(Batch {
                        revision: listing.revision,
                        events: vec![Event::Reset(listing)],
                    });
                }
                Ok(None) => sleep(LOOKS_EVERY).await,
            }
        }
    }
}
