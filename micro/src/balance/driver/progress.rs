//! How far the driver has come, for calls that fail fast; and what the registry has instead of a
//! service that it has not.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use tokio::time::Instant;

use super::{Driver, Event};
use crate::balance::{connect::Connect, shared::Progress};

/// How long what the registry has in place of a missing service is taken for true.
const ASK_AGAIN: Duration = Duration::from_secs(10);

impl<K: Connect> Driver<K> {
    /// After the snapshot: who finds that all was tried finds there what came of it.
    pub(super) fn publish_progress(&self) {
        let is_none_listed = self.members.listed() == 0;
        let progress = match self.members.untried() {
            _ if !self.is_read => Progress::Unread,
            0 if self.is_answered || !is_none_listed => Progress::Tried,
            _ => Progress::Trying,
        };
        self.shared.progress.send_if_modified(|known| {
            let before = std::mem::replace(known, progress);
            before != progress
        });
    }

    /// Asks, beside all else, what the registry has instead: for a call that finds no node in it.
    pub(super) fn ask_around(&mut self, now: Instant) {
        if self.members.listed() > 0 {
            // What was missed, asked and found was so before it came.
            self.shared.missed.store(false, Relaxed);
            if self.asked.take().is_some() {
                self.shared.found.store(None);
                self.is_answered = false;
            }
            return;
        }
        let is_due = self.asked.is_none_or(|asked| now - asked >= ASK_AGAIN);
        if !is_due || !self.is_read {
            return;
        }
        if self.shared.missed.swap(false, Relaxed) || self.members.is_wanted() {
            self.asked = Some(now);
            let asking = self.shared.neighbours.clone().ask();
            self.pending.push(Box::pin(async move { Event::Found(asking.await) }));
        }
    }
}
