//! Whose record stands, and until when.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::super::{Lease, Node};

/// How much of its TTL a node may be silent before it is asked, in hundredths.
const ASK: u32 = 80;

/// How long a question that is due may take to be put, before the node is looked at again.
const AGAIN: Duration = Duration::from_millis(100);

/// How many records are kept, and the bytes they take.
pub(super) const MAX_NODES: usize = 16_384;
pub(super) const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Service and node id.
pub(super) type Key = (String, String);

#[derive(Debug, Default)]
pub(super) struct Known {
    by_key: HashMap<Key, Held>,
    own: BTreeSet<Key>,
    /// When each is due for a question, or for its end.
    due: BTreeSet<(Instant, Key)>,
    /// What all take.
    bytes: usize,
}

/// A record that stands.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) node: Arc<Node>,
    /// The store's.
    pub(super) lease: Lease,
    pub(super) ttl: Duration,
    pub(super) is_own: bool,
    pub(super) size: usize,
    heard: Instant,
    /// When its node was asked whether it is there, since it was last heard.
    asked: Option<Instant>,
    due: Instant,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Due {
    /// To ask for the nodes of this service.
    Ask(String),
    Forget(Key),
}

impl Held {
    pub(super) fn new(
        now: Instant,
        node: Arc<Node>,
        lease: Lease,
        ttl: Duration,
        is_own: bool,
        size: usize,
    ) -> Self {
        let mut held = Self { node, lease, ttl, is_own, size, heard: now, asked: None, due: now };
        held.hear(now);
        held
    }

    fn hear(&mut self, now: Instant) {
        self.heard = now;
        self.asked = None;
        // Nobody asks himself.
        self.due = now + if self.is_own { self.ttl } else { self.ttl * ASK / 100 };
    }

    fn key(&self) -> Key {
        (self.node.service.clone(), self.node.id.clone())
    }
}

impl Known {
    pub(super) fn get(&self, key: &Key) -> Option<&Held> {
        self.by_key.get(key)
    }

    /// Our own.
    pub(super) fn own(&self) -> impl Iterator<Item = &Held> {
        self.own.iter().filter_map(|key| self.by_key.get(key))
    }

    /// Those of a service that are not ours.
    pub(super) fn others_of(&self, service: &str) -> Vec<Key> {
        let of_service = |(key, held): &(&Key, &Held)| key.0 == service && !held.is_own;
        self.by_key.iter().filter(of_service).map(|(key, _)| key.clone()).collect()
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The first that is due by now, if any. A node is forgotten only if it kept silent to a question
    /// that the bus is `proven` to have carried: when the last such was put.
    pub(super) fn take_due(&mut self, now: Instant, proven: Option<Instant>) -> Option<Due> {
        loop {
            let (at, key) = self.due.first()?;
            if *at > now {
                return None;
            }
            let key = key.clone();
            let mut held = self.remove(&key)?;
            let end = held.heard + held.ttl;
            match held.asked {
                _ if held.is_own => {
                    self.insert(held);
                    return Some(Due::Forget(key));
                }
                None => {
                    held.asked = Some(now);
                    held.due = end.max(now + AGAIN);
                    self.insert(held);
                    return Some(Due::Ask(key.0));
                }
                Some(asked) if proven.is_some_and(|proven| proven >= asked) => {
                    self.insert(held);
                    return Some(Due::Forget(key));
                }
                Some(_) => {
                    held.due = now + AGAIN;
                    self.insert(held);
                }
            }
        }
    }

    /// Hears one again, as it was.
    pub(super) fn heard(&mut self, now: Instant, key: &Key, ttl: Duration) {
        if let Some(mut held) = self.remove(key) {
            held.ttl = ttl;
            held.hear(now);
            self.insert(held);
        }
    }

    /// Gives each its full TTL from now on: what was said meanwhile, nobody heard.
    pub(super) fn all_heard(&mut self, now: Instant) {
        for held in self.by_key.values_mut() {
            held.hear(now);
        }
        self.due = self.by_key.iter().map(|(key, held)| (held.due, key.clone())).collect();
    }

    /// Whether there is room for a record of this size under the key, in place of what is there.
    pub(super) fn has_room(&self, key: &Key, size: usize) -> bool {
        let earlier = self.get(key);
        (earlier.is_some() || self.by_key.len() < MAX_NODES)
            && self.bytes - earlier.map_or(0, |held| held.size) + size <= MAX_BYTES
    }

    pub(super) fn insert(&mut self, held: Held) {
        let key = held.key();
        self.remove(&key);
        self.due.insert((held.due, key.clone()));
        if held.is_own {
            self.own.insert(key.clone());
        }
        self.bytes += held.size;
        self.by_key.insert(key, held);
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Held> {
        let held = self.by_key.remove(key)?;
        self.due.remove(&(held.due, key.clone()));
        self.own.remove(key);
        self.bytes -= held.size;
        Some(held)
    }

    /// That all that is kept agrees, and is within its bounds.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let all = || self.by_key.iter();
        assert_eq!(all().map(|(_, held)| held.size).sum::<usize>(), self.bytes);
        let due: BTreeSet<_> = all().map(|(key, held)| (held.due, key.clone())).collect();
        assert_eq!(due, self.due);
        let own: BTreeSet<_> =
            all().filter(|(_, held)| held.is_own).map(|(key, _)| key.clone()).collect();
        assert_eq!(own, self.own);
        assert!(self.bytes <= MAX_BYTES && self.by_key.len() <= MAX_NODES);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }
}
