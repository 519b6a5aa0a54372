//! Does what the machine asks for: one thing at a time, each bounded.

use std::{
    future::pending,
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until, timeout},
};
use tracing::{info, warn};

use super::{
    Options, RegistrationState,
    state::{Event, Note, State, Work},
    states::Report,
};
use crate::{
    Error,
    backoff::Backoff,
    metrics::RegistrationMetrics,
    registry::{Node, Registry, RenewError},
};

/// The bound of one attempt, all its requests together.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);

/// The lower end of the ceiling of the wait between attempts; the upper is TTL/5.
const FIRST_RETRY: Duration = Duration::from_millis(100);

/// Returns whether callers may have known the node when it was to leave.
pub(super) async fn drive(
    registry: Arc<dyn Registry>,
    node: Node,
    options: Options,
    report: Report,
    leaving: oneshot::Receiver<()>,
) -> bool {
    let backoff = Backoff::full_jitter(FIRST_RETRY, options.ttl / 5);
    // No shorter than it takes the other to renew, which ends the contest for the time being.
    let contest =
        Backoff::full_jitter(options.interval.saturating_mul(2), options.ttl.saturating_mul(4));
    let mut state = State::new(Instant::now(), &options, backoff, contest, fastrand::f64());
    let mut leave = pin!(async {
        // The sender goes without a word when the registration is dropped: this task is about to
        // be aborted, and the record left to its TTL.
        if leaving.await.is_err() {
            pending::<()>().await;
        }
    });
    let metrics = RegistrationMetrics::start(&*registry, &node, &RegistrationState::NAMES);
    let mut event = Event::Elapsed;
    let mut was_known = false;
    loop {
        match &event {
            Event::Registered(Ok(_)) => metrics.registered(),
            Event::Renewed(outcome) => metrics.renewed(outcome),
            Event::Leave => was_known = state.is_known(),
            _ => {}
        }
        let (notes, work) = state.handle(Instant::now(), event);
        for note in notes {
            log(&*registry, &node, &note);
            if let Note::Entered(state, _) = note {
                metrics.entered(state.name());
                report.enter(state);
            }
        }
        event = match work {
            Work::Done => return was_known,
            Work::Wait(until) => unless_leaving(leave.as_mut(), wait(until)).await,
            Work::Check => unless_leaving(leave.as_mut(), check(&options)).await,
            Work::Renew(lease) => {
                let renewal = async {
                    // One that is silent for as long as a short TTL would cost the record.
                    let limit = ATTEMPT_TIMEOUT.min(options.ttl / 3);
                    let request = registry.renew(&node, lease);
                    let answer = bounded_by(limit, "renew", &*registry, request).await;
                    Event::Renewed(answer.unwrap_or_else(|late| Err(RenewError::Failed(late))))
                };
                unless_leaving(leave.as_mut(), renewal).await
            }
            Work::Register => {
                let registering = async {
                    let request = registry.register(&node, options.ttl);
                    Event::Registered(bounded("register", &*registry, request).await.flatten())
                };
                if registry.undoes_dropped() {
                    unless_leaving(leave.as_mut(), registering).await
                } else {
                    // A record may stand half way whose lease nobody knows.
                    registering.await
                }
            }
            Work::Deregister(lease) => {
                let request = registry.deregister(&node, lease);
                Event::Deregistered(bounded("deregister", &*registry, request).await.flatten())
            }
            Work::Release(lease) => {
                let request = registry.deregister(&node, lease);
                // What is not given back goes with its TTL. Not even for leaving is it dropped: what
                // hangs on the lease under a key of its own would be there when the node is gone.
                let _ = bounded("release", &*registry, request).await;
                Event::Released
            }
        };
    }
}

async fn unless_leaving(
    leave: Pin<&mut impl Future<Output = ()>>,
    work: impl Future<Output = Event>,
) -> Event {
    tokio::select! {
        biased;
        () = leave => Event::Leave,
        event = work => event,
    }
}

async fn wait(until: Option<Instant>) -> Event {
    match until {
        Some(until) => sleep_until(until).await,
        None => pending().await,
    }
    Event::Elapsed
}

/// Asks the user's check, which may fail, hang and panic.
async fn check(options: &Options) -> Event {
    let Some(check) = &options.check else {
        return Event::Checked(Ok(()));
    };
    // A check slower than the interval would cost the record its renewals.
    let bound = ATTEMPT_TIMEOUT.min(options.interval);
    let answer = AssertUnwindSafe(async { check().await }).catch_unwind();
    Event::Checked(match timeout(bound, answer).await {
        Ok(Ok(answer)) => answer.map_err(|error| error.to_string()),
        Ok(Err(_panic)) => Err("it panicked".to_owned()),
        Err(_elapsed) => Err(format!("no answer within {bound:?}")),
    })
}

async fn bounded<T>(
    what: &str,
    registry: &dyn Registry,
    request: impl Future<Output = T>,
) -> Result<T, Error> {
    bounded_by(ATTEMPT_TIMEOUT, what, registry, request).await
}

async fn bounded_by<T>(
    limit: Duration,
    what: &str,
    registry: &dyn Registry,
    request: impl Future<Output = T>,
) -> Result<T, Error> {
    timeout(limit, request).await.map_err(|_elapsed| {
        let registry = registry.name();
        Error::registry(format!("{registry}: no answer to {what} within {limit:?}"))
    })
}

fn log(registry: &dyn Registry, node: &Node, note: &Note) {
    let (service, id, registry) = (&node.service, &node.id, registry.name());
    match note {
        Note::Entered(state, None) => info!(service, node = id, registry, "registration: {state}"),
        Note::Entered(RegistrationState::ReadOnly, Some(why)) => {
            info!(service, node = id, registry, "registration: serving without one: {why}");
        }
        Note::Entered(state, Some(why)) => {
            warn!(service, node = id, registry, "registration: {state}: {why}");
        }
        Note::Trouble(why) => {
            warn!(service, node = id, registry, "registration: {why}");
        }
        Note::Recovered => info!(service, node = id, registry, "registration: renewed again"),
    }
}
