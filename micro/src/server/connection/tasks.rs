//! The tasks that hyper runs its calls in: one that nobody reads ends soon after its deadline.
//!
//! At the deadline the guard ends a call with a status, once it is asked for more.
//! But while the caller does not read hyper does not ask: it waits for room in the stream's window,
//! and its way out of there is a reset. So the task is dropped a little later, which sends one.

use std::{cell::Cell, future::Future, time::Duration};

use tokio::time::{Instant, timeout_at};

/// Ample for the status to be written where it can be.
const GRACE: Duration = Duration::from_secs(1);

thread_local! {
    static DEADLINE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Spawns the tasks of calls.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tasks;

impl Tasks {
    /// Bounds the next task, or does not. hyper spawns a call's task right after it has asked for
    /// its future, on the same thread.
    pub(super) fn bound_next(deadline: Option<Instant>) {
        DEADLINE.set(deadline);
    }
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        match DEADLINE.take() {
            Some(deadline) => drop(tokio::spawn(timeout_at(deadline + GRACE, task))),
            None => drop(tokio::spawn(task)),
        }
    }
}
