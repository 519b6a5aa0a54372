//! The last phases of a service, in their order.

use std::{pin::pin, time::Duration};

use tokio::time::sleep;

use crate::{
    registration::{Registration, RegistrationState},
    server::Listening,
};

/// A service that serves, and what it needs to leave.
pub(super) struct Leaving {
    pub(super) service: String,
    pub(super) gap: Duration,
    pub(super) drain_timeout: Duration,
    pub(super) listening: Listening,
    pub(super) registration: Registration,
}

impl Leaving {
    /// Keeps health in step with the registration until `asked`, then leaves.
    pub(super) async fn after<T>(self, asked: impl Future<Output = T>) -> T {
        let asked = self.serve_until(asked).await;
        let Self { service, gap, drain_timeout, listening, registration } = self;
        listening.set_serving(false);
        if registration.leave().await {
            sleep(gap).await;
        }
        let drained = listening.drain(drain_timeout).await;
        if !drained.finished() {
            tracing::warn!(
                service,
                cut = drained.calls_cut,
                ?drain_timeout,
                "drain timeout: calls cut"
            );
        }
        tracing::info!(service, "stopped");
        asked
    }

    async fn serve_until<T>(&self, asked: impl Future<Output = T>) -> T {
        let mut asked = pin!(asked);
        let mut state = self.registration.state();
        loop {
            self.listening.set_serving(is_ready(*state.borrow_and_update()));
            tokio::select! {
                biased;
                asked = &mut asked => return asked,
                changed = state.changed() => if changed.is_err() {
                    return asked.await;
                },
            }
        }
    }
}

/// Whether callers may come: the node is registered, or its registry has nothing to register in.
fn is_ready(state: RegistrationState) -> bool {
    matches!(state, RegistrationState::Registered | RegistrationState::ReadOnly)
}
