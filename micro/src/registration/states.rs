//! The states of a node in several registries, as one.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::RegistrationState;

/// Where the node stands in each registry, and the best of it.
#[derive(Debug)]
pub(super) struct States {
    each: Mutex<Vec<RegistrationState>>,
    best: watch::Sender<RegistrationState>,
}

/// Where the driver of one registry says how it stands there.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) states: Arc<States>,
    pub(super) index: usize,
}

impl States {
    pub(super) fn new(registries: usize) -> (Self, watch::Receiver<RegistrationState>) {
        let (best, receiver) = watch::channel(RegistrationState::Idle);
        let each = Mutex::new(vec![RegistrationState::Idle; registries]);
        (Self { each, best }, receiver)
    }
}

impl Report {
    pub(super) fn enter(&self, state: RegistrationState) {
        let mut each = self.states.each.lock().unwrap_or_else(PoisonError::into_inner);
        each[self.index] = state;
        let best = each.iter().copied().max_by_key(|state| worth(*state)).unwrap_or(state);
        self.states.best.send_if_modified(|now| std::mem::replace(now, best) != best);
    }
}

/// How much a state is worth to those who look for the node.
fn worth(state: RegistrationState) -> u8 {
    match state {
        RegistrationState::Registered => 6,
        // Those who look there find it by other means, whatever comes of the others.
        RegistrationState::ReadOnly => 5,
        RegistrationState::Leaving => 4,
        RegistrationState::Registering => 3,
        RegistrationState::Lost => 2,
        RegistrationState::Idle => 1,
        RegistrationState::Gone => 0,
    }
}
