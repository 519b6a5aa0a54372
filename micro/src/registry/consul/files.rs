//! Reads of files, off the runtime's own threads.

use tokio::{
    sync::Mutex,
    task::{JoinHandle, spawn_blocking},
};

/// Reads one at a time: of files on a network mount that hangs, however many ask, one thread waits.
/// Who comes while a read is under way that others gave up has what it finds.
#[derive(Debug)]
pub(super) struct Files<T>(Mutex<Option<JoinHandle<Result<T, String>>>>);

impl<T> Default for Files<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Send + 'static> Files<T> {
    /// Reads, unless it is `known` once it is our turn.
    ///
    /// # Errors
    /// Those of the read, in words.
    pub(super) async fn read(
        &self,
        known: impl Fn() -> Option<T>,
        read: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let mut reading = self.0.lock().await;
        if let Some(known) = known() {
            return Ok(known);
        }
        // What was found for those who gave up since may be old by now.
        reading.take_if(|reading| reading.is_finished());
        let outcome = reading.get_or_insert_with(|| spawn_blocking(read)).await;
        *reading = None;
        outcome.map_err(|error| error.to_string()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn files_that_hang_hold_one_thread_and_nobody_who_gives_up() {
        let files = Files::default();
        let (answer, hangs) = mpsc::channel::<()>();
        let first = files.read(|| None, move || hangs.recv().map(|()| 1).map_err(|_| "".into()));
        timeout(Duration::from_millis(20), first).await.expect_err("it hangs");
        for _ in 0..3 {
            let next = files.read(|| None, || panic!("the first read is under way"));
            timeout(Duration::from_millis(20), next).await.expect_err("it hangs");
        }
        assert_eq!(files.read(|| Some(7), || Ok(0)).await, Ok(7), "another way");
        let joined = files.read(|| None, || Ok(2));
        let (joined, ()) = tokio::join!(biased; joined, async { answer.send(()).unwrap() });
        assert_eq!(joined, Ok(1), "what was under way");
        assert_eq!(files.read(|| None, || Ok(2)).await, Ok(2), "read anew");
        assert_eq!(files.read(|| None, || Err("no".to_owned())).await, Err("no".to_owned()));
    }
}
