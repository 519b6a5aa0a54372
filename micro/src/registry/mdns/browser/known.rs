//! Who is known: until when each is believed in, when it is asked for (RFC 6762, sections 5.2 and
//! 10), and who makes room for others.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::super::{
    super::{Lease, Node},
    instance::Instance,
    packet,
};

/// How long a node is believed in unless it is heard again, whatever TTL it names: go-micro's.
pub(super) const TTL: Duration = Duration::from_secs(packet::TTL as u64);

/// When a silent node is asked for, in hundredths of its TTL.
const REFRESH: [u32; 4] = [80, 85, 90, 95];

/// Heard a second time that much later, a node has more than said its name once. Those that have not
/// make room first: made-up ones, mostly.
const PROVEN: Duration = Duration::from_secs(1);

/// How many nodes are kept, and the bytes of their texts and records.
pub(super) const MAX_NODES: usize = 4096;
pub(super) const MAX_BYTES: usize = 32 * 1024 * 1024;

/// By the instance's name.
#[derive(Debug, Default)]
pub(super) struct Known {
    by_name: HashMap<String, Neighbour>,
    /// When each is due for a question, or for its end.
    due: BTreeSet<(Instant, String)>,
    /// The first makes room first: whether it is proven, and when it was last heard.
    ranks: BTreeSet<(bool, Instant, String)>,
    /// What all take.
    bytes: usize,
}

#[derive(Debug)]
pub(super) struct Neighbour {
    pub(super) instance: Instance,
    pub(super) node: Arc<Node>,
    pub(super) lease: Lease,
    /// What all this takes, more or less.
    size: usize,
    first: Instant,
    heard: Instant,
    /// How many of [`REFRESH`]'s questions have been asked.
    asked: usize,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Due {
    /// To ask for the nodes of the service of this name in DNS.
    Ask(String),
    /// To forget this instance.
    Forget(String),
}

#[derive(Debug)]
pub(super) enum Room {
    Free,
    /// There may be once this instance is forgotten.
    Without(String),
    None,
}

impl Known {
    pub(super) fn get(&self, name: &str) -> Option<&Neighbour> {
        self.by_name.get(name)
    }

    /// The instances of a service.
    pub(super) fn of_service(&self, service: &str) -> Vec<String> {
        let of_service = self.by_name.iter().filter(|(_, it)| it.node.service == service);
        of_service.map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The first that is due by now, if any.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Due> {
        let (at, name) = self.due.first()?;
        if *at > now {
            return None;
        }
        let name = name.clone();
        let mut it = self.remove(&name)?;
        if it.asked == REFRESH.len() {
            self.add(it);
            return Some(Due::Forget(name));
        }
        it.asked += 1;
        let service = it.instance.service.clone();
        self.add(it);
        Some(Due::Ask(service))
    }

    /// Hears one again, as it was.
    pub(super) fn heard(&mut self, now: Instant, name: &str) {
        if let Some(mut it) = self.remove(name) {
            it.heard = now;
            it.asked = 0;
            self.add(it);
        }
    }

    /// Whether there is room for an instance of this name and size, in whose place the earlier one of
    /// the name is.
    pub(super) fn room(&self, now: Instant, name: &str, size: usize) -> Room {
        let earlier = self.get(name).map_or(0, |it| it.size);
        let is_full = !self.by_name.contains_key(name) && self.by_name.len() >= MAX_NODES;
        if !is_full && self.bytes - earlier + size <= MAX_BYTES {
            return Room::Free;
        }
        match self.ranks.first() {
            // All answer.
            Some((true, heard, _)) if now < *heard + TTL * REFRESH[1] / 100 => Room::None,
            Some((.., least)) => Room::Without(least.clone()),
            None => Room::None,
        }
    }

    pub(super) fn insert(
        &mut self,
        now: Instant,
        instance: Instance,
        node: Arc<Node>,
        (size, lease): (usize, Lease),
    ) {
        let it = Neighbour { instance, node, lease, size, first: now, heard: now, asked: 0 };
        self.remove(&it.instance.name);
        self.add(it);
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Neighbour> {
        let it = self.by_name.remove(name)?;
        self.due.remove(&(it.due(), name.to_owned()));
        self.ranks.remove(&it.rank());
        self.bytes -= it.size;
        Some(it)
    }

    fn add(&mut self, it: Neighbour) {
        let name = it.instance.name.clone();
        self.due.insert((it.due(), name.clone()));
        self.ranks.insert(it.rank());
        self.bytes += it.size;
        self.by_name.insert(name, it);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// That all that is kept agrees, and is within its bounds.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let all = || self.by_name.values();
        assert_eq!(all().map(|it| it.size).sum::<usize>(), self.bytes);
        let due: BTreeSet<_> = all().map(|it| (it.due(), it.instance.name.clone())).collect();
        assert_eq!(due, self.due);
        assert_eq!(all().map(Neighbour::rank).collect::<BTreeSet<_>>(), self.ranks);
        assert!(self.bytes <= MAX_BYTES && self.len() <= MAX_NODES);
    }
}

impl Neighbour {
    fn due(&self) -> Instant {
        self.heard + REFRESH.get(self.asked).map_or(TTL, |percent| TTL * *percent / 100)
    }

    fn rank(&self) -> (bool, Instant, String) {
        (self.heard >= self.first + PROVEN, self.heard, self.instance.name.clone())
    }
}
