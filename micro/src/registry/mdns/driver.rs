//! Sockets and clock for the two machines: one task a socket that hears, one that sends.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
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
    browser::Browser,
    instance::{Instance, is_link_local},
    link::{Link, Named, Net, OpenError, PORT, interfaces},
    packet::{self, Kind, MAX_PACKET, Packet, Query},
    responder::{From, LinkId, Responder, Send},
};

/// How long our own question may take to come back, and how often it is asked meanwhile.
const CHECK: Duration = Duration::from_millis(500);
const CHECK_EVERY: Duration = Duration::from_millis(100);

/// Bytes of answers that wait to be sent; more are not given. Each packet counts some more than what
/// is in it, for what it takes in memory.
const MAX_OUTBOX: usize = 4 * 1024 * 1024;
const PACKET: usize = 128;

/// After an error of a socket: it may go on.
const PAUSE: Duration = Duration::from_millis(50);

/// How often it is looked which interfaces are up, and what their addresses are.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What speaks on the loopback interface.
const LOOPBACK: LinkId = 0;

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

/// What goes on.
#[derive(Debug)]
pub(super) struct State {
    pub(super) responder: Responder,
    pub(super) browser: Browser,
    links: BTreeMap<LinkId, Open>,
    /// How many there have been.
    opened: usize,
    /// The interfaces on which there are to be links, besides loopback, while they are up.
    follows: Vec<Named>,
    outbox: VecDeque<Outgoing>,
    /// What it takes.
    outbox_size: usize,
    /// Packets put into the outbox, and sent, ever.
    queued: u64,
    sent: u64,
    /// Why the last packet that could not be sent could not.
    trouble: Option<String>,
    /// The name in our question that shall come back, until it has.
    check: Option<String>,
}

/// A link and who hears on it. Dropped, they end.
#[derive(Debug)]
struct Open {
    link: Arc<Link>,
    hearing: [AbortHandle; 2],
}

impl Drop for Open {
    fn drop(&mut self) {
        self.hearing.iter().for_each(AbortHandle::abort);
    }
}

#[derive(Debug)]
enum Outgoing {
    ToAll(Send),
    ToOne { bytes: Vec<u8>, link: LinkId, to: SocketAddr },
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
            self.act(|state, _| state.queue(Outgoing::ToAll(ask)));
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
            state.queued
        });
        while self.look(|state| state.sent < queued) && changed.changed().await.is_ok() {}
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

impl State {
    fn new() -> Self {
        Self {
            responder: Responder::default(),
            browser: Browser::new(),
            links: BTreeMap::new(),
            opened: 0,
            follows: Vec::new(),
            outbox: VecDeque::new(),
            outbox_size: 0,
            queued: 0,
            sent: 0,
            trouble: None,
            check: None,
        }
    }

    /// The links are others now.
    fn relinked(&mut self, now: Instant, interfaces: &[Interface]) {
        let Self { responder, links, .. } = self;
        responder.relink(now, |instance| links_of(links, instance, interfaces));
        self.browser.relinked(now, links.values().map(|open| open.link.net.index).collect());
    }

    /// The links on which a node is told of: that of loopback, and those of its address.
    pub(super) fn links_of(&self, instance: &Instance, interfaces: &[Interface]) -> Vec<LinkId> {
        links_of(&self.links, instance, interfaces)
    }

    /// Takes in what came to a link.
    fn heard(&mut self, now: Instant, bytes: &[u8], link: LinkId, from: SocketAddr) {
        let Some(Open { link: heard, .. }) = self.links.get(&link) else { return };
        let index = heard.net.index;
        let Some(from) = heard.net.sender(from) else {
            // Of several networks on one wire, each has a link that hears all.
            let mut links = self.links.values().filter(|open| open.link.net.index == index);
            if links.all(|open| open.link.net.sender(from).is_none()) {
                let why = format!("a packet from {from}, which is not on the link");
                self.browser.leave_out(now, &why);
            }
            return;
        };
        match packet::read(bytes) {
            Err(why) => self.browser.leave_out(now, &format!("a packet from {from}: {why}")),
            Ok(Packet::Query(query)) => self.asked(now, query, link, from),
            Ok(Packet::Response(mut records)) => {
                packet::set_scope(&mut records, index);
                self.responder.told(now, &records, link, from.ip());
                let on_wire = || self.links.values().filter(|open| open.link.net.index == index);
                let is_near = |ip: IpAddr| on_wire().any(|open| open.link.net.is_neighbour(ip));
                let skips = |name: &str| self.responder.is_leaving(name);
                self.browser.told(now, &records, is_near, skips);
            }
        }
    }

    fn asked(&mut self, now: Instant, mut query: Query, link: LinkId, from: SocketAddr) {
        if self.check.is_some()
            && query.questions.iter().any(|q| Some(&q.name) == self.check.as_ref())
        {
            self.check = None;
        }
        // From this port asks one who hears what is sent to all, and wants no id (RFC 6762, section
        // 18.1); from any other one who does not (section 6.7), as go-micro's clients.
        let hears_all = from.port() == PORT && !query.questions.iter().any(|q| q.unicast);
        if hears_all {
            query.id = 0;
        }
        for bytes in self.responder.asked(&query, link, from.ip()) {
            if self.outbox_size + PACKET + bytes.len() > MAX_OUTBOX {
                return self.browser.leave_out(now, "a question: too many answers wait to be sent");
            }
            self.queue(if hears_all {
                Outgoing::ToAll(Send {
                    bytes,
                    links: vec![link],
                    from: From::Shared,
                    tells: vec![],
                })
            } else {
                Outgoing::ToOne { bytes, link, to: from }
            });
        }
    }

    /// Follows a service; its nodes in this process are known at once.
    pub(super) fn browse(&mut self, now: Instant, service: &str) -> Instant {
        let is_new = !self.browser.is_browsed(service);
        let since = self.browser.browse(now, service);
        if is_new {
            for records in self.responder.announced(service) {
                self.browser.told(now, &records, |_| true, |_| false);
            }
        }
        since
    }

    /// Does what is due by now.
    fn elapse(&mut self, now: Instant) {
        for send in self.responder.elapsed(now) {
            self.browser.told(now, &send.tells, |_| true, |_| false);
            self.queue(Outgoing::ToAll(send));
        }
        self.browser.elapsed(now);
        for (name, kind) in self.browser.take_questions() {
            if let Ok(bytes) = packet::query(&name, kind) {
                let links = self.links.keys().copied().collect();
                self.queue(Outgoing::ToAll(Send { bytes, links, from: From::Own, tells: vec![] }));
            }
        }
    }

    fn queue(&mut self, outgoing: Outgoing) {
        self.queued += 1;
        self.outbox_size += PACKET + outgoing.bytes().len();
        self.outbox.push_back(outgoing);
    }

    fn wake_at(&self) -> Option<Instant> {
        self.responder.wake_at().into_iter().chain(self.browser.wake_at()).min()
    }
}

fn links_of(
    links: &BTreeMap<LinkId, Open>,
    instance: &Instance,
    interfaces: &[Interface],
) -> Vec<LinkId> {
    let named = Named::Address(instance.ip, instance.scope);
    let nets = named.nets(interfaces).unwrap_or_default();
    let is_told = |id: LinkId, net: &Net| {
        // What is link-local would be of another interface there.
        if id == LOOPBACK { !is_link_local(instance.ip) } else { nets.contains(net) }
    };
    let told = links.iter().filter(|(id, open)| is_told(**id, &open.link.net));
    told.map(|(id, _)| *id).collect()
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
            state.outbox_size = 0;
            let links = state.links.iter().map(|(id, open)| (*id, open.link.clone()));
            let links: BTreeMap<_, _> = links.collect();
            (std::mem::take(&mut state.outbox), state.wake_at(), links)
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
            state.sent += outgoing.len() as u64;
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

impl Outgoing {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::ToAll(Send { bytes, .. }) | Self::ToOne { bytes, .. } => bytes,
        }
    }

    /// A link that is closed by now gets nothing.
    async fn send(&self, links: &BTreeMap<LinkId, Arc<Link>>) -> io::Result<()> {
        match self {
            Self::ToOne { bytes, link, to } => match links.get(link) {
                Some(link) => link.send(bytes, From::Shared, Some(*to)).await,
                None => Ok(()),
            },
            Self::ToAll(Send { bytes, links: to, from, .. }) => {
                let mut outcome = Ok(());
                for link in to.iter().filter_map(|id| links.get(id)) {
                    // One link that is down keeps nothing from the others.
                    outcome = link.send(bytes, *from, None).await.and(outcome);
                }
                outcome
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{super::Node, packet::Question, responder::Standing},
        *,
    };

    #[tokio::test(start_paused = true)]
    async fn answers_that_wait_are_bounded_in_bytes() {
        let mut node = Node::new("greeter", "a", "127.0.0.1:1");
        let mut rng = fastrand::Rng::with_seed(7);
        let noise = (0..25_000).map(|_| char::from(rng.u8(b'!'..b'~'))).collect();
        node.metadata.insert("x".to_owned(), noise);
        let mut state = State::new();
        let lease = state.responder.register(Instant::now(), &node, vec![0]).unwrap();
        while state.responder.standing(lease) != Standing::Announced {
            sleep_until(state.responder.wake_at().expect("it is to be announced")).await;
            state.responder.elapsed(Instant::now());
        }
        let question =
            Question { name: "greeter.micro.".to_owned(), kind: Kind::Ptr, unicast: false };
        let query = Query { id: 7, questions: vec![question], claims: Vec::new() };
        for _ in 0..1000 {
            let from = SocketAddr::from(([127, 0, 0, 1], 7));
            state.asked(Instant::now(), query.clone(), 0, from);
        }
        let bytes: usize = state.outbox.iter().map(|outgoing| outgoing.bytes().len()).sum();
        let one = state.outbox[0].bytes().len();
        assert!(one > 20_000, "{one}");
        assert!(bytes <= MAX_OUTBOX && bytes + 2 * one > MAX_OUTBOX, "{bytes}");
    }
}
