//! The task behind a balancer: carries updates and connection events to `members`, does what it
//! says, and publishes the snapshot.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use futures_core::Stream;
use futures_util::{
    FutureExt as _, StreamExt,
    stream::{BoxStream, FuturesUnordered},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, sleep_until},
};

use super::{
    Balancing, EndpointId, News, Options, Shared, Tuning,
    asking::Asking,
    came::Came,
    connect::{Connect, Dial, Ended, NotConnected},
    ewma::Load,
    filter::Filtered,
    health::Health,
    lines::Sought,
    members::{Action, Attempt, Members, Verdict},
    request::Method,
    snapshot::{Endpoint, Picked},
    subset::Subset,
    tally::{Tally, TooMuch},
};
use crate::{
    discovery::Update,
    metrics::{BalanceMetrics, Balanced},
    registry::{BoxFuture, Node},
    transport::Disconnect,
};

mod asking;
mod progress;
mod told;

/// Runs until `gone` resolves: until the last handle is dropped.
pub(super) fn run<K: Connect>(
    mut updates: impl Stream<Item = Update> + Unpin + Send + 'static,
    connector: K,
    shared: Arc<Shared<K::Connection>>,
    options: Options,
    tuning: watch::Receiver<Tuning>,
    mut news: mpsc::UnboundedReceiver<News<K::Connection>>,
    mut gone: oneshot::Receiver<()>,
) -> impl Future<Output = ()> + Send + 'static {
    let Tuning { balancing, ejection, health_check } = tuning.borrow().clone();
    let mut driver = Driver {
        connector,
        metrics: BalanceMetrics::start(shared.neighbours.service()),
        shared,
        penalty: options.penalty,
        connect_timeout: options.transport.connect_timeout,
        subset: options.subset.map(|size| Subset::new(size, fastrand::u64(..))),
        members: Members::new(options.ttl, ejection, fastrand::Rng::new()),
        picked: Picked::new(&balancing, options.filter.serving),
        came: Came::default(),
        balancing,
        asking: Asking::of(health_check),
        tuning,
        filtered: Filtered::new(options.filter),
        pending: FuturesUnordered::new(),
        changed: Instant::now(),
        seen: 0,
        is_read: false,
        asked: None,
        is_answered: false,
    };
    async move {
        loop {
            let (members, sweep) = (driver.members.wakes_at(), driver.members.sweeps_at());
            let subset = driver.subset.as_ref().and_then(Subset::wakes_at);
            let wakes_at = [members, sweep, subset].into_iter().flatten().min();
            let event = tokio::select! {
                // In order, so that a seed decides on all that happens. What nodes can bring about at
                // will, by their health, comes last; the time is looked at with each event.
                biased;
                _ = &mut gone => break driver.close(),
                Ok(()) = driver.tuning.changed() => Event::Tuned,
                Some(update) = updates.next() => Event::Update(update),
                Some(news) = news.recv() => Event::News(news),
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
    metrics: BalanceMetrics,
    shared: Arc<Shared<K::Connection>>,
    penalty: Duration,
    connect_timeout: Duration,
    balancing: Balancing,
    asking: Asking,
    tuning: watch::Receiver<Tuning>,
    /// Absent where all nodes are connected to.
    subset: Option<Subset>,
    members: Members<Link<K::Connection>>,
    picked: Picked<K::Connection>,
    came: Came,
    filtered: Filtered,
    /// Attempts under way, and for each connection the wait for its end.
    pending: FuturesUnordered<BoxFuture<'static, Event<K::Connection>>>,
    /// When the set last changed.
    changed: Instant,
    /// How often it had changed who waits when that was last looked at.
    seen: usize,
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
    Failed(Attempt, Arc<Node>, NotConnected),
    /// With what follows of it.
    Health(Attempt, Arc<Node>, Health, BoxStream<'static, Health>),
    /// It has had its time for a first word.
    Asked(Attempt, Arc<Node>),
    Unwatched,
    Tuned,
    Ended(Attempt, Arc<Node>, Ended, Disconnect),
    Found(Option<String>),
    News(News<C>),
    Tick,
}

impl<K: Connect> Driver<K> {
    fn handle(&mut self, event: Event<K::Connection>) {
        let now = Instant::now();
        // Before what it counts: what changes in between is seen the next time.
        let changes = self.shared.lines.changes();
        if std::mem::replace(&mut self.seen, changes) != changes {
            self.members.set_wanted(self.shared.lines.wanted(), now);
        }
        match event {
            Event::Update(update) => {
                let update = self.filtered.update(update);
                self.shared.left_out.store(self.filtered.left_out(), Relaxed);
                self.members.exclude(&self.filtered.excluded(), now);
                let updates = match &mut self.subset {
                    Some(subset) => subset.update(update, now),
                    None => vec![update],
                };
                self.update(updates, now);
                self.is_read = true;
            }
            Event::Connected(attempt, node, connection) => {
                self.metrics.connected();
                let latency = self.picked.median_latency(now);
                let load = Load::new(latency, self.penalty, now);
                let load = Arc::new(load.with(self.members.under_way(&attempt)));
                let link = Link { connection: connection.clone(), load };
                let is_asked = self.asking.service().is_some();
                self.members.connected(&attempt, link, !is_asked, now);
                self.wake_for_ejected(&node);
                self.ask(&attempt, &node, &connection);
                if is_asked {
                    let asked = Event::Asked(attempt.clone(), node.clone());
                    self.pending.push(Box::pin(sleep(self.connect_timeout).map(|()| asked)));
                }
                self.pending.push(Box::pin(async move {
                    let (ended, why) = K::ended(connection).await;
                    Event::Ended(attempt, node, ended, why)
                }));
            }
            Event::Failed(attempt, _, NotConnected::Gone) => self.members.not_made(&attempt, now),
            Event::Failed(attempt, node, NotConnected::Failed { why, is_silent }) => {
                self.metrics.not_connected();
                let why = self.remember(&node, why);
                let is_of_now = self.members.failed(&attempt, &why, Some(is_silent), now);
                // Nor do calls go to one that cannot be connected to.
                if let Some(subset) = self.subset.as_mut().filter(|_| is_of_now) {
                    let updates = subset.reached(&node.id, false, now);
                    self.update(updates, now);
                }
                self.shared.doubts.raise();
            }
            Event::Failed(attempt, node, NotConnected::NoSocket { why }) => {
                self.metrics.not_connected();
                let why = self.remember(&node, why);
                self.members.failed(&attempt, &why, None, now);
            }
            Event::Ended(attempt, _, Ended::Draining, why) => {
                self.metrics.disconnected(why.name());
                self.members.draining(&attempt, now);
                self.shared.doubts.raise();
            }
            Event::Ended(attempt, node, Ended::Closed(reason), why) => {
                self.metrics.disconnected(why.name());
                let reason = format!("the connection to {} ended: {reason}", node.address);
                let reason = self.remember(&node, reason);
                self.members.closed(&attempt, &reason, now);
                self.shared.doubts.raise();
            }
            Event::Health(attempt, node, health, rest) => {
                let health = self.hear(&attempt, &node, health);
                self.members.told(&attempt, health, now);
                self.judge(&node, now);
                self.wake_for_ejected(&node);
                self.follow(attempt, node, rest);
            }
            Event::Asked(attempt, node) => {
                // As one that does not answer at all: who fails fast does not wait for it.
                if self.members.is_silent(&attempt) {
                    let within = self.connect_timeout;
                    let why = format!("it has not said within {within:?} whether it is well");
                    let why = self.remember(&node, why);
                    self.members.told(&attempt, Err(why), now);
                    self.judge(&node, now);
                }
            }
            Event::Tuned => self.tune(now),
            Event::News(News::Failing(tally, too_much)) => {
                self.members.failing(&tally, too_much == TooMuch::Broken, now);
            }
            Event::News(News::Asked(asked)) => {
                // Who asked may have gone.
                let _ = asked.send(self.explain(now));
            }
            Event::News(News::Sought(sought, told)) => {
                let ejected = match &sought {
                    Sought::Any => None,
                    Sought::Node(id) => self.members.first_ejected(|node| node.id == *id),
                    Sought::Serving(method) => {
                        let method = Method::of(method);
                        self.members.first_ejected(|node| method.is_in(node))
                    }
                };
                let endpoint = ejected
                    .map(|(id, node, link, tally)| self.endpoint(id, node, link, tally, None));
                let _ = told.send(endpoint);
            }
            Event::News(News::Probed(tally, began, is_well)) => {
                self.members.probed(&tally, began, is_well, now);
            }
            Event::Found(found) if self.asked.is_some() => {
                self.shared.found.store(found.map(Arc::new));
                self.is_answered = true;
            }
            // Found before a node came, or nothing but the time has changed.
            Event::Found(_) | Event::Unwatched | Event::Tick => {}
        }
        let updates = self.subset.as_mut().map(|subset| subset.tick(now));
        self.update(updates.unwrap_or_default(), now);
        self.members.tick(now);
        self.shared.unwell.store(self.members.unwell(), Relaxed);
        self.act(now);
        self.ask_around(now);
        self.publish_progress();
        self.metrics.stands(Balanced {
            listed: self.listed(),
            ready: self.members.called(),
            retained: self.picked.len().saturating_sub(self.members.called()),
            ejected: self.members.ejected(),
        });
    }

    /// Goes by what is said from now on.
    fn tune(&mut self, now: Instant) {
        let Tuning { balancing, ejection, health_check } = self.tuning.borrow_and_update().clone();
        self.members.set_rules(ejection, now);
        if health_check.as_ref() != self.asking.service() {
            self.asking = Asking::of(health_check);
            self.ask_all(now);
        }
        // Another rule knows nothing of what the one before held: whose calls went where, say.
        if balancing != self.balancing {
            self.picked.set_balancing(&balancing, &Update::Reset(self.members.nodes()));
            self.balancing = balancing;
            self.publish(now);
        }
        // Any of them may find a node by what is said now.
        self.shared.lines.wake_others();
    }

    fn update(&mut self, mut updates: Vec<Update>, now: Instant) {
        while !updates.is_empty() {
            let mut listed = Vec::new();
            for update in updates.drain(..) {
                match &update {
                    Update::Insert(node) => listed.push(node.clone()),
                    Update::Reset(nodes) => listed.extend_from_slice(nodes),
                    Update::Remove(_) | Update::Forget => {}
                }
                self.picked.listed(&update);
                self.members.update(update, now);
            }
            for node in listed {
                // Its record may have a method now that a call waits for.
                self.wake_for_ejected(&node);
                // One that was there before may be as unwell, or as ejected, as it was.
                updates.extend(self.judged(&node, now));
            }
        }
        self.shared.listed.store(self.members.listed(), Relaxed);
    }

    fn judge(&mut self, node: &Node, now: Instant) {
        let updates = self.judged(node, now);
        self.update(updates, now);
    }

    /// What follows where a subset does without the nodes that no call goes to.
    fn judged(&mut self, node: &Node, now: Instant) -> Vec<Update> {
        let Some(subset) = &mut self.subset else {
            return Vec::new();
        };
        match self.members.verdict(&node.id) {
            Verdict::Called => subset.reached(&node.id, true, now),
            Verdict::Failing => subset.reached(&node.id, false, now),
            Verdict::Open => Vec::new(),
        }
    }

    fn act(&mut self, now: Instant) {
        let mut changed = Vec::new();
        let mut actions = VecDeque::from(self.members.actions());
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Dial { attempt, node, previous, was_silent, is_listed } => {
                    let address = node.address.clone();
                    let previous = previous.map(|link| link.connection);
                    let dial = Dial { address, previous, was_silent, is_listed };
                    let dialling = self.connector.clone().connect(dial);
                    self.pending.push(Box::pin(async move {
                        match dialling.await {
                            Ok(connection) => Event::Connected(attempt, node, connection),
                            Err(error) => Event::Failed(attempt, node, error),
                        }
                    }));
                }
                Action::Pick(id, node, link, tally) => {
                    // What calls wait for may have been in the record before.
                    changed.extend(self.picked.get(id).map(|known| known.node.clone()));
                    changed.push(node.clone());
                    let since = self.came.comes(id, now);
                    let endpoint = self.endpoint(id, node.clone(), link, tally, Some(since));
                    if self.picked.insert(endpoint) {
                        self.log(&node, "node is ready");
                    }
                    self.judge(&node, now);
                }
                Action::Unpick(id, node) => {
                    self.picked.remove(id);
                    self.came.leaves(id, now);
                    self.log(&node, "node is no longer picked");
                    changed.push(node);
                }
                Action::Eject(id, node, reason, until) => {
                    self.picked.remove(id);
                    self.came.is_ejected(id);
                    self.shared.probes.remove(id);
                    self.log_ejection(&node, reason, until);
                    self.metrics.ejected(reason.detection_method());
                    self.judge(&node, now);
                    changed.push(node);
                }
                Action::Probe(id, node, link, tally) => {
                    self.log(&node, "a call is to try the ejected node");
                    let endpoint = self.endpoint(id, node, link, tally, None);
                    self.shared.probes.insert(endpoint, now);
                }
                Action::Found(node) => self.shared.lines.wake_for(&node),
                Action::Unprobe(id) => self.shared.probes.remove(id),
                Action::Close(link) => K::close(&link.connection),
            }
            // What is news to the subset brings about more.
            actions.extend(self.members.actions());
        }
        if !changed.is_empty() {
            self.publish(now);
            changed.iter().for_each(|node| self.shared.lines.wake_for(node));
        }
    }

    fn publish(&mut self, now: Instant) {
        self.changed = now;
        self.shared.snapshot.store(Arc::new(self.picked.snapshot()));
        self.shared.probes.look_again();
        self.shared.lines.wake_any();
    }

    /// Has calls look again that may go nowhere but to a node which came while it is ejected: no change of
    /// what is picked tells them.
    fn wake_for_ejected(&self, node: &Node) {
        if self.members.ejected() > 0 && self.members.is_ejected(&node.id) {
            self.shared.lines.wake_for(node);
        }
    }

    fn endpoint(
        &self,
        id: EndpointId,
        node: Arc<Node>,
        Link { connection, load }: Link<K::Connection>,
        tally: Arc<Tally>,
        since: Option<Instant>,
    ) -> Arc<Endpoint<K::Connection>> {
        let news = self.shared.news.clone();
        // Of one that is ejected nobody asks.
        let since = since.unwrap_or(load.born());
        Arc::new(Endpoint { id, node, connection, load, tally, since, news })
    }

    /// How many nodes the registry lists, those included that a subset leaves out.
    fn listed(&self) -> usize {
        self.subset.as_ref().map_or(self.members.listed(), Subset::listed)
    }

    fn close(self) {
        for link in self.members.into_links() {
            K::close(&link.connection);
        }
    }
}
