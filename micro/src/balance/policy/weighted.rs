//! By the weights that nodes register with.

use std::{num::IntErrorKind, sync::Arc, time::Duration};

use fastrand::Rng;
use tokio::time::Instant;

use super::{
    super::{
        request::Asked,
        set::{Set, Slot},
        snapshot::Endpoint,
    },
    p2c,
    turn::Turn,
};
use crate::registry::Node;

/// How long a node that has just come gets less than its weight (Envoy's slow start, which has no
/// default; grpc's weighted round robin waits the same 10 s for a new node's reports).
const SLOW_START: Duration = Duration::from_secs(10);

/// The least part of its weight then, and the time that counts as past at least: Envoy's.
const LEAST_FACTOR: f32 = 0.1;
const LEAST_AGE: Duration = Duration::from_secs(1);

/// 2^64 over the golden ratio: its multiples fall into any interval as evenly as can be.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// How often a place is drawn that may turn out to be none for the call, or too young. When all are
/// young, one of the last is as good as any.
const DRAWS: usize = 32;

/// The largest weight, that of SRV records and of Consul.
const LARGEST: u32 = u16::MAX as u32;

/// The sums of weights over the chunks of a set.
#[derive(Debug, Clone)]
pub(in super::super) struct Weights {
    calls: Arc<Turn>,
    /// Of each chunk, that of all chunks up to it and its own.
    sums: Vec<u64>,
}

impl Weights {
    /// Begins anywhere: clients that start together must not go round in step.
    pub(super) fn new() -> Self {
        Self { calls: Arc::new(Turn::new(fastrand::u64(..1 << 32))), sums: Vec::new() }
    }

    pub(super) fn sum<C>(&mut self, set: &Set<C>) {
        let sums = set.chunks().iter().scan(0, |sum, chunk| {
            *sum += chunk.weight();
            Some(*sum)
        });
        self.sums = sums.collect();
    }

    fn total(&self) -> u64 {
        self.sums.last().copied().unwrap_or(0)
    }

    /// Whether no endpoint has any.
    pub(super) fn are_none(&self) -> bool {
        self.total() == 0
    }

    pub(super) fn pick<'a, C>(
        &self,
        set: &'a Set<C>,
        asked: &Asked<'_>,
        now: Instant,
        rng: &mut Rng,
    ) -> Option<&'a Arc<Endpoint<C>>> {
        let total = self.total();
        let (mut young, mut missed) = (None, false);
        for _ in 0..if total > 0 { DRAWS } else { 0 } {
            // The turns of those that are none for this call are those of others.
            let at = if missed { rng.u64(..total) } else { self.turn(total) };
            let endpoint = self.at(set, at);
            if asked.admits(endpoint) {
                if set.len() == 1 || rng.f32() < factor(endpoint.age(now)) {
                    return Some(endpoint);
                }
                young = Some(endpoint);
            } else {
                missed = true;
            }
        }
        young
            .or_else(|| any(set, asked, now, rng))
            .or_else(|| p2c::draw(set, set.all(), asked, None, rng))
    }

    /// Whose turn it is, by the sum of the weights up to there.
    fn turn(&self, total: u64) -> u64 {
        let turn = self.calls.take().wrapping_mul(GOLDEN);
        ((u128::from(turn) * u128::from(total)) >> 64) as u64
    }

    fn at<'a, C>(&self, set: &'a Set<C>, at: u64) -> &'a Arc<Endpoint<C>> {
        let chunk = self.sums.partition_point(|sum| *sum <= at);
        let mut left = at - chunk.checked_sub(1).map_or(0, |before| self.sums[before]);
        let slots = set.chunks()[chunk].slots();
        let slot = slots.iter().find(|slot| match left.checked_sub(slot.weight.into()) {
            Some(less) => {
                left = less;
                false
            }
            None => true,
        });
        &slot.expect("the sum is that of these slots").endpoint
    }
}

/// One of all that have a weight and are one for the call, by that.
fn any<'a, C>(
    set: &'a Set<C>,
    asked: &Asked<'_>,
    now: Instant,
    rng: &mut Rng,
) -> Option<&'a Arc<Endpoint<C>>> {
    let slots = set.chunks().iter().flat_map(|chunk| chunk.slots());
    let weigh = slots.filter(|slot| slot.weight > 0 && asked.admits(&slot.endpoint));
    let (mut sum, mut chosen) = (0.0, None);
    for Slot { endpoint, weight } in weigh {
        let share = *weight as f32 * factor(endpoint.age(now));
        sum += share;
        if rng.f32() * sum < share {
            chosen = Some(endpoint);
        }
    }
    chosen
}

/// The part of its weight that a node of this age gets.
fn factor(age: Duration) -> f32 {
    if age >= SLOW_START {
        return 1.0;
    }
    (age.max(LEAST_AGE).as_secs_f32() / SLOW_START.as_secs_f32()).max(LEAST_FACTOR)
}

fn text(node: &Node) -> Option<&String> {
    node.metadata.get("weight")
}

/// `Err` has what counts in place of it.
fn read(text: &str) -> Result<u32, u32> {
    match text.parse() {
        Ok(weight) if weight <= LARGEST => Ok(weight),
        Ok(_) => Err(LARGEST),
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => Err(LARGEST),
        Err(_) => Err(1),
    }
}

/// Whether a node's metadata say that it is to get no calls.
pub(super) fn is_zero(node: &Node) -> bool {
    text(node).is_some_and(|text| read(text) == Ok(0))
}

/// The weight in a node's metadata. One that cannot count as it is, is told in the log, unless it was
/// there `before`.
pub(super) fn weight(node: &Node, before: Option<&Node>) -> u32 {
    let Some(found) = text(node) else {
        return 1;
    };
    read(found).unwrap_or_else(|counts| {
        if before.and_then(text) != Some(found) {
            tracing::warn!(
                service = node.service,
                node = node.id,
                "the node's weight '{}' is no number from 0 to {LARGEST}: it counts as {counts}",
                found.escape_debug(),
            );
        }
        counts
    })
}
