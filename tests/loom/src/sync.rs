//! What micro's `crate::sync` has, of loom's.

use std::{
    future::poll_fn,
    sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release},
    task::Poll,
};

pub(crate) use loom::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, fence},
};

/// As tokio's, of which loom knows nothing, with nobody in line: the same steps on its permits, ordered
/// no more than those are.
#[derive(Debug)]
pub(crate) struct Semaphore {
    permits: AtomicUsize,
    is_closed: AtomicBool,
}

/// One that is not given back by itself.
#[derive(Debug)]
pub(crate) struct Permit;

#[derive(Debug)]
pub(crate) struct Closed;

impl Permit {
    pub(crate) fn forget(self) {}
}

impl Semaphore {
    pub(crate) const MAX_PERMITS: usize = tokio::sync::Semaphore::MAX_PERMITS;

    pub(crate) fn const_new(permits: usize) -> Self {
        Self { permits: AtomicUsize::new(permits), is_closed: AtomicBool::new(false) }
    }

    pub(crate) async fn acquire(&self) -> Result<Permit, Closed> {
        let one_less = |permits: usize| permits.checked_sub(1);
        poll_fn(|_| match self.permits.fetch_update(AcqRel, Acquire, one_less) {
            Ok(_) => Poll::Ready(Ok(Permit)),
            Err(_) if self.is_closed() => Poll::Ready(Err(Closed)),
            Err(_) => Poll::Pending,
        })
        .await
    }

    pub(crate) fn add_permits(&self, permits: usize) {
        if permits > 0 {
            self.permits.fetch_add(permits, Release);
        }
    }

    pub(crate) fn forget_permits(&self, most: usize) -> usize {
        if most == 0 {
            return 0;
        }
        // A write also where there are none.
        let fewer = |permits: usize| Some(permits.saturating_sub(most));
        self.permits.fetch_update(AcqRel, Acquire, fewer).map_or(0, |permits| permits.min(most))
    }

    pub(crate) fn available_permits(&self) -> usize {
        self.permits.load(Acquire)
    }

    pub(crate) fn close(&self) {
        self.is_closed.store(true, Relaxed);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Relaxed)
    }
}
