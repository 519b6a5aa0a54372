//! What is to be written, and when.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::Key;
use crate::registry::Node;

/// How long further changes are waited for before they are written.
pub(super) const GATHER: Duration = Duration::from_secs(1);

/// How old the time of a set that does not change may become in the file, if it is confirmed.
pub(super) const REFRESH: Duration = Duration::from_secs(3600);

/// How long after a failure the file is left alone.
const RETRY: Duration = Duration::from_secs(60);

/// The services that one process keeps in one file. Nothing here reads or writes.
#[derive(Debug, Default)]
pub(super) struct Pending {
    services: BTreeMap<Key, Service>,
    write_at: Option<Instant>,
    not_before: Option<Instant>,
    /// Somebody has been asked to write, and goes on until nothing is to be written.
    has_writer: bool,
    /// He does just now.
    is_writing: bool,
}

#[derive(Debug)]
struct Service {
    nodes: Vec<Arc<Node>>,
    /// In seconds since 1970, when that was so.
    at: u64,
    told: Instant,
    written: Option<Instant>,
    /// It must be written.
    is_due: bool,
}

/// A service as it is to be written.
#[derive(Debug, PartialEq)]
pub(super) struct Told {
    pub(super) key: Key,
    pub(super) nodes: Vec<Arc<Node>>,
    /// In seconds since 1970.
    pub(super) at: u64,
}

impl Pending {
    /// Takes a service's nodes. Whether somebody is to be asked to write.
    #[must_use]
    pub(super) fn told(&mut self, now: Instant, told: Told, refresh: Duration) -> bool {
        let Told { key, nodes, at } = told;
        let before = self.services.remove(&key);
        let is_due = before.as_ref().is_none_or(|before| {
            let is_old = before.written.is_none_or(|written| now >= written + refresh);
            before.is_due || is_old || before.nodes != nodes
        });
        let written = before.and_then(|before| before.written);
        self.services.insert(key, Service { nodes, at, told: now, written, is_due });
        if is_due {
            let at = (now + GATHER).max(self.not_before.unwrap_or(now));
            self.write_at.get_or_insert(at);
        }
        // One whose runtime nobody drives any more writes nothing, and does not say so.
        let is_stuck = !self.is_writing && self.write_at.is_some_and(|at| now > at + RETRY);
        let is_wanted = self.write_at.is_some() && (!self.has_writer || is_stuck);
        self.has_writer |= is_wanted;
        is_wanted
    }

    /// When the writer is to write; none if he is not needed any more.
    pub(super) fn next(&mut self) -> Option<Instant> {
        self.has_writer = self.write_at.is_some();
        self.write_at
    }

    /// What to write now: as the file is written whole, all that was heard since the last time.
    pub(super) fn take(&mut self, now: Instant) -> Vec<Told> {
        (self.write_at, self.is_writing) = (None, true);
        // Registries are read every few minutes: of others nobody asks any more.
        self.services.retain(|_, service| service.is_due || now < service.told + 2 * REFRESH);
        let is_news = |service: &Service| {
            service.is_due || service.written.is_none_or(|written| service.told > written)
        };
        let news = self.services.iter_mut().filter(|(_, service)| is_news(service));
        news.map(|(key, service)| {
            (service.written, service.is_due) = (Some(now), false);
            Told { key: key.clone(), nodes: service.nodes.clone(), at: service.at }
        })
        .collect()
    }

    pub(super) fn written(&mut self) {
        (self.not_before, self.is_writing) = (None, false);
    }

    /// All is written anew, with the next news after a while. Whether it is the first failure.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        let not_before = now + RETRY;
        let is_first = self.not_before.replace(not_before).is_none();
        self.write_at = self.write_at.map(|at| at.max(not_before));
        self.is_writing = false;
        self.services.values_mut().for_each(|service| service.is_due = true);
        is_first
    }

    /// The writer is gone with his runtime: another is asked with the next news.
    pub(super) fn abandoned(&mut self, now: Instant) {
        self.has_writer = false;
        if self.is_writing {
            // The file was not at fault.
            self.failed(now);
            self.not_before = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(service: &str, ids: &[&str], at: u64) -> Told {
        let nodes = ids.iter().map(|id| Arc::new(Node::new(service, *id, "127.0.0.1:1")));
        Told { key: ("x".to_owned(), service.to_owned()), nodes: nodes.collect(), at }
    }

    fn services(told: &[Told]) -> Vec<(&str, u64)> {
        told.iter().map(|told| (told.key.1.as_str(), told.at)).collect()
    }

    /// One of these services has been written.
    fn written(pending: &mut Pending, now: Instant) {
        assert!(pending.told(now, told("a", &["1"], 1), REFRESH));
        assert_eq!(pending.take(now).len(), 1);
        pending.written();
        assert_eq!(pending.next(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_services_are_written_at_once_by_one_writer() {
        let (mut pending, begin) = (Pending::default(), Instant::now());
        let mut writers = 0;
        for n in 0..1_000 {
            let now = begin + GATHER * n / 1_000;
            writers += u32::from(pending.told(now, told(&format!("s{n}"), &["1"], 1), REFRESH));
        }
        assert_eq!(writers, 1);
        assert_eq!(pending.next(), Some(begin + GATHER));
        assert_eq!(pending.take(begin + GATHER).len(), 1_000);
        pending.written();
        assert_eq!(pending.next(), None, "the writer may go");
    }

    #[tokio::test(start_paused = true)]
    async fn an_unchanged_set_is_written_once_an_hour_and_with_others() {
        let (mut pending, begin) = (Pending::default(), Instant::now());
        written(&mut pending, begin);
        let minute = Duration::from_secs(60);
        assert!(!pending.told(begin + 30 * minute, told("a", &["1"], 2), REFRESH));
        assert!(pending.told(begin + 30 * minute, told("b", &["1"], 2), REFRESH));
        let news = pending.take(begin + 30 * minute + GATHER);
        assert_eq!(services(&news), [("a", 2), ("b", 2)], "the file is written anyway");
        pending.written();
        assert_eq!(pending.next(), None);
        assert!(!pending.told(begin + 80 * minute, told("a", &["1"], 3), REFRESH));
        let is_wanted = pending.told(begin + 80 * minute, told("a", &["1"], 3), 10 * minute);
        assert!(is_wanted, "who wants it newer gets it so");
        assert_eq!(services(&pending.take(begin + 80 * minute + GATHER)), [("a", 3)]);
        pending.written();
        assert_eq!(pending.next(), None);
        assert!(pending.told(begin + 141 * minute, told("a", &["1"], 4), REFRESH));
    }

    #[tokio::test(start_paused = true)]
    async fn what_changes_while_the_file_is_written_follows() {
        let (mut pending, begin) = (Pending::default(), Instant::now());
        assert!(pending.told(begin, told("a", &["1"], 1), REFRESH));
        assert_eq!(pending.take(begin + GATHER), [told("a", &["1"], 1)]);
        let later = begin + 2 * GATHER;
        assert!(!pending.told(later, told("a", &["2"], 2), REFRESH), "it has a writer");
        pending.written();
        assert_eq!(pending.next(), Some(later + GATHER));
        assert_eq!(pending.take(later + GATHER), [told("a", &["2"], 2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_failure_all_is_written_a_minute_later_with_the_next_news() {
        let (mut pending, begin) = (Pending::default(), Instant::now());
        assert!(pending.told(begin, told("a", &["1"], 1), REFRESH));
        assert_eq!(pending.take(begin).len(), 1);
        assert!(pending.failed(begin));
        assert_eq!(pending.next(), None);
        let soon = begin + 2 * GATHER;
        assert!(pending.told(soon, told("a", &["1"], 1), REFRESH), "unchanged, and not written");
        assert_eq!(pending.next(), Some(begin + RETRY));
        // Nor do news hasten it that came while it failed.
        assert_eq!(pending.take(begin + RETRY).len(), 1);
        assert!(!pending.told(begin + RETRY, told("b", &["1"], 1), REFRESH));
        assert!(!pending.failed(begin + RETRY), "it is told once");
        assert_eq!(pending.next(), Some(begin + 2 * RETRY));
        assert_eq!(pending.take(begin + 2 * RETRY).len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_writer_that_is_gone_is_followed_by_another() {
        let (mut pending, begin) = (Pending::default(), Instant::now());
        assert!(pending.told(begin, told("a", &["1"], 1), REFRESH));
        pending.abandoned(begin);
        assert!(pending.told(begin, told("a", &["1"], 1), REFRESH), "before it wrote");
        assert_eq!(pending.take(begin + GATHER).len(), 1);
        pending.abandoned(begin + GATHER);
        assert!(pending.told(begin + GATHER, told("b", &["1"], 1), REFRESH), "while it wrote");
        assert_eq!(pending.take(begin + RETRY + GATHER).len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_writer_that_does_nothing_is_followed_by_another() {
        let (mut pending, begin) = (Pending::default(), Instant::now());
        assert!(pending.told(begin, told("a", &["1"], 1), REFRESH));
        let late = begin + GATHER + RETRY;
        assert!(!pending.told(late, told("b", &["1"], 1), REFRESH), "it may be about to");
        let later = late + GATHER;
        assert!(pending.told(later, told("b", &["1"], 1), REFRESH));
        assert_eq!(pending.take(later).len(), 2);
        let write = pending.told(later + 2 * RETRY, told("b", &["2"], 1), REFRESH);
        assert!(!write, "it writes, however long that takes");
    }

    #[tokio::test(start_paused = true)]
    async fn services_that_nobody_follows_any_more_are_let_go() {
        let (mut pending, begin) = (Pending::default(), Instant::now());
        written(&mut pending, begin);
        let now = begin + 2 * REFRESH;
        assert!(pending.told(now, told("b", &["1"], 2), REFRESH));
        assert_eq!(services(&pending.take(now)), [("b", 2)]);
        assert_eq!(pending.services.len(), 1);
    }
}
