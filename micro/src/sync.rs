//! What the counters and lines are made of that calls on several threads come to.
//!
//! They take it from here and not from `std`, since `tests/loom` compiles them a second time, over
//! loom's: that tries every order in which two threads may come to them.

pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, fence},
};

pub(crate) use arc_swap::ArcSwap;
pub(crate) use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, futures::Notified};
