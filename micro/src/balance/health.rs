//! What a node says of its own health, on request: [gRFC A17] over a connection to it.
//!
//! [gRFC A17]: https://github.com/grpc/proposal/blob/master/A17-client-side-health-checking.md

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::Stream;
use futures_util::{StreamExt as _, stream::BoxStream};
use tokio::{sync::mpsc, time::sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
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

/// Whether a node is well; else why not.
pub(super) type Health = Result<(), String>;

/// Follows the health that a node gives of a service, in the words of `grpc.health.v1`, until the
/// connection takes no more calls; or until the node says that it has no such method, after having
/// called it well. What else goes wrong makes it unwell, and is tried again with the backoff of
/// connections.
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
    // A send fails when nobody listens any more, and `watch` then ends this.
    loop {
        let mut client = HealthClient::new(connection.clone());
        let request = HealthCheckRequest { service: service.to_owned() };
        let why = match client.watch(request).await {
            Ok(response) => listen(response.into_inner(), &mut backoff, tell).await,
            Err(status) => status,
        };
        if why.code() == Code::Unimplemented {
            tracing::warn!(
                "a node does not tell its health (it has no grpc.health.v1.Health/Watch): it is taken for well"
            );
            let _ = tell.send(Ok(())).await;
            return;
        }
        let _ = tell.send(Err(format!("its health cannot be watched: {}", why.message()))).await;
        sleep(backoff.next()).await;
    }
}

/// Passes on what a node says; why it has ended.
async fn listen(
    mut said: impl Stream<Item = Result<HealthCheckResponse, Status>> + Unpin,
    backoff: &mut Backoff,
    tell: &mpsc::Sender<Health>,
) -> Status {
    loop {
        match said.next().await {
            Some(Ok(response)) => {
                backoff.reset();
                let _ = tell.send(health(response.status())).await;
            }
            Some(Err(status)) => return status,
            None => return Status::unknown("the node has ended the watch"),
        }
    }
}

fn health(status: ServingStatus) -> Health {
    match status {
        ServingStatus::Serving => Ok(()),
        other => Err(format!("it says of itself that it is {}", other.as_str_name())),
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
    use tokio::{net::TcpListener, task::AbortHandle};
    use tonic_health::server::{HealthReporter, health_reporter};

    use super::*;

    /// A server of nothing but health, or of nothing at all, what kills it, and a connection to it.
    async fn node(knows_health: bool) -> (HealthReporter, AbortHandle, Connection) {
        let (reporter, service) = health_reporter();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let server = tokio::spawn(async move {
            let (socket, _) = listener.accept().await.expect("the client");
            let answer = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let mut service = service.clone();
                async move {
                    if knows_health {
                        return service.call(request.map(tonic::body::Body::new)).await;
                    }
                    Ok(Status::unimplemented("no such method").into_http())
                }
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            builder.serve_connection(TokioIo::new(socket), answer).await
        });
        let connection = transport::connect(&address, &transport::Config::default()).await;
        (reporter, server.abort_handle(), connection.expect("connected"))
    }

    fn says(text: &str) -> Health {
        Err(format!("it says of itself that it is {text}"))
    }

    #[tokio::test]
    async fn what_a_node_says_of_its_health_is_followed_until_the_connection_drains() {
        let (reporter, _server, connection) = node(true).await;
        let mut health = watch(connection.clone(), "greeter.v1.Greeter".into());
        // tonic's server should say SERVICE_UNKNOWN, and wait; it is asked again.
        let why = "its health cannot be watched: service not registered".to_owned();
        assert_eq!(health.next().await, Some(Err(why)));
        for (status, expected) in [
            (tonic_health::ServingStatus::Serving, Ok(())),
            (tonic_health::ServingStatus::NotServing, says("NOT_SERVING")),
            (tonic_health::ServingStatus::Serving, Ok(())),
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
            let (_reporter, server, connection) = node(true).await;
            let mut health = watch(connection, "".into());
            assert_eq!(health.next().await, Some(Ok(())));
            server.abort();
            assert_eq!(health.next().await, None, "it ends with the connection, each time");
        }
    }

    #[tokio::test]
    async fn a_node_without_the_method_is_well() {
        let (_reporter, _server, connection) = node(false).await;
        let mut health = watch(connection, "".into());
        assert_eq!(health.next().await, Some(Ok(())));
        assert_eq!(health.next().await, None);
    }
}
