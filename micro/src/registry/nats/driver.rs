//! The connection and the clock for the bus, and exchanges over it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
    time::{Instant, sleep_until, timeout, timeout_at},
};

use super::{
    bus::{Bus, Say},
    connection::{Connection, Heard, Publisher, Subscriptions},
    message::{self, Outgoing},
    options::Options,
    outstanding::Outstanding,
};
use crate::Error;

/// How long an exchange may take, connecting included. A read waits for answers on top of it, and all
/// of it is to be within a second.
pub(super) const EXCHANGE: Duration = Duration::from_millis(850);

/// How long what is late is still waited for: it may lie in a buffer, where it was us who did not run.
const DOUBT: Duration = Duration::from_millis(100);

/// Dropped, the connection is closed.
#[derive(Debug)]
pub(super) struct Driver(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    options: Options,
    /// Unlike that of any other.
    origin: String,
    state: Mutex<State>,
    /// Counts whatever somebody may wait for.
    changed: watch::Sender<u64>,
    /// Something is to be said, or due at another time.
    wake: Notify,
    /// Connecting is one exchange's work; those that come meanwhile wait for what it makes.
    connecting: tokio::sync::Mutex<()>,
    /// The server to begin with.
    current: AtomicUsize,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) bus: Bus,
    link: Option<Link>,
    /// Connections so far.
    links: u64,
    /// Messages so far.
    number: u64,
    /// Why there is no connection.
    why: String,
}

/// A connection in use.
#[derive(Debug)]
struct Link {
    id: u64,
    publisher: Publisher,
    outstanding: Outstanding,
    run: AbortHandle,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.run.abort();
    }
}

impl Driver {
    pub(super) fn new(options: Options) -> Self {
        let why = format!("{}: not connected yet", options.name);
        Self(Arc::new(Shared {
            options,
            origin: uuid::Uuid::new_v4().to_string(),
            state: Mutex::new(State { bus: Bus::new(), link: None, links: 0, number: 0, why }),
            changed: watch::channel(0).0,
            wake: Notify::new(),
            connecting: tokio::sync::Mutex::default(),
            current: AtomicUsize::new(0),
        }))
    }

    pub(super) fn options(&self) -> &Options {
        &self.0.options
    }

    /// Changes something, and sees to what follows.
    pub(super) fn act<T>(&self, act: impl FnOnce(&mut Bus, Instant) -> T) -> T {
        self.0.act(|state, now| act(&mut state.bus, now))
    }

    pub(super) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.0.state())
    }

    /// Tells of every change.
    pub(super) fn changed(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Publishes this, and waits until it has come back: the servers have carried it, and all that
    /// came before it. Returns the connection that it went over.
    ///
    /// # Errors
    /// `Registry`, with what could not be done and why.
    pub(super) async fn exchange(&self, what: &str, say: Say) -> Result<u64, Error> {
        let deadline = Instant::now() + EXCHANGE;
        let exchange = async {
            let link = self.0.link(deadline).await?;
            let carried = timeout_at(deadline, self.carried(link, &say)).await;
            // The connection is given up by who listens on it, if it is as silent as it seems.
            carried.unwrap_or_else(|_| Err(self.0.silence(link))).map(|()| link)
        };
        let name = &self.0.options.name;
        exchange
            .await
            .map_err(|why: String| Error::registry(format!("{name}: cannot {what}: {why}")))
    }

    async fn carried(&self, link: u64, say: &Say) -> Result<(), String> {
        let mut changed = self.changed();
        let number = self.0.publish(link, say).await?;
        loop {
            match self.look(|state| state.is_outstanding(link, number)) {
                Some(true) => drop(changed.changed().await),
                Some(false) => return Ok(()),
                None => return Err(self.look(|state| state.why.clone())),
            }
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.state().link = None;
    }
}

impl State {
    /// The connection in use, if there is one.
    pub(super) fn link(&self) -> Option<u64> {
        self.link.as_ref().filter(|link| !link.run.is_finished()).map(|link| link.id)
    }

    /// Why there is none.
    pub(super) fn why(&self) -> &str {
        &self.why
    }

    /// None if that connection is not in use any more.
    fn is_outstanding(&self, id: u64, number: u64) -> Option<bool> {
        let link = self.link.as_ref().filter(|link| link.id == id)?;
        Some(link.outstanding.contains(number))
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn act<T>(&self, act: impl FnOnce(&mut State, Instant) -> T) -> T {
        let (result, is_changed) = {
            let mut state = self.state();
            let before = state.bus.revision();
            let result = act(&mut state, Instant::now());
            (result, state.bus.revision() != before)
        };
        // Heartbeats change nothing that anybody waits for.
        if is_changed {
            self.changed.send_modify(|count| *count += 1);
        }
        self.wake.notify_one();
        result
    }

    /// The connection in use, made if need be.
    async fn link(self: &Arc<Self>, deadline: Instant) -> Result<u64, String> {
        let in_use = || self.state().link();
        if let Some(link) = in_use() {
            return Ok(link);
        }
        let _connecting = timeout_at(deadline, self.connecting.lock())
            .await
            .map_err(|_| format!("no connection within {EXCHANGE:?}"))?;
        if let Some(link) = in_use() {
            return Ok(link);
        }
        let Connection { publisher, subscriptions } = self.connect(deadline).await?;
        let mut state = self.state();
        state.links += 1;
        let id = state.links;
        let run = tokio::spawn(run(self.clone(), id, subscriptions)).abort_handle();
        state.link = Some(Link { id, publisher, outstanding: Outstanding::default(), run });
        state.bus.connected(Instant::now());
        drop(state);
        self.changed.send_modify(|count| *count += 1);
        self.wake.notify_one();
        Ok(id)
    }

    /// Connects to the first server that serves, beginning where that worked last. One that keeps
    /// silent takes all the time there is: the next exchange begins behind it.
    async fn connect(&self, deadline: Instant) -> Result<Connection, String> {
        let servers = &self.options.servers;
        let first = self.current.load(Ordering::Relaxed);
        let mut failures = Vec::new();
        for step in 0..servers.len() {
            let index = (first + step) % servers.len();
            let server = &servers[index];
            self.current.store((index + 1) % servers.len(), Ordering::Relaxed);
            match timeout_at(deadline, Connection::to(server, &self.options)).await {
                Ok(Ok(connection)) => {
                    self.current.store(index, Ordering::Relaxed);
                    return Ok(connection);
                }
                Ok(Err(why)) => failures.push(format!("{server}: {why}")),
                Err(_) => {
                    failures.push(format!("{server}: no answer within {EXCHANGE:?}"));
                    break;
                }
            }
        }
        let why = failures.join("; ");
        self.state().why.clone_from(&why);
        Err(why)
    }

    /// Publishes this on that connection. Returns its number, by which it is outstanding until it
    /// comes back.
    async fn publish(&self, id: u64, say: &Say) -> Result<u64, String> {
        let (publisher, outgoing, number, outstanding) = {
            let mut state = self.state();
            let State { bus, link, number, why, .. } = &mut *state;
            *number += 1;
            let number = *number;
            let link = link.as_ref().filter(|link| link.id == id).ok_or_else(|| why.clone())?;
            let outgoing = Outgoing::of(say, &self.origin, number)?;
            bus.says(say);
            let outstanding = outgoing.comes_back.then(|| link.outstanding.clone());
            (link.publisher.clone(), outgoing, number, outstanding)
        };
        let publish = publisher.publish(outgoing);
        match outstanding {
            Some(outstanding) => outstanding.send(number, publish).await?,
            None => publish.await?,
        }
        Ok(number)
    }

    /// The words for a connection on which nothing comes back.
    fn silence(&self, id: u64) -> String {
        let state = self.state();
        match state.link.as_ref().filter(|link| link.id == id) {
            Some(link) => link.publisher.silence(EXCHANGE),
            None => state.why.clone(),
        }
    }

    /// Gives a connection up.
    fn discard(&self, id: u64, why: &str) {
        let mut state = self.state();
        if state.link.as_ref().is_some_and(|link| link.id == id) {
            why.clone_into(&mut state.why);
            state.link = None;
            state.bus.disconnected();
        }
        drop(state);
        self.changed.send_modify(|count| *count += 1);
    }

    /// What was published under this number has come back.
    fn came_back(&self, id: u64, number: u64) {
        let mut state = self.state();
        let link = state.link.as_ref().filter(|link| link.id == id);
        if let Some(published) = link.and_then(|link| link.outstanding.came_back(number)) {
            state.bus.proven(published);
        }
        drop(state);
        self.changed.send_modify(|count| *count += 1);
    }
}

/// What is due on a connection.
struct Due {
    say: Vec<Say>,
    /// When to look again.
    wake_at: Option<Instant>,
    /// Whether something published has not come back in time.
    is_late: bool,
}

/// Hears what comes over a connection and says what is to be said, until it is given up.
async fn run(shared: Arc<Shared>, id: u64, mut subscriptions: Subscriptions) {
    let mut late_since = None;
    loop {
        let Due { say, wake_at, is_late } = shared.elapse(id);
        late_since = is_late.then(|| late_since.unwrap_or_else(Instant::now));
        for say in say {
            match timeout(EXCHANGE, shared.publish(id, &say)).await {
                Ok(Ok(_)) => {}
                // A record too long for this server is told to whoever registers it.
                Ok(Err(why)) => tracing::debug!("nats: not published: {why}"),
                Err(_) => return shared.discard(id, &shared.silence(id)),
            }
        }
        let due = async {
            match late_since.map(|since| since + DOUBT).into_iter().chain(wake_at).min() {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // What is there is heard before anything is taken for late.
            biased;
            heard = subscriptions.next() => match heard {
                Heard::Lost(why) => return shared.discard(id, &why),
                Heard::Told(message) => shared.hear(id, &message, |bus, now, bytes| {
                    bus.heard(now, bytes, message::ttl(&message));
                }),
                Heard::Asked(message) => shared.hear(id, &message, |bus, now, bytes| {
                    if let Some(to) = &message.reply {
                        bus.asked(now, bytes, to);
                    }
                }),
                Heard::Answered(message) => shared.hear(id, &message, |bus, now, bytes| {
                    bus.answered(now, bytes, message::ttl(&message));
                }),
            },
            () = due => {
                if late_since.is_some_and(|since| since + DOUBT <= Instant::now()) {
                    return shared.discard(id, &shared.silence(id));
                }
            }
            () = shared.wake.notified() => {}
        }
    }
}

impl Shared {
    fn elapse(&self, id: u64) -> Due {
        let mut state = self.state();
        let now = Instant::now();
        let before = state.bus.revision();
        state.bus.elapsed(now);
        let is_changed = state.bus.revision() != before;
        let say = state.bus.take_say();
        let link = state.link.as_ref().filter(|link| link.id == id);
        let oldest = link.and_then(|link| link.outstanding.oldest());
        let late_at = oldest.map(|published| published + EXCHANGE);
        let is_late = late_at.is_some_and(|at| at <= now);
        let late_at = late_at.filter(|_| !is_late);
        let wake_at = state.bus.wake_at().into_iter().chain(late_at).min();
        drop(state);
        if is_changed {
            self.changed.send_modify(|count| *count += 1);
        }
        Due { say, wake_at, is_late }
    }

    /// Hands a message to the bus, unless it is one of ours that comes back.
    fn hear(
        &self,
        id: u64,
        message: &async_nats::Message,
        hear: impl FnOnce(&mut Bus, Instant, &[u8]),
    ) {
        if let Some(number) = message::number_of_own(message, &self.origin) {
            return self.came_back(id, number);
        }
        let mut state = self.state();
        let before = state.bus.revision();
        hear(&mut state.bus, Instant::now(), &message.payload);
        let is_changed = state.bus.revision() != before;
        drop(state);
        if is_changed {
            self.changed.send_modify(|count| *count += 1);
        }
    }
}
