//! Interceptors and tower's layers around handlers and mounted services.

use std::{
    convert::Infallible,
    sync::{Mutex, atomic::AtomicUsize, atomic::Ordering},
};

use http::{HeaderName, HeaderValue};
use tonic::server::NamedService;
use tower::{
    ServiceBuilder, limit::ConcurrencyLimitLayer, load_shed::LoadShedLayer, timeout::TimeoutLayer,
};
use tower_http::set_header::{SetRequestHeaderLayer, SetResponseHeaderLayer};

use super::*;
use crate::layer::{Body, Next};

const HEALTH: &str = "/grpc.health.v1.Health/Check";

type Answered = Result<Response<Body>, Status>;

async fn tag(request: Request<Body>, next: Next) -> Answered {
    let method = next.method().parse().expect("a path is a value");
    let mut response = next.run(request).await?;
    response.metadata_mut().insert("tagged", method);
    Ok(response)
}

async fn forbid(_: Request<Body>, next: Next) -> Answered {
    Err(Status::permission_denied(format!("{} is not for you", next.method())))
}

/// Writes its name down as a call goes in, and again as it comes out.
fn trace(name: &'static str, log: &Log) -> impl Fn(Request<Body>, Next) -> Tracing + use<> {
    let log = Arc::clone(log);
    move |request, next| {
        let log = Arc::clone(&log);
        Box::pin(async move {
            log.lock().expect("not poisoned").push(format!("{name}>"));
            let answered = next.run(request).await;
            log.lock().expect("not poisoned").push(format!("<{name}"));
            answered
        })
    }
}

type Log = Arc<Mutex<Vec<String>>>;
type Tracing = futures_util::future::BoxFuture<'static, Answered>;

fn taken(log: &Log) -> String {
    std::mem::take(&mut *log.lock().expect("not poisoned")).join(" ")
}

#[tokio::test]
async fn an_interceptor_adds_to_the_response_of_every_kind_of_call() {
    let server = Fixture::with(|server| {
        server.intercept(tag);
    })
    .await;
    let client = server.connect().await;
    for (path, said) in
        [(SAY, &["a"][..]), (DOWN, &["one", "two", "three"]), (UP, &["a"]), (CHAT, &["a!"])]
    {
        let reply = client.call(path, "a").await;
        reply.expect(Code::Ok, "");
        assert_eq!(reply.messages, said, "{path}");
        assert_eq!(reply.headers["tagged"], path);
        assert_eq!(reply.headers["content-type"], "application/grpc");
    }
    let reply = client.call("/go.micro.Echo/Say", "a").await;
    assert_eq!(reply.headers["tagged"], SAY, "a short name is the method's all the same");
}

#[tokio::test]
async fn what_an_interceptor_adds_to_the_request_is_the_handlers() {
    let server = Fixture::with(|server| {
        server.intercept(|mut request: Request<Body>, next: Next| {
            request.metadata_mut().insert("added", "on the way".parse().expect("a value"));
            next.run(request)
        });
    })
    .await;
    let reply = server.connect().await.call(SAY, "metadata").await;
    assert!(reply.one().contains("on the way"), "{reply:?}");
    assert_eq!(reply.headers["answer"], "42", "and the handler's metadata is the caller's");
    assert!(!reply.headers.contains_key("grpc-status"), "but for what is gRPC's");
}

#[tokio::test]
async fn an_interceptor_may_answer_without_the_handler() {
    let mut server = Fixture::with(|server| {
        server.intercept_on(SAY, forbid);
    })
    .await;
    let client = server.connect().await;
    for _ in 0..2 {
        let reply = client.call(SAY, "a").await;
        reply.expect(Code::PermissionDenied, "/test.v1.Echo/Say is not for you");
        assert!(reply.trailers.is_none(), "a status and nothing else: {reply:?}");
    }
    assert!(server.events.try_recv().is_err(), "no handler has begun");
    client.call(DOWN, "a").await.expect(Code::Ok, "");
    assert_eq!(server.event().await, Event::Started);
}

#[tokio::test]
async fn a_handlers_status_is_the_interceptors_to_change() {
    let server = Fixture::with(|server| {
        server.intercept(async |request: Request<Body>, next: Next| {
            let mut status = next.run(request).await.expect_err("the handler fails");
            assert_eq!(status.metadata().get("hint").expect("the handler's"), "later");
            status.metadata_mut().insert("seen", "yes".parse().expect("a value"));
            if status.code() == Code::NotFound {
                return Err(status);
            }
            Err(Status::aborted(format!("was: {}", status.message())))
        });
    })
    .await;
    let reply = server.connect().await.call(SAY, "status").await;
    reply.expect(Code::NotFound, "no caf\u{e9}\n100%");
    assert_eq!(reply.status().details(), b"\x08\x05");
    let seen = (&reply.headers["hint"], &reply.headers["seen"]);
    assert_eq!(seen, (&HeaderValue::from_static("later"), &HeaderValue::from_static("yes")));
}

#[tokio::test]
async fn a_streams_refusal_is_an_err_and_its_later_status_is_in_the_body() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sees = Arc::clone(&seen);
    let server = Fixture::with(|server| {
        server.intercept(move |request: Request<Body>, next: Next| {
            let sees = Arc::clone(&sees);
            async move {
                let answered = next.run(request).await;
                let code = answered.as_ref().map_or_else(Status::code, |_| Code::Ok);
                sees.lock().expect("not poisoned").push(code);
                answered
            }
        });
    })
    .await;
    let client = server.connect().await;
    client.call(DOWN, "refuse").await.expect(Code::PermissionDenied, "not for you");
    client.call(DOWN, "fail").await.expect(Code::DataLoss, "gone");
    assert_eq!(*seen.lock().expect("not poisoned"), [Code::PermissionDenied, Code::Ok]);
}

#[tokio::test]
async fn the_first_added_is_the_outermost_whatever_its_scope() {
    let log = Log::default();
    let server = Fixture::with(|server| {
        server
            .intercept_on("test.v1.Echo/Say", trace("method", &log))
            .intercept(trace("all", &log))
            .intercept_on("test.v1.Echo/Down", trace("other", &log))
            .intercept_on("test.v1.Echo", trace("service", &log));
    })
    .await;
    let client = server.connect().await;
    client.call(SAY, "a").await.expect(Code::Ok, "");
    assert_eq!(taken(&log), "method> all> service> <service <all <method");
    client.call(DOWN, "a").await.expect(Code::Ok, "");
    assert_eq!(taken(&log), "all> other> service> <service <other <all");
    client.call(UP, "a").await.expect(Code::Ok, "");
    assert_eq!(taken(&log), "all> service> <service <all");
}

#[tokio::test]
async fn the_servers_own_health_and_what_is_unknown_are_not_intercepted() {
    let server = Fixture::with(|server| {
        server.intercept(forbid);
    })
    .await;
    let client = server.connect().await;
    client.call(HEALTH, "nobody").await.expect(Code::NotFound, "no service \"nobody\"");
    client.call("/test.v1.Echo/Nothing", "").await.expect(Code::Unimplemented, "unknown method");
    client.call(SAY, "").await.expect(Code::PermissionDenied, "");
}

#[test]
fn a_scope_that_the_server_does_not_have_is_refused_with_what_there_is() {
    for (scope, text) in [
        ("test.v1.Ecko", "no such service: it has test.v1.Echo"),
        ("test.v1.Ecko/Say", "no such service: it has test.v1.Echo"),
        ("Echo", "no such service: it has test.v1.Echo"),
        ("", "no such service: it has test.v1.Echo"),
        ("grpc.health.v1.Health", "no such service: it has test.v1.Echo"),
        ("test.v1.Echo/Sey", "no such method: it has test.v1.Echo/Chat, test.v1.Echo/Down, "),
        ("/test.v1.Echo/say", "no such method: it has test.v1.Echo/Chat, test.v1.Echo/Down, "),
        ("test.v1.Echo/", "no such method: it has test.v1.Echo/Chat, test.v1.Echo/Down, "),
    ] {
        let (mut server, ..) = Fixture::server(|_| {});
        let error = server.intercept_on(scope, tag).take_error();
        assert!(error.is_config() && error.to_string().contains(text), "{scope}: {error}");
        let name = format!("{:?}", scope.trim_start_matches('/'));
        assert!(error.to_string().contains(&name), "{name}: {error}");
    }
}

impl Server {
    fn take_error(&mut self) -> crate::Error {
        std::mem::take(self).prepare().err().expect("it is refused")
    }
}

#[tokio::test(start_paused = true)]
async fn an_interceptor_is_dropped_at_the_deadline_and_when_the_caller_goes() {
    let (sender, mut events) = mpsc::unbounded_channel();
    let mut server = Fixture::piped_with(move |server| {
        server.intercept(move |_, _| {
            let _ = sender.send(Event::Started);
            let tells_drop = TellsDrop(sender.clone());
            async move {
                let _drop = tells_drop;
                std::future::pending().await
            }
        });
    });
    let client = server.connect_pipe().await;
    let reply = client.call_within(SAY, "a", "1S").await;
    reply.expect(Code::DeadlineExceeded, "1s were over in /test.v1.Echo/Say");
    assert_eq!(events.recv().await, Some(Event::Started));
    assert_eq!(events.recv().await, Some(Event::Dropped));

    let mut open = client.open(head(CHAT)).await;
    assert_eq!(soon(events.recv()).await, Some(Event::Started));
    open.reset();
    assert_eq!(soon(events.recv()).await, Some(Event::Dropped));
    assert!(server.events.try_recv().is_err(), "no handler has begun");
}

#[tokio::test(start_paused = true)]
async fn a_layered_stream_ends_at_the_deadline() {
    let mut server = Fixture::piped_with(|server| {
        server.intercept(tag);
    });
    let reply = server.connect_pipe().await.call_within(DOWN, "hang", "1S").await;
    assert_eq!(reply.messages, ["one"]);
    reply.expect(Code::DeadlineExceeded, "1s were over");
    assert_eq!((server.event().await, server.event().await), (Event::Started, Event::Dropped));
}

#[tokio::test]
async fn a_panic_in_an_interceptor_fails_its_call_alone() {
    let server = Fixture::with(|server| {
        server
            .intercept_on(SAY, |_, _| -> std::future::Ready<Answered> { panic!("at once") })
            .intercept_on(DOWN, async |request: Request<Body>, next: Next| {
                next.run(request).await?;
                panic!("on the way back")
            });
    })
    .await;
    let client = server.connect().await;
    for path in [SAY, DOWN] {
        client.call(path, "a").await.expect(Code::Internal, "the handler panicked");
    }
    assert_eq!(client.call(UP, "a").await.one(), "a", "the connection lives on");
}

#[tokio::test]
async fn metadata_that_layers_make_too_large_fails_this_call_alone() {
    let server = Fixture::with(|server| {
        server.intercept_on(SAY, async |request: Request<Body>, next: Next| {
            let mut response = next.run(request).await?;
            response.metadata_mut().insert("large", "x".repeat(50_000).parse().expect("a value"));
            Ok(response)
        });
    })
    .await;
    let client = server.connect().await;
    client.call(SAY, "a").await.expect(Code::ResourceExhausted, "the response's metadata");
    client.call(UP, "a").await.expect(Code::Ok, "");
}

#[tokio::test]
async fn layers_of_tower_http_fit() {
    let (asked, said) = (HeaderName::from_static("asked"), HeaderName::from_static("said"));
    let server = Fixture::with(|server| {
        let (yes, no) = (HeaderValue::from_static("by a layer"), HeaderValue::from_static("no"));
        server
            .layer(SetRequestHeaderLayer::overriding(asked, yes.clone()))
            .layer(SetResponseHeaderLayer::overriding(said.clone(), yes))
            .layer_on(DOWN, SetResponseHeaderLayer::appending(said, no))
            .intercept(tag);
    })
    .await;
    let client = server.connect().await;
    let reply = client.call(SAY, "metadata").await;
    assert!(reply.one().contains("by a layer"), "{reply:?}");
    assert_eq!(reply.headers["said"], "by a layer");
    assert_eq!(reply.headers["tagged"], SAY);
    let reply = client.call(SAY, "status").await;
    reply.expect(Code::NotFound, "no caf");
    assert!(reply.status().metadata().contains_key("said"), "a refusal is a response: {reply:?}");
}

#[tokio::test]
async fn a_layers_http_status_is_a_grpc_status() {
    let server = Fixture::with(|server| {
        server.layer(tower_http::limit::RequestBodyLimitLayer::new(8));
    })
    .await;
    let client = server.connect().await;
    assert_eq!(client.call(SAY, "a").await.one(), "a");
    let reply =
        client.send(head(SAY).header("content-length", "30"), framed(&text("x".repeat(23)))).await;
    assert_eq!(reply.http, 200);
    reply.expect(Code::Unknown, "a layer answered with HTTP status 413 Payload Too Large");
}

#[tokio::test]
async fn a_limit_of_towers_holds_for_all_calls_together() {
    let mut server = Fixture::with(|server| {
        let one_at_a_time =
            ServiceBuilder::new().layer(LoadShedLayer::new()).layer(ConcurrencyLimitLayer::new(1));
        server.layer(one_at_a_time);
    })
    .await;
    let (client, other) = (server.connect().await, server.connect().await);
    let waiting = tokio::spawn(async move { client.call(SAY, "wait").await });
    assert_eq!(server.event().await, Event::Started);
    let reply = other.call(UP, "a").await;
    reply.expect(Code::ResourceExhausted, "a layer failed: service overloaded");
    server.go_on.notify_one();
    assert_eq!(soon(waiting).await.expect("no panic").one(), "wait");
    assert_eq!(other.call(UP, "a").await.one(), "a");
}

#[tokio::test]
async fn a_layer_that_is_not_ready_makes_calls_wait() {
    let mut server = Fixture::with(|server| {
        server.layer(ConcurrencyLimitLayer::new(1));
    })
    .await;
    let (client, other) = (server.connect().await, server.connect().await);
    let first = tokio::spawn(async move { client.call(SAY, "wait").await });
    assert_eq!(server.event().await, Event::Started);
    let second = tokio::spawn(async move { other.call(SAY, "a").await });
    // The second's request has long come when a third connection has been served.
    server.connect().await.call(HEALTH, "nobody").await.expect(Code::NotFound, "no service");
    assert!(server.events.try_recv().is_err(), "the second waits");
    server.go_on.notify_one();
    assert_eq!(soon(first).await.expect("no panic").one(), "wait");
    assert_eq!(soon(second).await.expect("no panic").one(), "a");
}

#[tokio::test(start_paused = true)]
async fn a_timeout_of_towers_is_deadline_exceeded() {
    let mut server = Fixture::piped_with(|server| {
        server.layer(TimeoutLayer::new(SECOND));
    });
    let reply = server.connect_pipe().await.call(SAY, "hang").await;
    reply.expect(Code::DeadlineExceeded, "a layer failed: request timed out");
    assert_eq!((server.event().await, server.event().await), (Event::Started, Event::Dropped));
}

#[tokio::test]
async fn an_error_of_a_layer_is_internal_and_a_status_stays_what_it_is() {
    let refuse = |text: &'static str| {
        tower::filter::FilterLayer::new(move |_: http::Request<Body>| {
            let error: crate::layer::BoxError = match text {
                "status" => Box::new(Status::already_exists("it was there")),
                _ => text.into(),
            };
            Err::<http::Request<Body>, _>(error)
        })
    };
    let server = Fixture::with(|server| {
        server.layer_on(SAY, refuse("out of paper")).layer_on(UP, refuse("status"));
    })
    .await;
    let client = server.connect().await;
    client.call(SAY, "a").await.expect(Code::Internal, "a layer failed: out of paper");
    client.call(UP, "a").await.expect(Code::AlreadyExists, "it was there");
}

#[tokio::test]
async fn a_layer_that_loses_the_extensions_is_told_so() {
    let server = Fixture::with(|server| {
        server.layer(tower::util::MapRequestLayer::new(|request: http::Request<Body>| {
            http::Request::new(request.into_body())
        }));
    })
    .await;
    let reply = server.connect().await.call(SAY, "a").await;
    reply.expect(Code::Internal, "a layer lost the extensions of its request");
}

/// A tonic service, as far as a server knows.
#[derive(Clone)]
struct Ledger(Arc<AtomicUsize>);

impl NamedService for Ledger {
    const NAME: &'static str = "old.Ledger";
}

impl tower_service::Service<http::Request<Body>> for Ledger {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.0.fetch_add(1, Ordering::SeqCst);
        let status = Status::not_found(request.uri().path());
        std::future::ready(Ok(status.into_http()))
    }
}

#[tokio::test]
async fn mounted_services_are_surrounded_too() {
    let (calls, log) = (Arc::new(AtomicUsize::new(0)), Log::default());
    let server = Fixture::with(|server| {
        server
            .intercept_on("old.Ledger", trace("service", &log))
            .intercept_on("old.Ledger/Refused", forbid)
            .add_service(Ledger(Arc::clone(&calls)));
    })
    .await;
    let client = server.connect().await;
    client.call("/old.Ledger/Post", "").await.expect(Code::NotFound, "/old.Ledger/Post");
    assert_eq!(taken(&log), "service> <service");
    client.call("/x.Ledger/Refused", "").await.expect(Code::PermissionDenied, "is not for you");
    assert_eq!(taken(&log), "service> <service");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    client.call(SAY, "a").await.expect(Code::Ok, "");
    assert_eq!(taken(&log), "", "none of it is for the handlers beside it");
}
