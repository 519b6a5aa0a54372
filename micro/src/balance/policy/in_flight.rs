//! The calls in flight on a whole set.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use crate::sync::AtomicUsize;

/// How many there are.
#[derive(Debug, Default)]
pub(crate) struct InFlight(AtomicUsize);

impl InFlight {
    pub(super) fn get(&self) -> usize {
        self.0.load(Relaxed)
    }
}

/// A call that counts among them, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Counted(Arc<InFlight>);

impl Counted {
    pub(super) fn new(all: Arc<InFlight>) -> Self {
        all.0.fetch_add(1, Relaxed);
        Self(all)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}
