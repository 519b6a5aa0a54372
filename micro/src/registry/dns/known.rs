//! What is known of one service, without IO: what DNS said last, when, and for how long it holds.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use fastrand::Rng;
use tokio::time::Instant;

use super::{
    super::{Entry, Listing, Malformed, Node},
    ask::{Answer, Kinds},
};

/// No service is asked for more often than this, however short its TTL and whatever happens.
pub(super) const LEAST: Duration = Duration::from_secs(1);

/// Nothing holds longer than this: a TTL may have any number of years.
const MOST: Duration = Duration::from_secs(24 * 60 * 60);

/// By how much of the TTL an answer may be used for longer, so that callers that began at once
/// do not ask at once for ever.
const JITTER: f64 = 0.1;

#[derive(Debug)]
pub(super) struct Known {
    service: String,
    /// When DNS last answered or failed to, and what is wrong if it did.
    asked: Option<(Instant, Option<String>)>,
    /// What it said last.
    listing: Option<Listing>,
    /// Until when that holds.
    holds_until: Option<Instant>,
    rng: Rng,
}

impl Known {
    pub(super) fn new(service: &str, rng: Rng) -> Self {
        Self { service: service.to_owned(), asked: None, listing: None, holds_until: None, rng }
    }

    /// What is to be told without asking, if it is too soon to ask.
    pub(super) fn recent(&self, now: Instant) -> Option<Result<Listing, String>> {
        let (at, failure) = self.asked.as_ref()?;
        if now >= *at + LEAST {
            return None;
        }
        match failure {
            Some(why) => Some(Err(why.clone())),
            None => self.listing.clone().map(Ok),
        }
    }

    /// What was said last, and until when it holds; nothing if the last question failed.
    pub(super) fn standing(&self) -> Option<(&Listing, Instant)> {
        let (_, None) = self.asked.as_ref()? else { return None };
        Some((self.listing.as_ref()?, self.holds_until?))
    }

    /// Which kinds of addresses there are.
    pub(super) fn kinds(&self) -> Kinds {
        let mut kinds = Kinds::default();
        for entry in self.listing.iter().flat_map(|listing| &listing.entries) {
            match entry.key.parse() {
                Ok(SocketAddr::V4(_)) => kinds.v4 = true,
                Ok(SocketAddr::V6(_)) => kinds.v6 = true,
                Err(_) => {}
            }
        }
        kinds
    }

    /// Takes an answer in, under that revision if it is another one than before.
    pub(super) fn take(
        &mut self,
        now: Instant,
        answer: Result<Answer, String>,
        revision: impl FnOnce() -> u64,
    ) -> Result<Listing, String> {
        let answer = match answer {
            Ok(answer) => answer,
            Err(why) => {
                self.asked = Some((now, Some(why.clone())));
                return Err(why);
            }
        };
        self.asked = Some((now, None));
        let ttl = answer.ttl.min(MOST).mul_f64(1.0 + JITTER * self.rng.f64());
        self.holds_until = Some(now + ttl.max(LEAST));
        let nodes = answer.addresses.iter();
        let nodes: Vec<_> = nodes.map(|(at, weight)| self.node(at, *weight)).collect();
        let listing = match self.listing.take() {
            Some(old) if is_same(&old, &nodes, &answer.malformed) => old,
            old => {
                let revision = revision();
                let old = old.map(|old| old.entries).unwrap_or_default();
                let entry = |node: Node| match old.iter().find(|entry| *entry.node == node) {
                    Some(entry) => entry.clone(),
                    None => Entry { key: node.id.clone(), revision, rank: 0, node: Arc::new(node) },
                };
                let entries = nodes.into_iter().map(entry).collect();
                Listing { revision, entries, malformed: answer.malformed }
            }
        };
        Ok(self.listing.insert(listing).clone())
    }

    fn node(&self, address: &str, weight: Option<u16>) -> Node {
        let mut node = Node::new(&self.service, address, address);
        if let Some(weight) = weight {
            node.metadata.insert("weight".to_owned(), weight.to_string());
        }
        node
    }
}

fn is_same(old: &Listing, nodes: &[Node], malformed: &[Malformed]) -> bool {
    old.malformed == malformed && old.entries.iter().map(|entry| &*entry.node).eq(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a@1 b@2#60`: addresses, the weights behind `@`, the TTL behind `#`.
    fn answer(short: &str) -> Result<Answer, String> {
        let (addresses, ttl) = short.split_once('#').expect("a TTL");
        let addresses = addresses.split_whitespace().map(|it| match it.split_once('@') {
            Some((address, weight)) => {
                (address.to_owned(), Some(weight.parse().expect("a weight")))
            }
            None => (it.to_owned(), None),
        });
        let ttl = Duration::from_secs(ttl.parse().expect("seconds"));
        Ok(Answer { addresses: addresses.collect(), malformed: Vec::new(), ttl })
    }

    fn known() -> Known {
        Known::new("greeter", Rng::with_seed(7))
    }

    fn told(listing: &Listing) -> String {
        let entries = listing.entries.iter().map(|it| format!("{}#{}", it.node.id, it.revision));
        format!("{}: {}", listing.revision, entries.collect::<Vec<_>>().join(" "))
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn only_what_changes_gets_a_new_revision() {
        let (mut known, now) = (known(), Instant::now());
        let mut revision = 0;
        let mut take = |short: &str| {
            let next = || {
                revision += 1;
                revision
            };
            told(&known.take(now, answer(short), next).unwrap())
        };
        assert_eq!(take("1.1.1.1:1 1.1.1.2:1#5"), "1: 1.1.1.1:1#1 1.1.1.2:1#1");
        assert_eq!(take("1.1.1.1:1 1.1.1.2:1#9"), "1: 1.1.1.1:1#1 1.1.1.2:1#1");
        assert_eq!(take("1.1.1.2:1 1.1.1.3:1#5"), "2: 1.1.1.2:1#1 1.1.1.3:1#2");
        assert_eq!(take("1.1.1.2:1 1.1.1.3:1@7#5"), "3: 1.1.1.2:1#1 1.1.1.3:1#3");
    }

    #[test]
    fn an_answer_holds_for_its_ttl_and_a_tenth_at_most() {
        for (ttl, least, most) in
            [(0, 1.0, 1.0), (1, 1.0, 1.1), (60, 60.0, 66.0), (u32::MAX, 86_400.0, 95_040.0)]
        {
            let (mut known, now) = (known(), Instant::now());
            for _ in 0..100 {
                let _ = known.take(now, answer(&format!("1.1.1.1:1#{ttl}")), || 1);
                let (_, until) = known.standing().expect("it stands");
                let holds = (until - now).as_secs_f64();
                assert!((least..=most).contains(&holds), "{ttl}: {holds}");
            }
        }
    }

    #[test]
    fn nobody_is_asked_twice_within_a_second() {
        let (mut known, now) = (known(), Instant::now());
        assert!(known.recent(now).is_none(), "nothing was asked yet");
        known.take(now, answer("1.1.1.1:1#60"), || 1).unwrap();
        let almost = now + SECOND - Duration::from_millis(1);
        assert!(known.recent(almost).is_some_and(|it| it.is_ok_and(|it| it.entries.len() == 1)));
        assert!(known.recent(now + SECOND).is_none());
        known.take(now + SECOND, Err("away".to_owned()), || 2).unwrap_err();
        assert!(known.recent(almost + SECOND).is_some_and(|it| it.is_err_and(|it| it == "away")));
        assert!(known.recent(now + SECOND * 2).is_none());
    }

    #[test]
    fn a_failure_stands_until_the_next_answer_and_costs_no_revision() {
        let (mut known, now) = (known(), Instant::now());
        known.take(now, answer("1.1.1.1:1#60"), || 1).unwrap();
        known.take(now, Err("away".to_owned()), || 2).unwrap_err();
        assert!(known.standing().is_none());
        let listing = known.take(now, answer("1.1.1.1:1#60"), || 2).unwrap();
        assert_eq!(told(&listing), "1: 1.1.1.1:1#1");
    }

    #[test]
    fn kinds_are_those_of_the_last_answer() {
        let (mut known, now) = (known(), Instant::now());
        assert_eq!(known.kinds(), Kinds::default());
        known.take(now, answer("1.1.1.1:1 [::1]:1#60"), || 1).unwrap();
        known.take(now, Err("away".to_owned()), || 2).unwrap_err();
        assert_eq!(known.kinds(), Kinds { v4: true, v6: true });
        known.take(now, answer("[::1]:1#60"), || 2).unwrap();
        assert_eq!(known.kinds(), Kinds { v4: false, v6: true });
    }
}
