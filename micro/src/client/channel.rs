//! The channel to one service: what stubs, ours and tonic's, send their calls through.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::HeaderMap;
use tokio::time::{Instant, sleep_until};
use tonic::Status;
use tower_service::Service;

use super::{
    budget::Budget,
    latency::Latencies,
    layers,
    live_config::LiveConfig,
    observed::{Attempt, Observed},
    retry::Purse,
    status, stream,
    unary::Options,
};
use crate::{
    balance::{self, Balancer, Explanation, Pick, Unpicked},
    layer::Row,
    metrics::{BudgetMetrics, ChannelMetrics, Picked},
    registry::BoxFuture,
};

/// A service's nodes behind one handle: balanced, watched, reconnected.
///
/// A clone is cheap and shares connections; they close when the last clone is dropped. Beneath a
/// stub of tonic's it is a `tower::Service`:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let client = micro::Client::builder().without_env().registry("memory://channel-docs").build()?;
/// let channel = client.channel("greeter");
/// let mut greeter = tonic::client::Grpc::new(channel); // what tonic's stubs are made of
/// greeter.ready().await?;
/// # Ok(())
/// # }
/// ```
///
/// Through tonic's stubs a call has no deadline unless `Request::set_timeout` gives it one; one
/// without waits 5 s for a node that takes it. Its body is kept up to 64 KiB, so that the call can
/// move to another node: as long as no handler can have seen it, and by the service config's
/// `retryPolicy` until its first message came. A `hedgingPolicy` holds for it too (see [`Hedge`](super::Hedge)).
#[derive(Clone)]
pub struct Channel {
    shared: Arc<Shared>,
    options: Options,
}

pub(super) struct Shared {
    pub(super) service: Arc<str>,
    pub(super) balancer: Balancer,
    pub(super) settings: Settings,
    pub(super) layers: Arc<Row>,
    pub(super) budget: Arc<Budget>,
    pub(super) config: Arc<LiveConfig>,
    pub(super) latencies: Latencies,
    pub(super) metrics: ChannelMetrics,
    pub(super) _budget_metrics: BudgetMetrics,
}

/// What a client's channels have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) request_timeout: Duration,
    pub(super) max_message_size: usize,
    pub(crate) max_attempts: u32,
    pub(super) stream_window: u32,
    pub(super) connection_window: u32,
}

const RUNTIME_OVER: &str = "the runtime that its channel was made in has shut down";

impl Channel {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, options: Options::default() }
    }

    /// The name in the registry of the service that this channel leads to.
    pub fn service(&self) -> &str {
        &self.shared.service
    }

    /// The service's nodes as this channel sees them: each one's state and why, the registry's
    /// revision and how stale its word is. As data, and with `{}` as text, a line a node.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let client = micro::Client::builder().without_env().registry("static://greeter=127.0.0.1:9").build()?;
    /// println!("{}", client.channel("greeter").explain().await?);
    /// # Ok(())
    /// # }
    /// ```
    /// prints, of a service of two:
    /// ```text
    /// service 'greeter': 2 nodes in etcd://127.0.0.1:2379, 1 take calls; revision 17, no change for 4.0s
    ///   greeter-1 at 10.0.0.1:4001: ready for 12.0s; 3 in flight, health 1.00, 1.2ms a call
    ///   greeter-2 at 10.0.0.2:4001: ejected (transport failures in a row; 26.0s more) for 4.0s; 0 in flight, health 0.13, 0.9ms a call
    /// ```
    ///
    /// # Errors
    /// `Unavailable` once the runtime that the channel was made in has shut down.
    pub async fn explain(&self) -> Result<Explanation, Status> {
        let explained = self.shared.balancer.explain().await;
        explained.ok_or_else(|| status::no_node(self.service(), RUNTIME_OVER))
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    pub(super) fn balancer(&self) -> &Balancer {
        &self.shared.balancer
    }

    pub(super) fn layers(&self) -> &Arc<Row> {
        &self.shared.layers
    }

    /// What pays for a call's attempts beyond its first.
    pub(super) fn purse(&self) -> Purse {
        Purse::of(&self.shared.config, &self.shared.budget)
    }

    /// Whether the registry has answered.
    pub(super) fn has_heard(&self) -> bool {
        self.shared.config.heard().initialized()
    }

    /// Waits for the registry's first answer, which may bring a service config. Costs no call
    /// anything: before that there is no node to pick, and it ends when waiting for one would.
    pub(super) async fn hear(&self, fail_fast: bool, until: Instant) {
        let heard = self.shared.config.heard();
        let any = balance::Request::default();
        let heard = async {
            tokio::select! {
                biased;
                _ = heard.wait() => {}
                _ = self.shared.balancer.wait(&any, fail_fast) => {}
                () = sleep_until(until) => {}
            }
        };
        // Apart, since hardly any call needs room for it.
        Box::pin(heard).await;
    }

    /// What a call says, laid over what the service config says of its method.
    pub(super) fn configured(&self, options: Options, path: &str) -> Options {
        let live = self.shared.config.load();
        options.configured(live.as_ref().and_then(|live| live.config.method(path)))
    }

    pub(super) fn latencies(&self) -> &Latencies {
        &self.shared.latencies
    }

    /// A call has begun, of the method at this path.
    pub(super) fn observe(&self, options: &Options, path: &str, start: Instant) -> Observed {
        let Options { is_generated, detached, .. } = *options;
        Observed::new(&self.shared.metrics, path, is_generated, detached, start)
    }

    pub(super) fn options(&self) -> Options {
        self.options.clone()
    }

    pub(super) fn with_options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// What a call says of itself to be given a node.
    pub(super) fn request<'a>(
        &self,
        options: &'a Options,
        method: &'a str,
        metadata: &'a HeaderMap,
    ) -> balance::Request<'a> {
        balance::Request {
            tried: &[],
            method,
            metadata: Some(metadata),
            hash: options.hash,
            node: options.node.as_deref(),
            can_move: options.policy().is_some_and(|policy| policy.may_retry(self.settings())),
            ..balance::Request::default()
        }
    }

    /// Picks a node for the attempt, waiting for one until `struck`, unless there can be none, or the call fails fast
    /// and all that there are were tried.
    pub(super) async fn pick(
        &self,
        request: &balance::Request<'_>,
        fail_fast: bool,
        struck: impl Future<Output = ()> + Unpin,
        attempt: &Attempt,
    ) -> Result<Pick, Status> {
        let balancer = &self.shared.balancer;
        let pick = balancer.pick(request);
        // A call that has failed asks too: what there is to pick may be what was left behind.
        if !request.tried.is_empty() && balancer.is_over() {
            return Err(self.no_node(request));
        }
        if let Some(pick) = pick {
            attempt.picked(Picked::AtOnce);
            return Ok(pick);
        }
        let waited = balancer.wait_until(request, fail_fast, struck).await;
        attempt.picked(if waited.is_ok() { Picked::Waited } else { Picked::Failed });
        waited.map_err(|unpicked| match unpicked {
            Unpicked::NotReady => self.no_node(request),
            Unpicked::Full(why) => status::full(self.service(), &why),
        })
    }

    fn no_node(&self, request: &balance::Request<'_>) -> Status {
        let balancer = &self.shared.balancer;
        if balancer.is_over() {
            return status::no_node(self.service(), RUNTIME_OVER);
        }
        match balancer.refused() {
            Some(why) => status::refused(self.service(), &why),
            None => status::no_node(self.service(), &balancer.why_not_ready(request)),
        }
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("service", &self.shared.service).finish_non_exhaustive()
    }
}

impl Service<http::Request<tonic::body::Body>> for Channel {
    type Response = http::Response<tonic::body::Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Self::Response, Status>>;

    /// Always ready: waiting for a node happens in [`call`](Self::call), within the call's
    /// deadline.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        if self.layers().covers(request.uri().path()) {
            Box::pin(layers::stream(self.clone(), request))
        } else {
            Box::pin(stream::call(self.clone(), request))
        }
    }
}
