//! What `memory://` holds, and `mdns://` and `nats://` have heard: records, leases and a bounded history, without IO.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{Batch, Entry, Event, Lease, Node, RenewError, size};

/// What the history may take, in bytes, besides its limit in changes: a record may have 1 MiB.
const MAX_HISTORY: usize = 16 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Store {
    /// By service and node id.
    records: BTreeMap<(String, String), Record>,
    /// Every record's end, soonest first.
    expiries: BTreeSet<(Instant, (String, String))>,
    revision: u64,
    leases: i64,
    /// One change a revision, without a gap, the newest last.
    history: VecDeque<Change>,
    limit: usize,
    /// What the history takes.
    bytes: usize,
}

#[derive(Debug)]
struct Record {
    entry: Entry,
    lease: Lease,
    ttl: Duration,
    expires: Instant,
}

#[derive(Debug)]
struct Change {
    revision: u64,
    service: String,
    event: Event,
    size: usize,
}

/// The changes later than some revision.
#[derive(Debug)]
pub(super) enum Since {
    Batches(Vec<Batch>),
    /// Some of them are forgotten, or that revision is yet to come.
    Compacted,
}

impl Store {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            records: BTreeMap::new(),
            expiries: BTreeSet::new(),
            revision: 0,
            leases: 0,
            history: VecDeque::new(),
            limit,
            bytes: 0,
        }
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// Removes what has expired by `now`, the soonest first.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((at, _)) = self.expiries.first()
            && *at <= now
            && let Some((_, id)) = self.expiries.pop_first()
        {
            self.remove(&id);
        }
    }

    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.expiries.first().map(|(at, _)| *at)
    }

    pub(super) fn put(&mut self, node: &Node, ttl: Duration, now: Instant) -> Lease {
        let id = id_of(node);
        self.leases += 1;
        let lease = Lease(self.leases);
        let entry = Entry {
            key: key(&id.0, &id.1),
            revision: self.revision + 1,
            rank: 0,
            node: Arc::new(node.clone()),
        };
        self.tell(&id.0, Event::Put(entry.clone()));
        let expires = now + ttl;
        let record = Record { entry, lease, ttl, expires };
        if let Some(earlier) = self.records.insert(id.clone(), record) {
            self.expiries.remove(&(earlier.expires, id.clone()));
        }
        self.expiries.insert((expires, id));
        lease
    }

    pub(super) fn renew(
        &mut self,
        node: &Node,
        lease: Lease,
        now: Instant,
    ) -> Result<(), RenewError> {
        let id = id_of(node);
        let Some(record) = self.records.get_mut(&id) else {
            let why = "the record is gone: it expired or was removed";
            return Err(RenewError::Lost(why.to_owned()));
        };
        if record.lease != lease || *record.entry.node != *node {
            return Err(RenewError::taken_by(node, &record.entry.node));
        }
        let earlier = std::mem::replace(&mut record.expires, now + record.ttl);
        let expires = record.expires;
        self.expiries.remove(&(earlier, id.clone()));
        self.expiries.insert((expires, id));
        Ok(())
    }

    /// Removes the node's record if it still is the one written under `lease`.
    pub(super) fn delete(&mut self, node: &Node, lease: Lease) {
        let id = id_of(node);
        if let Some(record) = self.records.get(&id)
            && record.lease == lease
        {
            self.expiries.remove(&(record.expires, id.clone()));
            self.remove(&id);
        }
    }

    pub(super) fn entries(&self, service: &str) -> Vec<Entry> {
        let from = (service.to_owned(), String::new());
        self.records
            .range(from..)
            .take_while(|((name, _), _)| name == service)
            .map(|(_, record)| record.entry.clone())
            .collect()
    }

    pub(super) fn services(&self) -> Vec<String> {
        let mut services: Vec<_> = self.records.keys().map(|(name, _)| name.clone()).collect();
        services.dedup();
        services
    }

    pub(super) fn since(&self, service: &str, after: u64) -> Since {
        let oldest = self.history.front().map_or(self.revision + 1, |change| change.revision);
        if after.saturating_add(1) < oldest || after > self.revision {
            return Since::Compacted;
        }
        let batches = self
            .history
            .iter()
            .skip((after + 1 - oldest) as usize)
            .filter(|change| change.service == service)
            .map(|change| Batch { revision: change.revision, events: vec![change.event.clone()] })
            .collect();
        Since::Batches(batches)
    }

    /// Forgets what came before, as after a time in which changes may have been missed: whoever has
    /// seen as far as now has not seen all.
    #[cfg_attr(not(feature = "nats"), allow(dead_code, reason = "nats:// alone misses any"))]
    pub(super) fn forget_history(&mut self) {
        self.revision += 1;
        self.history.clear();
        self.bytes = 0;
    }

    fn remove(&mut self, id: &(String, String)) {
        if self.records.remove(id).is_some() {
            self.tell(&id.0, Event::Delete(key(&id.0, &id.1)));
        }
    }

    /// Writes a change of a service into the history.
    pub(super) fn tell(&mut self, service: &str, event: Event) {
        self.revision += 1;
        let size = match &event {
            Event::Put(entry) => size::of_node(&entry.node),
            _ => size_of::<Change>(),
        };
        let change = Change { revision: self.revision, service: service.to_owned(), event, size };
        self.history.push_back(change);
        self.bytes += size;
        while self.history.len() > self.limit || self.bytes > MAX_HISTORY {
            let Some(oldest) = self.history.pop_front() else { break };
            self.bytes -= oldest.size;
        }
    }
}

fn id_of(node: &Node) -> (String, String) {
    (node.service.clone(), node.id.clone())
}

/// A record's key.
pub(super) fn key(service: &str, id: &str) -> String {
    format!("{service}/{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_changes_are_forgotten_before_there_are_many() {
        let mut store = Store::new(1024);
        let mut large = Node::new("a", "a-1", "h:1");
        large.metadata.insert("notes".to_owned(), "x".repeat(MAX_HISTORY / 4));
        for version in 0..8 {
            large.version = version.to_string();
            store.put(&large, Duration::from_secs(1), Instant::now());
            assert!(store.bytes <= MAX_HISTORY);
        }
        assert_eq!(store.history.len(), 3);
        let Since::Batches(batches) = store.since("a", 5) else { panic!("they are there") };
        assert_eq!(batches.iter().map(|it| it.revision).collect::<Vec<_>>(), [6, 7, 8]);
        assert!(matches!(store.since("a", 4), Since::Compacted), "who lags reads all");
        large.metadata.insert("notes".to_owned(), "x".repeat(MAX_HISTORY));
        store.put(&large, Duration::from_secs(1), Instant::now());
        assert!(matches!(store.since("a", 8), Since::Compacted));
        assert!(matches!(store.since("a", 9), Since::Batches(none) if none.is_empty()));
        store.forget_history();
        assert_eq!(store.bytes, 0);
    }
}
