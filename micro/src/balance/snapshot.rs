//! The immutable set that a call picks from, and how the next one is made from the last.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use tokio::{sync::mpsc, time::Instant};

#[cfg(any(test, feature = "bench"))]
use super::members::Key;
use super::{
    EndpointId, News, Request,
    ewma::Load,
    policy::{Balancing, Counted, Rule},
    request::Asked,
    set::{Places, Set, Slot},
    tally::Tally,
};
use crate::{discovery::Update, registry::Node};

/// How many nodes the median latency is taken from at most: enough for a start.
const MEDIAN_OF: usize = 63;

/// A node that calls can go to.
#[derive(Debug)]
pub(super) struct Endpoint<C> {
    pub(super) id: EndpointId,
    pub(super) node: Arc<Node>,
    pub(super) connection: C,
    pub(super) load: Arc<Load>,
    pub(super) tally: Arc<Tally>,
    /// Where to tell what comes of its calls.
    pub(super) news: mpsc::UnboundedSender<News<C>>,
}

#[cfg(any(test, feature = "bench"))]
impl<C> Endpoint<C> {
    /// One whose news nobody hears.
    #[cfg(test)]
    pub(super) fn new(id: EndpointId, connection: C, load: Load) -> Arc<Self> {
        let node = Node::new("greeter", id.0.to_string(), "host:1");
        Self::of(Arc::new(node), id, connection, load)
    }

    /// The same with a record.
    pub(super) fn of(node: Arc<Node>, id: EndpointId, connection: C, load: Load) -> Arc<Self> {
        let key = Key { id: node.id.as_str().into(), address: node.address.as_str().into() };
        let (load, tally) = (Arc::new(load), Arc::new(Tally::new(key)));
        Arc::new(Self { id, node, connection, load, tally, news: mpsc::unbounded_channel().0 })
    }
}

/// The endpoints that are ready, and the rule that chooses among them.
#[derive(Debug, Clone)]
pub(super) struct Snapshot<C> {
    set: Set<C>,
    rule: Rule<C>,
    /// Whether only a node whose record has the method gets its calls.
    serving: bool,
}

impl<C> Snapshot<C> {
    /// Nothing to pick.
    pub(super) fn empty() -> Self {
        Self { set: Set::empty(), rule: Rule::new(&Balancing::default()), serving: false }
    }

    pub(super) fn len(&self) -> usize {
        self.set.len()
    }

    /// The endpoint that the rule chooses for a call, one of those it has tried only when there is no
    /// other; of a pinned call the one that it is pinned to. The walk over the set that finds that
    /// one is what pinning costs: some 10 us at 10 000 nodes.
    pub(super) fn pick(
        &self,
        request: &Request<'_>,
        now: Instant,
        rng: &mut Rng,
    ) -> Option<&Arc<Endpoint<C>>> {
        if let Some(id) = request.node {
            let endpoint = self.set.iter().find(|endpoint| endpoint.node.id == id);
            return endpoint.filter(|endpoint| request.has_room(endpoint));
        }
        let asked = Asked { request, tried: request.tried, serving: self.serving };
        let picked = self.rule.pick(&self.set, &asked, now, rng);
        if picked.is_some() || request.tried.is_empty() {
            return picked;
        }
        self.rule.pick(&self.set, &Asked { tried: &[], ..asked }, now, rng)
    }

    /// Counts a call that begins towards what the rule goes by, for as long as the guard lives.
    pub(super) fn count(&self) -> Option<Counted> {
        self.rule.count()
    }
}

/// The set under change, which shares with the snapshots taken of it what has not changed since.
#[derive(Debug)]
pub(super) struct Picked<C> {
    now: Snapshot<C>,
    places: Places,
}

impl<C> Picked<C> {
    pub(super) fn new(balancing: &Balancing, serving: bool) -> Self {
        let now = Snapshot { set: Set::empty(), rule: Rule::new(balancing), serving };
        Self { now, places: Places::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.now.len()
    }

    pub(super) fn snapshot(&mut self) -> Snapshot<C>
    where
        C: Clone,
    {
        self.now.rule.seal(&self.now.set);
        self.now.clone()
    }

    /// Goes by another rule from now on; `listed` is all that the registry lists.
    pub(super) fn set_balancing(&mut self, balancing: &Balancing, listed: &Update) {
        let mut new = Self::new(balancing, self.now.serving);
        new.listed(listed);
        for endpoint in self.now.set.iter() {
            new.insert(endpoint.clone());
        }
        *self = new;
    }

    /// Hears what the registry lists, for the rule that goes by how much of it is ready.
    pub(super) fn listed(&mut self, update: &Update) {
        self.now.rule.listed(update);
    }

    /// Adds an endpoint, or replaces the one of the same id; true if it is a new one.
    pub(super) fn insert(&mut self, endpoint: Arc<Endpoint<C>>) -> bool {
        let Snapshot { set, rule, .. } = &mut self.now;
        let (id, is_own) = (endpoint.id, rule.is_own(&endpoint.node));
        let slot = Slot { weight: rule.weight(&endpoint.node), endpoint };
        rule.insert(&slot.endpoint);
        let known = self.places.get(&id).copied();
        match known {
            Some(place) if set.is_own(place) == is_own => set.replace(place, slot),
            Some(place) => {
                set.remove(place, &mut self.places);
                set.insert(slot, is_own, &mut self.places);
            }
            None => set.insert(slot, is_own, &mut self.places),
        }
        known.is_none()
    }

    /// Takes an endpoint out.
    pub(super) fn remove(&mut self, id: EndpointId) {
        let Some(place) = self.places.remove(&id) else {
            return;
        };
        let Snapshot { set, rule, .. } = &mut self.now;
        rule.remove(set.get(place));
        set.remove(place, &mut self.places);
    }

    /// The median of the measured latencies, over at most [`MEDIAN_OF`] endpoints evenly spread.
    pub(super) fn median_latency(&self, now: Instant) -> Option<Duration> {
        let step = self.len().div_ceil(MEDIAN_OF).max(1);
        let mut latencies: Vec<_> = (0..self.len())
            .step_by(step)
            .filter_map(|place| self.now.set.get(place).load.latency(now))
            .collect();
        let middle = latencies.len() / 2;
        (!latencies.is_empty()).then(|| *latencies.select_nth_unstable(middle).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(id: u64, now: Instant) -> Arc<Endpoint<u64>> {
        Endpoint::new(EndpointId(id), id, Load::new(None, Duration::from_secs(5), now))
    }

    fn picked(count: u64, now: Instant) -> Picked<u64> {
        let mut picked = Picked::new(&Balancing::p2c(), false);
        for id in 0..count {
            assert!(picked.insert(endpoint(id, now)));
        }
        picked
    }

    fn tried(tried: &[EndpointId]) -> Request<'_> {
        Request { tried, ..Request::default() }
    }

    fn ids(snapshot: &Snapshot<u64>) -> Vec<u64> {
        let mut ids: Vec<_> = (0..snapshot.len()).map(|i| snapshot.set.get(i).id.0).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn an_empty_set_has_nothing_to_pick() {
        let snapshot = Snapshot::<u64>::empty();
        let now = Instant::now();
        assert!(snapshot.pick(&Request::default(), now, &mut Rng::with_seed(0)).is_none());
        assert!(snapshot.pick(&tried(&[EndpointId(1)]), now, &mut Rng::with_seed(0)).is_none());
    }

    #[test]
    fn the_cheaper_of_two_different_endpoints_is_picked() {
        let now = Instant::now();
        let snapshot = picked(2, now).snapshot();
        for _ in 0..2 {
            snapshot.set.get(0).load.begin();
        }
        let mut rng = Rng::with_seed(1);
        for _ in 0..100 {
            let pick = snapshot.pick(&Request::default(), now, &mut rng).expect("two are ready");
            assert_eq!(pick.id, EndpointId(1), "not the one with two calls in flight");
        }
    }

    #[test]
    fn what_was_tried_is_avoided_while_another_is_ready() {
        let now = Instant::now();
        let snapshot = picked(300, now).snapshot();
        let four = [EndpointId(3), EndpointId(4), EndpointId(5), EndpointId(200)];
        let mut rng = Rng::with_seed(2);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..10_000 {
            let pick = snapshot.pick(&tried(&four), now, &mut rng).expect("ready");
            assert!(!four.contains(&pick.id), "{:?} was tried", pick.id);
            seen.insert(pick.id);
        }
        assert_eq!(seen.len(), 296, "every other one gets its turn");

        let snapshot = picked(2, now).snapshot();
        snapshot.set.get(1).load.begin();
        let pick = snapshot.pick(&tried(&[EndpointId(0)]), now, &mut rng).expect("ready");
        assert_eq!(pick.id, EndpointId(1), "the only other one, though it is dearer");
        let both = [EndpointId(0), EndpointId(1)];
        assert!(snapshot.pick(&tried(&both), now, &mut rng).is_some(), "rather than none");
    }

    #[test]
    fn a_snapshot_keeps_what_it_was_taken_of() {
        let now = Instant::now();
        let mut picked = picked(5, now);
        let before = picked.snapshot();
        picked.remove(EndpointId(1));
        assert!(picked.insert(endpoint(7, now)));
        assert_eq!(ids(&before), [0, 1, 2, 3, 4]);
        assert_eq!(ids(&picked.snapshot()), [0, 2, 3, 4, 7]);
    }

    #[test]
    fn a_new_record_replaces_the_endpoint_in_its_place() {
        let now = Instant::now();
        let mut picked = picked(3, now);
        let load = Load::new(None, Duration::from_secs(5), now);
        assert!(!picked.insert(Endpoint::new(EndpointId(1), 99, load)));
        assert_eq!(picked.snapshot().set.get(1).connection, 99);
        assert_eq!(picked.len(), 3);
    }

    #[test]
    fn any_order_of_changes_leaves_the_right_set() {
        let now = Instant::now();
        let mut rng = Rng::with_seed(3);
        let mut picked = Picked::new(&Balancing::zone_first("a"), false);
        let mut model = std::collections::BTreeMap::new();
        for _ in 0..5_000 {
            let id = rng.u64(..400);
            if rng.u8(..3) > 0 {
                // A node may change its zone with its record.
                let zone = if rng.bool() { "a" } else { "b" };
                let mut node = Node::new("greeter", id.to_string(), "host:1");
                node.metadata.insert("zone".to_owned(), zone.to_owned());
                let load = Load::new(None, Duration::from_secs(5), now);
                let endpoint = Endpoint::of(Arc::new(node), EndpointId(id), id, load);
                assert_eq!(picked.insert(endpoint), model.insert(id, zone).is_none());
            } else {
                picked.remove(EndpointId(id));
                model.remove(&id);
            }
            assert_eq!(picked.len(), model.len());
        }
        let snapshot = picked.snapshot();
        assert_eq!(ids(&snapshot), Vec::from_iter(model.keys().copied()));
        let zone = |place| snapshot.set.get(place).node.metadata["zone"].as_str();
        assert!(snapshot.set.own().all(|place| zone(place) == "a"));
        assert!(snapshot.set.others().all(|place| zone(place) == "b"));
    }

    #[test]
    fn a_change_among_10_000_copies_one_chunk() {
        let now = Instant::now();
        let mut picked = picked(10_000, now);
        let before = picked.snapshot();
        assert!(!picked.insert(endpoint(5_000, now)));
        let after = picked.snapshot();
        let copied = before
            .set
            .chunks()
            .iter()
            .zip(after.set.chunks())
            .filter(|(a, b)| !Arc::ptr_eq(a, b))
            .count();
        assert_eq!(copied, 1);
    }

    #[test]
    fn the_median_is_of_measured_latencies() {
        let now = Instant::now();
        let mut picked = picked(5, now);
        assert_eq!(picked.median_latency(now), None, "none has answered");
        let snapshot = picked.snapshot();
        for (place, ms) in [(0, 1), (2, 3), (4, 500)] {
            snapshot.set.get(place).load.succeeded(Duration::from_millis(ms), now);
        }
        let median = picked.median_latency(now).expect("three have answered");
        assert!(median.abs_diff(Duration::from_millis(3)) < Duration::from_micros(1), "{median:?}");
    }
}
