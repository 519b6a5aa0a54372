//! What is known from the bus, and what is to be said on it, without IO.
//!
//! A bus keeps nothing: every node says that it is there again and again, and answers who asks. So the
//! time after which a node is believed to be gone is the listener's, and runs only as long as the bus
//! is known to carry what is said: who is cut off hears nobody, and forgets nobody for it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use fastrand::Rng;
use tokio::time::Instant;

use super::{
    super::{
        Entry, Event, Lease, Malformed, Node, RenewError,
        format::gomicro::{self, Told},
        left_out::LeftOut,
        size,
        store::{self, Since, Store},
    },
    known::{Due, Held, Key, Known},
};

/// How long a node is believed in that does not say its TTL: go-micro's own, whose nodes say that they
/// are there every 30 s.
pub(super) const FOREIGN_TTL: Duration = Duration::from_secs(90);

/// What is taken for a TTL that others say.
pub(super) const MIN_TTL: Duration = Duration::from_secs(1);
pub(super) const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// In what time all is said again on a new connection, each thing at a moment of its own: a server that
/// comes back has all of a fleet connected within moments. Who asks meanwhile is answered at once.
const AGAIN: Duration = Duration::from_millis(500);

/// How long a service is followed that nobody reads or watches any more.
const IDLE: Duration = Duration::from_secs(130);

/// Changes kept for watches that lag, each with its record.
const HISTORY: usize = 1024;

/// What may be kept of what others say besides nodes.
const MAX_UNREADABLE: usize = 64;
const MAX_SERVICES: usize = 4096;

/// Thirty years: the bus, not the store, knows when a node has been silent for too long.
const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// What is to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Say {
    /// That a node is there, to all.
    Create(Arc<Node>, Duration),
    /// That a node has left, to all.
    Delete(Arc<Node>),
    /// What a node is, to one who asked.
    Answer(String, Arc<Node>, Duration),
    /// The question for a service's nodes.
    Get(String),
    /// The question for all nodes of all services.
    List,
}

#[derive(Debug)]
pub(super) struct Bus {
    store: Store,
    known: Known,
    /// What was said last of our own nodes. One that is announced anew is kept only once all have been
    /// told; who asks before is not to hear the old word after the new one.
    said: HashMap<Key, (Arc<Node>, Duration)>,
    /// The services that are followed.
    browses: HashMap<String, Browse>,
    /// Records that cannot be read, each until when.
    unreadable: BTreeMap<Key, (Malformed, Instant)>,
    /// Names of services, and when each was last told in an answer.
    services: BTreeMap<String, Instant>,
    is_connected: bool,
    /// When the last was published of all that is known to have been carried.
    proven: Option<Instant>,
    say: Vec<Say>,
    /// What is to be said again, and when.
    again: Vec<(Instant, Again)>,
    rng: Rng,
    left_out: LeftOut,
    crowded_out: LeftOut,
}

#[derive(Debug)]
enum Again {
    /// That a node of ours is there.
    Own(Key),
    /// The question for a service's nodes.
    Browse(String),
}

#[derive(Debug)]
struct Browse {
    watches: usize,
    /// When it was last read, or watched.
    used: Instant,
}

impl Bus {
    pub(super) fn new() -> Self {
        Self {
            store: Store::new(HISTORY),
            known: Known::default(),
            said: HashMap::new(),
            browses: HashMap::new(),
            unreadable: BTreeMap::new(),
            services: BTreeMap::new(),
            is_connected: false,
            proven: None,
            say: Vec::new(),
            again: Vec::new(),
            rng: Rng::new(),
            left_out: LeftOut::by("nats"),
            crowded_out: LeftOut::by("nats"),
        }
    }

    /// The bus is there, possibly after a time in which it was not: all say again who they are.
    pub(super) fn connected(&mut self, now: Instant) {
        self.is_connected = true;
        self.proven = None;
        self.known.all_heard(now);
        for (_, until) in self.unreadable.values_mut() {
            *until = now + FOREIGN_TTL;
        }
        self.store.forget_history();
        self.say.clear();
        let own = self.known.own().map(|held| (held.node.service.clone(), held.node.id.clone()));
        let browses = self.browses.keys().cloned().map(Again::Browse);
        let rng = &mut self.rng;
        let moment = |again| (now + AGAIN.mul_f64(rng.f64()), again);
        self.again = own.map(Again::Own).chain(browses).map(moment).collect();
    }

    fn say_again(&mut self, now: Instant) {
        for (_, again) in self.again.extract_if(.., |(at, _)| *at <= now).collect::<Vec<_>>() {
            match again {
                // It may have left since.
                Again::Own(key) => {
                    let held = self.known.get(&key).filter(|held| held.is_own);
                    let said = held.map(|held| self.said_of(held));
                    self.say.extend(said.map(|(node, ttl)| Say::Create(node, ttl)));
                }
                Again::Browse(service) if self.browses.contains_key(&service) => {
                    self.say.push(Say::Get(service));
                }
                Again::Browse(_) => {}
            }
        }
    }

    /// The bus is gone, or something may have been missed on it.
    pub(super) fn disconnected(&mut self) {
        self.is_connected = false;
        self.say.clear();
        self.again.clear();
    }

    /// What was published then has come back.
    pub(super) fn proven(&mut self, published: Instant) {
        self.proven = self.proven.max(Some(published));
    }

    /// What is to be published now.
    pub(super) fn take_say(&mut self) -> Vec<Say> {
        std::mem::take(&mut self.say)
    }

    /// Follows a service from now on, if it does not already.
    pub(super) fn browse(&mut self, now: Instant, service: &str) {
        let new = || Browse { watches: 0, used: now };
        self.browses.entry(service.to_owned()).or_insert_with(new).used = now;
    }

    /// A watch on a service begins, or ends.
    pub(super) fn watched(&mut self, now: Instant, service: &str, begins: bool) {
        self.browse(now, service);
        if let Some(browse) = self.browses.get_mut(service) {
            browse.watches =
                if begins { browse.watches + 1 } else { browse.watches.saturating_sub(1) };
        }
    }

    pub(super) fn entries(&self, service: &str) -> (u64, Vec<Entry>) {
        (self.store.revision(), self.store.entries(service))
    }

    /// The records of a service that cannot be read.
    pub(super) fn malformed(&self, service: &str) -> Vec<Malformed> {
        let of_service = self.unreadable.iter().filter(|((of, _), _)| of == service);
        of_service.map(|(_, (malformed, _))| malformed.clone()).collect()
    }

    pub(super) fn since(&self, service: &str, after: u64) -> Since {
        self.store.since(service, after)
    }

    pub(super) fn revision(&self) -> u64 {
        self.store.revision()
    }

    /// Our own services, and those that others have told of since then.
    pub(super) fn services(&self, since: Instant) -> impl Iterator<Item = &str> {
        let lately = move |(_, told): &(&String, &Instant)| **told >= since;
        let told = self.services.iter().filter(lately).map(|(service, _)| service.as_str());
        told.chain(self.known.own().map(|held| held.node.service.as_str()))
    }

    /// This is published now.
    pub(super) fn says(&mut self, say: &Say) {
        if let Say::Create(node, ttl) = say {
            let key = (node.service.clone(), node.id.clone());
            if self.known.get(&key).is_some_and(|held| held.is_own) {
                self.said.insert(key, (node.clone(), *ttl));
            }
        }
    }

    fn said_of(&self, held: &Held) -> (Arc<Node>, Duration) {
        let said = self.said.get(&(held.node.service.clone(), held.node.id.clone()));
        said.cloned().unwrap_or_else(|| (held.node.clone(), held.ttl))
    }

    /// A node of ours that has been announced.
    pub(super) fn register(&mut self, now: Instant, node: &Node, ttl: Duration) -> Lease {
        let ttl = ttl.min(NEVER);
        let lease = self.store.put(node, NEVER, now);
        let size = size::of_node(node);
        self.said.remove(&(node.service.clone(), node.id.clone()));
        self.known.insert(Held::new(now, Arc::new(node.clone()), lease, ttl, true, size));
        lease
    }

    /// Whether the node's own record stands as written under this lease.
    pub(super) fn standing(
        &mut self,
        now: Instant,
        node: &Node,
        lease: Lease,
    ) -> Result<(), RenewError> {
        self.store.renew(node, lease, now)
    }

    /// A node of ours has said again that it is there.
    pub(super) fn renewed(
        &mut self,
        now: Instant,
        node: &Node,
        lease: Lease,
    ) -> Result<(), RenewError> {
        self.standing(now, node, lease)?;
        let key = (node.service.clone(), node.id.clone());
        self.known.heard(now, &key, self.ttl(node));
        Ok(())
    }

    /// The TTL that the record was registered with.
    pub(super) fn ttl(&self, node: &Node) -> Duration {
        let key = (node.service.clone(), node.id.clone());
        self.known.get(&key).map_or(FOREIGN_TTL, |held| held.ttl)
    }

    /// A node of ours leaves. Whether that is to be told: not if another record is in its place. One
    /// that is gone already is told of again, since the first time may not have been heard.
    pub(super) fn deregister(&mut self, node: &Node, lease: Lease) -> bool {
        let key = (node.service.clone(), node.id.clone());
        match self.known.get(&key) {
            Some(held) if held.lease != lease => return false,
            Some(_) => self.forget(&key),
            None => {}
        }
        true
    }

    /// Hears what is said to all.
    pub(super) fn heard(&mut self, now: Instant, bytes: &[u8], ttl: Option<Duration>) {
        let event = gomicro::decode_event(bytes, |service| self.follows(service));
        let event = match event {
            Ok(event) => event,
            Err(why) => return self.left_out.tell(now, &format!("what is said to all: {why}")),
        };
        let Some(told) = event.told else { return };
        match event.action.as_str() {
            "create" | "update" | "put" => self.told(now, told, ttl),
            "delete" => self.deleted(told),
            _ => {}
        }
    }

    /// Hears an answer to a question of ours.
    pub(super) fn answered(&mut self, now: Instant, bytes: &[u8], ttl: Option<Duration>) {
        match gomicro::decode_told(bytes, |service| self.follows(service)) {
            Ok(told) => {
                self.listed(now, &told.service);
                self.told(now, told, ttl);
            }
            Err(why) => self.left_out.tell(now, &format!("an answer: {why}")),
        }
    }

    /// Hears a question, to be answered to this subject.
    pub(super) fn asked(&mut self, now: Instant, bytes: &[u8], to: &str) {
        let event = match gomicro::decode_event(bytes, |_| false) {
            Ok(event) => event,
            Err(why) => return self.left_out.tell(now, &format!("a question: {why}")),
        };
        let service = event.told.map(|told| told.service);
        let is_meant = |held: &&Held| match event.action.as_str() {
            "get" => service.as_ref() == Some(&held.node.service),
            "list" => true,
            _ => false,
        };
        let own = self.known.own().filter(is_meant).map(|held| self.said_of(held));
        let answers = own.map(|(node, ttl)| Say::Answer(to.to_owned(), node, ttl));
        self.say.extend(answers.collect::<Vec<_>>());
    }

    /// When [`elapsed`](Self::elapsed) is due. Without a bus never: time stands still.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        if !self.is_connected {
            return None;
        }
        let idle = self.browses.values().filter(|it| it.watches == 0).map(|it| it.used + IDLE);
        let unreadable = self.unreadable.values().map(|(_, until)| *until);
        let again = self.again.iter().map(|(at, _)| *at);
        idle.chain(unreadable).chain(again).chain(self.known.next_due()).min()
    }

    /// Asks who is due, and forgets who has been silent for too long.
    pub(super) fn elapsed(&mut self, now: Instant) {
        if !self.is_connected {
            return;
        }
        self.say_again(now);
        while let Some(due) = self.known.take_due(now, self.proven) {
            match due {
                Due::Forget(key) => self.forget(&key),
                Due::Ask(service) => {
                    // One question brings answers of all its nodes.
                    let question = Say::Get(service);
                    if !self.say.contains(&question) {
                        self.say.push(question);
                    }
                }
            }
        }
        let ended: Vec<_> =
            self.unreadable.iter().filter(|(_, (_, until))| *until <= now).collect();
        let ended: Vec<_> = ended.into_iter().map(|(key, _)| key.clone()).collect();
        for key in ended {
            self.forget_unreadable(&key);
        }
        let is_idle = |it: &Browse| it.watches == 0 && now >= it.used + IDLE;
        let idle: Vec<_> = self.browses.iter().filter(|(_, browse)| is_idle(browse)).collect();
        let idle: Vec<_> = idle.into_iter().map(|(service, _)| service.clone()).collect();
        for service in idle {
            self.browses.remove(&service);
            for key in self.known.others_of(&service) {
                self.forget(&key);
            }
            self.unreadable.retain(|(of, _), _| *of != service);
        }
    }

    /// Whether the service's nodes are of interest: because somebody looks for them, or because one of
    /// them may claim the id of ours.
    fn follows(&self, service: &str) -> bool {
        self.browses.contains_key(service)
            || self.known.own().any(|held| held.node.service == service)
    }

    fn told(&mut self, now: Instant, told: Told, ttl: Option<Duration>) {
        let ttl = ttl.map_or(FOREIGN_TTL, |ttl| ttl.clamp(MIN_TTL, MAX_TTL));
        for node in told.nodes {
            match node {
                Ok(node) => self.put(now, node, ttl),
                Err(gomicro::Unreadable { id, reason }) => {
                    self.unreadable(now, (told.service.clone(), id), &reason);
                }
            }
        }
    }

    fn put(&mut self, now: Instant, node: Node, ttl: Duration) {
        let key = (node.service.clone(), node.id.clone());
        match self.known.get(&key) {
            // Only its registration keeps our own.
            Some(held) if *held.node == node && held.is_own => return,
            Some(held) if *held.node == node && !self.unreadable.contains_key(&key) => {
                return self.known.heard(now, &key, ttl);
            }
            None if !self.browses.contains_key(&node.service) => return,
            _ => {}
        }
        let size = match size::of_record(&[], &node) {
            Ok(size) => size,
            Err(why) => return self.unreadable(now, key, &why),
        };
        if !self.known.has_room(&key, size) {
            let (service, id) = &key;
            let why = format!("{id:?} of {service:?}: there is no room for so many nodes");
            return self.crowded_out.tell(now, &why);
        }
        self.unreadable.remove(&key);
        let lease = self.store.put(&node, NEVER, now);
        self.known.insert(Held::new(now, Arc::new(node), lease, ttl, false, size));
    }

    /// Hears that nodes have left. One whose record now names another address is not meant.
    fn deleted(&mut self, told: Told) {
        for node in told.nodes {
            let (id, address) = match node {
                Ok(node) => (node.id, Some(node.address)),
                Err(unreadable) => (unreadable.id, None),
            };
            let key = (told.service.clone(), id);
            if let Some(held) = self.known.get(&key)
                && address.is_some_and(|address| address == held.node.address)
            {
                self.forget(&key);
            }
            self.forget_unreadable(&key);
        }
    }

    /// Tells of a record that cannot be read. A node that is known by this id stays so: anybody may
    /// have sent it.
    fn unreadable(&mut self, now: Instant, key: Key, reason: &str) {
        if !self.browses.contains_key(&key.0) {
            return;
        }
        // It may quote the record, and goes into a log.
        let reason = reason.replace(char::is_control, " ");
        let record = Malformed { key: store::key(&key.0, &key.1), reason };
        let earlier = self.unreadable.get(&key);
        let is_full = earlier.is_none() && self.unreadable.len() >= MAX_UNREADABLE;
        if key.1.is_empty() || is_full {
            let why = format!("{:?}: {}", record.key, record.reason);
            return self.left_out.tell(now, &why);
        }
        if earlier.is_none_or(|(earlier, _)| *earlier != record) {
            self.store.tell(&key.0, Event::Malformed(record.clone()));
        }
        self.unreadable.insert(key, (record, now + FOREIGN_TTL));
    }

    fn listed(&mut self, now: Instant, service: &str) {
        if self.services.len() >= MAX_SERVICES {
            self.services.retain(|_, told| now < *told + FOREIGN_TTL);
        }
        if self.services.len() < MAX_SERVICES || self.services.contains_key(service) {
            self.services.insert(service.to_owned(), now);
        } else {
            self.left_out.tell(now, "there are too many services");
        }
    }

    fn forget(&mut self, key: &Key) {
        self.said.remove(key);
        if let Some(held) = self.known.remove(key) {
            self.store.delete(&held.node, held.lease);
        }
    }

    fn forget_unreadable(&mut self, key: &Key) {
        if let Some((record, _)) = self.unreadable.remove(key)
            && self.known.get(key).is_none()
        {
            self.store.tell(&key.0, Event::Delete(record.key));
        }
    }

    /// That all that is kept agrees, and is within its bounds.
    #[cfg(test)]
    pub(super) fn check(&self) {
        self.known.check();
        let mut services: Vec<_> = self.store.services();
        services.dedup();
        let entries: usize = services.iter().map(|it| self.store.entries(it).len()).sum();
        assert_eq!(entries, self.known.len(), "the store holds what is known");
        assert!(self.said.keys().all(|key| self.known.get(key).is_some()));
        assert!(self.unreadable.len() <= MAX_UNREADABLE && self.services.len() <= MAX_SERVICES);
    }
}

#[cfg(test)]
mod tests;
