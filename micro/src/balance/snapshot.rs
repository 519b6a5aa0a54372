//! The immutable set that a call picks from, and how the next one is made from the last.

use std::{collections::HashMap, sync::Arc, time::Duration};

use fastrand::Rng;
use tokio::{sync::mpsc, time::Instant};

#[cfg(test)]
use super::members::Key;
use super::{EndpointId, News, ewma::Load, tally::Tally};
use crate::registry::Node;

/// A change copies one chunk and the list of chunks: at 10 000 nodes some 200 pointers, not 10 000.
const CHUNK: usize = 128;

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
    pub(super) news: mpsc::UnboundedSender<News>,
}

#[cfg(test)]
impl<C> Endpoint<C> {
    /// One whose news nobody hears.
    pub(super) fn new(id: EndpointId, connection: C, load: Load) -> Arc<Self> {
        let node = Arc::new(Node::new("greeter", id.0.to_string(), "host:1"));
        let key = Key { id: node.id.as_str().into(), address: node.address.as_str().into() };
        let (load, tally) = (Arc::new(load), Arc::new(Tally::new(key)));
        Arc::new(Self { id, node, connection, load, tally, news: mpsc::unbounded_channel().0 })
    }
}

/// The endpoints that are ready.
#[derive(Debug)]
pub(super) struct Snapshot<C> {
    chunks: Vec<Arc<Vec<Arc<Endpoint<C>>>>>,
    len: usize,
}

impl<C> Snapshot<C> {
    pub(super) fn empty() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn get(&self, index: usize) -> &Arc<Endpoint<C>> {
        &self.chunks[index / CHUNK][index % CHUNK]
    }

    /// The cheaper of two endpoints drawn at random ("the power of two choices"), those in `tried`
    /// only when there is no other. Constant time, but for the length of `tried`.
    pub(super) fn pick(
        &self,
        tried: &[EndpointId],
        now: Instant,
        rng: &mut Rng,
    ) -> Option<&Arc<Endpoint<C>>> {
        if !tried.is_empty()
            && let Some(endpoint) = self.pick_untried(tried, now, rng)
        {
            return Some(endpoint);
        }
        match self.len {
            0 => None,
            1 => Some(self.get(0)),
            len => {
                let first = rng.usize(..len);
                let second = rng.usize(..len - 1);
                let second = second + usize::from(second >= first);
                Some(cheaper(self.get(first), self.get(second), now, rng))
            }
        }
    }

    /// Walks on from a random place, past what was tried: a walk of `tried` steps finds one.
    fn pick_untried(
        &self,
        tried: &[EndpointId],
        now: Instant,
        rng: &mut Rng,
    ) -> Option<&Arc<Endpoint<C>>> {
        if self.len == 0 {
            return None;
        }
        let mut draw = |other: Option<EndpointId>| {
            let start = rng.usize(..self.len);
            let steps = self.len.min(tried.len() + 2);
            (start..start + steps)
                .map(|index| self.get(index % self.len))
                .find(|it| Some(it.id) != other && !tried.contains(&it.id))
        };
        let first = draw(None)?;
        let second = draw(Some(first.id));
        Some(second.map_or(first, |second| cheaper(first, second, now, rng)))
    }
}

/// The cheaper of two, where a difference of less than 2 is settled by chance, the more often for
/// the cheaper the larger it is. Without that, a single caller leaves the dearer of two equal nodes
/// alone until its estimate fades: *simulated*, shares of 1.5, 1.4 and 0.1 over two seconds.
fn cheaper<'a, C>(
    first: &'a Arc<Endpoint<C>>,
    second: &'a Arc<Endpoint<C>>,
    now: Instant,
    rng: &mut Rng,
) -> &'a Arc<Endpoint<C>> {
    let chance = rng.f32();
    // From 1/2 to 2, and as often under 1 as over it.
    let handicap = (1.0 + chance) / (2.0 - chance);
    let second_is_cheaper = second.load.relative_cost(&first.load, now) * handicap < 1.0;
    if second_is_cheaper { second } else { first }
}

/// The set under change, which shares with the snapshots taken of it what has not changed since.
#[derive(Debug)]
pub(super) struct Picked<C> {
    chunks: Vec<Arc<Vec<Arc<Endpoint<C>>>>>,
    places: HashMap<EndpointId, usize>,
}

impl<C> Picked<C> {
    pub(super) fn new() -> Self {
        Self { chunks: Vec::new(), places: HashMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn snapshot(&self) -> Snapshot<C> {
        Snapshot { chunks: self.chunks.clone(), len: self.len() }
    }

    /// Adds an endpoint, or replaces the one of the same id; true if it is a new one.
    pub(super) fn insert(&mut self, endpoint: Arc<Endpoint<C>>) -> bool {
        let id = endpoint.id;
        if let Some(&place) = self.places.get(&id) {
            Arc::make_mut(&mut self.chunks[place / CHUNK])[place % CHUNK] = endpoint;
            return false;
        }
        let place = self.len();
        if place.is_multiple_of(CHUNK) {
            self.chunks.push(Arc::default());
        }
        Arc::make_mut(&mut self.chunks[place / CHUNK]).push(endpoint);
        self.places.insert(id, place);
        true
    }

    /// Takes an endpoint out; the last one takes its place.
    pub(super) fn remove(&mut self, id: EndpointId) {
        let Some(place) = self.places.remove(&id) else {
            return;
        };
        let Some(chunk) = self.chunks.last_mut() else {
            return;
        };
        let last = Arc::make_mut(chunk).pop();
        if chunk.is_empty() {
            self.chunks.pop();
        }
        if let Some(last) = last.filter(|last| last.id != id) {
            self.places.insert(last.id, place);
            Arc::make_mut(&mut self.chunks[place / CHUNK])[place % CHUNK] = last;
        }
    }

    /// The median of the measured latencies, over at most [`MEDIAN_OF`] endpoints evenly spread.
    pub(super) fn median_latency(&self, now: Instant) -> Option<Duration> {
        let step = self.len().div_ceil(MEDIAN_OF).max(1);
        let mut latencies: Vec<_> = (0..self.len())
            .step_by(step)
            .filter_map(|place| self.chunks[place / CHUNK][place % CHUNK].load.latency(now))
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
        let mut picked = Picked::new();
        for id in 0..count {
            assert!(picked.insert(endpoint(id, now)));
        }
        picked
    }

    fn ids(snapshot: &Snapshot<u64>) -> Vec<u64> {
        let mut ids: Vec<_> = (0..snapshot.len()).map(|i| snapshot.get(i).id.0).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn an_empty_set_has_nothing_to_pick() {
        let snapshot = Snapshot::<u64>::empty();
        let now = Instant::now();
        assert!(snapshot.pick(&[], now, &mut Rng::with_seed(0)).is_none());
        assert!(snapshot.pick(&[EndpointId(1)], now, &mut Rng::with_seed(0)).is_none());
    }

    #[test]
    fn the_cheaper_of_two_different_endpoints_is_picked() {
        let now = Instant::now();
        let snapshot = picked(2, now).snapshot();
        for _ in 0..2 {
            snapshot.get(0).load.begin();
        }
        let mut rng = Rng::with_seed(1);
        for _ in 0..100 {
            let pick = snapshot.pick(&[], now, &mut rng).expect("two are ready");
            assert_eq!(pick.id, EndpointId(1), "not the one with two calls in flight");
        }
    }

    #[test]
    fn what_was_tried_is_avoided_while_another_is_ready() {
        let now = Instant::now();
        let snapshot = picked(300, now).snapshot();
        let tried = [EndpointId(3), EndpointId(4), EndpointId(5), EndpointId(200)];
        let mut rng = Rng::with_seed(2);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..10_000 {
            let pick = snapshot.pick(&tried, now, &mut rng).expect("ready");
            assert!(!tried.contains(&pick.id), "{:?} was tried", pick.id);
            seen.insert(pick.id);
        }
        assert_eq!(seen.len(), 296, "every other one gets its turn");

        let snapshot = picked(2, now).snapshot();
        snapshot.get(1).load.begin();
        let pick = snapshot.pick(&[EndpointId(0)], now, &mut rng).expect("ready");
        assert_eq!(pick.id, EndpointId(1), "the only other one, though it is dearer");
        let both = [EndpointId(0), EndpointId(1)];
        assert!(snapshot.pick(&both, now, &mut rng).is_some(), "rather than none");
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
        assert_eq!(picked.snapshot().get(1).connection, 99);
        assert_eq!(picked.len(), 3);
    }

    #[test]
    fn any_order_of_changes_leaves_the_right_set() {
        let now = Instant::now();
        let mut rng = Rng::with_seed(3);
        let mut picked = Picked::new();
        let mut model = std::collections::BTreeSet::new();
        for _ in 0..5_000 {
            let id = rng.u64(..400);
            if rng.u8(..3) > 0 {
                assert_eq!(picked.insert(endpoint(id, now)), model.insert(id));
            } else {
                picked.remove(EndpointId(id));
                model.remove(&id);
            }
            assert_eq!(picked.len(), model.len());
        }
        assert_eq!(ids(&picked.snapshot()), Vec::from_iter(model));
    }

    #[test]
    fn a_change_among_10_000_copies_one_chunk() {
        let now = Instant::now();
        let mut picked = picked(10_000, now);
        let before = picked.snapshot();
        assert!(!picked.insert(endpoint(5_000, now)));
        let after = picked.snapshot();
        let copied =
            before.chunks.iter().zip(&after.chunks).filter(|(a, b)| !Arc::ptr_eq(a, b)).count();
        assert_eq!(copied, 1);
    }

    #[test]
    fn the_median_is_of_measured_latencies() {
        let now = Instant::now();
        let picked = picked(5, now);
        assert_eq!(picked.median_latency(now), None, "none has answered");
        let snapshot = picked.snapshot();
        for (place, ms) in [(0, 1), (2, 3), (4, 500)] {
            snapshot.get(place).load.succeeded(Duration::from_millis(ms), now);
        }
        let median = picked.median_latency(now).expect("three have answered");
        assert!(median.abs_diff(Duration::from_millis(3)) < Duration::from_micros(1), "{median:?}");
    }
}
