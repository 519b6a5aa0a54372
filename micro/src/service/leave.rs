//! The last phases of a service, in their order.

use std::{pin::pin, time::Duration};

use tokio::time::sleep;

use crate::{
    registration::{Registration, RegistrationState},
    server::{Health, Listening},
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
        listening.set_health(Health::NotServing);
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
        let mut health = Health::NotServing;
        loop {
            health = health_in(*state.borrow_and_update(), health);
            self.listening.set_health(health);
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

/// How a node is in this state, as it was that before. It is ready when it is registered, or its registry
/// has nothing to register in.
fn health_in(state: RegistrationState, before: Health) -> Health {
    match state {
        RegistrationState::Registered | RegistrationState::ReadOnly => Health::Serving,
        RegistrationState::Lost | RegistrationState::Registering
            if before != Health::NotServing =>
        {
            Health::Unlisted
        }
        _ => Health::NotServing,
    }
}

#[cfg(test)]
mod tests {
    use RegistrationState::{Idle, Leaving, Lost, ReadOnly, Registered, Registering};

    use super::*;

    #[test]
    fn a_node_that_was_listed_is_called_while_its_registry_does_not_take_it_again() {
        for (states, expected) in [
            (&[Registering][..], Health::NotServing),
            (&[Registering, Registered], Health::Serving),
            (&[Registering, Registered, Lost], Health::Unlisted),
            (&[Registering, Registered, Lost, Registering], Health::Unlisted),
            // Of what changes at once the last is seen.
            (&[Registered, Registering], Health::Unlisted),
            (&[Registered, Lost, Registering, Registered], Health::Serving),
            // The check has failed.
            (&[Registered, Idle], Health::NotServing),
            (&[Registered, Idle, Registering], Health::NotServing),
            (&[Registered, Lost, Idle, Registering], Health::NotServing),
            (&[ReadOnly], Health::Serving),
            (&[Registered, Leaving], Health::NotServing),
        ] {
            let health =
                states.iter().fold(Health::NotServing, |before, state| health_in(*state, before));
            assert_eq!(health, expected, "{states:?}");
        }
    }
}
