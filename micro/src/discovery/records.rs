//! Which records are in force: of one service, without IO.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use super::Update;
use crate::registry::{Entry, Event, Listing, Malformed, Node};

/// The records of a service as last read, and the nodes that follow from them.
///
/// Of the records that say `protocol=grpc`, one an address is in force: of the first format that it
/// is there in, the last written, since a node that was killed and started again on its port may be
/// there twice until the older record expires. (If two keys also claim one node id, the same again.)
/// A change costs as much as there are records of the same address or id.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// The last good record under each key.
    records: HashMap<Arc<str>, Record>,
    by_address: HashMap<String, Vec<Arc<str>>>,
    by_id: HashMap<Arc<str>, Vec<Arc<str>>>,
    /// What subscribers have been told, by node id.
    exposed: BTreeMap<Arc<str>, Arc<Node>>,
    /// The ids that a change may have touched since the last [`settle`](Self::settle).
    touched: BTreeSet<Arc<str>>,
    /// The keys written anew since then.
    written: HashSet<Arc<str>>,
    malformed: HashSet<String>,
    not_grpc: HashSet<String>,
}

/// How the set of nodes has changed: their ids, and how many there are now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) added: Vec<Arc<str>>,
    pub(super) changed: Vec<Arc<str>>,
    pub(super) removed: Vec<Arc<str>>,
    pub(super) now: usize,
}

#[derive(Debug)]
struct Record {
    revision: u64,
    rank: u8,
    id: Arc<str>,
    node: Arc<Node>,
}

impl Records {
    /// Takes a change in. Returns the records that are malformed, each if it is the first under its
    /// key.
    pub(super) fn apply(&mut self, event: Event) -> Vec<Malformed> {
        match event {
            Event::Put(entry) => self.put(entry),
            Event::Delete(key) => self.delete(&key),
            Event::Malformed(malformed) => return self.malform(malformed).into_iter().collect(),
            Event::Reset(listing) => return self.replace(listing),
        }
        Vec::new()
    }

    /// Takes a full read in: what is not in it is gone. Returns what is newly malformed.
    pub(super) fn replace(&mut self, listing: Listing) -> Vec<Malformed> {
        let entries = listing.entries.iter().map(|entry| entry.key.as_str());
        let malformed = listing.malformed.iter().map(|malformed| malformed.key.as_str());
        let listed: HashSet<_> = entries.chain(malformed).collect();
        let known = self.records.keys().map(|key| &**key);
        let left_out = self.malformed.iter().chain(&self.not_grpc).map(String::as_str);
        let gone = known.chain(left_out).filter(|key| !listed.contains(key));
        let gone: Vec<_> = gone.map(str::to_owned).collect();
        for key in gone {
            self.delete(&key);
        }
        listing.entries.into_iter().for_each(|entry| self.put(entry));
        listing.malformed.into_iter().filter_map(|it| self.malform(it)).collect()
    }

    /// What has changed since the last call: what came before what went, so that a node that
    /// changed its id does not leave the set empty in between. A record written anew as it was is
    /// an update, and no change of the set.
    pub(super) fn settle(&mut self) -> (Vec<Update>, Option<Changes>) {
        let (mut inserts, mut removes) = (Vec::new(), Vec::new());
        let mut changes = Changes::default();
        let written = std::mem::take(&mut self.written);
        for id in std::mem::take(&mut self.touched) {
            match (self.in_force(&id), self.exposed.get(&id)) {
                (Some((key, node)), Some(old)) if node == old && !written.contains(key) => {}
                (Some((_, node)), old) => {
                    let node = node.clone();
                    match old {
                        None => changes.added.push(id.clone()),
                        Some(old) if node != *old => changes.changed.push(id.clone()),
                        Some(_) => {}
                    }
                    inserts.push(Update::Insert(node.clone()));
                    self.exposed.insert(id, node);
                }
                (None, Some(_)) => {
                    self.exposed.remove(&id);
                    changes.removed.push(id.clone());
                    removes.push(Update::Remove(id));
                }
                (None, None) => {}
            }
        }
        inserts.append(&mut removes);
        let is_change = changes != Changes::default();
        changes.now = self.exposed.len();
        (inserts, is_change.then_some(changes))
    }

    /// The nodes in force as of the last [`settle`](Self::settle), by id.
    pub(super) fn nodes(&self) -> Vec<Arc<Node>> {
        self.exposed.values().cloned().collect()
    }

    /// How many nodes are in force.
    pub(super) fn len(&self) -> usize {
        self.exposed.len()
    }

    /// How many keys hold what cannot be decoded.
    pub(super) fn malformed(&self) -> usize {
        self.malformed.len()
    }

    /// How many keys hold nodes that do not speak gRPC.
    pub(super) fn not_grpc(&self) -> usize {
        self.not_grpc.len()
    }

    fn put(&mut self, Entry { key, revision, rank, node }: Entry) {
        self.malformed.remove(&key);
        if !node.is_grpc() {
            self.remove(&key);
            self.not_grpc.insert(key);
            return;
        }
        self.not_grpc.remove(&key);
        let old = self.records.get(key.as_str());
        if old.is_some_and(|old| old.revision == revision && old.node == node) {
            return;
        }
        self.remove(&key);
        let key: Arc<str> = key.into();
        let id: Arc<str> = node.id.as_str().into();
        self.by_address.entry(node.address.clone()).or_default().push(key.clone());
        self.by_id.entry(id.clone()).or_default().push(key.clone());
        self.records.insert(key.clone(), Record { revision, rank, id: id.clone(), node });
        self.touch(&key);
        self.touched.insert(id);
        self.written.insert(key);
    }

    fn malform(&mut self, malformed: Malformed) -> Option<Malformed> {
        self.not_grpc.remove(&malformed.key);
        self.malformed.insert(malformed.key.clone()).then_some(malformed)
    }

    fn delete(&mut self, key: &str) {
        self.malformed.remove(key);
        self.not_grpc.remove(key);
        self.remove(key);
    }

    fn remove(&mut self, key: &str) {
        self.touch(key);
        let Some(record) = self.records.remove(key) else {
            return;
        };
        unlink(&mut self.by_address, record.node.address.as_str(), key);
        unlink(&mut self.by_id, &record.id, key);
    }

    /// Marks the ids that a change of this record may bring or cost their place.
    fn touch(&mut self, key: &str) {
        let Some(record) = self.records.get(key) else {
            return;
        };
        for key in &self.by_address[&record.node.address] {
            self.touched.insert(self.records[key].id.clone());
        }
    }

    /// The record in force of this id: its key and node.
    fn in_force(&self, id: &str) -> Option<(&Arc<str>, &Arc<Node>)> {
        let keys = self.by_id.get(id)?.iter();
        let key = self.first(keys.filter(|key| {
            let address = &self.records[*key].node.address;
            self.first(self.by_address[address].iter()) == Some(*key)
        }))?;
        Some((key, &self.records[key].node))
    }

    /// The last written of the lowest rank; of records of one revision, which a registry with
    /// transactions can have, always the same.
    fn first<'a>(&self, keys: impl Iterator<Item = &'a Arc<str>>) -> Option<&'a Arc<str>> {
        keys.max_by_key(|key| {
            let record = &self.records[*key];
            (Reverse(record.rank), record.revision, *key)
        })
    }
}

fn unlink<K>(index: &mut HashMap<K, Vec<Arc<str>>>, by: &str, key: &str)
where
    K: std::borrow::Borrow<str> + std::hash::Hash + Eq,
{
    let Some(keys) = index.get_mut(by) else {
        return;
    };
    keys.retain(|it| **it != *key);
    if keys.is_empty() {
        index.remove(by);
    }
}
