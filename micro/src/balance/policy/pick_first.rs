//! One node for all calls.

use std::sync::Arc;

use fastrand::Rng;

use super::{
    super::{request::Asked, set::Set, snapshot::Endpoint},
    held::Held,
    p2c,
};

impl Held {
    pub(super) fn pick<'a, C>(
        &self,
        set: &'a Set<C>,
        asked: &Asked<'_>,
        rng: &mut Rng,
    ) -> Option<&'a Arc<Endpoint<C>>> {
        let id = self.id();
        match self.find(set, id) {
            Some(held) if asked.admits(held) => Some(held),
            // Not this call, but the others stay.
            Some(_) => p2c::draw(set, set.all(), asked, None, rng),
            None => {
                let drawn = p2c::draw(set, set.all(), asked, None, rng)?;
                let held = self.replace(id, drawn.id.0);
                self.find(set, held).filter(|it| asked.admits(it)).or(Some(drawn))
            }
        }
    }

    fn find<'a, C>(&self, set: &'a Set<C>, id: u64) -> Option<&'a Arc<Endpoint<C>>> {
        let is_it = |endpoint: &Arc<Endpoint<C>>| endpoint.id.0 == id;
        let is_at = |place| set.try_get(place).is_some_and(is_it);
        let place = self.place(is_at, || set.iter().position(is_it))?;
        Some(set.get(place))
    }
}
