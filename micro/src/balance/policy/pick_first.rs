//! One node for all calls.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use fastrand::Rng;

use super::{
    super::{request::Asked, set::Set, snapshot::Endpoint},
    p2c,
};

/// The endpoint that is held on to.
#[derive(Debug, Default)]
pub(in super::super) struct Held {
    /// Its id; none is 0.
    id: AtomicU64,
    /// Where it was seen last: changes of the set move it.
    place: AtomicUsize,
}

impl Held {
    pub(super) fn pick<'a, C>(
        &self,
        set: &'a Set<C>,
        asked: &Asked<'_>,
        rng: &mut Rng,
    ) -> Option<&'a Arc<Endpoint<C>>> {
        let id = self.id.load(Relaxed);
        match self.find(set, id) {
            Some(held) if asked.admits(held) => Some(held),
            // Not this call, but the others stay.
            Some(_) => p2c::draw(set, set.all(), asked, None, rng),
            None => {
                let drawn = p2c::draw(set, set.all(), asked, None, rng)?;
                match self.id.compare_exchange(id, drawn.id.0, Relaxed, Relaxed) {
                    Ok(_) => Some(drawn),
                    // A call beside this one was quicker: all follow it.
                    Err(id) => self.find(set, id).filter(|it| asked.admits(it)).or(Some(drawn)),
                }
            }
        }
    }

    fn find<'a, C>(&self, set: &'a Set<C>, id: u64) -> Option<&'a Arc<Endpoint<C>>> {
        let seen = set.try_get(self.place.load(Relaxed)).filter(|endpoint| endpoint.id.0 == id);
        seen.or_else(|| {
            let place = set.iter().position(|endpoint| endpoint.id.0 == id)?;
            self.place.store(place, Relaxed);
            Some(set.get(place))
        })
    }
}
