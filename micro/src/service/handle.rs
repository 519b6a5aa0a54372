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

use super::{claim::Claim, hooks::Hooks, leave::Leaving};
use crate::{Error, registration::RegistrationState, registry::BoxFuture};

/// A running service. Dropped, it leaves in the background as [`stop`](Self::stop) does; what a hook
/// fails with is then lost.
#[derive(Debug)]
pub struct Handle {
    address: String,
    id: String,
    registration: watch::Receiver<RegistrationState>,
    stop: Option<oneshot::Sender<()>>,
    /// Goes with the wish to leave: a successor under the same id need not wait.
    claim: Option<Claim>,
    task: JoinHandle<Result<(), Error>>,
}

impl Handle {
    pub(super) fn start(
        leaving: Leaving,
        claim: Claim,
        address: String,
        id: String,
        shutdown: Option<BoxFuture<'static, ()>>,
        hooks: Hooks,
    ) -> Self {
        let registration = leaving.registration.state();
        let (stop, stopped) = oneshot::channel();
        let shutdown = shutdown.unwrap_or_else(|| Box::pin(pending()));
        let shutdown = AssertUnwindSafe(shutdown).catch_unwind();
        let service = leaving.service.clone();
        let Hooks { mut after_start, before_stop, after_stop, .. } = hooks;
        let task = tokio::spawn(async move {
            let asked = async {
                let (panic, error) = tokio::select! {
                    biased;
                    _ = stopped => (None, None),
                    ended = shutdown => (ended.err(), None),
                    error = failure(after_start.run()) => (None, Some(error)),
                };
                (panic, before_stop.run_all(&service, error).await)
            };
            let (panic, error) = leaving.after(asked).await;
            let error = after_stop.run_all(&service, error).await;
            // The user's panic goes on, but not before callers have been told to go elsewhere.
            if let Some(panic) = panic {
                if let Some(error) = error {
                    tracing::warn!(service, "{error:?}");
                }
                resume_unwind(panic);
            }
            error.map_or(Ok(()), Err)
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
    /// # Errors
    /// `Hook` with the first failure of a [hook](crate::ServiceBuilder::after_start): the service
    /// has left by then all the same.
    ///
    /// # Panics
    /// With the panic of the shutdown future, if that had one: the service has left by then.
    ///
    /// # Cancel safety
    /// Dropped before its end, the service goes on leaving in the background.
    pub async fn stop(mut self) -> Result<(), Error> {
        self.stop.take();
        self.claim.take();
        self.ended().await
    }

    /// Ends as a process that is killed does: without a word to callers or the registry.
    #[cfg(feature = "testing")]
    pub(crate) fn kill(self) {
        self.task.abort();
    }

    /// The end of the service, however it comes. Cancel safe; not to be asked again after it came.
    pub(super) async fn ended(&mut self) -> Result<(), Error> {
        match (&mut self.task).await {
            Ok(outcome) => outcome,
            Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
            // The runtime is shutting down.
            Err(_) => Ok(()),
        }
    }
}

/// The failure of hooks; it never comes from hooks that end well.
async fn failure(hooks: impl Future<Output = Result<(), Error>>) -> Error {
    match hooks.await {
        Ok(()) => pending().await,
        Err(error) => error,
    }
}
