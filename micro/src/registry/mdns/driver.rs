//! Sockets and clock for the two machines: one task a socket that hears, one that sends.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use if_addrs::Interface;
use tokio::{
    net::UdpSocket,
    sync::{Notify, watch},
    task::AbortHandle,
    time::{Instant, sleep, sleep_until, timeout_at},
};

use super::{
    link::{Link, Named, Net, OpenError, interfaces},
    outbox::Outgoing,
    packet::{self, Kind, MAX_PACKET},
    responder::{From, LinkId, Send},
    state::{LOOPBACK, Open, State},
};

/// How long our own question may take to come back, and how often it is asked meanwhile.
const CHECK: Duration = Duration::from_millis(500);
const CHECK_EVERY: Duration = Duration::from_millis(100);

/// After an error of a socket: it may go on.
const PAUSE: Duration = Duration::from_millis(50);

/// How often it is looked which interfaces are up, and what their addresses are.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The machines, their sockets and their tasks. Dropped, the tasks end.
#[derive(Debug)]
pub(super) struct Driver {
    shared: Arc<Shared>,
    tasks: Mutex<Vec<AbortHandle>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Counts whatever may have changed.
    changed: watch::Sender<u64>,
    /// Something is to be sent, or due at another time.
    wake: Notify,
}

impl Driver {
    /// Speaks on the loopback interface, and on these too.
    ///
    /// # Errors
    /// As [`Link::open`].
    pub(super) fn start(further: &[Named]) -> Result<Self, OpenError> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new()),
            changed: watch::channel(0).0,
            wake: Notify::new(),
        });
        let driver = Self { shared, tasks: Mutex::default() };
        driver.shared.relink(&interfaces().unwrap_or_default())?;
        for named in further {
            driver.follow(named)?;
        }
        driver.spawn(send(Arc::downgrade(&driver.shared)));
        Ok(driver)
    }

    /// Whether the runtime that the tasks were in is gone.
    pub(super) fn has_ended(&self) -> bool {
        self.tasks().iter().any(AbortHandle::is_finished)
    }

    /// Asks what nobody can answer, and waits to hear it on the loopback interface.
    ///
    /// # Errors
    /// That it does not come back, and why.
    pub(super) async fn check(&self) -> Result<(), String> {
        let name = format!("{}._check.micro.", uuid::Uuid::new_v4());
        let question = packet::query(&name, Kind::Ptr)?;
        let mut changed = self.shared.changed.subscribe();
        let end = Instant::now() + CHECK;
        self.act(|state, _| state.check = Some(name));
        while Instant::now() < end {
            let ask = Send {
                bytes: question.clone(),
                links: vec![LOOPBACK],
                from: From::Own,
                tells: vec![],
            };
            self.act(|state, _| state.outbox.push(Outgoing::ToAll(ask)));
            let is_back = async {
                while self.look(|state| state.check.is_some()) {
                    let _ = changed.changed().await;
                }
            };
            if timeout_at(Instant::now() + CHECK_EVERY, is_back).await.is_ok() {
                return Ok(());
            }
        }
        Err(self.look(|state| state.trouble.clone()).unwrap_or_else(|| {
            format!(
                "a question to all did not come back on the loopback interface within {CHECK:?}"
            )
        }))
    }

    /// Speaks on this interface too, from now on and whenever it is up.
    ///
    /// # Errors
    /// As [`Link::open`].
    pub(super) fn follow(&self, named: &Named) -> Result<(), OpenError> {
        // That is spoken on from the start, and never changes.
        if named.is_loopback() {
            return Ok(());
        }
        let mut state = self.shared.state();
        let is_first = state.follows.is_empty();
        if !state.follows.contains(named) {
            state.follows.push(named.clone());
        }
        drop(state);
        if is_first {
            self.spawn(look(Arc::downgrade(&self.shared)));
        }
        let interfaces = interfaces().map_err(OpenError::NoSocket)?;
        let outcome = self.shared.relink(&interfaces);
        // One of its families is enough, and what others lack is no matter here.
        let nets = named.nets(&interfaces).unwrap_or_default();
        let is_open =
            |net: &Net| self.look(|state| state.links.values().any(|it| it.link.net == *net));
        if nets.is_empty() || nets.iter().any(is_open) { Ok(()) } else { outcome }
    }

    fn spawn(&self, task: impl Future<Output = ()> + std::marker::Send + 'static) {
        self.tasks().push(tokio::spawn(task).abort_handle());
    }

    fn tasks(&self) -> MutexGuard<'_, Vec<AbortHandle>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes something, and sees to what follows.
    pub(super) fn act<T>(&self, act: impl FnOnce(&mut State, Instant) -> T) -> T {
        self.shared.act(act)
    }

    pub(super) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.shared.state())
    }

    /// Tells of every change.
    pub(super) fn changed(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// Waits until what is due now has been sent.
    pub(super) async fn flush(&self) {
        let mut changed = self.changed();
        let queued = self.act(|state, now| {
            state.elapse(now);
            state.outbox.queued()
        });
        while self.look(|state| !state.outbox.has_sent(queued)) && changed.changed().await.is_ok() {
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        for task in self.tasks().iter() {
            task.abort();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn act<T>(&self, act: impl FnOnce(&mut State, Instant) -> T) -> T {
        let result = act(&mut self.state(), Instant::now());
        self.changed.send_modify(|count| *count += 1);
        self.wake.notify_one();
        result
    }
}

impl Shared {
    /// Opens a link on what has come, and closes those on what is gone or has changed.
    fn relink(self: &Arc<Self>, interfaces: &[Interface]) -> Result<(), OpenError> {
        let mut state = self.state();
        let mut nets = vec![Net::LOOPBACK];
        for named in &state.follows {
            // None is one that may be again.
            nets.extend(named.nets(interfaces).unwrap_or_default());
        }
        let before = state.links.len();
        state.links.retain(|_, open| nets.contains(&open.link.net));
        let (mut has_changed, mut outcome) = (state.links.len() < before, Ok(()));
        for net in nets {
            if state.links.values().any(|open| open.link.net == net) {
                continue;
            }
            match Link::open(net) {
                Ok(link) => {
                    let (id, link) = (state.opened, Arc::new(link));
                    let hear = |of: fn(&Link) -> &UdpSocket| {
                        let task = hear(Arc::downgrade(self), link.clone(), id, of);
                        tokio::spawn(task).abort_handle()
                    };
                    let hearing = [hear(|link| &link.shared), hear(|link| &link.own)];
                    state.opened += 1;
                    state.links.insert(id, Open { link, hearing });
                    has_changed = true;
                }
                // One that is not ready keeps nothing from the others.
                Err(error) => outcome = Err(error),
            }
        }
        if has_changed {
            state.relinked(Instant::now(), interfaces);
        }
        drop(state);
        if has_changed {
            self.act(|_, _| ());
        }
        outcome
    }
}

/// Looks which interfaces there are, time and again.
async fn look(shared: Weak<Shared>) {
    loop {
        sleep(LOOK_EVERY).await;
        let Some(shared) = shared.upgrade() else { return };
        let looked = interfaces().map(|interfaces| shared.relink(&interfaces));
        match looked {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "mdns: an interface is not ready"),
            Err(error) => tracing::debug!(%error, "mdns: the interfaces cannot be listed"),
        }
    }
}

/// Hears one of a link's sockets.
async fn hear(shared: Weak<Shared>, link: Arc<Link>, id: LinkId, of: fn(&Link) -> &UdpSocket) {
    let mut buffer = vec![0; MAX_PACKET + 1];
    loop {
        match of(&link).recv_from(&mut buffer).await {
            Ok((length, from)) => {
                let Some(shared) = shared.upgrade() else { return };
                shared.act(|state, now| state.heard(now, &buffer[..length], id, from));
            }
            Err(error) => {
                tracing::debug!(%error, "mdns: a socket failed");
                sleep(PAUSE).await;
            }
        }
    }
}

/// Sends what there is to be sent, when it is due.
async fn send(shared: Weak<Shared>) {
    loop {
        let Some(shared) = shared.upgrade() else { return };
        let (outgoing, wake_at, links) = {
            let mut state = shared.state();
            state.elapse(Instant::now());
            let links = state.links.iter().map(|(id, open)| (*id, open.link.clone()));
            let links: BTreeMap<_, _> = links.collect();
            (state.outbox.take(), state.wake_at(), links)
        };
        let mut trouble = None;
        for outgoing in &outgoing {
            if let Err(error) = outgoing.send(&links).await {
                tracing::debug!(%error, "mdns: a packet could not be sent");
                trouble = Some(error.to_string());
            }
        }
        if !outgoing.is_empty() {
            let mut state = shared.state();
            state.outbox.sent(outgoing.len());
            state.trouble = trouble.or(state.trouble.take());
            drop(state);
            shared.changed.send_modify(|count| *count += 1);
        }
        let due = async {
            match wake_at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shared.wake.notified() => {}
            () = due => {}
        }
    }
}
