//! A service that runs in the background.

use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};

use super::leave::Leaving;
use crate::{registration::RegistrationState, registry::BoxFuture};

/// A running service. Dropped, it leaves in the background as [`stop`](Self::stop) does.
#[derive(Debug)]
pub struct Handle {
    address: String,
    id: String,
    registration: watch::Receiver<RegistrationState>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Handle {
    pub(super) fn start(
        leaving: Leaving,
        address: String,
        id: String,
        shutdown: Option<BoxFuture<'static, ()>>,
    ) -> Self {
        let registration = leaving.registration.state();
        let (stop, stopped) = oneshot::channel();
        let asked = async move {
            let shutdown = async {
                match shutdown {
                    Some(shutdown) => shutdown.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = stopped => {}
                () = shutdown => {}
            }
        };
        let task = tokio::spawn(leaving.after(asked));
        Self { address, id, registration, stop: Some(stop), task }
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
    /// # Cancel safety
    /// Dropped before its end, the service goes on leaving in the background.
    pub async fn stop(mut self) {
        self.ask_to_stop();
        self.ended().await;
    }

    pub(super) fn ask_to_stop(&mut self) {
        self.stop.take();
    }

    pub(super) async fn ended(&mut self) {
        if let Err(error) = (&mut self.task).await
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }

    /// Stops without leaving: connections are closed, calls are cut.
    pub(super) fn abort(&self) {
        self.task.abort();
    }
}
