//! Reads and watches as the machine asks, and publishes what follows.

use std::{
    future::pending,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fastrand::Rng;
use futures_util::StreamExt as _;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout},
};
use tracing::{info, warn};

use super::{
    Discovery, Status, Update,
    cache::Cache,
    fanout::{Doubts, Fanout, Shared},
    merge::Merge,
    records::Changes,
    state::{Action, Event, Note, State},
};
use crate::{
    Error,
    metrics::DiscoveryMetrics,
    registry::{BoxFuture, Listing, Registry, Watch, WatchError},
};

/// The bound of one full read, for registries that have none. The others bound each of its
/// exchanges: from etcd 10 000 records come in forty, some 2 s in all in a debug build.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) fn start(discovery: Discovery, service: &str) -> Arc<Shared> {
    let registries = discovery.registries();
    let fanout = Arc::new(Fanout::default());
    let (sender, status) = watch::channel(Status::default());
    let outlet = Arc::new(Outlet {
        merge: Mutex::new(Merge::new(registries.len())),
        fanout: fanout.clone(),
        status: sender,
    });
    let mut doubts = Doubts::default();
    let mut drivers = Vec::new();
    for (index, registry) in registries.iter().enumerate() {
        let follow = &discovery.follow()[index];
        let cache = follow
            .cache
            .clone()
            .map(|file| Cache::new(file, registry.name(), service, follow.max_stale));
        let follower = Follower {
            registry: registry.clone(),
            service: service.to_owned(),
            max_stale: follow.max_stale,
            cache,
            doubts: registry.learns_by_asking().then(|| doubts.listener()),
        };
        drivers.push(tokio::spawn(follower.drive(index, outlet.clone())).abort_handle());
    }
    Arc::new(Shared::new(fanout, status, drivers, doubts, service.to_owned(), discovery))
}

/// Where the drivers of one service, one a registry, put what they find.
struct Outlet {
    merge: Mutex<Merge>,
    fanout: Arc<Fanout>,
    status: watch::Sender<Status>,
}

impl Outlet {
    /// Nodes are published before the status that follows from them.
    fn publish(&self, registry: usize, updates: Vec<Update>, status: Status) {
        let mut merge = self.merge.lock().unwrap_or_else(PoisonError::into_inner);
        let (updates, now) = merge.take(registry, updates, status);
        self.fanout.publish(updates);
        self.status.send_if_modified(|status| {
            let is_new = *status != now;
            *status = now;
            is_new
        });
    }
}

/// What follows one service in one registry.
struct Follower {
    registry: Arc<dyn Registry>,
    service: String,
    max_stale: Option<Duration>,
    cache: Option<Cache>,
    doubts: Option<Arc<Notify>>,
}

impl Follower {
    async fn drive(self, index: usize, outlet: Arc<Outlet>) {
        let Self { registry, service, max_stale, cache, doubts } = self;
        let mut state = State::new(Instant::now(), max_stale, Rng::new());
        let mut remembering = cache.clone().map(|cache| Box::pin(cache.load()) as BoxFuture<'_, _>);
        let mut reading: Option<BoxFuture<'_, Result<Listing, Error>>> = None;
        let mut watching: Option<Watch> = None;
        let metrics = DiscoveryMetrics::start(&*registry, &service);
        let mut event = Event::Elapsed;
        loop {
            if let Event::Read(outcome) = &event {
                metrics.read(outcome.is_ok());
            }
            let is_read = matches!(event, Event::Read(Ok(_)));
            let step = state.handle(Instant::now(), event);
            for note in &step.notes {
                log(&*registry, &service, note);
            }
            let is_new = is_read || !step.updates.is_empty();
            metrics.found(state.found(), step.updates.len());
            outlet.publish(index, step.updates, state.status());
            if let Some(cache) = &cache
                && is_new
                && let Some(nodes) = state.confirmed()
            {
                cache.tell(nodes);
            }
            match step.action {
                Some(Action::Read) => reading = Some(Box::pin(read(&*registry, &service))),
                Some(Action::Watch { after }) => {
                    // The old one goes first: they may share a stream to the registry.
                    drop(watching.take());
                    watching = Some(registry.watch(&service, after));
                }
                Some(Action::Rest) => (reading, watching) = (None, None),
                None => {}
            }
            // The watch comes last, so that one that never pauses starves nothing.
            event = tokio::select! {
                biased;
                outcome = answer(&mut reading) => Event::Read(outcome),
                Some((nodes, age)) = answer(&mut remembering) => Event::Remembered(nodes, age),
                () = wake(state.wake_at()) => Event::Elapsed,
                () = raised(&doubts) => Event::Doubted,
                outcome = next(&mut watching) => Event::Watched(outcome),
            };
        }
    }
}

async fn read(registry: &dyn Registry, service: &str) -> Result<Listing, Error> {
    let answer = timeout(READ_TIMEOUT, registry.read(service)).await.map_err(|_elapsed| {
        let registry = registry.name();
        Error::registry(format!("{registry}: no list of {service}'s nodes within {READ_TIMEOUT:?}"))
    });
    answer.flatten()
}

async fn answer<T>(reading: &mut Option<BoxFuture<'_, T>>) -> T {
    let Some(future) = reading else {
        return pending().await;
    };
    let answer = future.await;
    *reading = None;
    answer
}

async fn wake(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}

async fn raised(doubts: &Option<Arc<Notify>>) {
    match doubts {
        Some(doubts) => doubts.notified().await,
        None => pending().await,
    }
}

async fn next(watching: &mut Option<Watch>) -> Result<crate::registry::Batch, WatchError> {
    let Some(watch) = watching else {
        return pending().await;
    };
    let outcome = watch.next().await.unwrap_or(Err(WatchError::Ended));
    if outcome.is_err() {
        *watching = None;
    }
    outcome
}

fn log(registry: &dyn Registry, service: &str, note: &Note) {
    let registry = registry.name();
    match note {
        Note::Malformed(malformed) => {
            let (key, reason) = (&malformed.key, &malformed.reason);
            warn!(service, registry, key, "discovery: a record is left out: {reason}");
        }
        Note::Trouble(error) => {
            warn!(
                service,
                registry, "discovery: keeping the nodes known so far, trying on: {error}"
            );
        }
        Note::Remembered => {
            warn!(service, registry, "discovery: starting with the nodes of the cache");
        }
        Note::GivenUp(error) => warn!(service, registry, "discovery: {error}"),
        Note::Refused(error) => {
            warn!(service, registry, "discovery: the registry cannot be asked for it: {error}");
        }
        Note::Recovered => info!(service, registry, "discovery: all nodes read again"),
        Note::Changed(Changes { added, changed, removed, now }) => {
            let parts = [("added", added), ("changed", changed), ("removed", removed)];
            let parts = parts.into_iter().filter(|(_, ids)| !ids.is_empty());
            let parts: String = parts.map(|(what, ids)| part(what, ids)).collect();
            info!(service, registry, "discovery: nodes {parts}now {now}");
        }
    }
}

/// How many ids a log line names of each kind.
const MOST_IDS: usize = 5;

/// `added 2 (greeter-1, greeter-2), `, or without the ids if they are many.
fn part(what: &str, ids: &[Arc<str>]) -> String {
    let count = ids.len();
    if count > MOST_IDS {
        return format!("{what} {count}, ");
    }
    // Whoever writes into the registry chooses them.
    let ids: Vec<_> = ids.iter().map(|id| id.escape_debug().to_string()).collect();
    format!("{what} {count} ({}), ", ids.join(", "))
}
