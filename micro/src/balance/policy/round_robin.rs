//! One after the other.

use std::{array, sync::Arc};

use fastrand::Rng;

use super::{
    super::{request::Asked, set::Set, snapshot::Endpoint},
    consistent_hash::hash_bytes,
    p2c,
    turn::Turn,
};

/// How many methods have turns of their own; more share them.
const METHODS: usize = 64;

/// Whose turn it is. Where not every node has each method, the calls of each go round by themselves: those
/// that pass nodes over would else spend the turns that others have there.
#[derive(Debug)]
pub(in super::super) struct Turns([Turn; METHODS]);

impl Turns {
    /// Begins anywhere: clients that start together must not go round in step.
    pub(super) fn new() -> Self {
        let start = fastrand::u64(..1 << 20);
        Self(array::from_fn(|method| Turn::new(start + method as u64)))
    }

    /// The next one for the call. A turn whose endpoint is none for it is over for everybody: were it
    /// kept, the one after would get twice its share.
    pub(super) fn pick<'a, C>(
        &self,
        set: &'a Set<C>,
        asked: &Asked<'_>,
        rng: &mut Rng,
    ) -> Option<&'a Arc<Endpoint<C>>> {
        let method =
            if asked.serving.is_some() { hash_bytes(asked.request.method.as_bytes()) } else { 0 };
        let turns = &self.0[method as usize % METHODS];
        let turn = |_| set.get((turns.take() % set.len() as u64) as usize);
        let next = set.all().map(turn).find(|endpoint| asked.admits(endpoint));
        // Calls beside this one may have had just the turns that it needed.
        next.or_else(|| p2c::draw(set, set.all(), asked, None, rng))
    }
}
