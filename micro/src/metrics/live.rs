//! What is under way, for the callbacks that tell of it.

use std::{
    collections::BTreeMap,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// All things of a kind that somebody holds. A callback cannot be taken back from OpenTelemetry, so
/// there is one for all of them, and what ends is missing in the next collection.
#[derive(Debug)]
pub(super) struct Live<T: 'static>(Mutex<BTreeMap<usize, Arc<T>>>);

impl<T> Live<T> {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// Is told of until what is returned is dropped.
    pub(super) fn hold(&'static self, it: T) -> Held<T> {
        let held = Held { live: self, it: Arc::new(it) };
        self.lock().insert(held.address(), held.it.clone());
        held
    }

    /// In no order. Without the lock: whoever is called with them may be slow.
    pub(super) fn all(&self) -> Vec<Arc<T>> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, Arc<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of them, in its owner's hand.
#[derive(Debug)]
pub(super) struct Held<T: 'static> {
    live: &'static Live<T>,
    it: Arc<T>,
}

impl<T> Held<T> {
    /// Nobody else's for as long as it is held.
    fn address(&self) -> usize {
        Arc::as_ptr(&self.it).addr()
    }
}

impl<T> Deref for Held<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.it
    }
}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        self.live.lock().remove(&self.address());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_not_told_of_and_leaves_nothing_behind() {
        static LIVE: Live<&str> = Live::new();
        let one = LIVE.hold("one");
        for _ in 0..1000 {
            drop(LIVE.hold("another"));
        }
        assert_eq!(*one, "one");
        assert_eq!(LIVE.all(), [Arc::new("one")]);
        drop(one);
        assert!(LIVE.lock().is_empty());
    }
}
