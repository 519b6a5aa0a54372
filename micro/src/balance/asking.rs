//! What a balancer asks its nodes of their health.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream::BoxStream};
use tokio::sync::watch;

use super::health::Health;

/// One question, until there is another.
pub(super) struct Asking {
    service: Option<Arc<str>>,
    /// Dropped with the question: who waits for an answer then gives up.
    lasts: watch::Sender<()>,
}

impl Asking {
    /// Whether the service of this name is well, if that is to be known.
    pub(super) fn of(service: Option<Arc<str>>) -> Self {
        Self { service, lasts: watch::Sender::new(()) }
    }

    /// Of which service nodes are asked, if they are.
    pub(super) fn service(&self) -> Option<&Arc<str>> {
        self.service.as_ref()
    }

    /// The next that a node says, with what follows of it; `None` once it has said its last, or is no
    /// longer asked this.
    pub(super) fn next(
        &self,
        mut health: BoxStream<'static, Health>,
    ) -> impl Future<Output = Option<(Health, BoxStream<'static, Health>)>> + Send + use<> {
        let mut lasts = self.lasts.subscribe();
        async move {
            let told = tokio::select! {
                biased;
                _ = lasts.changed() => None,
                told = health.next() => told,
            };
            Some((told?, health))
        }
    }
}
