//! One after the other.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use fastrand::Rng;

use super::{
    super::{request::Asked, set::Set, snapshot::Endpoint},
    p2c,
};

/// Begins anywhere: clients that start together must not go round in step.
pub(super) fn counter() -> Arc<AtomicUsize> {
    Arc::new(AtomicUsize::new(fastrand::usize(..1 << 20)))
}

/// The next one for the call. A turn whose endpoint is none for it is over for everybody: were it
/// kept, the one after would get twice its share.
pub(super) fn pick<'a, C>(
    counter: &AtomicUsize,
    set: &'a Set<C>,
    asked: &Asked<'_>,
    rng: &mut Rng,
) -> Option<&'a Arc<Endpoint<C>>> {
    let turn = |_| set.get(counter.fetch_add(1, Relaxed) % set.len());
    let next = set.all().map(turn).find(|endpoint| asked.admits(endpoint));
    // Calls beside this one may have had just the turns that it needed.
    next.or_else(|| p2c::draw(set, set.all(), asked, None, rng))
}
