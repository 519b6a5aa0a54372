//! A service that runs in the background.

use std::{
    future::pending,
    panic::{AssertUnwindSafe, resume_unwind},
};

use futures_util::FutureExt as _;
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};

use super::{claim::Claim, leave::Leaving};
use crate::{registration::RegistrationState, registry::BoxFuture};

/// A running service. Dropped, it leaves in the background as [`stop`](Self::stop) does.
#[derive(Debug)]
pub struct Handle {
    address: String,
    id: String,
    registration: watch::Receiver<RegistrationState>,
    stop: Option<oneshot::Sender<()>>,
    /// Goes with the wish to leave: a successor under the same id need not wait.
    claim: Option<Claim>,
    task: JoinHandle<()>,
}

impl Handle {
    pub(super) fn start(
        leaving: Leaving,
        claim: Claim,
        address: String,
        id: String,
        shutdown: Option<BoxFuture<'static, ()>>,
    ) -> Self {
        let registration = leaving.registration.state();
        let (stop, stopped) = oneshot::channel();
        let shutdown = shutdown.unwrap_or_else(|| Box::pin(pending()));
        let shutdown = AssertUnwindSafe(shutdown).catch_unwind();
        let task = tokio::spawn(async move {
            let asked = async {
                tokio::select! {
                    _ = stopped => Ok(()),
                    ended = shutdown => ended,
                }
            };
            // The user's panic goes on, but not before callers have been told to go elsewhere.
            if let Err(panic) = leaving.after(asked).await {
                resume_unwind(panic);
            }
        });
        Self { address, id, registration, stop: Some(stop), claim: Some(claim), task }
    }

    /// The advertised address, `host:port`, the port as bound.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The node's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The state of the registration, now and at each change.
    pub fn registration(&self) -> watch::Receiver<RegistrationState> {
        self.registration.clone()
    }

    /// Leaves, in the order of [`Service`](crate::Service), and returns when all is done.
    ///
    /// # Panics
    /// With the panic of the shutdown future, if that had one: the service has left by then.
    ///
    /// # Cancel safety
    /// Dropped before its end, the service goes on leaving in the background.
    pub async fn stop(mut self) {
        self.stop.take();
        self.claim.take();
        self.ended().await;
    }

    pub(super) async fn ended(&mut self) {
        if let Err(error) = (&mut self.task).await
            && error.is_panic()
        {
            resume_unwind(error.into_panic());
        }
    }
}
