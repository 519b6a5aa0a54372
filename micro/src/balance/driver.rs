//! The task behind a balancer: carries updates and connection events to `members`, does what it
//! says, and publishes the snapshot.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed, atomic::Ordering::SeqCst},
    time::Duration,
};

use futures_core::Stream;
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};

use super::{
    Options, Progress, Shared,
    connect::{Connect, Ended},
    ewma::Load,
    filter::Filtered,
    members::{Action, Attempt, Members},
    snapshot::{Endpoint, Picked},
};
use crate::{
    discovery::Update,
    registry::{BoxFuture, Node},
};

/// How long what the registry has in place of a missing service is taken for true.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// Runs until `gone` resolves: until the last handle is dropped.
pub(super) fn run<K: Connect>(
    mut updates: impl Stream<Item = Update> + Unpin + Send + 'static,
    connector: K,
    shared: Arc<Shared<K::Connection>>,
    options: Options,
    mut gone: oneshot::Receiver<()>,
) -> impl Future<Output = ()> + Send + 'static {
    let mut driver = Driver {
        connector,
        shared,
        penalty: options.penalty,
        members: Members::new(options.ttl, fastrand::Rng::new()),
        picked: Picked::new(&options.balancing, options.filter.serving),
        filtered: Filtered::new(options.filter),
        pending: FuturesUnordered::new(),
        is_read: false,
        asked: None,
        is_answered: false,
    };
    async move {
        loop {
            let wakes_at = driver.members.wakes_at();
            let event = tokio::select! {
                _ = &mut gone => break driver.close(),
                Some(update) = updates.next() => Event::Update(update),
                Some(event) = driver.pending.next() => event,
                () = driver.shared.wanted.notified() => Event::Tick,
                () = sleep_until_some(wakes_at) => Event::Tick,
            };
            driver.handle(event);
        }
    }
}

async fn sleep_until_some(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

struct Driver<K: Connect> {
    connector: K,
    shared: Arc<Shared<K::Connection>>,
    penalty: Duration,
    members: Members<Link<K::Connection>>,
    picked: Picked<K::Connection>,
    filtered: Filtered,
    /// Attempts under way, and for each connection the wait for its end.
    pending: FuturesUnordered<BoxFuture<'static, Event<K::Connection>>>,
    /// Whether the registry has been read once.
    is_read: bool,
    /// When the registry was last asked what it has instead of the service.
    asked: Option<Instant>,
    /// Whether that question has ended, with or without an answer.
    is_answered: bool,
}

/// A connection and its load.
#[derive(Debug, Clone)]
struct Link<C> {
    connection: C,
    load: Arc<Load>,
}

enum Event<C> {
    Update(Update),
    Connected(Attempt, Arc<Node>, C),
    Failed(Attempt, Arc<Node>, String),
    Ended(Attempt, Arc<Node>, Ended),
    Found(Option<String>),
    Tick,
}

impl<K: Connect> Driver<K> {
    fn handle(&mut self, event: Event<K::Connection>) {
        let now = Instant::now();
        self.members.set_wanted(self.shared.waiting.load(SeqCst) > 0, now);
        match event {
            Event::Update(update) => {
                let update = self.filtered.update(update);
                self.shared.left_out.store(self.filtered.left_out(), Relaxed);
                self.picked.listed(&update);
                self.members.update(update, now);
                self.shared.listed.store(self.members.listed(), Relaxed);
                self.is_read = true;
            }
            Event::Connected(attempt, node, connection) => {
                let latency = self.picked.median_latency(now);
                let load = Arc::new(Load::new(latency, self.penalty, now));
                let link = Link { connection: connection.clone(), load };
                self.members.connected(&attempt, link, now);
                self.pending.push(Box::pin(async move {
                    Event::Ended(attempt, node, K::ended(connection).await)
                }));
            }
            Event::Failed(attempt, node, error) => {
                self.remember(&node, &error);
                self.members.failed(&attempt, now);
                self.shared.doubts.raise();
            }
            Event::Ended(attempt, _, Ended::Draining) => {
                self.members.draining(&attempt, now);
                self.shared.doubts.raise();
            }
            Event::Ended(attempt, node, Ended::Closed(reason)) => {
                let reason = format!("the connection to {} ended: {reason}", node.address);
                self.remember(&node, &reason);
                self.members.closed(&attempt, now);
                self.shared.doubts.raise();
            }
            Event::Found(found) if self.asked.is_some() => {
                self.shared.found.store(found.map(Arc::new));
                self.is_answered = true;
            }
            // Found before a node came, or nothing but the time has changed.
            Event::Found(_) | Event::Tick => {}
        }
        self.members.tick(now);
        self.act();
        self.ask_around(now);
        self.publish_progress();
    }

    /// After the snapshot: who finds that all was tried finds there what came of it.
    fn publish_progress(&self) {
        let is_none_listed = self.members.listed() == 0;
        let progress = match self.members.untried() {
            _ if !self.is_read => Progress::Unread,
            0 if self.is_answered || !is_none_listed => Progress::Tried,
            _ => Progress::Trying,
        };
        self.shared.progress.send_if_modified(|known| {
            let before = std::mem::replace(known, progress);
            before != progress
        });
    }

    /// Asks, beside all else, what the registry has instead: for a call that finds no node in it.
    fn ask_around(&mut self, now: Instant) {
        if self.members.listed() > 0 {
            // What was missed, asked and found was so before it came.
            self.shared.missed.store(false, Relaxed);
            if self.asked.take().is_some() {
                self.shared.found.store(None);
                self.is_answered = false;
            }
            return;
        }
        let is_due = self.asked.is_none_or(|asked| now - asked >= ASK_AGAIN);
        if !is_due || !self.is_read {
            return;
        }
        let is_waited_for = self.shared.waiting.load(SeqCst) > 0;
        if self.shared.missed.swap(false, Relaxed) || is_waited_for {
            self.asked = Some(now);
            let asking = self.shared.neighbours.clone().ask();
            self.pending.push(Box::pin(async move { Event::Found(asking.await) }));
        }
    }

    fn act(&mut self) {
        let mut is_changed = false;
        for action in self.members.actions() {
            match action {
                Action::Dial(attempt, node, previous) => {
                    let previous = previous.map(|link| link.connection);
                    let dialling = self.connector.clone().connect(node.address.clone(), previous);
                    self.pending.push(Box::pin(async move {
                        match dialling.await {
                            Ok(connection) => Event::Connected(attempt, node, connection),
                            Err(error) => Event::Failed(attempt, node, error),
                        }
                    }));
                }
                Action::Pick(id, node, Link { connection, load }) => {
                    is_changed = true;
                    let endpoint = Endpoint { id, node: node.clone(), connection, load };
                    if self.picked.insert(endpoint) {
                        self.log(&node, "node is ready");
                    }
                }
                Action::Unpick(id, node) => {
                    is_changed = true;
                    self.picked.remove(id);
                    self.log(&node, "node is no longer picked");
                }
                Action::Close(link) => K::close(&link.connection),
            }
        }
        if !is_changed {
            return;
        }
        self.shared.snapshot.store(Arc::new(self.picked.snapshot()));
        // There may be something now for a call that waits for one node of many.
        self.shared.changed.notify_waiters();
    }

    /// One line a change of what is picked, and none otherwise: a node that is down fails to connect
    /// many times, and who waits for it gets the reason in the error.
    fn log(&self, node: &Node, change: &str) {
        tracing::debug!(
            service = node.service,
            node = node.id,
            address = node.address,
            ready = self.picked.len(),
            listed = self.members.listed(),
            "{change}"
        );
    }

    fn remember(&self, node: &Node, error: &str) {
        let error = format!("node {}: {error}", node.id);
        self.shared.last_error.store(Some(Arc::new(error)));
    }

    fn close(self) {
        for link in self.members.into_links() {
            K::close(&link.connection);
        }
    }
}
