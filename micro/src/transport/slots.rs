//! The peer's MAX_CONCURRENT_STREAMS, as slots that callers wait for in line.

use std::sync::atomic::Ordering;

use crate::sync::{AtomicUsize, Semaphore, fence};

/// As many slots as the peer allows streams at a time. Callers beyond that wait first come first
/// served, and their calls have not begun: `h2` alone would queue them too, but would then send
/// HEADERS and RST_STREAM for each that was dropped in the queue.
#[derive(Debug)]
pub(super) struct Slots {
    semaphore: Semaphore,
    /// The peer's limit: what `total` is without the surplus.
    limit: AtomicUsize,
    /// Slots there are, free and taken.
    total: AtomicUsize,
    /// Taken slots that a lowered limit takes away when they come back.
    surplus: AtomicUsize,
}

/// The connection takes no new calls.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Closed;

impl Slots {
    /// No slots, until the peer's limit is known.
    pub(super) fn new() -> Self {
        Self {
            semaphore: Semaphore::const_new(0),
            limit: AtomicUsize::new(0),
            total: AtomicUsize::new(0),
            surplus: AtomicUsize::new(0),
        }
    }

    /// Waits in line for a slot, which is to be given back by [`release`](Self::release).
    pub(super) async fn take(&self) -> Result<(), Closed> {
        self.semaphore.acquire().await.map_err(|_| Closed)?.forget();
        Ok(())
    }

    /// Gives a slot back to the first in line.
    pub(super) fn release(&self) {
        let lower = |count: usize| count.checked_sub(1);
        if self.surplus.load(Ordering::Relaxed) > 0
            && self.surplus.fetch_update(Ordering::AcqRel, Ordering::Relaxed, lower).is_ok()
        {
            self.total.fetch_sub(1, Ordering::AcqRel);
        } else {
            self.semaphore.add_permits(1);
            self.settle();
        }
    }

    /// Follows the peer's limit. For one task only: the connection's driver.
    pub(super) fn set_limit(&self, limit: usize) {
        let limit = limit.min(Semaphore::MAX_PERMITS / 2);
        // Not worked out from the others, which a call that ends now changes one after the other.
        let current = self.limit.swap(limit, Ordering::Relaxed);
        if let Some(fewer) = current.checked_sub(limit) {
            self.surplus.fetch_add(fewer, Ordering::AcqRel);
            self.settle();
        } else {
            let mut more = limit - current;
            while more > 0 {
                let lower = |count: usize| count.checked_sub(1);
                if self.surplus.fetch_update(Ordering::AcqRel, Ordering::Relaxed, lower).is_err() {
                    break;
                }
                more -= 1;
            }
            self.total.fetch_add(more, Ordering::AcqRel);
            self.semaphore.add_permits(more);
        }
    }

    /// Takes the surplus away as far as slots are free. Whoever makes either does it: of a call that ends
    /// as the limit is lowered, one of the two sees what the other has done.
    fn settle(&self) {
        // `add_permits` alone acquires nothing: the surplus of whoever looked for permits before might
        // not be seen.
        fence(Ordering::Acquire);
        loop {
            let free = self.semaphore.forget_permits(self.surplus.load(Ordering::Relaxed));
            if free == 0 {
                return;
            }
            // Slots that came back meanwhile may have been taken of it, or the limit was raised.
            let lower = |count: usize| Some(count.saturating_sub(free));
            let before = self.surplus.fetch_update(Ordering::AcqRel, Ordering::Relaxed, lower);
            let taken_away = before.map_or(0, |before| before.min(free));
            self.total.fetch_sub(taken_away, Ordering::AcqRel);
            self.semaphore.add_permits(free - taken_away);
        }
    }

    /// Slots that are taken, which is calls that are under way.
    pub(super) fn taken(&self) -> usize {
        self.total.load(Ordering::Acquire).saturating_sub(self.semaphore.available_permits())
    }

    /// Takes no more calls; who waits in line is told so.
    pub(super) fn close(&self) {
        self.semaphore.close();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.semaphore.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, future::poll_immediate};

    use super::*;

    #[tokio::test]
    async fn callers_beyond_the_limit_are_served_in_their_order() {
        let slots = Slots::new();
        slots.set_limit(1);
        slots.take().await.unwrap();
        let mut first = std::pin::pin!(slots.take());
        let mut second = std::pin::pin!(slots.take());
        assert_eq!(poll_immediate(&mut first).await, None);
        assert_eq!(poll_immediate(&mut second).await, None);
        slots.release();
        assert_eq!(slots.take().now_or_never(), None, "nobody overtakes those who wait");
        assert_eq!(poll_immediate(&mut second).await, None);
        assert_eq!(poll_immediate(&mut first).await, Some(Ok(())));
        slots.release();
        assert_eq!(poll_immediate(&mut second).await, Some(Ok(())));
        assert_eq!(slots.taken(), 1);
    }

    #[tokio::test]
    async fn a_caller_that_gives_up_in_line_takes_no_slot() {
        let slots = Slots::new();
        slots.set_limit(1);
        slots.take().await.unwrap();
        assert_eq!(slots.take().now_or_never(), None);
        slots.release();
        assert_eq!(slots.taken(), 0);
        assert_eq!(slots.take().now_or_never(), Some(Ok(())));
    }

    #[tokio::test]
    async fn a_raised_limit_lets_those_in_line_go() {
        let slots = Slots::new();
        let mut waiting = std::pin::pin!(slots.take());
        assert_eq!(poll_immediate(&mut waiting).await, None, "no limit is known yet");
        slots.set_limit(usize::MAX);
        assert_eq!(poll_immediate(&mut waiting).await, Some(Ok(())));
        assert_eq!(slots.taken(), 1);
    }

    #[tokio::test]
    async fn a_lowered_limit_takes_slots_away_as_they_come_back() {
        let slots = Slots::new();
        slots.set_limit(3);
        for _ in 0..3 {
            slots.take().await.unwrap();
        }
        slots.set_limit(1);
        assert_eq!(slots.taken(), 3);
        slots.release();
        slots.release();
        assert_eq!(slots.taken(), 1);
        assert_eq!(slots.take().now_or_never(), None);
        slots.release();
        assert_eq!(slots.take().now_or_never(), Some(Ok(())));

        // Raised again while slots are still to be taken away.
        slots.set_limit(4);
        for _ in 0..3 {
            slots.take().await.unwrap();
        }
        slots.set_limit(1);
        slots.set_limit(3);
        slots.release();
        assert_eq!(slots.take().now_or_never(), None, "three are out, three are allowed");
        slots.release();
        assert_eq!(slots.take().now_or_never(), Some(Ok(())));
        assert_eq!(slots.taken(), 3);
    }

    #[tokio::test]
    async fn closing_turns_everyone_away() {
        let slots = Slots::new();
        slots.set_limit(1);
        slots.take().await.unwrap();
        let mut waiting = std::pin::pin!(slots.take());
        assert_eq!(poll_immediate(&mut waiting).await, None);
        slots.close();
        assert_eq!(poll_immediate(&mut waiting).await, Some(Err(Closed)));
        assert_eq!(slots.take().await, Err(Closed));
        assert_eq!(slots.taken(), 1);
        slots.release();
        assert_eq!(slots.taken(), 0);
    }
}
