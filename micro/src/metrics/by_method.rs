//! What is bound once for each method.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwapOption;
use tokio::time::Instant;

use super::instruments::{Counters, counters};

/// Where a call's path may be anything, since nobody generated it, this is its method: the number of
/// series is to be bounded.
const OTHER: &str = "other";

/// What the calls of each method are told by, bound to its attributes in the provider that is installed
/// then. Whether that is still the same one is looked at once a second.
pub(super) struct ByMethod<M> {
    created: Instant,
    /// In which second of its life it last looked.
    looked: AtomicU64,
    made: ArcSwapOption<Made<M>>,
}

struct Made<M> {
    with: Arc<Counters>,
    /// By path.
    methods: HashMap<Arc<str>, Arc<M>>,
}

impl<M> ByMethod<M> {
    pub(super) fn new() -> Self {
        let looked = AtomicU64::new(u64::MAX);
        Self { created: Instant::now(), looked, made: ArcSwapOption::empty() }
    }

    /// That of the method at `path`, if it is one of finitely many. `make` is given its name.
    pub(super) fn get(
        &self,
        path: Option<&str>,
        now: Instant,
        make: impl FnOnce(&str, Arc<Counters>) -> M,
    ) -> Arc<M> {
        let path = path.unwrap_or(OTHER);
        let second = now.saturating_duration_since(self.created).as_secs();
        if self.looked.load(Relaxed) == second
            && let Some(made) = &*self.made.load()
            && let Some(method) = made.methods.get(path)
        {
            return method.clone();
        }
        self.looked.store(second, Relaxed);
        self.look(path, make)
    }

    fn look(&self, path: &str, make: impl FnOnce(&str, Arc<Counters>) -> M) -> Arc<M> {
        let with = counters();
        let is_current = |made: &&Arc<Made<M>>| Arc::ptr_eq(&made.with, &with);
        let made = self.made.load_full();
        let known = made.as_ref().filter(is_current).and_then(|made| made.methods.get(path));
        if let Some(method) = known {
            return method.clone();
        }
        let method = Arc::new(make(path.trim_start_matches('/'), with.clone()));
        self.made.rcu(|made| {
            let current = made.as_ref().filter(is_current);
            let mut methods = current.map(|made| made.methods.clone()).unwrap_or_default();
            methods.entry(path.into()).or_insert_with(|| method.clone());
            Some(Arc::new(Made { with: with.clone(), methods }))
        });
        method
    }
}

impl<M> fmt::Debug for ByMethod<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByMethod").finish_non_exhaustive()
    }
}
