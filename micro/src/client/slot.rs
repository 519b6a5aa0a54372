//! A stream for an attempt: on the node that was picked, or on another that has one sooner.

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};

use super::Channel;
use crate::{
    balance::{self, Pick},
    transport::{Failure, Slot},
};

/// In how many lines a call stands, with that of the node that was picked. That one was the less loaded
/// of two, as a rule: where it is full, most are.
const LINES: usize = 3;

/// A pick and a stream there, or why there will be none.
type Seated = (Pick, Result<Slot, Failure>);

impl Channel {
    /// Waits in line for one of the streams that the picked node allows at a time, and in the lines of
    /// some others: that node may hang, or be the first of many that come back, for all that have
    /// waited. What is in line was not sent, and may go anywhere.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in line, and says nothing of the node.
    pub(super) async fn slot(&self, pick: Pick, request: &balance::Request<'_>) -> Seated {
        match pick.connection().slot().now_or_never() {
            Some(slot) => (pick, slot),
            // Apart, since hardly any call needs room for it.
            None => Box::pin(self.in_line(pick, request)).await,
        }
    }

    async fn in_line(&self, pick: Pick, request: &balance::Request<'_>) -> Seated {
        let mut full = request.tried.to_vec();
        full.push(pick.endpoint());
        let mut lines = FuturesUnordered::from_iter([stand(pick)]);
        loop {
            // In the queue before the look: what changes in between is not missed.
            let mut changed = std::pin::pin!(self.balancer().changed());
            changed.as_mut().enable();
            while let Some(other) = self.other(&full, request) {
                match other.connection().slot().now_or_never() {
                    Some(Ok(slot)) => return (other, Ok(slot)),
                    None if lines.len() == LINES => break,
                    None => {
                        full.push(other.endpoint());
                        lines.push(stand(other));
                    }
                    Some(Err(_)) => full.push(other.endpoint()),
                }
            }
            tokio::select! {
                biased;
                Some(seated) = lines.next() => if seated.1.is_ok() || lines.is_empty() {
                    return seated;
                },
                () = changed => {}
            }
        }
    }

    fn other(&self, full: &[balance::EndpointId], request: &balance::Request<'_>) -> Option<Pick> {
        if request.node.is_some() {
            return None;
        }
        let other = self.balancer().pick(&balance::Request { tried: full, ..*request })?;
        (!full.contains(&other.endpoint())).then_some(other)
    }
}

async fn stand(pick: Pick) -> Seated {
    let slot = pick.connection().slot().await;
    (pick, slot)
}
