//! What was published on a connection and has not come back yet.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;

/// By number, when what has not come back yet was published.
#[derive(Debug, Clone, Default)]
pub(super) struct Outstanding(Arc<Mutex<BTreeMap<u64, Instant>>>);

/// One that is not sent yet. Dropped, nothing of it is to come back.
struct Unsent<'a>(&'a Outstanding, u64);

impl Drop for Unsent<'_> {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}

impl Outstanding {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what has this number: it is outstanding from now on, unless it is not sent, since it
    /// cannot be or since the caller does not wait for it.
    ///
    /// # Errors
    /// As `send`.
    pub(super) async fn send(
        &self,
        number: u64,
        send: impl Future<Output = Result<(), String>>,
    ) -> Result<(), String> {
        // Before it is sent: it may be back before we run again.
        self.lock().insert(number, Instant::now());
        let unsent = Unsent(self, number);
        send.await?;
        std::mem::forget(unsent);
        Ok(())
    }

    /// It has come back. Returns when it was published.
    pub(super) fn came_back(&self, number: u64) -> Option<Instant> {
        self.lock().remove(&number)
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        self.lock().contains_key(&number)
    }

    /// When the one was published that has been on its way for longest.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.lock().values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Duration};

    use futures_util::FutureExt;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_sent_is_outstanding_from_its_begin_until_it_comes_back() {
        let outstanding = Outstanding::default();
        let begin = Instant::now();
        let sent = outstanding.send(1, async {
            assert!(outstanding.contains(1), "it may come back at once");
            tokio::time::sleep(Duration::from_millis(3)).await;
            Ok(())
        });
        sent.await.unwrap();
        outstanding.send(2, async { Ok(()) }).await.unwrap();
        assert_eq!(outstanding.oldest(), Some(begin));
        assert_eq!(outstanding.came_back(1), Some(begin));
        assert_eq!(outstanding.came_back(1), None);
        assert_eq!(outstanding.oldest(), Some(begin + Duration::from_millis(3)));
        assert!(outstanding.contains(2));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_sent_is_not_outstanding() {
        let outstanding = Outstanding::default();
        outstanding.send(1, async { Err("no".to_owned()) }).await.unwrap_err();
        assert_eq!(outstanding.oldest(), None);
        // Its caller has another way to end than its deadline: he is dropped.
        let given_up = timeout(Duration::from_secs(1), outstanding.send(2, pending())).await;
        given_up.unwrap_err();
        assert_eq!(outstanding.oldest(), None);
        let mut dropped = Box::pin(outstanding.send(3, pending()));
        assert!(dropped.as_mut().now_or_never().is_none());
        assert!(outstanding.contains(3));
        drop(dropped);
        assert_eq!(outstanding.oldest(), None);
    }
}
