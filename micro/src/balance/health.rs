//! What a node says of its own health, on request: [gRFC A17] over a connection to it.
//!
//! [gRFC A17]: https://github.com/grpc/proposal/blob/master/A17-client-side-health-checking.md

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_core::Stream;
use futures_util::{StreamExt as _, TryFutureExt as _, stream::BoxStream};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_client::HealthClient,
};
use tower_service::Service;

use crate::{
    backoff::Backoff,
    registry::BoxFuture,
    transport::{self, Connection, ConnectionState},
};

/// How a node is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Health {
    Well,
    /// .. and why.
    Unwell(String),
    /// It has no method to tell it by, and is taken for well.
    Mute,
}

/// How long a node that was well may take over its first word when it is asked again: as long as over a
/// connection.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// Follows the health that a node gives of a service, in the words of `grpc.health.v1`, until the
/// connection takes no more calls; or until the node says that it has no such method, after having
/// called it so. What else goes wrong makes it unwell, and is tried again with the backoff of
/// connections; but a watch that ends while the node is well, as behind a proxy that bounds streams, is
/// first tried again at once, and the node is well meanwhile.
pub(super) fn watch(connection: Connection, service: Arc<str>) -> BoxStream<'static, Health> {
    let (tell, told) = mpsc::channel(1);
    let mut state = connection.state();
    tokio::spawn(async move {
        tokio::select! {
            // In order, so that a seed decides on all that happens: what ends it goes first.
            biased;
            _ = state.wait_for(|state| !matches!(state, ConnectionState::Open)) => {}
            () = tell.closed() => {}
            () = follow(OneConnection(connection), &service, &tell) => {}
        }
    });
    ReceiverStream::new(told).boxed()
}

async fn follow(connection: OneConnection, service: &str, tell: &mpsc::Sender<Health>) {
    let mut backoff = Backoff::connect();
    let mut was_well = false;
    // A send fails when nobody listens any more, and `watch` then ends this.
    loop {
        let begun = Instant::now();
        // The watch is over before the next is waited for.
        let (why, is_well) = {
            let mut client = HealthClient::new(connection.clone());
            let request = HealthCheckRequest { service: service.to_owned() };
            let said = async move { client.watch(request).await.map(Response::into_inner) };
            let mut said = pin!(said.try_flatten_stream().peekable());
            if was_well && timeout(ANSWERS_WITHIN, said.as_mut().peek()).await.is_err() {
                let why = format!("it has not said within {ANSWERS_WITHIN:?} whether it is well");
                let _ = tell.send(Health::Unwell(why)).await;
            }
            listen(said, &mut backoff, tell).await
        };
        was_well = is_well;
        if why.code() == Code::Unimplemented {
            let _ = tell.send(Health::Mute).await;
            return;
        }
        if was_well {
            // No wait after a watch that has lasted, and no storm of those that end at once.
            sleep_until(begun + backoff.next()).await;
        } else {
            let why = format!("its health cannot be watched: {}", why.message());
            let _ = tell.send(Health::Unwell(why)).await;
            sleep(backoff.next()).await;
        }
    }
}

/// Passes on what a node says; why it has ended, and whether the last it said was that it is well.
async fn listen(
    mut said: impl Stream<Item = Result<HealthCheckResponse, Status>> + Unpin,
    backoff: &mut Backoff,
    tell: &mpsc::Sender<Health>,
) -> (Status, bool) {
    let mut is_well = false;
    loop {
        match said.next().await {
            Some(Ok(response)) => {
                backoff.reset();
                let health = health(response.status());
                is_well = health == Health::Well;
                let _ = tell.send(health).await;
            }
            Some(Err(status)) => return (status, is_well),
            None => return (Status::unknown("the node has ended the watch"), is_well),
        }
    }
}

fn health(status: ServingStatus) -> Health {
    match status {
        ServingStatus::Serving => Health::Well,
        other => Health::Unwell(format!("it says of itself that it is {}", other.as_str_name())),
    }
}

/// Calls over one connection, whatever the balancer thinks of it.
#[derive(Debug, Clone)]
struct OneConnection(Connection);

impl Service<http::Request<tonic::body::Body>> for OneConnection {
    type Response = http::Response<transport::Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let connection = self.0.clone();
        Box::pin(async move {
            let slot = connection.slot().await?;
            Ok(connection.stream(slot, request).await?)
        })
    }
}

#[cfg(test)]
mod tests {
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::{io::duplex, task::AbortHandle};
    use tonic_health::{
        pb::health_server::{self, HealthServer},
        server::{HealthReporter, health_reporter},
    };

    use super::*;

    type Answer = Result<http::Response<tonic::body::Body>, std::convert::Infallible>;

    /// A server that answers so, what kills it, and a connection to it.
    async fn node<F>(
        answer: impl Fn(http::Request<tonic::body::Body>) -> F + Send + 'static,
    ) -> (AbortHandle, Connection)
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let (ours, theirs) = duplex(64 * 1024);
        let server = tokio::spawn(async move {
            let answer = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                answer(request.map(tonic::body::Body::new))
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            builder.serve_connection(TokioIo::new(theirs), answer).await
        });
        let (config, peer) = (transport::Config::default(), "node:1".into());
        let deadline = Instant::now() + config.connect_timeout;
        let connection = transport::handshake(ours, peer, deadline, &config).await;
        (server.abort_handle(), connection.expect("connected"))
    }

    /// A server of tonic's health, what kills it, and a connection to it.
    async fn tonics() -> (HealthReporter, AbortHandle, Connection) {
        let (reporter, service) = health_reporter();
        let (server, connection) = node(move |request| service.clone().call(request)).await;
        (reporter, server, connection)
    }

    /// What a node says in answer to one watch, which ends as this is dropped.
    type Watch = mpsc::Sender<Result<HealthCheckResponse, Status>>;

    /// Hands each watch to the test.
    #[derive(Clone)]
    struct Scripted(mpsc::Sender<Watch>);

    #[tonic::async_trait]
    impl health_server::Health for Scripted {
        type WatchStream = ReceiverStream<Result<HealthCheckResponse, Status>>;

        async fn check(
            &self,
            _: tonic::Request<HealthCheckRequest>,
        ) -> Result<Response<HealthCheckResponse>, Status> {
            unreachable!("nobody asks once")
        }

        async fn watch(
            &self,
            _: tonic::Request<HealthCheckRequest>,
        ) -> Result<Response<Self::WatchStream>, Status> {
            let (watch, says) = mpsc::channel(1);
            self.0.send(watch).await.expect("the test takes each watch");
            Ok(Response::new(ReceiverStream::new(says)))
        }
    }

    /// The watches of a scripted server, and what is made of them.
    async fn scripted() -> (mpsc::Receiver<Watch>, BoxStream<'static, Health>) {
        let (watch, watches) = mpsc::channel(1);
        let service = HealthServer::new(Scripted(watch));
        let (_, connection) = node(move |request| service.clone().call(request)).await;
        (watches, watch_of(connection))
    }

    fn watch_of(connection: Connection) -> BoxStream<'static, Health> {
        watch(connection, "greeter.v1.Greeter".into())
    }

    async fn says(watch: &Watch, status: ServingStatus) {
        let said = HealthCheckResponse { status: status.into() };
        watch.send(Ok(said)).await.expect("it is watched");
    }

    fn unwell(status: &str) -> Health {
        Health::Unwell(format!("it says of itself that it is {status}"))
    }

    fn unwatched(why: &str) -> Health {
        Health::Unwell(format!("its health cannot be watched: {why}"))
    }

    #[tokio::test]
    async fn what_a_node_says_of_its_health_is_followed_until_the_connection_drains() {
        let (reporter, _server, connection) = tonics().await;
        let mut health = watch_of(connection.clone());
        // tonic's server should say SERVICE_UNKNOWN, and wait; it is asked again.
        assert_eq!(health.next().await, Some(unwatched("service not registered")));
        for (status, expected) in [
            (tonic_health::ServingStatus::Serving, Health::Well),
            (tonic_health::ServingStatus::NotServing, unwell("NOT_SERVING")),
            (tonic_health::ServingStatus::Serving, Health::Well),
        ] {
            reporter.set_service_status("greeter.v1.Greeter", status).await;
            assert_eq!(health.next().await, Some(expected));
        }
        connection.close();
        assert_eq!(health.next().await, None, "a watch must not keep a connection");
        let closed = |state: &ConnectionState| matches!(state, ConnectionState::Closed(_));
        connection.state().wait_for(closed).await.expect("its task tells that it has ended");
    }

    #[tokio::test]
    async fn of_a_connection_that_breaks_nothing_more_is_said() {
        for _ in 0..20 {
            let (reporter, server, connection) = tonics().await;
            reporter
                .set_service_status("greeter.v1.Greeter", tonic_health::ServingStatus::Serving)
                .await;
            let mut health = watch_of(connection);
            assert_eq!(health.next().await, Some(Health::Well));
            server.abort();
            assert_eq!(health.next().await, None, "it ends with the connection, each time");
        }
    }

    #[tokio::test]
    async fn a_node_without_the_method_is_mute() {
        let unimplemented = || Status::unimplemented("no such method").into_http();
        let (_server, connection) = node(move |_| async move { Ok(unimplemented()) }).await;
        let mut health = watch_of(connection);
        assert_eq!(health.next().await, Some(Health::Mute));
        assert_eq!(health.next().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_ends_while_a_node_is_well_is_tried_again_before_anything_is_told() {
        let (mut watches, mut health) = scripted().await;
        let mut watch = watches.recv().await.expect("a watch");
        says(&watch, ServingStatus::Serving).await;
        assert_eq!(health.next().await, Some(Health::Well));
        for how in [None, Some(Status::unavailable("upstream max stream duration reached"))] {
            sleep(Duration::from_secs(15)).await;
            let ended = Instant::now();
            if let Some(status) = how {
                watch.send(Err(status)).await.expect("it is watched");
            }
            drop(watch);
            watch = watches.recv().await.expect("another watch");
            assert_eq!(ended.elapsed(), Duration::ZERO, "it is tried again at once");
            sleep(Duration::from_millis(900)).await;
            says(&watch, ServingStatus::Serving).await;
            assert_eq!(health.next().await, Some(Health::Well), "and was well all the time");
        }
        let start = Instant::now();
        for _ in 0..8 {
            drop(watch);
            watch = watches.recv().await.expect("another watch");
            says(&watch, ServingStatus::Serving).await;
            assert_eq!(health.next().await, Some(Health::Well));
        }
        let elapsed = start.elapsed();
        assert!(
            elapsed > Duration::from_secs(1),
            "watches that do not last are no storm: {elapsed:?}"
        );
        assert!(elapsed < Duration::from_secs(2), "nor do they wait ever longer: {elapsed:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_cannot_be_had_again_makes_a_node_unwell() {
        for (last, next, millis, expected) in [
            (ServingStatus::Serving, Some(Status::internal("no")), 0, unwatched("no")),
            (
                ServingStatus::Serving,
                None,
                1_000,
                Health::Unwell("it has not said within 1s whether it is well".to_owned()),
            ),
            (ServingStatus::NotServing, None, 0, unwatched("the node has ended the watch")),
        ] {
            let (mut watches, mut health) = scripted().await;
            let watch = watches.recv().await.expect("a watch");
            says(&watch, last).await;
            health.next().await.expect("its word");
            sleep(Duration::from_secs(15)).await;
            let ended = Instant::now();
            drop(watch);
            let again = async {
                let watch = watches.recv().await.expect("another watch");
                if let Some(status) = next {
                    watch.send(Err(status)).await.expect("it is watched");
                }
                watch
            };
            let (watch, told) = tokio::join!(again, async {
                let told = health.next().await;
                (told, ended.elapsed().as_millis())
            });
            assert_eq!(told.0, Some(expected));
            assert_eq!(told.1, millis, "in milliseconds");
            let watch = match watch.is_closed() {
                true => watches.recv().await.expect("yet another watch"),
                false => watch,
            };
            says(&watch, ServingStatus::Serving).await;
            assert_eq!(health.next().await, Some(Health::Well), "its word is heard, however late");
        }
    }
}
