//! What a choice of parts costs, and what it spares.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use fastrand::Rng;
use tokio::time::Instant;

use super::Subset;
use crate::{discovery::Update, registry::Node};

fn node(number: usize) -> Arc<Node> {
    Arc::new(Node::new("greeter", number.to_string(), "host:1"))
}

/// By turns a node comes to so many and one of them goes: with each such change, how many are to be
/// connected to that were not, and how many the part has then.
pub(in super::super) fn moves(
    size: usize,
    nodes: usize,
    changes: usize,
) -> impl Iterator<Item = (usize, usize)> {
    let (mut subset, now) = (Subset::new(size, 7), Instant::now());
    subset.update(Update::Reset((0..nodes).map(node).collect()), now);
    let mut part: BTreeSet<String> = subset.chosen.values().map(|it| it.id.clone()).collect();
    (0..changes).map(move |change| {
        let number = change / 2;
        let update = if change % 2 == 0 {
            Update::Insert(node(nodes + number))
        } else {
            Update::Remove(number.to_string().into())
        };
        let mut moved = 0;
        for update in subset.update(update, now) {
            match update {
                Update::Insert(node) => moved += usize::from(part.insert(node.id.clone())),
                Update::Remove(id) => assert!(part.remove(&*id), "{id} was not there"),
                Update::Reset(_) | Update::Forget => unreachable!("one node has changed"),
            }
        }
        (moved, part.len())
    })
}

/// How many times the mean the busiest of so many nodes has, where each client has a part of this size: by
/// their choice, and with parts drawn at random.
pub(in super::super) fn busiest_over_mean(
    clients: usize,
    size: usize,
    nodes: usize,
    rng: &mut Rng,
) -> (f64, f64) {
    let all: Vec<_> = (0..nodes).map(node).collect();
    let (mut ours, mut random) = (vec![0; nodes], vec![0; nodes]);
    for _ in 0..clients {
        let mut subset = Subset::new(size, rng.u64(..));
        // Only the least ranks matter: all of them in maps would take a second.
        let mut ranks: Vec<_> = all.iter().map(|it| subset.rank(&it.id).0).zip(0..).collect();
        ranks.select_nth_unstable(size);
        let first = ranks[..=size].iter().map(|&(_, place): &(_, usize)| all[place].clone());
        subset.update(Update::Reset(first.collect()), Instant::now());
        for node in subset.chosen.values() {
            ours[node.id.parse::<usize>().expect("a number")] += 1;
        }
        let mut drawn = HashSet::new();
        while drawn.len() < size {
            drawn.insert(rng.usize(..nodes));
        }
        drawn.into_iter().for_each(|place| random[place] += 1);
    }
    let mean = (clients * size) as f64 / nodes as f64;
    let busiest = |counts: &[usize]| *counts.iter().max().expect("there are nodes") as f64 / mean;
    (busiest(&ours), busiest(&random))
}
