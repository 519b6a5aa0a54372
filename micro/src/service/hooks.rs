//! What the user's code does when a service starts and stops.

use std::{error::Error as StdError, fmt, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt as _;
use tokio::time::{Instant, timeout};

use super::ServiceBuilder;
use crate::{Error, ErrorKind, registry::BoxFuture};

type Hook = Box<dyn FnOnce() -> BoxFuture<'static, Outcome> + Send>;
type Outcome = Result<(), Box<dyn StdError + Send + Sync>>;

/// The hooks of a service, by when they run.
pub(super) struct Hooks {
    pub(super) before_start: Stage,
    pub(super) after_start: Stage,
    pub(super) before_stop: Stage,
    pub(super) after_stop: Stage,
}

impl Hooks {
    pub(super) fn new() -> Self {
        Self {
            before_start: Stage::new("before_start"),
            after_start: Stage::new("after_start"),
            before_stop: Stage::new("before_stop"),
            after_stop: Stage::new("after_stop"),
        }
    }

    /// Bounds each hook.
    pub(super) fn bound(&mut self, timeout: Duration) {
        for stage in [
            &mut self.before_start,
            &mut self.after_start,
            &mut self.before_stop,
            &mut self.after_stop,
        ] {
            stage.timeout = timeout;
        }
    }
}

/// Hooks that run one after the other, in the order in which they were given.
pub(super) struct Stage {
    name: &'static str,
    timeout: Duration,
    hooks: Vec<Hook>,
}

impl Stage {
    fn new(name: &'static str) -> Self {
        Self { name, timeout: Duration::from_secs(30), hooks: Vec::new() }
    }

    fn push<F, Fut, E>(&mut self, hook: F)
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        // Called within the future, so that a panic of the call itself is caught too.
        self.hooks.push(Box::new(|| Box::pin(async { hook().await.map_err(Into::into) })));
    }

    /// Runs the hooks up to the first that fails.
    pub(super) async fn run(&mut self) -> Result<(), Error> {
        let count = self.hooks.len();
        for (index, hook) in self.hooks.drain(..).enumerate() {
            let place = Place { stage: self.name, number: index + 1, count };
            run(place, hook, self.timeout).await?;
        }
        Ok(())
    }

    /// Runs the hooks, whichever of them fail. Gives back the first failure of all, which may have
    /// come before; the others are logged.
    pub(super) async fn run_all(self, service: &str, mut first: Option<Error>) -> Option<Error> {
        let count = self.hooks.len();
        for (index, hook) in self.hooks.into_iter().enumerate() {
            let place = Place { stage: self.name, number: index + 1, count };
            if let Err(error) = run(place, hook, self.timeout).await {
                match &first {
                    None => first = Some(error),
                    Some(_) => tracing::warn!(service, "{error:?}"),
                }
            }
        }
        first
    }
}

/// Which hook, for people.
#[derive(Clone, Copy)]
struct Place {
    stage: &'static str,
    number: usize,
    count: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stage, number, count } = self;
        write!(f, "{stage} hook {number} of {count}")
    }
}

async fn run(place: Place, hook: Hook, bound: Duration) -> Result<(), Error> {
    let failed = |what: String| Error::new(ErrorKind::Hook, format!("{place} {what}"));
    let begin = Instant::now();
    let is_late = || !bound.is_zero() && begin.elapsed() > bound;
    match timeout(bound, AssertUnwindSafe(hook()).catch_unwind()).await {
        // One that held its thread could not be given up.
        Ok(Ok(Ok(()))) if !is_late() => Ok(()),
        Ok(Ok(Err(error))) => Err(failed("failed".to_owned()).with_source(error)),
        Ok(Err(panic)) => {
            let text = panic.downcast_ref::<&str>().copied();
            let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            Err(failed(format!("panicked: {}", text.unwrap_or("its payload is not a text"))))
        }
        Ok(Ok(Ok(()))) | Err(_) => Err(failed(format!(
            "did not end within {bound:?}: make it shorter, or raise the hook_timeout"
        ))),
    }
}

/// # Hooks
/// Each is a function that returns a future, and runs once. Several of a kind run in the order in
/// which they were added. A panic is a failure of its hook. The project's example `hooks`
/// (`cargo run --bin hooks`) shows when each runs, and what comes of one that fails.
impl ServiceBuilder {
    /// Runs before the service listens, and before it registers. If it fails,
    /// [`run`](super::Service::run) and [`start`](super::Service::start) end with its error: nothing
    /// has been bound or registered, and no other hook runs. A signal ends `run` at once, without
    /// an error.
    pub fn before_start<F, Fut, E>(mut self, hook: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        self.hooks.before_start.push(hook);
        self
    }

    /// Runs when the listener accepts and the registration has begun, which may go on meanwhile. If
    /// it fails the service leaves, and [`run`](super::Service::run), or
    /// [`stop`](super::Handle::stop), returns its error. Where the service is asked to leave
    /// meanwhile, it is dropped.
    pub fn after_start<F, Fut, E>(mut self, hook: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        self.hooks.after_start.push(hook);
        self
    }

    /// Runs first of all when the service leaves: it is still registered, and takes calls. If it
    /// fails the service leaves all the same, and returns the error at the end.
    pub fn before_stop<F, Fut, E>(mut self, hook: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        self.hooks.before_stop.push(hook);
        self
    }

    /// Runs last of all when the service leaves: no call is under way any more. One that
    /// has not started has no hooks to stop it either. If it fails, the
    /// error is returned once the others have run.
    pub fn after_stop<F, Fut, E>(mut self, hook: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        self.hooks.after_stop.push(hook);
        self
    }

    /// How long each hook may take; after that it is dropped, which is a failure. Default: 30 s.
    /// Zero is enough only for a hook that waits for nothing, [`Duration::MAX`] is no bound. A hook
    /// that blocks its thread cannot be dropped: it has failed once it ends.
    pub fn hook_timeout(mut self, timeout: Duration) -> Self {
        self.hooks.bound(timeout);
        self
    }
}
