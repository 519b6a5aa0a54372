//! Nodes that are asked whether they are well.

use std::sync::Arc;

use futures_util::stream::BoxStream;
use tokio::time::Instant;

use super::{Driver, Event};
use crate::{
    balance::{connect::Connect, health::Health, members::Attempt},
    registry::Node,
};

impl<K: Connect> Driver<K> {
    /// Asks the nodes that are connected, too. Until it has answered, a node is taken for what it was: that
    /// it is asked makes nobody unwell.
    pub(super) fn ask_all(&mut self, now: Instant) {
        for (attempt, node, link) in self.members.connections() {
            if self.asking.service().is_none() {
                self.members.told(&attempt, Ok(()), now);
            }
            self.ask(&attempt, &node, &link.connection);
        }
    }

    /// Asks a node for its health, if that is to be known.
    pub(super) fn ask(&mut self, attempt: &Attempt, node: &Arc<Node>, connection: &K::Connection) {
        if let Some(service) = self.asking.service().cloned() {
            let health = K::health(connection.clone(), service);
            self.follow(attempt.clone(), node.clone(), health);
        }
    }

    /// Takes what a node says for what it means. That it has nothing to say is told once: it would be so
    /// over each of its connections.
    pub(super) fn hear(
        &mut self,
        attempt: &Attempt,
        node: &Node,
        health: Health,
    ) -> Result<(), Arc<str>> {
        match health {
            Health::Well => Ok(()),
            Health::Unwell(why) => Err(self.remember(node, why)),
            Health::Mute => {
                if self.members.is_newly_mute(attempt) {
                    self.log_mute(node);
                }
                Ok(())
            }
        }
    }

    pub(super) fn follow(
        &mut self,
        attempt: Attempt,
        node: Arc<Node>,
        health: BoxStream<'static, Health>,
    ) {
        let next = self.asking.next(health);
        self.pending.push(Box::pin(async move {
            match next.await {
                Some((told, health)) => Event::Health(attempt, node, told, health),
                None => Event::Unwatched,
            }
        }));
    }
}
