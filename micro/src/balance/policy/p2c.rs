//! The power of two choices, and the draw that other policies fall back on.

use std::{ops::Range, sync::Arc};

use fastrand::Rng;
use tokio::time::Instant;

use super::super::{
    EndpointId,
    request::{Asked, hash_of},
    set::Set,
    snapshot::Endpoint,
};

/// How often a place is drawn that may turn out to be none for the call. Then a walk finds all that are
/// one: at a tenth of the set, once in 30 draws.
const DRAWS: usize = 32;

/// The cheaper of two endpoints drawn at random.
pub(super) fn pick<'a, C>(
    set: &'a Set<C>,
    places: Range<usize>,
    asked: &Asked<'_>,
    now: Instant,
    rng: &mut Rng,
) -> Option<&'a Arc<Endpoint<C>>> {
    let (first, second) = two(set, places, asked, rng)?;
    Some(second.map_or(first, |second| cheaper(first, second, asked, now, rng)))
}

/// The one of so many drawn at random that has the fewest calls in flight, of those not known to lack the
/// method of the call while there are some. Two of them are different; the others may be among those again,
/// as all may with gRFC A48.
pub(super) fn least_request<'a, C>(
    set: &'a Set<C>,
    choices: u32,
    asked: &Asked<'_>,
    now: Instant,
    rng: &mut Rng,
) -> Option<&'a Arc<Endpoint<C>>> {
    let (first, second) = two(set, set.all(), asked, rng)?;
    let Some(second) = second else {
        return Some(first);
    };
    let cost = |it: &Endpoint<C>| (is_lacking(it, asked, now), it.load.in_flight());
    let less = |one: &'a Arc<Endpoint<C>>, other: &'a Arc<Endpoint<C>>| {
        if cost(other) < cost(one) { other } else { one }
    };
    let others = (2..choices).filter_map(|_| draw(set, set.all(), asked, None, rng));
    Some(others.fold(less(first, second), less))
}

/// One, and another if there is.
type Pair<'a, C> = (&'a Arc<Endpoint<C>>, Option<&'a Arc<Endpoint<C>>>);

/// Two different ones for the call.
fn two<'a, C>(
    set: &'a Set<C>,
    places: Range<usize>,
    asked: &Asked<'_>,
    rng: &mut Rng,
) -> Option<Pair<'a, C>> {
    if asked.is_any() && places.len() > 1 {
        let first = rng.usize(..places.len());
        let second = rng.usize(..places.len() - 1);
        let second = second + usize::from(second >= first);
        return Some((set.get(places.start + first), Some(set.get(places.start + second))));
    }
    let first = draw(set, places.clone(), asked, None, rng)?;
    Some((first, draw(set, places, asked, Some(first.id), rng)))
}

/// A random one for the call, and not `other`.
pub(super) fn draw<'a, C>(
    set: &'a Set<C>,
    places: Range<usize>,
    asked: &Asked<'_>,
    other: Option<EndpointId>,
    rng: &mut Rng,
) -> Option<&'a Arc<Endpoint<C>>> {
    if places.is_empty() {
        return None;
    }
    let will_do = |it: &&Arc<Endpoint<C>>| Some(it.id) != other && asked.admits(it);
    let drawn = (0..DRAWS).map(|_| set.get(rng.usize(places.clone()))).find(will_do);
    // Were it the first after a random place, one behind many that will not do would get all of it.
    drawn.or_else(|| {
        let those = places.map(|place| set.get(place)).filter(will_do);
        let (_, one) = those.fold((0, None), |(seen, one), it| {
            (seen + 1, if rng.usize(..=seen) == 0 { Some(it) } else { one })
        });
        one
    })
}

/// The cheaper of two, or the one that has the method of the call if the other is known to lack it. Without
/// that, a node that answers `Unimplemented` at once draws the more calls for having few in flight:
/// *simulated*, 1.7 times its share of those of 16 callers.
///
/// A difference of less than 2 is settled by chance, the more often for the cheaper the larger it is.
/// Without that, a single caller leaves the dearer of two equal nodes alone until its estimate fades:
/// *simulated*, shares of 1.5, 1.4 and 0.1 over two seconds.
fn cheaper<'a, C>(
    first: &'a Arc<Endpoint<C>>,
    second: &'a Arc<Endpoint<C>>,
    asked: &Asked<'_>,
    now: Instant,
    rng: &mut Rng,
) -> &'a Arc<Endpoint<C>> {
    match (is_lacking(first, asked, now), is_lacking(second, asked, now)) {
        (true, false) => return second,
        (false, true) => return first,
        _ => {}
    }
    let chance = rng.f32();
    // From 1/2 to 2, and as often under 1 as over it.
    let handicap = (1.0 + chance) / (2.0 - chance);
    let second_is_cheaper = second.load.relative_cost(&first.load, now) * handicap < 1.0;
    if second_is_cheaper { second } else { first }
}

/// Whether it is known to lack the method of the call.
fn is_lacking<C>(endpoint: &Endpoint<C>, asked: &Asked<'_>, now: Instant) -> bool {
    endpoint.load.is_lacking(|| hash_of(asked.request.method), now)
}
