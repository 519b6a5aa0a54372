//! How many calls a node has under way.

use crate::sync::AtomicU32;

/// Those of one node, whichever of its connections they go by: a stream that finishes on one that the
/// node has asked to leave is work for it as any other. One that is lost takes its calls with it.
#[derive(Debug)]
pub(super) struct UnderWay {
    pub(super) all: AtomicU32,
    /// Of those, the ones that count towards the load of the whole set.
    pub(super) counted: AtomicU32,
}

impl Default for UnderWay {
    fn default() -> Self {
        Self { all: AtomicU32::new(0), counted: AtomicU32::new(0) }
    }
}
