//! Our own nodes on the network, without IO: probes, announcements, answers, goodbyes and conflicts
//! (RFC 6762, sections 6 to 10).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    super::{Lease, Node, RenewError},
    instance::Instance,
    packet::{self, Data, Kind, Query, Question, Record, SERVICES, TTL},
};

/// Probes and announcements are three, as RFC 6762 and go-micro have them.
const TIMES: u8 = 3;

/// Between two probes, and from the last to the announcement: 450 ms in all. RFC 6762's 250 ms are
/// for sleepy links and would make it 750; go-micro draws 0 to 250 ms. An answer takes a millisecond
/// or two, and go-micro itself waits no longer than 100 ms for any.
const PROBE_GAP: Duration = Duration::from_millis(150);

/// From the first announcement to the second; each wait that follows is twice the last.
const FIRST_AGAIN: Duration = Duration::from_secs(1);

/// From the first goodbye to the second, likewise: all three are out within a drain's gap of 200 ms.
const GOODBYE_GAP: Duration = Duration::from_millis(50);

/// From one defence of a name to the next, at least. A cause that comes meanwhile is met at its end:
/// goodbyes come in threes, and whoever hears the last believes us gone.
const DEFENCE_GAP: Duration = Duration::from_secs(1);

/// Questions taken from one packet. go-micro, and we, ask one.
const MAX_QUESTIONS: usize = 16;

/// Which of the network's interfaces: an index that the driver gives.
pub(super) type LinkId = usize;

/// A packet to be sent to all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Send {
    pub(super) bytes: Vec<u8>,
    pub(super) links: Vec<LinkId>,
    pub(super) from: From,
    /// What it says, for those in this process who listen.
    pub(super) tells: Vec<Record>,
}

/// The port that a packet leaves from, and that answers to it come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    /// The port of mDNS, which all processes of the machine share.
    Shared,
    /// One of our own: an answer to the shared one reaches any one of its processes.
    Own,
}

/// What has become of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    Probing,
    Announced,
    /// Another has the name. Says who.
    Refused(String),
    Gone,
}

#[derive(Debug, Default)]
pub(super) struct Responder {
    /// By the instance's name.
    own: BTreeMap<String, Own>,
    leases: i64,
}

#[derive(Debug)]
struct Own {
    node: Node,
    instance: Instance,
    lease: Lease,
    links: Vec<LinkId>,
    stage: Stage,
    due: Option<Instant>,
    /// Who else has announced the name since we have.
    taken_by: Option<String>,
    defended: Option<Instant>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    /// So many probes are out.
    Probing(u8),
    /// So many announcements.
    Announced(u8),
    /// Announced, and about to be once more: others were told otherwise.
    Defending,
    /// So many goodbyes.
    Leaving(u8),
    Refused(String),
}

impl Responder {
    /// The links are others now, of which an instance is told on these: on a new one at once, and once
    /// more later. What is still probed for is probed for there, too, from the first probe on: whoever
    /// has the name on that link has heard none.
    pub(super) fn relink(&mut self, now: Instant, links_of: impl Fn(&Instance) -> Vec<LinkId>) {
        for own in self.own.values_mut() {
            let links = links_of(&own.instance);
            let is_new = links.iter().any(|link| !own.links.contains(link));
            own.links = links;
            if !is_new {
                continue;
            }
            match own.stage {
                Stage::Probing(_) => own.stage = Stage::Probing(0),
                Stage::Announced(1..) | Stage::Defending => own.stage = Stage::Announced(1),
                _ => continue,
            }
            own.due = Some(now);
        }
    }

    /// Begins to register a node on these links.
    ///
    /// # Errors
    /// Who has the id, if it is one of our own nodes; what cannot be told of it.
    pub(super) fn register(
        &mut self,
        now: Instant,
        node: &Node,
        links: Vec<LinkId>,
    ) -> Result<Lease, String> {
        let instance = Instance::of(node)?;
        let mut stage = Stage::Probing(0);
        if let Some(own) = self.own.get(&instance.name) {
            let is_same = own.node == *node;
            match &own.stage {
                Stage::Probing(_) | Stage::Announced(_) | Stage::Defending if !is_same => {
                    return Err(taken(&own.node.address));
                }
                // Ours and uncontested: there is nobody to ask.
                Stage::Announced(_) | Stage::Defending if own.taken_by.is_none() => {
                    stage = Stage::Announced(0);
                }
                _ => {}
            }
        }
        self.leases += 1;
        let lease = Lease(self.leases);
        let own = Own {
            node: node.clone(),
            lease,
            links,
            stage,
            due: Some(now),
            taken_by: None,
            defended: None,
            instance,
        };
        self.own.insert(own.instance.name.clone(), own);
        Ok(lease)
    }

    pub(super) fn standing(&self, lease: Lease) -> Standing {
        let own = self.own.values().find(|own| own.lease == lease);
        match own.map(|own| &own.stage) {
            Some(Stage::Probing(_) | Stage::Announced(0)) => Standing::Probing,
            Some(Stage::Announced(_) | Stage::Defending) => Standing::Announced,
            Some(Stage::Refused(why)) => Standing::Refused(why.clone()),
            Some(Stage::Leaving(_)) | None => Standing::Gone,
        }
    }

    /// Whether the node is ours still, under this lease, and nobody else has claimed it.
    pub(super) fn renew(&self, node: &Node, lease: Lease) -> Result<(), RenewError> {
        let same_id = |own: &&Own| own.node.id == node.id && own.node.service == node.service;
        let standing = self.own.values().find(same_id).filter(|own| own.is_announced());
        let Some(own) = standing else {
            let why = "it is not announced any more";
            return Err(RenewError::Lost(why.to_owned()));
        };
        if own.lease != lease || own.node != *node {
            return Err(RenewError::taken_by(node, &own.node));
        }
        match &own.taken_by {
            Some(other) => Err(RenewError::Taken(taken(other))),
            None => Ok(()),
        }
    }

    /// Ends a registration: what was announced is told to be gone.
    pub(super) fn deregister(&mut self, now: Instant, lease: Lease) {
        let Some(own) = self.own.values_mut().find(|own| own.lease == lease) else { return };
        match own.stage {
            Stage::Announced(_) | Stage::Defending => {
                own.stage = Stage::Leaving(0);
                own.due = Some(now);
            }
            Stage::Leaving(_) => {}
            Stage::Probing(_) | Stage::Refused(_) => {
                let name = own.instance.name.clone();
                self.own.remove(&name);
            }
        }
    }

    /// When [`elapsed`](Self::elapsed) is due.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.own.values().filter_map(|own| own.due).min()
    }

    /// What is due by now.
    pub(super) fn elapsed(&mut self, now: Instant) -> Vec<Send> {
        let mut sends = Vec::new();
        for own in self.own.values_mut() {
            if own.due.is_some_and(|due| due <= now) {
                sends.extend(own.proceed(now));
            }
        }
        self.own.retain(|_, own| own.stage != Stage::Leaving(TIMES));
        sends
    }

    /// Our answers to what was asked on a link, from this address. A probe for a name that we are
    /// probing for ourselves is decided here (section 8.2).
    pub(super) fn asked(&mut self, query: &Query, link: LinkId, from: IpAddr) -> Vec<Vec<u8>> {
        let mut answers = Vec::new();
        let questions = &query.questions[..query.questions.len().min(MAX_QUESTIONS)];
        for (index, question) in questions.iter().enumerate() {
            let is_same = |it: &Question| it.name == question.name && it.kind == question.kind;
            if questions[..index].iter().any(is_same) {
                continue;
            }
            if question.name == SERVICES {
                answers.extend(self.list(query.id, question, link));
                continue;
            }
            for own in self.own.values_mut().filter(|own| own.links.contains(&link)) {
                if question.name == own.instance.name && !query.claims.is_empty() {
                    own.contest(&query.claims, from);
                }
                if own.is_announced() && own.instance.answers(question) {
                    answers.extend(packet::answer(query.id, question, &own.instance).ok());
                }
            }
        }
        answers
    }

    fn list(&self, id: u16, question: &Question, link: LinkId) -> Vec<Vec<u8>> {
        if !matches!(question.kind, Kind::Ptr | Kind::Any) {
            return Vec::new();
        }
        let on_link = |own: &&Own| own.is_announced() && own.links.contains(&link);
        let own = self.own.values().filter(on_link).map(|own| own.node.service.as_str());
        let services: BTreeSet<_> = own.collect();
        services.iter().filter_map(|service| packet::listing(id, question, service).ok()).collect()
    }

    /// Takes what another, at this address, has told of the names that are ours, if it has.
    pub(super) fn told(&mut self, now: Instant, records: &[Record], link: LinkId, from: IpAddr) {
        for own in self.own.values_mut().filter(|own| own.links.contains(&link)) {
            own.told(now, records, from);
        }
    }

    /// The nodes that are announced, of this service or of all, as records.
    pub(super) fn announced(&self, service: &str) -> impl Iterator<Item = Vec<Record>> {
        self.own
            .values()
            .filter(move |own| own.is_announced() && own.node.service == service)
            .map(|own| packet::records(&own.instance, TTL))
    }

    /// The names of the services that have a node of ours.
    pub(super) fn services(&self) -> impl Iterator<Item = &str> {
        self.own.values().filter(|own| own.is_announced()).map(|own| own.node.service.as_str())
    }

    /// Whether we are taking leave under this name: what is still told of it is older.
    pub(super) fn is_leaving(&self, instance: &str) -> bool {
        self.own.get(instance).is_some_and(|own| matches!(own.stage, Stage::Leaving(_)))
    }
}

impl Own {
    fn is_announced(&self) -> bool {
        matches!(self.stage, Stage::Announced(1..) | Stage::Defending)
    }

    fn proceed(&mut self, now: Instant) -> Option<Send> {
        let instance = &self.instance;
        let (bytes, ttl, wait) = match &mut self.stage {
            Stage::Probing(sent) if *sent < TIMES => {
                *sent += 1;
                (packet::probe(instance), None, Some(PROBE_GAP))
            }
            Stage::Probing(_) => {
                self.stage = Stage::Announced(1);
                (packet::announcement(instance, TTL), Some(TTL), Some(FIRST_AGAIN))
            }
            Stage::Announced(sent) => {
                *sent += 1;
                let wait = FIRST_AGAIN * 2u32.pow(u32::from(*sent) - 1);
                let wait = (*sent < TIMES).then_some(wait);
                (packet::announcement(instance, TTL), Some(TTL), wait)
            }
            Stage::Defending => {
                self.stage = Stage::Announced(TIMES);
                self.defended = Some(now);
                (packet::announcement(instance, TTL), Some(TTL), None)
            }
            Stage::Leaving(sent) => {
                let wait = GOODBYE_GAP * 2u32.pow(u32::from(*sent));
                *sent += 1;
                (packet::announcement(instance, 0), Some(0), Some(wait))
            }
            Stage::Refused(_) => {
                self.due = None;
                return None;
            }
        };
        self.due = wait.map(|wait| now + wait);
        Some(Send {
            bytes: bytes.ok()?,
            links: self.links.clone(),
            from: if ttl.is_some() { From::Shared } else { From::Own },
            tells: ttl.map_or_else(Vec::new, |ttl| packet::records(instance, ttl)),
        })
    }

    /// Another probes for our name. If we do too, the one whose records sort later has it; the same
    /// records are our own probe that comes back.
    fn contest(&mut self, claims: &[Record], from: IpAddr) {
        if !matches!(self.stage, Stage::Probing(_)) {
            return;
        }
        let theirs = claims.iter().filter(|claim| claim.name == self.instance.name);
        let mut theirs: Vec<_> = theirs.map(|claim| claim.data.clone()).collect();
        let mut ours = packet::claims(&self.instance);
        // By type, then by content: TXT before SRV, and a port before a host.
        theirs.sort();
        ours.sort();
        if theirs > ours {
            let port = theirs.iter().find_map(|data| match data {
                Data::Srv { port, .. } => Some(*port),
                _ => None,
            });
            self.refuse(&format!("{}, which registers at this very moment,", at(from, port)));
        }
    }

    fn told(&mut self, now: Instant, records: &[Record], from: IpAddr) {
        let mut other = Other::default();
        for record in records.iter().filter(|record| record.name == self.instance.name) {
            match &record.data {
                Data::Srv { port, host } => other.srv = Some((*port, host)),
                Data::Text(text) => other.text = Some(text),
                _ => continue,
            }
            other.is_gone |= record.ttl == 0;
        }
        if other.srv.is_none() && other.text.is_none() {
            return;
        }
        if other.is_gone {
            // It may have been a twin that left. Readers believe us gone.
            self.taken_by = None;
            if self.is_announced() {
                self.defend(now);
            }
            return;
        }
        let ips = || {
            let at = |record: &&Record| other.srv.is_some_and(|(_, host)| record.name == *host);
            records.iter().filter(at).filter_map(|record| match record.data {
                Data::Address { ip, scope } => Some((ip, scope)),
                _ => None,
            })
        };
        let is_same = other.srv.is_none_or(|(port, _)| port == self.instance.port)
            && other.text.is_none_or(|text| *text == self.instance.text)
            && ips().all(|address| address == (self.instance.ip, self.instance.scope));
        if is_same {
            return;
        }
        let by = at(ips().next().map_or(from, |(ip, _)| ip), other.srv.map(|(port, _)| port));
        match self.stage {
            Stage::Probing(_) => self.refuse(&by),
            Stage::Announced(1..) | Stage::Defending => {
                self.taken_by = Some(by);
                self.defend(now);
            }
            _ => {}
        }
    }

    /// Says once more who we are, to all who have been told otherwise: now, or when the last time is
    /// long enough ago.
    fn defend(&mut self, now: Instant) {
        if self.stage != Stage::Defending {
            self.stage = Stage::Defending;
            self.due = Some(self.defended.map_or(now, |last| now.max(last + DEFENCE_GAP)));
        }
    }

    fn refuse(&mut self, by: &str) {
        self.stage = Stage::Refused(taken(by));
        self.due = None;
    }
}

/// What a packet says of a name of ours.
#[derive(Default)]
struct Other<'a> {
    srv: Option<(u16, &'a String)>,
    text: Option<&'a Vec<u8>>,
    is_gone: bool,
}

impl Instance {
    fn answers(&self, question: &Question) -> bool {
        match question.kind {
            Kind::Ptr => question.name == self.service,
            Kind::Any => question.name == self.service || question.name == self.name,
            Kind::Own(_) => question.name == self.name,
        }
    }
}

/// Where another is, as far as it has said so.
fn at(ip: IpAddr, port: Option<u16>) -> String {
    port.map_or(ip.to_string(), |port| SocketAddr::new(ip, port).to_string())
}

fn taken(by: &str) -> String {
    format!(
        "a node at {by} has this id: an id must be unique in its service; give one of the two another"
    )
}

#[cfg(test)]
mod tests;
