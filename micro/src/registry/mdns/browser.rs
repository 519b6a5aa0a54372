//! The nodes of others on the network, and our own as others see them, without IO: what is asked,
//! what is believed, and for how long (RFC 6762, sections 5.2 and 10).

mod known;
mod unreadable;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use self::{
    known::{Due, Known, Room, TTL},
    unreadable::Unreadable,
};
use super::{
    super::{
        Entry, Event, Malformed,
        left_out::LeftOut,
        size,
        store::{self, Since, Store},
    },
    instance::{Instance, is_link_local, service_name},
    packet::{self, Data, Kind, Record, SERVICES},
};

/// From the first question for a service to the second; each wait that follows is twice the last, up
/// to the second figure: a node whose announcements were all lost is found by then.
const FIRST_AGAIN: Duration = Duration::from_secs(1);
const LAST_AGAIN: Duration = Duration::from_secs(60);

/// How long a service is followed that nobody watches any more.
const IDLE: Duration = Duration::from_secs(130);

/// How long the rest of a node is waited for that told only a part of itself, and when that is asked
/// for once more.
const PARTIAL: Duration = Duration::from_secs(3);
const PARTIAL_AGAIN: Duration = Duration::from_secs(1);

/// Changes kept for watches that lag, each with its record.
const HISTORY: usize = 128;

/// What may be kept of what others say besides nodes: nodes told in part, and names of services. A
/// packet is taken a bite at a time.
const MAX_PARTIALS: usize = 256;
const MAX_SERVICES: usize = 4096;
const MAX_BITE: usize = 256;

/// Thirty years: the browser, not the store, knows when a node has been silent for too long.
const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

#[derive(Debug)]
pub(super) struct Browser {
    store: Store,
    /// The services that are followed.
    browses: HashMap<String, Browse>,
    known: Known,
    unreadable: Unreadable,
    /// By the instance's name.
    partials: HashMap<String, Partial>,
    /// The indexes of the interfaces that are heard.
    scopes: BTreeSet<u32>,
    /// Names of services, and when each was last told.
    services: BTreeMap<String, Instant>,
    /// To be asked now.
    questions: Vec<(String, Kind)>,
    /// What is nobody's, or makes no sense.
    left_out: LeftOut,
    /// Nodes for whom there was no room, a count of their own: junk hides nothing of that.
    crowded_out: LeftOut,
}

#[derive(Debug)]
struct Browse {
    since: Instant,
    next: Instant,
    wait: Duration,
    watches: usize,
    /// When it was last read, or watched.
    used: Instant,
}

#[derive(Debug, Clone)]
struct Partial {
    first: Instant,
    told: Told,
    asked_again: bool,
}

/// An address, and the interface of a link-local one.
type Address = (IpAddr, u32);

/// What is known of an instance so far.
#[derive(Debug, Clone, Default)]
struct Told {
    srv: Option<(u16, String)>,
    text: Option<Vec<u8>>,
    address: Option<Address>,
    is_gone: bool,
}

impl Browser {
    pub(super) fn new() -> Self {
        Self {
            store: Store::new(HISTORY),
            browses: HashMap::new(),
            known: Known::default(),
            unreadable: Unreadable::default(),
            partials: HashMap::new(),
            scopes: BTreeSet::new(),
            services: BTreeMap::new(),
            questions: Vec::new(),
            left_out: LeftOut::by("mdns"),
            crowded_out: LeftOut::by("mdns"),
        }
    }

    /// Follows a service from now on, if it does not already. Returns since when.
    pub(super) fn browse(&mut self, now: Instant, service: &str) -> Instant {
        let browse = self.browses.entry(service.to_owned()).or_insert_with(|| Browse {
            since: now,
            next: now,
            wait: FIRST_AGAIN,
            watches: 0,
            used: now,
        });
        browse.used = now;
        browse.since
    }

    pub(super) fn is_browsed(&self, service: &str) -> bool {
        self.browses.contains_key(service)
    }

    /// A watch on a followed service begins, or ends.
    pub(super) fn watched(&mut self, now: Instant, service: &str, begins: bool) {
        if begins {
            self.browse(now, service);
        }
        if let Some(browse) = self.browses.get_mut(service) {
            browse.used = now;
            browse.watches =
                if begins { browse.watches + 1 } else { browse.watches.saturating_sub(1) };
        }
    }

    /// Asks for a service's nodes now, besides the questions that are asked in any case.
    pub(super) fn ask(&mut self, service: &str) {
        self.questions.push((service_name(service), Kind::Ptr));
    }

    /// Asks for the names of all services.
    pub(super) fn ask_services(&mut self) {
        self.questions.push((SERVICES.to_owned(), Kind::Ptr));
    }

    /// The links are others now, of these interfaces: asks for all that is followed, as at the
    /// beginning.
    pub(super) fn relinked(&mut self, now: Instant, scopes: BTreeSet<u32>) {
        self.scopes = scopes;
        for browse in self.browses.values_mut() {
            (browse.next, browse.wait) = (now, FIRST_AGAIN);
        }
    }

    /// The questions to be asked now.
    pub(super) fn take_questions(&mut self) -> Vec<(String, Kind)> {
        std::mem::take(&mut self.questions)
    }

    pub(super) fn entries(&self, service: &str) -> (u64, Vec<Entry>) {
        (self.store.revision(), self.store.entries(service))
    }

    /// The records of a service that cannot be read.
    pub(super) fn malformed(&self, service: &str) -> Vec<Malformed> {
        self.unreadable.of_service(service)
    }

    pub(super) fn since(&self, service: &str, after: u64) -> Since {
        self.store.since(service, after)
    }

    pub(super) fn revision(&self) -> u64 {
        self.store.revision()
    }

    /// The services told of since then.
    pub(super) fn services(&self, since: Instant) -> impl Iterator<Item = &str> {
        let lately = move |(_, told): &(&String, &Instant)| **told >= since;
        self.services.iter().filter(lately).map(|(service, _)| service.as_str())
    }

    /// That all that is kept agrees, and is within its bounds.
    #[cfg(test)]
    pub(super) fn check(&self) {
        self.known.check();
        let entries: usize = self.browses.keys().map(|name| self.entries(name).1.len()).sum();
        assert_eq!(entries, self.known.len(), "the store holds what is known");
        let malformed: usize = self.browses.keys().map(|name| self.malformed(name).len()).sum();
        assert_eq!(malformed, self.unreadable.len(), "of no service but those followed");
        assert!(malformed <= unreadable::MAX_UNREADABLE);
        assert!(self.partials.len() <= MAX_PARTIALS && self.services.len() <= MAX_SERVICES);
    }

    /// When [`elapsed`](Self::elapsed) is due.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let browses = self.browses.values().map(Browse::due);
        let partials = self.partials.values().map(Partial::due);
        let ends = self.known.next_due().into_iter().chain(self.unreadable.next_end());
        browses.chain(partials).chain(ends).min()
    }

    /// Asks what is due, and forgets who has been silent for too long.
    pub(super) fn elapsed(&mut self, now: Instant) {
        let idle: Vec<_> = self.browses.iter().filter(|(_, browse)| browse.is_idle(now)).collect();
        let idle: Vec<_> = idle.into_iter().map(|(service, _)| service.clone()).collect();
        for service in idle {
            self.forget_service(&service);
        }
        for (service, browse) in &mut self.browses {
            if browse.next <= now {
                browse.next = now + browse.wait;
                browse.wait = (browse.wait * 2).min(LAST_AGAIN);
                self.questions.push((service_name(service), Kind::Ptr));
            }
        }
        self.elapsed_known(now);
        self.partials.retain(|name, partial| {
            if !partial.asked_again && partial.due() <= now {
                partial.asked_again = true;
                self.questions.push((name.clone(), Kind::Any));
            }
            now < partial.first + PARTIAL
        });
    }

    fn elapsed_known(&mut self, now: Instant) {
        while let Some(due) = self.known.take_due(now) {
            match due {
                Due::Forget(name) => self.forget(&name),
                Due::Ask(service) => {
                    // One question brings answers of all its nodes.
                    let question = (service, Kind::Ptr);
                    if !self.questions.contains(&question) {
                        self.questions.push(question);
                    }
                }
            }
        }
        for name in self.unreadable.ended(now) {
            self.forget(&name);
        }
    }

    /// Takes in a packet's records, but for what `skips` says of an instance's name. Of several
    /// addresses one that `is_near` is taken.
    pub(super) fn told(
        &mut self,
        now: Instant,
        records: &[Record],
        is_near: impl Fn(IpAddr) -> bool,
        skips: impl Fn(&str) -> bool,
    ) {
        let mut told: BTreeMap<&str, Told> = BTreeMap::new();
        let mut hosts: Vec<(&str, Address)> = Vec::new();
        for record in records {
            let (name, gone) = (record.name.as_str(), record.ttl == 0);
            match &record.data {
                Data::Ptr(instance) if name == SERVICES => self.listed(now, instance),
                Data::Ptr(instance) => {
                    if self.follows(instance) && self.is_service(name) {
                        told.entry(instance).or_default().is_gone |= gone;
                    }
                }
                Data::Address { ip, scope } => hosts.push((name, (*ip, *scope))),
                Data::Srv { port, host } if self.follows(name) => {
                    let told = told.entry(name).or_default();
                    told.srv = Some((*port, host.clone()));
                    told.is_gone |= gone;
                }
                Data::Text(text) if self.follows(name) => {
                    let told = told.entry(name).or_default();
                    told.text = Some(text.clone());
                    told.is_gone |= gone;
                }
                Data::Srv { .. } | Data::Text(_) => {}
            }
            if told.len() > MAX_BITE || hosts.len() > MAX_BITE {
                self.leave_out(now, "a packet tells of more nodes than are taken from one");
                break;
            }
        }
        // go-micro takes IPv4 first; what is link-local says least.
        hosts.sort_by_key(|(_, (ip, _))| (!is_near(*ip), is_link_local(*ip), ip.is_ipv6()));
        let mut told: Vec<_> =
            told.into_iter().map(|(name, told)| (name.to_owned(), told)).collect();
        // What an address was missing for may be told by its host alone.
        let waits = |(name, partial): &(&String, &Partial)| {
            partial.waits_for(&hosts) && told.iter().all(|(told, _)| told != *name)
        };
        let waiting: Vec<_> = self.partials.iter().filter(waits).collect();
        let waiting: Vec<_> = waiting.iter().map(|(name, _)| (*name).clone()).collect();
        told.extend(waiting.into_iter().map(|name| (name, Told::default())));
        for (name, told) in told {
            if !skips(&name) {
                self.instance_told(now, name, told, &hosts);
            }
        }
    }

    fn listed(&mut self, now: Instant, instance: &str) {
        if let Some(service) = packet::listed(instance) {
            if self.services.len() >= MAX_SERVICES {
                self.services.retain(|_, told| now < *told + TTL);
            }
            let has_room = self.services.len() < MAX_SERVICES;
            if has_room || self.services.contains_key(service) {
                self.services.insert(service.to_owned(), now);
            } else {
                self.leave_out(now, "there are too many services");
            }
        }
    }

    /// Whether an instance of this name may be of a service that is followed.
    fn follows(&self, instance: &str) -> bool {
        self.split(instance).is_some()
    }

    /// The id and the followed service that an instance's name is made of: of two services the one
    /// with the longer name.
    fn split<'a>(&self, instance: &'a str) -> Option<(&'a str, &'a str)> {
        let dots = instance.match_indices('.').map(|(at, _)| at);
        let mut halves = dots.map(|at| (&instance[..at], &instance[at + 1..]));
        let (id, service) = halves.find(|(_, service)| self.is_service(service))?;
        Some((id, service.strip_suffix(".micro.")?))
    }

    fn is_service(&self, name: &str) -> bool {
        name.strip_suffix(".micro.").is_some_and(|service| self.browses.contains_key(service))
    }

    fn instance_told(
        &mut self,
        now: Instant,
        name: String,
        mut told: Told,
        hosts: &[(&str, Address)],
    ) {
        let partial = self.partials.remove(&name);
        if told.is_gone {
            self.forget(&name);
            return;
        }
        let first = partial.as_ref().map_or(now, |partial| partial.first);
        let asked_again = partial.as_ref().is_some_and(|partial| partial.asked_again);
        let is_new = partial.is_none();
        if let Some(Partial { told: earlier, .. }) = partial {
            told.srv = told.srv.or(earlier.srv);
            told.text = told.text.or(earlier.text);
            told.address = earlier.address;
        }
        if let Some((_, host)) = &told.srv {
            let mut of_host = hosts.iter().filter(|(name, _)| name == host).map(|(_, at)| *at);
            // One that is heard on two links stays where it is; on which of them it was heard this
            // time is no matter while the first is there.
            let known = self.known.get(&name).map(|it| (it.instance.ip, it.instance.scope));
            let is_there = |scope| self.scopes.contains(&scope);
            let same = known.filter(|(ip, scope)| {
                let mut of_host = of_host.clone();
                of_host.any(|at| at == (*ip, *scope) || at.0 == *ip && is_there(*scope))
            });
            told.address = same.or(of_host.next()).or(told.address);
        }
        match told {
            Told { srv: Some((port, host)), text: Some(text), address: Some(at), .. } => {
                let (service, (ip, scope)) = (String::new(), at);
                self.complete(now, Instance { name, service, host, port, ip, scope, text });
            }
            // A name alone, of one that is known, says nothing new.
            Told { srv: None, text: None, .. } if self.known.get(&name).is_some() => {}
            told if self.partials.len() < MAX_PARTIALS => {
                if is_new {
                    self.questions.push((name.clone(), Kind::Any));
                }
                self.partials.insert(name, Partial { first, told, asked_again });
            }
            _ => self.leave_out(now, "too many nodes have told only a part of themselves"),
        }
    }

    fn complete(&mut self, now: Instant, mut instance: Instance) {
        if let Some(known) = self.known.get(&instance.name) {
            instance.service.clone_from(&known.instance.service);
            if known.instance == instance && !self.unreadable.contains(&instance.name) {
                return self.known.heard(now, &instance.name);
            }
        }
        let node = match instance.node() {
            Ok(node) if self.browses.contains_key(&node.service) => node,
            // Its name only looks like one of a service that is followed.
            Ok(_) => return,
            Err(why) => return self.unreadable(now, &instance.name, &why),
        };
        let size = match size::of_record(&instance.text, &node) {
            Ok(size) => size,
            Err(why) => return self.unreadable(now, &instance.name, &why),
        };
        instance.service = service_name(&node.service);
        if !self.make_room(now, &instance.name, size) {
            return;
        }
        if let Some((service, key)) = self.unreadable.remove(&instance.name) {
            self.store.tell(&service, Event::Delete(key));
        }
        // The same name may have been another service's: `a.b` of `c`, and `a` of `b.c`.
        let earlier = self.known.get(&instance.name);
        if earlier.is_some_and(|earlier| earlier.node.service != node.service) {
            self.forget(&instance.name);
        }
        let lease = self.store.put(&node, NEVER, now);
        self.known.insert(now, instance, Arc::new(node), (size, lease));
    }

    /// Tells of a record that cannot be read. A node that is known by this name stays so: anybody may
    /// have sent it.
    fn unreadable(&mut self, now: Instant, name: &str, reason: &str) {
        let Some((id, service)) = self.split(name) else { return };
        // It may quote the record, and goes into a log.
        let reason = reason.replace(char::is_control, " ");
        let record = Malformed { key: store::key(service, id), reason };
        match self.unreadable.insert(now, name, service, &record) {
            Some(true) => self.store.tell(service, Event::Malformed(record)),
            Some(false) => {}
            None => self.leave_out(now, &format!("{:?}: {}", record.key, record.reason)),
        }
    }

    /// Whether there is room, made if need be.
    fn make_room(&mut self, now: Instant, name: &str, size: usize) -> bool {
        loop {
            match self.known.room(now, name, size) {
                Room::Free => return true,
                Room::Without(least) => {
                    self.forget(&least);
                    let why = format!("{least:?}: there is no room for so many nodes");
                    self.crowded_out.tell(now, &why);
                }
                Room::None => {
                    let why = format!("{name:?}: there is no room for so many nodes");
                    self.crowded_out.tell(now, &why);
                    return false;
                }
            }
        }
    }

    fn forget(&mut self, name: &str) {
        if let Some((service, key)) = self.unreadable.remove(name) {
            self.store.tell(&service, Event::Delete(key));
        }
        if let Some(known) = self.known.remove(name) {
            self.store.delete(&known.node, known.lease);
        }
    }

    fn forget_service(&mut self, service: &str) {
        self.browses.remove(service);
        self.unreadable.remove_service(service);
        for name in self.known.of_service(service) {
            self.forget(&name);
        }
    }

    /// Leaves out what is nobody's, or makes no sense.
    pub(super) fn leave_out(&mut self, now: Instant, why: &str) {
        self.left_out.tell(now, why);
    }
}

impl Browse {
    fn is_idle(&self, now: Instant) -> bool {
        self.watches == 0 && now >= self.used + IDLE
    }

    fn due(&self) -> Instant {
        if self.watches == 0 { self.next.min(self.used + IDLE) } else { self.next }
    }
}

impl Partial {
    fn waits_for(&self, hosts: &[(&str, Address)]) -> bool {
        let Told { address: None, srv: Some((_, host)), .. } = &self.told else { return false };
        hosts.iter().any(|(name, _)| name == host)
    }

    fn due(&self) -> Instant {
        self.first + if self.asked_again { PARTIAL } else { PARTIAL_AGAIN }
    }
}

#[cfg(test)]
mod tests;
