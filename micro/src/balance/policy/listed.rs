//! The nodes of one zone that the registry lists.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use crate::sync::AtomicUsize;

/// Their ids, and how many they are. Clones, which snapshots have, share the number alone.
#[derive(Debug, Default)]
pub(super) struct Listed {
    ids: HashSet<Box<str>>,
    len: Arc<AtomicUsize>,
}

impl Listed {
    /// Changes who they are. Who picks meanwhile sees none of the steps.
    pub(super) fn update(&mut self, change: impl FnOnce(&mut HashSet<Box<str>>)) {
        change(&mut self.ids);
        self.len.store(self.ids.len(), Relaxed);
    }

    pub(super) fn len(&self) -> usize {
        self.len.load(Relaxed)
    }
}

impl Clone for Listed {
    fn clone(&self) -> Self {
        Self { ids: HashSet::new(), len: self.len.clone() }
    }
}
