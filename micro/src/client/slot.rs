//! A stream for an attempt: on the node that was picked, or on another that has one sooner.

use std::{pin::pin, sync::Arc};

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};

use super::Channel;
use crate::{
    balance::{self, Pick},
    registry::Node,
    transport::{Failure, Slot},
};

/// In how many lines a call stands: that of the node that was picked, and of others.
const LINES: usize = 3;

/// How many nodes are looked at for a stream that is free.
const LOOKS: usize = 32;

/// A pick and a stream there, or why there will be none.
type Seated = (Pick, Result<Slot, Failure>);

impl Channel {
    /// Waits in line for one of the streams that the picked node allows at a time, and in the lines of
    /// some others: that node may hang, or be the first of many that come back, for all that have
    /// waited. What is in line was not sent, and may go anywhere.
    ///
    /// # Errors
    /// The node that was picked, when `struck` ends. In line says nothing of it.
    pub(super) async fn slot(
        &self,
        pick: Pick,
        request: &balance::Request<'_>,
        struck: impl Future<Output = ()> + Unpin,
    ) -> Result<Seated, Arc<Node>> {
        match pick.connection().slot().now_or_never() {
            Some(slot) => Ok((pick, slot)),
            // Apart, since hardly any call needs room for it.
            None => Box::pin(self.in_line(pick, request, struck)).await,
        }
    }

    async fn in_line(
        &self,
        mut pick: Pick,
        request: &balance::Request<'_>,
        mut struck: impl Future<Output = ()> + Unpin,
    ) -> Result<Seated, Arc<Node>> {
        // The call's own, wherever it goes.
        let (node, place) = (pick.node().clone(), pick.take_place());
        let mut standing = vec![pick.endpoint()];
        let mut lines = FuturesUnordered::from_iter([stand(pick)]);
        let (mut pick, slot) = 'seated: loop {
            // In the queue before the look: what changes in between is not missed.
            let mut changed = pin!(self.balancer().changed());
            changed.as_mut().enable();
            let mut passed_over = [request.tried, &standing].concat();
            for _ in 0..LOOKS {
                let request = balance::Request { tried: &passed_over, ..*request };
                let Some(other) = self.balancer().pick_beside(&request) else { break };
                let endpoint = other.endpoint();
                match other.connection().slot().now_or_never() {
                    Some(Ok(slot)) => break 'seated (other, Ok(slot)),
                    None if standing.len() < LINES => {
                        standing.push(endpoint);
                        lines.push(stand(other));
                    }
                    _ => {}
                }
                passed_over.push(endpoint);
            }
            tokio::select! {
                biased;
                Some((pick, slot)) = lines.next() => {
                    if slot.is_ok() || lines.is_empty() {
                        break (pick, slot);
                    }
                    // It may be back on another connection.
                    standing.retain(|it| *it != pick.endpoint());
                }
                () = changed => {}
                () = &mut struck => return Err(node),
            }
        };
        pick.give_place(place);
        Ok((pick, slot))
    }
}

async fn stand(pick: Pick) -> Seated {
    let slot = pick.connection().slot().await;
    (pick, slot)
}
