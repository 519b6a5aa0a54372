//! What the counters are made of that calls on several threads write.
//!
//! They take it from here and not from `std`, since `tests/loom` compiles them a second time, over
//! loom's: that tries every order in which two threads may come to them.

pub(crate) use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, fence},
};

pub(crate) use tokio::sync::Semaphore;
