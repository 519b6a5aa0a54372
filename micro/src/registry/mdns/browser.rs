//! The nodes of others on the network, and our own as others see them, without IO: what is asked,
//! what is believed, and for how long (RFC 6762, sections 5.2 and 10).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    super::{
        Entry, Lease, Node,
        store::{Since, Store},
    },
    instance::{Instance, service_name},
    packet::{self, Data, Kind, Record, SERVICES},
    size,
};

/// How long a node is believed in unless it is heard again, whatever TTL it names: go-micro's.
const TTL: Duration = Duration::from_secs(packet::TTL as u64);

/// When a silent node is asked for, in hundredths of its TTL (section 5.2).
const REFRESH: [u32; 4] = [80, 85, 90, 95];

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

/// What may be kept of what others say: nodes, the bytes of their texts and records, of all and of
/// one (with a hundred methods it takes half of that), nodes told in part, and names of services. A
/// packet is taken a bite at a time.
const MAX_NODES: usize = 4096;
const MAX_BYTES: usize = 32 * 1024 * 1024;
const MAX_NODE: usize = 512 * 1024;
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
    /// By the instance's name.
    known: HashMap<String, Known>,
    /// When each known instance is due for a question, or for its end.
    due: BTreeSet<(Instant, String)>,
    partials: HashMap<String, Partial>,
    /// Names of services, and when each was last told.
    services: BTreeMap<String, Instant>,
    /// What the known take.
    bytes: usize,
    /// To be asked now.
    questions: Vec<(String, Kind)>,
    /// What was left out since it made no sense, or since there was no room.
    left_out: u64,
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

#[derive(Debug)]
struct Known {
    instance: Instance,
    node: Arc<Node>,
    /// What all this takes, more or less.
    size: usize,
    lease: Lease,
    heard: Instant,
    /// How many of [`REFRESH`]'s questions have been asked.
    asked: usize,
    due: Instant,
}

#[derive(Debug, Clone)]
struct Partial {
    first: Instant,
    told: Told,
    asked_again: bool,
}

/// What is known of an instance so far.
#[derive(Debug, Clone, Default)]
struct Told {
    srv: Option<(u16, String)>,
    text: Option<Vec<u8>>,
    ip: Option<IpAddr>,
    is_gone: bool,
}

impl Browser {
    pub(super) fn new() -> Self {
        Self {
            store: Store::new(HISTORY),
            browses: HashMap::new(),
            known: HashMap::new(),
            due: BTreeSet::new(),
            partials: HashMap::new(),
            services: BTreeMap::new(),
            bytes: 0,
            questions: Vec::new(),
            left_out: 0,
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

    /// The questions to be asked now.
    pub(super) fn take_questions(&mut self) -> Vec<(String, Kind)> {
        std::mem::take(&mut self.questions)
    }

    pub(super) fn entries(&self, service: &str) -> (u64, Vec<Entry>) {
        (self.store.revision(), self.store.entries(service))
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

    #[cfg(test)]
    fn left_out(&self) -> u64 {
        self.left_out
    }

    /// That all that is kept agrees, and is within its bounds.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let sizes: usize = self.known.values().map(|known| known.size).sum();
        assert_eq!(sizes, self.bytes);
        let due: BTreeSet<_> =
            self.known.iter().map(|(name, known)| (known.due, name.clone())).collect();
        assert_eq!(due, self.due);
        let entries: usize = self.browses.keys().map(|name| self.entries(name).1.len()).sum();
        assert_eq!(entries, self.known.len(), "the store holds what is known");
        assert!(self.bytes <= MAX_BYTES && self.known.len() <= MAX_NODES);
        assert!(self.partials.len() <= MAX_PARTIALS && self.services.len() <= MAX_SERVICES);
    }

    /// When [`elapsed`](Self::elapsed) is due.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let browses = self.browses.values().map(Browse::due);
        let partials = self.partials.values().map(Partial::due);
        browses.chain(partials).chain(self.due.first().map(|(at, _)| *at)).min()
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
        while let Some((at, name)) = self.due.first().cloned()
            && at <= now
        {
            self.due.pop_first();
            let Some(known) = self.known.get_mut(&name) else { continue };
            if known.asked == REFRESH.len() {
                self.forget(&name);
                continue;
            }
            // One question brings answers of all its nodes.
            let question = (known.instance.service.clone(), Kind::Ptr);
            if !self.questions.contains(&question) {
                self.questions.push(question);
            }
            known.asked += 1;
            known.due = known.next_due();
            self.due.insert((known.due, name));
        }
    }

    /// Takes in a packet's records, but for what `skips` says of an instance's name.
    pub(super) fn told(&mut self, now: Instant, records: &[Record], skips: impl Fn(&str) -> bool) {
        let mut told: BTreeMap<&str, Told> = BTreeMap::new();
        let mut hosts: Vec<(&str, IpAddr)> = Vec::new();
        for record in records {
            let (name, gone) = (record.name.as_str(), record.ttl == 0);
            match &record.data {
                Data::Ptr(instance) if name == SERVICES => self.listed(now, instance),
                Data::Ptr(instance) => {
                    if self.follows(instance) && self.is_service(name) {
                        told.entry(instance).or_default().is_gone |= gone;
                    }
                }
                Data::Address(ip) => hosts.push((name, *ip)),
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
                self.leave_out("a packet tells of more nodes than are taken from one");
                break;
            }
        }
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
                self.leave_out("there are too many services");
            }
        }
    }

    /// Whether an instance of this name may be of a service that is followed.
    fn follows(&self, instance: &str) -> bool {
        let mut rest = instance;
        while let Some((_, service)) = rest.split_once('.') {
            if self.is_service(service) {
                return true;
            }
            rest = service;
        }
        false
    }

    fn is_service(&self, name: &str) -> bool {
        name.strip_suffix(".micro.").is_some_and(|service| self.browses.contains_key(service))
    }

    fn instance_told(
        &mut self,
        now: Instant,
        name: String,
        mut told: Told,
        hosts: &[(&str, IpAddr)],
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
            told.ip = earlier.ip;
        }
        if let Some((_, host)) = &told.srv {
            let of_host = hosts.iter().filter(|(name, _)| name == host).map(|(_, ip)| *ip);
            // IPv4 first, as go-micro has it.
            told.ip = of_host.min_by_key(IpAddr::is_ipv6).or(told.ip);
        }
        match told {
            Told { srv: Some((port, host)), text: Some(text), ip: Some(ip), .. } => {
                let service = String::new();
                self.complete(now, Instance { name, service, host, port, ip, text });
            }
            // A name alone, of one that is known, says nothing new.
            Told { srv: None, text: None, .. } if self.known.contains_key(&name) => {}
            told if self.partials.len() < MAX_PARTIALS => {
                if is_new {
                    self.questions.push((name.clone(), Kind::Any));
                }
                self.partials.insert(name, Partial { first, told, asked_again });
            }
            _ => self.leave_out("too many nodes have told only a part of themselves"),
        }
    }

    fn complete(&mut self, now: Instant, mut instance: Instance) {
        if let Some(known) = self.known.get_mut(&instance.name) {
            instance.service.clone_from(&known.instance.service);
            if known.instance == instance {
                let name = instance.name;
                self.due.remove(&(known.due, name.clone()));
                known.heard = now;
                known.asked = 0;
                known.due = known.next_due();
                self.due.insert((known.due, name));
                return;
            }
        }
        let node = match instance.node() {
            Ok(node) if self.browses.contains_key(&node.service) => node,
            // Its name only looks like one of a service that is followed.
            Ok(_) => return,
            Err(why) => return self.leave_out(&format!("{}: {why}", instance.name)),
        };
        instance.service = service_name(&node.service);
        let name = instance.name.clone();
        let mut known = Known {
            size: 512 + instance.text.len() + size::of_node(&node),
            node: Arc::new(node),
            lease: Lease(0),
            heard: now,
            asked: 0,
            due: now,
            instance,
        };
        let earlier = self.known.get(&name);
        let freed = earlier.map_or(0, |earlier| earlier.size);
        if known.size > MAX_NODE {
            let size = known.size;
            return self.leave_out(&format!("{name}: its record takes {size} bytes of memory"));
        }
        let is_full = earlier.is_none() && self.known.len() >= MAX_NODES;
        if is_full || self.bytes - freed + known.size > MAX_BYTES {
            return self.leave_out("there is no room for so many nodes");
        }
        // The same name may have been another service's: `a.b` of `c`, and `a` of `b.c`.
        if earlier.is_some_and(|earlier| earlier.node.service != known.node.service) {
            self.forget(&name);
        }
        if let Some(earlier) = self.known.remove(&name) {
            self.due.remove(&(earlier.due, name.clone()));
            self.bytes -= earlier.size;
        }
        known.lease = self.store.put(&known.node, NEVER, now);
        known.due = known.next_due();
        self.due.insert((known.due, name.clone()));
        self.bytes += known.size;
        self.known.insert(name, known);
    }

    fn forget(&mut self, name: &str) {
        if let Some(known) = self.known.remove(name) {
            self.due.remove(&(known.due, name.to_owned()));
            self.bytes -= known.size;
            self.store.delete(&known.node, known.lease);
        }
    }

    fn forget_service(&mut self, service: &str) {
        self.browses.remove(service);
        let of_service = self.known.iter().filter(|(_, known)| known.node.service == service);
        let names: Vec<_> = of_service.map(|(name, _)| name.clone()).collect();
        for name in names {
            self.forget(&name);
        }
    }

    /// Counts what is left out, and says so where somebody looks for it.
    pub(super) fn leave_out(&mut self, why: &str) {
        self.left_out += 1;
        tracing::debug!(left_out = self.left_out, "mdns: left out: {why}");
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
    fn waits_for(&self, hosts: &[(&str, IpAddr)]) -> bool {
        let Told { ip: None, srv: Some((_, host)), .. } = &self.told else { return false };
        hosts.iter().any(|(name, _)| name == host)
    }

    fn due(&self) -> Instant {
        self.first + if self.asked_again { PARTIAL } else { PARTIAL_AGAIN }
    }
}

impl Known {
    fn next_due(&self) -> Instant {
        self.heard + REFRESH.get(self.asked).map_or(TTL, |percent| TTL * *percent / 100)
    }
}

#[cfg(test)]
mod tests;
