//! Paths, content types, and tonic services beside our own handlers.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use http::{Request as HttpRequest, Response as HttpResponse};
use tonic::body::Body;

use super::*;

/// A service of which the server knows nothing but the name.
#[derive(Clone)]
struct Ledger;

impl tonic::server::NamedService for Ledger {
    const NAME: &'static str = "old.Ledger";
}

impl tower_service::Service<HttpRequest<Body>> for Ledger {
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = futures_util::future::BoxFuture<'static, Result<HttpResponse<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            if path.ends_with("Hang") {
                std::future::pending::<()>().await;
            }
            assert!(!path.ends_with("Panic"), "as asked");
            Ok(Status::already_exists(path).into_http())
        })
    }
}

fn add_ledger(server: &mut Server) {
    server.add_service(Ledger);
}

async fn with_ledger() -> Fixture {
    Fixture::with(add_ledger).await
}

#[tokio::test]
async fn go_micros_paths_reach_the_handler() {
    let server = Fixture::start().await;
    let client = server.connect().await;
    for path in ["/Echo/Say", "/go.micro.srv.echo.Echo/Say", "/echo.Echo/Say"] {
        assert_eq!(client.call(path, "hello").await.one(), "hello", "{path}");
    }
    let mut call = client.open(head("/echo.Echo/Down").header("x-content-type", "x")).await;
    call.message("", false);
    assert_eq!(call.reply().await.messages.len(), 3, "a stream, as go-micro calls it");
}

#[tokio::test]
async fn what_is_not_there_is_unimplemented() {
    let server = Fixture::start().await;
    let client = server.connect().await;
    for (path, text) in [
        ("/test.v1.Nobody/Say", "unknown service test.v1.Nobody"),
        ("/test.v1.Echo/Shout", "unknown method Shout"),
        ("/", "malformed method name"),
        ("/test.v1.Echo", "malformed method name"),
    ] {
        let reply = client.call(path, "hello").await;
        assert_eq!(reply.http, 200);
        assert_eq!(reply.headers["content-type"], "application/grpc");
        reply.expect(Code::Unimplemented, text);
    }
}

#[tokio::test]
async fn a_tonic_service_is_mounted_by_its_name_and_its_short_name() {
    let server = with_ledger().await;
    let client = server.connect().await;
    client.call("/old.Ledger/Post", "").await.expect(Code::AlreadyExists, "/old.Ledger/Post");
    client.call("/x.Ledger/Post", "").await.expect(Code::AlreadyExists, "/old.Ledger/Post");
    assert_eq!(client.call(SAY, "ours").await.one(), "ours");
}

#[tokio::test(start_paused = true)]
async fn a_tonic_service_is_under_the_same_guard() {
    let server = Fixture::piped_with(add_ledger);
    let client = server.connect_pipe().await;
    let reply = client.call_within("/old.Ledger/Hang", "", "1S").await;
    reply.expect(Code::DeadlineExceeded, "1s were over in /old.Ledger/Hang");
    client.call("/old.Ledger/Panic", "").await.expect(Code::Internal, "the handler panicked");
}

#[tokio::test]
async fn tonics_own_health_service_replaces_ours() {
    let (_reporter, health) = tonic_health::server::health_reporter();
    let server = Fixture::with(|server| _ = server.add_service(health)).await;
    let mut client = server.connect().await;
    client.sender = client.sender.ready().await.expect("open");
    let path = "/grpc.health.v1.Health/Check";
    let mut call = client.open(head(path)).await;
    call.body.send_data(Bytes::from_static(&[0; 5]), true).expect("open");
    let mut answered = call.answered().await;
    let data = answered.body.data().await.expect("a message").expect("not reset");
    assert_eq!(&data[..], [0, 0, 0, 0, 2, 8, 1], "tonic's says SERVING from the start");
}

#[tokio::test]
async fn content_types_are_told_apart() {
    let server = with_ledger().await;
    let client = server.connect().await;
    let call = |path, content_type| {
        let request = HttpRequest::post(format!("http://test{path}"));
        let request = request.header("content-type", content_type);
        client.send(request, framed(&text("hello")))
    };
    assert_eq!(call(SAY, "application/grpc+proto").await.one(), "hello");
    let json = call(SAY, "application/grpc+json").await;
    json.expect(Code::Unimplemented, "application/grpc+json");
    let web = call(SAY, "application/json").await;
    assert_eq!(web.http, 415);
    web.expect(Code::InvalidArgument, "application/json");
    let own = call("/old.Ledger/Post", "application/grpc+json").await;
    own.expect(Code::AlreadyExists, "/old.Ledger/Post");
}

#[tokio::test]
async fn a_compressed_request_is_told_what_would_be_taken() {
    let server = Fixture::start().await;
    let client = server.connect().await;
    let request = head(SAY).header("grpc-encoding", "gzip");
    let reply = client.send(request, framed(&text("hello"))).await;
    reply.expect(Code::Unimplemented, "gzip");
    assert_eq!(reply.headers["grpc-accept-encoding"], "identity");
    let request =
        head(SAY).header("grpc-encoding", "identity").header("grpc-accept-encoding", "gzip");
    let reply = client.send(request, framed(&text("hello"))).await;
    assert_eq!(reply.one(), "hello");
    assert!(!reply.headers.contains_key("grpc-encoding"));
}

#[tokio::test]
async fn a_server_describes_what_it_serves() {
    let mut server = Server::new();
    let (events, _) = mpsc::unbounded_channel();
    server.add_service(Ledger).add_handlers(echo(Echo { events, go_on: Arc::default() }));
    assert_eq!(server.descriptors().collect::<Vec<_>>(), [&ECHO]);
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    let taken = Fixture::start().await.listening;
    let error = Server::new().bind(&taken.local_addr().to_string()).await.expect_err("taken");
    assert_eq!(error.kind(), crate::ErrorKind::Bind);
    assert!(error.to_string().contains(&taken.local_addr().to_string()), "{error}");

    let mut twice = Server::new();
    twice.add_service(Ledger).add_service(Ledger);
    let error = twice.bind("127.0.0.1:0").await.expect_err("one name, two services");
    assert!(error.is_config() && error.to_string().contains("old.Ledger"), "{error}");

    let mut bounds = Server::new();
    bounds.stream_window(1 << 31);
    let error = bounds.bind("127.0.0.1:0").await.expect_err("no window is so large");
    assert!(error.is_config() && error.to_string().contains("stream_window"), "{error}");
}
