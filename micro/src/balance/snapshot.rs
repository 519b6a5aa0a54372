//! The immutable set that a call picks from, and how the next one is made from the last.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use tokio::{sync::mpsc, time::Instant};

#[cfg(any(test, feature = "bench"))]
use super::members::Key;
use super::{
    EndpointId, News, Request,
    ewma::Load,
    policy::{Balancing, Counted, InFlight, Rule},
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
    /// Since when calls go to it.
    pub(super) since: Instant,
    /// Where to tell what comes of its calls.
    pub(super) news: mpsc::UnboundedSender<News<C>>,
}

impl<C> Endpoint<C> {
    /// How long calls have gone to it.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }
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
        let (since, news) = (load.born(), mpsc::unbounded_channel().0);
        let (load, tally) = (Arc::new(load), Arc::new(Tally::new(key)));
        Arc::new(Self { id, node, connection, load, tally, since, news })
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
        Picked::new(&Balancing::default(), false).now
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
            // One that came back at another address may be there twice for a while.
            let mut endpoints = self.set.iter().filter(|endpoint| endpoint.node.id == id);
            return endpoints.find(|endpoint| request.has_room(endpoint));
        }
        let asked = Asked::new(request, request.tried, self.serving);
        let picked = self.rule.pick(&self.set, &asked, now, rng);
        if picked.is_some() || request.tried.is_empty() {
            return picked;
        }
        self.rule.pick(&self.set, &Asked { tried: &[], ..asked }, now, rng)
    }

    /// Whether there are endpoints for the call, and it has tried all of them.
    pub(super) fn repeats(&self, request: &Request<'_>) -> bool {
        let asked = Asked::new(request, request.tried, self.serving);
        let has_any = |asked: Asked<'_>| self.set.iter().any(|endpoint| asked.admits(endpoint));
        !has_any(asked) && has_any(Asked { tried: &[], ..asked })
    }

    /// Whether there are endpoints for the call that the rule may pass by all the same.
    pub(super) fn is_choosy(&self, request: &Request<'_>) -> bool {
        let asked = Asked::new(request, &[], self.serving);
        let is_choosy = self.rule.is_choosy() && request.node.is_none();
        is_choosy && self.set.iter().any(|endpoint| asked.admits(endpoint))
    }

    /// Whether the rule might choose an endpoint for some call, were it in the set.
    pub(super) fn is_called(&self, endpoint: &Endpoint<C>) -> bool {
        self.rule.is_called(&self.set, endpoint)
    }

    /// Whether it might for this one.
    pub(super) fn is_for(&self, request: &Request<'_>, endpoint: &Endpoint<C>) -> bool {
        self.is_called(endpoint) && self.rule.is_for(request, endpoint)
    }

    /// Counts a call that begins on a node towards what the rule goes by, for as long as the guard lives.
    pub(super) fn count(&self, load: &Arc<Load>) -> Option<Counted> {
        self.rule.count(load)
    }
}

/// The set under change, which shares with the snapshots taken of it what has not changed since.
#[derive(Debug)]
pub(super) struct Picked<C> {
    now: Snapshot<C>,
    places: Places,
    /// What counts in flight on the whole set: rules come and go, and the calls stay.
    counted: Arc<InFlight>,
}

impl<C> Picked<C> {
    pub(super) fn new(balancing: &Balancing, serving: bool) -> Self {
        Self::counting(balancing, serving, Arc::default())
    }

    fn counting(balancing: &Balancing, serving: bool, counted: Arc<InFlight>) -> Self {
        let rule = Rule::new(balancing, &counted);
        let now = Snapshot { set: Set::empty(), rule, serving };
        Self { now, places: Places::new(), counted }
    }

    pub(super) fn len(&self) -> usize {
        self.now.len()
    }

    pub(super) fn get(&self, id: EndpointId) -> Option<&Arc<Endpoint<C>>> {
        self.places.get(&id).map(|place| self.now.set.get(*place))
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
        let mut new = Self::counting(balancing, self.now.serving, self.counted.clone());
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
        let known = self.places.get(&id).copied();
        let before = known.map(|place| &*set.get(place).node);
        let slot = Slot { weight: rule.weight(&endpoint.node, before), endpoint };
        rule.insert(&slot.endpoint);
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
mod tests;
