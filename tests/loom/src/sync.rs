//! What micro's `crate::sync` has, of loom's.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
    task::{Context, Poll},
};

pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, fence},
};

/// As tokio's, of which loom knows nothing: the same steps on its permits, ordered no more than those are.
/// In line are those alone who acquire a permit to own. Nobody needs to be woken: models poll once more.
#[derive(Debug)]
pub(crate) struct Semaphore {
    permits: AtomicUsize,
    is_closed: AtomicBool,
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    /// How many have ever come.
    came: usize,
    /// The numbers of those who are there.
    waiting: VecDeque<usize>,
}

/// One that is given back by itself, or the place in line for it.
#[derive(Debug)]
pub(crate) struct OwnedSemaphorePermit {
    semaphore: Arc<Semaphore>,
    /// Zero is that of who had not to wait.
    number: usize,
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

    pub(crate) fn new(permits: usize) -> Self {
        Self::const_new(permits)
    }

    pub(crate) fn const_new(permits: usize) -> Self {
        let (is_closed, line) = (AtomicBool::new(false), Mutex::default());
        Self { permits: AtomicUsize::new(permits), is_closed, line }
    }

    pub(crate) async fn acquire(&self) -> Result<Permit, Closed> {
        poll_fn(|_| match self.take() {
            true => Poll::Ready(Ok(Permit)),
            false if self.is_closed() => Poll::Ready(Err(Closed)),
            false => Poll::Pending,
        })
        .await
    }

    pub(crate) async fn acquire_owned(self: Arc<Self>) -> Result<OwnedSemaphorePermit, Closed> {
        let number = if self.take() { 0 } else { self.stand_in_line() };
        let permit = OwnedSemaphorePermit { semaphore: self, number };
        poll_fn(|_| if permit.is_given() { Poll::Ready(()) } else { Poll::Pending }).await;
        Ok(permit)
    }

    fn take(&self) -> bool {
        let one_less = |permits: usize| permits.checked_sub(1);
        self.permits.fetch_update(AcqRel, Acquire, one_less).is_ok()
    }

    fn stand_in_line(&self) -> usize {
        let mut line = self.line();
        if self.take() {
            return 0;
        }
        line.came += 1;
        let number = line.came;
        line.waiting.push_back(number);
        number
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().expect("no panic")
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

impl OwnedSemaphorePermit {
    fn is_given(&self) -> bool {
        self.number == 0 || !self.semaphore.line().waiting.contains(&self.number)
    }
}

impl Drop for OwnedSemaphorePermit {
    fn drop(&mut self) {
        let mut line = self.semaphore.line();
        if let Some(place) = line.waiting.iter().position(|number| *number == self.number) {
            line.waiting.remove(place);
        } else if line.waiting.pop_front().is_none() {
            self.semaphore.permits.fetch_add(1, Release);
        }
    }
}

/// As tokio's, which has one word as well, and changes it under a lock or by what is ordered as that.
#[derive(Debug)]
pub(crate) struct Notify(AtomicUsize);

/// What `notify_one` leaves there; beside it, how often all were woken.
const TOLD: usize = 1;
const WOKEN_ONCE: usize = 2;

#[derive(Debug)]
pub(crate) struct Notified<'a> {
    notify: &'a Notify,
    woken: usize,
}

impl Notify {
    pub(crate) fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    pub(crate) fn notified(&self) -> Notified<'_> {
        Notified { notify: self, woken: self.0.load(Acquire) & !TOLD }
    }

    pub(crate) fn notify_waiters(&self) {
        self.0.fetch_add(WOKEN_ONCE, AcqRel);
    }

    /// While nobody listens.
    pub(crate) fn notify_one(&self) {
        self.0.fetch_or(TOLD, AcqRel);
    }
}

impl Notified<'_> {
    pub(crate) fn enable(self: Pin<&mut Self>) -> bool {
        let state = self.notify.0.fetch_and(!TOLD, AcqRel);
        state != self.woken
    }
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.enable() { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// As that of the crate of this name.
#[derive(Debug)]
pub(crate) struct ArcSwap<T>(Mutex<Arc<T>>);

impl<T> ArcSwap<T> {
    pub(crate) fn from_pointee(value: T) -> Self {
        Self(Mutex::new(Arc::new(value)))
    }

    pub(crate) fn load(&self) -> Arc<T> {
        self.0.lock().expect("no panic").clone()
    }

    pub(crate) fn store(&self, value: Arc<T>) {
        *self.0.lock().expect("no panic") = value;
    }
}
