//! Records of the services that are followed which cannot be read.

use std::collections::HashMap;

use tokio::time::Instant;

use super::{super::super::Malformed, known::TTL};

/// How many are kept: each is a line in the log of whoever follows the service.
pub(super) const MAX_UNREADABLE: usize = 64;

/// By the instance's name.
#[derive(Debug, Default)]
pub(super) struct Unreadable(HashMap<String, One>);

#[derive(Debug)]
struct One {
    service: String,
    record: Malformed,
    heard: Instant,
}

impl Unreadable {
    /// Whether that is news. None if there are too many already.
    pub(super) fn insert(
        &mut self,
        now: Instant,
        name: &str,
        service: &str,
        record: &Malformed,
    ) -> Option<bool> {
        let earlier = self.0.get(name);
        if earlier.is_none() && self.0.len() >= MAX_UNREADABLE {
            return None;
        }
        let is_news = earlier.is_none_or(|one| one.record != *record);
        let one = One { service: service.to_owned(), record: record.clone(), heard: now };
        self.0.insert(name.to_owned(), one);
        Some(is_news)
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Removes one. Returns its service and its record's key.
    pub(super) fn remove(&mut self, name: &str) -> Option<(String, String)> {
        self.0.remove(name).map(|one| (one.service, one.record.key))
    }

    pub(super) fn remove_service(&mut self, service: &str) {
        self.0.retain(|_, one| one.service != service);
    }

    pub(super) fn of_service(&self, service: &str) -> Vec<Malformed> {
        let of_service = self.0.values().filter(|one| one.service == service);
        of_service.map(|one| one.record.clone()).collect()
    }

    pub(super) fn next_end(&self) -> Option<Instant> {
        self.0.values().map(|one| one.heard + TTL).min()
    }

    /// The names of those not heard again for too long.
    pub(super) fn ended(&self, now: Instant) -> Vec<String> {
        let ended = self.0.iter().filter(|(_, one)| one.heard + TTL <= now);
        ended.map(|(name, _)| name.clone()).collect()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
