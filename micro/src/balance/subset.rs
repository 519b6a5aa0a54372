//! A part of the nodes to connect to, where all would be too many: without IO.
//!
//! As in [gRFC A68], those that come first by a hash of their id and a seed of this client's own
//! (rendezvous hashing): a node that comes or goes moves at most one connection of a client, and each
//! client has another part. Beyond A68, one that cannot be connected to, says that it is not well or is
//! ejected has a stand-in, the next by that order, until it takes calls: a part must not be down while the
//! whole is up.
//!
//! What it costs: *simulated*, 1 000 clients with 32 of 10 000 nodes each, the busiest node has about
//! four times the mean; so has any part drawn at random.
//!
//! [gRFC A68]: https://github.com/grpc/proposal/blob/master/A68-random-subsetting.md

use std::{
    collections::{BTreeMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use crate::{discovery::Update, registry::Node};

#[cfg(any(test, feature = "bench"))]
pub(super) mod cost;

/// How long the next stand-in waits while none of the chosen takes calls: it may be this client that is cut
/// off, and then each stand-in would have one, and so on over the whole fleet.
const NEXT_AFTER: Duration = Duration::from_millis(250);

/// A node's place in this client's order.
type Rank = (u64, Arc<str>);

/// The part, and the rest.
#[derive(Debug)]
pub(super) struct Subset {
    size: usize,
    seed: u64,
    chosen: BTreeMap<Rank, Arc<Node>>,
    rest: BTreeMap<Rank, Arc<Node>>,
    /// Those of the chosen that take no calls.
    failing: HashSet<Arc<str>>,
    /// Those that do.
    called: HashSet<Arc<str>>,
    /// When there may be a stand-in though none does.
    next_at: Option<Instant>,
}

impl Subset {
    /// A part of so many nodes, in an order of the seed's.
    pub(super) fn new(size: usize, seed: u64) -> Self {
        let (chosen, rest) = (BTreeMap::new(), BTreeMap::new());
        let (failing, called) = (HashSet::new(), HashSet::new());
        Self { size: size.max(1), seed, chosen, rest, failing, called, next_at: None }
    }

    /// How many nodes there are in all.
    pub(super) fn listed(&self) -> usize {
        self.chosen.len() + self.rest.len()
    }

    /// When to [`tick`](Self::tick) next.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        self.next_at.filter(|_| self.is_short())
    }

    /// Does what is due; what changes in the part.
    pub(super) fn tick(&mut self, now: Instant) -> Vec<Update> {
        let is_due = self.wakes_at().is_some_and(|at| at <= now);
        if is_due { self.balance(now) } else { Vec::new() }
    }

    /// Takes an update of the whole; what changes in the part.
    pub(super) fn update(&mut self, update: Update, now: Instant) -> Vec<Update> {
        match update {
            Update::Insert(node) => self.insert(node, now),
            Update::Remove(id) => self.remove(&id, now),
            Update::Forget => {
                self.clear();
                vec![Update::Forget]
            }
            Update::Reset(nodes) => {
                let before = self.chosen.len();
                self.chosen.clear();
                self.rest = nodes.into_iter().map(|node| (self.rank(&node.id), node)).collect();
                self.choose(before.max(self.size));
                let is_chosen = |id: &Arc<str>| self.chosen.contains_key(&self.rank(id));
                let of =
                    |ids: &HashSet<_>| ids.iter().filter(|id| is_chosen(id)).cloned().collect();
                (self.failing, self.called) = (of(&self.failing), of(&self.called));
                self.balance(now);
                vec![Update::Reset(self.chosen.values().cloned().collect())]
            }
        }
    }

    /// Takes whether a node of the part takes calls; what changes in the part.
    pub(super) fn reached(&mut self, id: &str, is_reached: bool, now: Instant) -> Vec<Update> {
        let rank = self.rank(id);
        if !self.chosen.contains_key(&rank) {
            return Vec::new();
        }
        let (now_in, now_out) = if is_reached {
            (&mut self.called, &mut self.failing)
        } else {
            (&mut self.failing, &mut self.called)
        };
        now_out.remove(id);
        if now_in.insert(rank.1) { self.balance(now) } else { Vec::new() }
    }

    fn insert(&mut self, node: Arc<Node>, now: Instant) -> Vec<Update> {
        let rank = self.rank(&node.id);
        if let Some(known) = self.chosen.get_mut(&rank) {
            *known = node.clone();
            return vec![Update::Insert(node)];
        }
        let is_before = self.chosen.last_key_value().is_some_and(|(last, _)| rank < *last);
        if !is_before {
            self.rest.insert(rank, node);
            return self.balance(now);
        }
        self.chosen.insert(rank, node.clone());
        let mut updates = vec![Update::Insert(node)];
        updates.extend(self.balance(now));
        updates
    }

    fn remove(&mut self, id: &str, now: Instant) -> Vec<Update> {
        let rank = self.rank(id);
        if self.chosen.remove(&rank).is_none() {
            self.rest.remove(&rank);
            return Vec::new();
        }
        self.forget(id);
        // The one in its place first: it is connected to while the other lingers.
        let mut updates = self.balance(now);
        updates.push(Update::Remove(rank.1));
        updates
    }

    /// The first of the rest.
    fn choose(&mut self, count: usize) {
        let first = std::iter::from_fn(|| self.rest.pop_first()).take(count);
        self.chosen.extend(first);
    }

    /// How many there should be.
    fn wanted(&self) -> usize {
        self.size.saturating_add(self.failing.len())
    }

    /// Whether there should be more, and there are.
    fn is_short(&self) -> bool {
        self.chosen.len() < self.wanted() && !self.rest.is_empty()
    }

    /// Whether there may be one more now.
    fn may_grow(&mut self, now: Instant) -> bool {
        if self.chosen.len() < self.size || !self.called.is_empty() {
            return true;
        }
        let is_due = self.next_at.is_none_or(|at| at <= now);
        if is_due {
            self.next_at = Some(now + NEXT_AFTER);
        }
        is_due
    }

    /// Chooses as many as there should be.
    fn balance(&mut self, now: Instant) -> Vec<Update> {
        let mut updates = Vec::new();
        while self.is_short()
            && self.may_grow(now)
            && let Some((rank, node)) = self.rest.pop_first()
        {
            updates.push(Update::Insert(node.clone()));
            self.chosen.insert(rank, node);
        }
        while self.chosen.len() > self.wanted()
            && let Some((rank, node)) = self.chosen.pop_last()
        {
            self.forget(&rank.1);
            updates.push(Update::Remove(rank.1.clone()));
            self.rest.insert(rank, node);
        }
        updates
    }

    fn forget(&mut self, id: &str) {
        self.failing.remove(id);
        self.called.remove(id);
    }

    fn clear(&mut self) {
        self.chosen.clear();
        self.rest.clear();
        self.failing.clear();
        self.called.clear();
    }

    fn rank(&self, id: &str) -> Rank {
        let mut hasher = DefaultHasher::new();
        (self.seed, id).hash(&mut hasher);
        (hasher.finish(), id.into())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use fastrand::Rng;
    use proptest::prelude::*;

    use super::*;

    fn node(number: u64) -> Arc<Node> {
        Arc::new(Node::new("greeter", number.to_string(), "host:1"))
    }

    fn of(size: usize, nodes: std::ops::Range<u64>) -> (Subset, BTreeSet<String>) {
        let (mut subset, mut part) = (Subset::new(size, 7), BTreeSet::new());
        follow(&mut part, subset.update(Update::Reset(nodes.map(node).collect()), Instant::now()));
        (subset, part)
    }

    /// Applies updates as the members do, and counts them.
    fn follow(part: &mut BTreeSet<String>, updates: Vec<Update>) -> usize {
        let count = updates.len();
        for update in updates {
            match update {
                Update::Reset(nodes) => *part = nodes.iter().map(|it| it.id.clone()).collect(),
                Update::Insert(node) => drop(part.insert(node.id.clone())),
                Update::Remove(id) => assert!(part.remove(&*id), "{id} was not there"),
                Update::Forget => part.clear(),
            }
        }
        count
    }

    #[test]
    fn a_node_that_comes_or_goes_among_10_000_moves_one_connection_at_most() {
        let mut moves = 0;
        for (moved, part) in cost::moves(32, 10_000, 4_000) {
            assert!(moved <= 1, "{moved}");
            assert_eq!(part, 32);
            moves += moved;
        }
        assert!((1..40).contains(&moves), "of 4 000 changes {moves} concern 32 of 10 000");
    }

    #[test]
    fn fewer_nodes_than_asked_for_are_all_there_are() {
        let ((mut subset, mut part), now) = (of(32, 0..5), Instant::now());
        assert_eq!(part.len(), 5);
        follow(&mut part, subset.update(Update::Insert(node(9)), now));
        follow(&mut part, subset.update(Update::Remove("0".into()), now));
        assert_eq!((part.len(), subset.listed()), (5, 5));
        assert_eq!(of(0, 0..5).1.len(), 1, "none would be no part");
    }

    #[test]
    fn a_new_record_is_told_where_the_node_is_chosen() {
        let (mut subset, part) = of(2, 0..10);
        for number in 0..10 {
            let expected = usize::from(part.contains(&number.to_string()));
            let updates = subset.update(Update::Insert(node(number)), Instant::now());
            assert_eq!(updates.len(), expected, "{number}");
        }
    }

    #[test]
    fn a_node_that_cannot_be_reached_has_a_stand_in_until_it_can() {
        let ((mut subset, mut part), now) = (of(3, 0..10), Instant::now());
        let first = part.clone();
        let (last, others) = first
            .iter()
            .collect::<Vec<_>>()
            .split_last()
            .map(|(last, others)| (*last, others.to_vec()))
            .expect("three");
        follow(&mut part, subset.reached(last, true, now));
        for id in &others {
            assert_eq!(follow(&mut part, subset.reached(id, false, now)), 1);
            assert_eq!(follow(&mut part, subset.reached(id, false, now)), 0, "told before");
        }
        assert_eq!(part.len(), 5, "two in place of two");
        for id in &others {
            assert_eq!(follow(&mut part, subset.reached(id, true, now)), 1);
        }
        assert_eq!(part, first);
    }

    #[test]
    fn while_none_can_be_reached_the_part_grows_by_a_few_a_second_and_goes_back_to_its_size() {
        let ((mut subset, mut part), start) = (of(32, 0..10_000), Instant::now());
        let first = part.clone();
        let mut now = start;
        let mut fail = |subset: &mut Subset, part: &mut BTreeSet<String>, secs| {
            let until = now + Duration::from_secs(secs);
            while now < until {
                for id in part.clone() {
                    follow(part, subset.reached(&id, false, now));
                }
                now = subset.wakes_at().expect("there are more").min(until);
                follow(part, subset.tick(now));
            }
            now
        };
        let now = fail(&mut subset, &mut part, 10);
        assert!((32 + 40..=32 + 42).contains(&part.len()), "{}", part.len());
        // The registry's list is read anew.
        follow(&mut part, subset.update(Update::Reset((0..10_000).map(node).collect()), now));
        assert!((32 + 40..=32 + 42).contains(&part.len()), "{}", part.len());

        let one = first.first().expect("32");
        follow(&mut part, subset.reached(one, true, now));
        let well = part.len() - subset.failing.len();
        assert_eq!(well, 32, "with one that is reached, as many as there should be are tried");
        for id in part.clone() {
            follow(&mut part, subset.reached(&id, true, now));
        }
        assert_eq!(part, first);
    }

    #[test]
    fn all_are_tried_in_the_end() {
        let ((mut subset, mut part), mut now) = (of(2, 0..10), Instant::now());
        while part.len() < 10 {
            for id in part.clone() {
                follow(&mut part, subset.reached(&id, false, now));
            }
            if let Some(at) = subset.wakes_at() {
                now = at;
                follow(&mut part, subset.tick(now));
            }
        }
        assert_eq!(subset.wakes_at(), None, "there are no more");
    }

    #[derive(Debug, Clone)]
    enum Event {
        Insert(u64),
        Remove(u64),
        Reset(BTreeSet<u64>),
        Forget,
        Reached(u64, bool),
    }

    fn event() -> impl Strategy<Value = Event> {
        let number = || 0..60_u64;
        prop_oneof![
            8 => number().prop_map(Event::Insert),
            4 => number().prop_map(Event::Remove),
            1 => prop::collection::btree_set(number(), 0..60).prop_map(Event::Reset),
            1 => Just(Event::Forget),
            8 => (number(), any::<bool>()).prop_map(|(at, is)| Event::Reached(at, is)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_order_of_changes_leaves_the_first_by_rank(
            events in prop::collection::vec(event(), 1..150),
            seed: u64,
        ) {
            let (mut subset, mut part) = (Subset::new(8, seed), BTreeSet::new());
            let (mut all, mut now) = (BTreeSet::new(), Instant::now());
            for event in events {
                let updates = match event {
                    Event::Insert(number) => {
                        all.insert(number);
                        subset.update(Update::Insert(node(number)), now)
                    }
                    Event::Remove(number) => {
                        all.remove(&number);
                        subset.update(Update::Remove(number.to_string().into()), now)
                    }
                    Event::Reset(numbers) => {
                        all = numbers;
                        subset.update(Update::Reset(all.iter().copied().map(node).collect()), now)
                    }
                    Event::Forget => {
                        all.clear();
                        subset.update(Update::Forget, now)
                    }
                    Event::Reached(number, is_reached) => {
                        subset.reached(&number.to_string(), is_reached, now)
                    }
                };
                follow(&mut part, updates);
                while let Some(at) = subset.wakes_at() {
                    now = at;
                    follow(&mut part, subset.tick(now));
                }
                let mut ranks: Vec<_> = all.iter().map(|it| subset.rank(&it.to_string())).collect();
                ranks.sort();
                prop_assert!(subset.failing.iter().all(|id| part.contains(&**id)));
                prop_assert!(subset.called.iter().all(|id| part.contains(&**id)));
                prop_assert!(subset.called.is_disjoint(&subset.failing));
                let size = 8 + subset.failing.len();
                let expected = ranks.into_iter().take(size).map(|(_, id)| id.to_string()).collect();
                prop_assert_eq!(&part, &expected);
                prop_assert_eq!(subset.listed(), all.len());
            }
        }
    }

    /// Not a promise, but what the choice costs: printed with `--nocapture`, and by `tests/run bench pick` of
    /// more.
    #[test]
    fn the_busiest_node_is_as_busy_as_with_parts_drawn_at_random() {
        const NODES: usize = 2_000;
        let (clients, size) = (200, 32);
        let (ours, random) = cost::busiest_over_mean(clients, size, NODES, &mut Rng::with_seed(1));
        println!(
            "busiest over mean, {clients} clients, {size} of {NODES}: {ours:.1}, at random {random:.1}"
        );
        assert!(ours < random * 1.5, "{ours:.1} beside {random:.1}");
    }
}
