//! Interceptors and tower's layers around calls.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{HeaderName, HeaderValue};
use tokio::time::Instant;
use tokio_stream::StreamExt as _;
use tonic::{Code, IntoRequest as _, Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::{limit::ConcurrencyLimitLayer, timeout::TimeoutLayer};
use tower_http::set_header::{SetRequestHeaderLayer, SetResponseHeaderLayer};
use tracing::Level;

use super::{SOON, none_runs, until};
use crate::{
    Client, ClientBuilder,
    fixture::{ECHO, Echo, Log, Stub, Word, start},
    layer::{Body, Next},
};

type Answered = Result<Response<Body>, Status>;

/// Calls itself the agent, and tags the response with the method.
async fn tag(mut request: Request<Body>, next: Next) -> Answered {
    let method = next.method().parse().expect("a path is a value");
    request.metadata_mut().insert("user-agent", "the interceptor".parse().expect("a value"));
    let mut response = next.run(request).await?;
    response.metadata_mut().insert("tagged", method);
    Ok(response)
}

/// Writes its name down at every call, before and after.
fn trace(
    name: &'static str,
    log: &Arc<Mutex<String>>,
) -> impl Fn(Request<Body>, Next) -> BoxFuture<'static, Answered> + use<> {
    let log = Arc::clone(log);
    move |request, next| {
        let log = Arc::clone(&log);
        Box::pin(async move {
            *log.lock().expect("not poisoned") += &format!("{name}>");
            let answered = next.run(request).await;
            *log.lock().expect("not poisoned") += &format!("<{name}");
            answered
        })
    }
}

async fn hang(_: Request<Body>, _: Next) -> Answered {
    std::future::pending().await
}

fn builder(registry: &str) -> ClientBuilder {
    Client::builder().registry(registry)
}

fn stub(service: &str, builder: ClientBuilder) -> Stub {
    Stub::new(service, &builder.build().expect("a client"))
}

#[tokio::test]
async fn an_interceptor_surrounds_every_kind_of_call() {
    let registry = "memory://client-layers-kinds";
    let _a = start(registry, "a", Echo::named("a")).await;
    let stub = stub("a", builder(registry).intercept(tag));
    let (agent, words) = (|| Word::new("agent"), || tokio_stream::iter([Word::new("agent")]));
    let path = |index: usize| ECHO.methods[index].path;

    let said = stub.say(agent()).await.expect("a reply");
    assert_eq!(said.metadata().get("tagged").expect("the interceptor's"), path(0));
    assert_eq!(said.get_ref().text, "the interceptor");
    assert_eq!(said.metadata().get("content-type").expect("a header"), "application/grpc");

    let followed = stub.follow(agent()).await.expect("a stream");
    assert_eq!(followed.metadata().get("tagged").expect("the interceptor's"), path(5));
    let followed: Vec<_> = followed.into_inner().map(|word| word.expect("ok").text).collect().await;
    assert_eq!(followed, ["the interceptor", "the interceptor the interceptor"]);

    let collected = stub.collect(words()).await.expect("a reply");
    assert_eq!(collected.metadata().get("tagged").expect("the interceptor's"), path(6));

    let chat = stub.chat(words()).await.expect("a stream");
    assert_eq!(chat.metadata().get("tagged").expect("the interceptor's"), path(4));
    let chat: Vec<_> = chat.into_inner().map(|word| word.expect("ok").text).collect().await;
    assert_eq!(chat, ["agent"]);
}

#[tokio::test]
async fn tonics_stubs_go_through_the_layers_of_our_channel() {
    let registry = "memory://client-layers-tonic";
    let _a = start(registry, "a", Echo::named("a")).await;
    let client = builder(registry).intercept(tag).build().expect("a client");
    let mut grpc = tonic::client::Grpc::new(client.channel("a"));
    grpc.ready().await.expect("always ready");
    let path = http::uri::PathAndQuery::from_static(ECHO.methods[0].path);
    let codec = ProstCodec::<Word, Word>::default();
    let reply = grpc.unary(Word::new("agent").into_request(), path, codec).await.expect("a reply");
    assert_eq!(reply.metadata().get("tagged").expect("the interceptor's"), ECHO.methods[0].path);
    assert_eq!(reply.into_inner().text, "the interceptor");
}

#[tokio::test]
async fn an_interceptor_may_answer_without_a_call() {
    let refuse = async |_: Request<Body>, next: Next| -> Answered {
        Err(Status::unauthenticated(format!("no token for {}", next.method())))
    };
    // There is no node: nothing is called.
    let stub = stub("nobody", builder("memory://client-layers-short").intercept(refuse));
    let unary = stub.say(Word::new("who?")).await.expect_err("refused");
    let stream = stub.down(Word::new("who?")).await.expect_err("refused");
    for (status, method) in [(unary, "/test.Echo/Say"), (stream, "/test.Echo/Down")] {
        assert_eq!(status.code(), Code::Unauthenticated);
        assert_eq!(status.message(), format!("no token for {method}"));
    }
}

#[tokio::test]
async fn a_failure_is_the_interceptors_to_change() {
    let registry = "memory://client-layers-errors";
    let _a = start(registry, "a", Echo::named("a")).await;
    let explain = async |request: Request<Body>, next: Next| -> Answered {
        let status = next.run(request).await.expect_err("it fails");
        Err(Status::new(status.code(), format!("explained: {}", status.message())))
    };
    let builder = || builder(registry).intercept(explain);
    let unary = stub("a", builder()).say(Word::new("missing")).await.expect_err("no word");
    let stream = stub("a", builder()).follow(Word::new("missing")).await.expect_err("no word");
    for status in [unary, stream] {
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(status.message(), "explained: no such word");
    }
    let nobody = stub("nobody", builder()).say(Word::new("who?")).fail_fast().await;
    let status = nobody.expect_err("no node");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().starts_with("explained: no node of service 'nobody'"), "{status}");
}

#[tokio::test]
async fn the_first_added_is_the_outermost_whatever_its_scope() {
    let registry = "memory://client-layers-order";
    let _a = start(registry, "a", Echo::named("a")).await;
    let log = Arc::default();
    let builder = builder(registry)
        .intercept_on("test.Echo/Say", trace("method", &log))
        .intercept(trace("all", &log))
        .intercept_on("/test.Echo/Read", trace("other", &log))
        .intercept_on("test.Echo", trace("service", &log))
        .intercept_on("other.Echo", trace("nothing", &log));
    let stub = stub("a", builder);
    let taken = || std::mem::take(&mut *log.lock().expect("not poisoned"));
    stub.say(Word::new("who?")).await.expect("a reply");
    assert_eq!(taken(), "method>all>service><service<all<method");
    stub.read(Word::new("who?")).await.expect("a reply");
    assert_eq!(taken(), "all>other>service><service<other<all");
    stub.down(Word::new("who?")).await.expect("a stream");
    assert_eq!(taken(), "all>service><service<all");
}

#[test]
fn a_scope_that_nothing_can_have_is_refused() {
    for scope in ["", "/", "a.B/", "/a.B/C/D", "a B", "a.B/C d", "http://a.B/C"] {
        let built = builder("memory://client-layers-scope").intercept_on(scope, hang).build();
        let error = built.expect_err(scope);
        assert!(error.is_config(), "{scope:?}: {error}");
        assert!(error.to_string().contains("package.Service/Method"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_holds_in_an_interceptor_too() {
    let stub = stub("nobody", builder("memory://client-layers-deadline").intercept(hang));
    let word = || Word::new("who?");
    let start = Instant::now();
    let status = stub.say(word()).await.expect_err("it hangs");
    assert_eq!(start.elapsed().as_secs(), 5, "a unary call's own");
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("5s struck in the client's layers"), "{status}");

    let start = Instant::now();
    let status = stub.down(word()).timeout(Duration::from_secs(2)).await.expect_err("it hangs");
    assert_eq!(start.elapsed().as_secs(), 2);
    assert_eq!(status.code(), Code::DeadlineExceeded);

    let start = Instant::now();
    let outer = Some(start + Duration::from_secs(3));
    let call = async { stub.say(word()).await };
    crate::deadline::scope(outer, call).await.expect_err("it hangs");
    assert_eq!(start.elapsed().as_secs(), 3, "a handler's is inherited");
    let call = async { stub.say(word()).detached().await };
    crate::deadline::scope(outer, call).await.expect_err("it hangs");
    assert_eq!(start.elapsed().as_secs(), 8, "unless the call is detached");
}

#[tokio::test]
async fn the_deadline_is_the_calls_and_an_interceptor_may_only_shorten_it() {
    let registry = "memory://client-layers-shorter";
    let _a = start(registry, "a", Echo::named("a")).await;
    let asks = |timeout: &'static str| {
        move |mut request: Request<Body>, next: Next| {
            request.metadata_mut().insert("grpc-timeout", timeout.parse().expect("a value"));
            next.run(request)
        }
    };
    for (asked, own) in [("50m", Duration::from_secs(60)), ("60S", SOON)] {
        let stub = stub("a", builder(registry).intercept(asks(asked)));
        let unary = stub.say(Word::new("sleep")).timeout(own).await.expect_err("it sleeps");
        let stream = stub.follow(Word::new("sleep")).timeout(own).await.expect_err("it sleeps");
        for status in [unary, stream] {
            assert_eq!(status.code(), Code::DeadlineExceeded, "{asked}: {status}");
        }
    }
}

#[tokio::test]
async fn a_calls_own_timeout_outranks_its_requests_as_without_layers() {
    let registry = "memory://client-layers-timeouts";
    let _a = start(registry, "a", Echo::named("a")).await;
    let request = || {
        let mut request = Request::new(Word::new("who?"));
        request.set_timeout(Duration::from_nanos(1));
        request
    };
    let minute = Duration::from_secs(60);
    for builder in [builder(registry), builder(registry).intercept(tag)] {
        let stub = stub("a", builder);
        stub.say(request()).timeout(minute).await.expect("a reply");
        stub.follow(request()).timeout(minute).await.expect("a stream");
        let unary = stub.say(request()).await.expect_err("no time");
        let stream = stub.follow(request()).await.expect_err("no time");
        for status in [unary, stream] {
            assert!(
                matches!(status.code(), Code::DeadlineExceeded | Code::Unavailable),
                "{status}"
            );
        }
    }
}

#[tokio::test]
async fn an_interceptor_runs_once_a_call_however_many_attempts_it_takes() {
    let registry = "memory://client-layers-retries";
    let (echo, log) = (Echo::named("a"), Arc::default());
    let calls = echo.calls.clone();
    let _a = start(registry, "a", echo).await;
    let stub = stub("a", builder(registry).intercept(trace("all", &log)));
    let reply = stub.read(Word::new("attempts")).await.expect("a retry");
    assert_eq!(reply.into_inner().text, "1", "the server is told how many attempts went before");
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    assert_eq!(*log.lock().expect("not poisoned"), "all><all");
    let status = stub.say(Word::new("closed")).await.expect_err("closed");
    assert_eq!(status.metadata().get("attempt").expect("the handler's"), "3", "not idempotent");
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_also_through_layers() {
    let registry = "memory://client-layers-size";
    let _a = start(registry, "a", Echo::named("a name of more than ten bytes")).await;
    let stub = stub("a", builder(registry).max_message_size(10).intercept(tag));
    let (short, long) = (|| Word::new("who?"), || Word::new("more than ten bytes"));
    for (what, status) in [
        ("a unary request", stub.say(long()).await.err()),
        ("a unary reply", stub.say(short()).await.err()),
        ("a request for a stream", stub.down(long()).await.err()),
        ("a streamed request's reply", stub.collect(tokio_stream::iter([short()])).await.err()),
    ] {
        let status = status.unwrap_or_else(|| panic!("{what} is too large"));
        assert_eq!(status.code(), Code::ResourceExhausted, "{what}: {status}");
        assert!(status.message().contains("raise ClientBuilder::max_message_size"), "{status}");
    }
}

#[tokio::test]
async fn a_dropped_call_drops_interceptor_and_handler() {
    let registry = "memory://client-layers-dropped";
    let echo = Echo::named("a");
    let running = echo.running.clone();
    let _a = start(registry, "a", echo).await;
    let inside = Arc::new(AtomicU32::new(0));
    let counts = inside.clone();
    let builder = builder(registry).intercept(move |request: Request<Body>, next: Next| {
        struct Leaves(Arc<AtomicU32>);
        impl Drop for Leaves {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        counts.fetch_add(1, Ordering::SeqCst);
        let leaves = Leaves(counts.clone());
        async move {
            let _leaves = leaves;
            next.run(request).await
        }
    });
    let call = tokio::spawn(stub("a", builder).say(Word::new("sleep")).into_future());
    until(|| running.load(Ordering::SeqCst) == 1).await;
    assert_eq!(inside.load(Ordering::SeqCst), 1);
    call.abort();
    none_runs(&running).await;
    assert_eq!(inside.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn layers_of_tower_and_tower_http_fit() {
    let registry = "memory://client-layers-tower";
    let echo = Echo::named("a");
    let (calls, running) = (echo.calls.clone(), echo.running.clone());
    let _a = start(registry, "a", echo).await;
    let (agent, said) = (HeaderName::from_static("user-agent"), HeaderName::from_static("said"));
    let yes = HeaderValue::from_static("by a layer");
    let builder = builder(registry)
        .layer_on("test.Echo/Read", TimeoutLayer::new(SOON))
        .layer_on("test.Echo/Say", ConcurrencyLimitLayer::new(1))
        .layer(SetRequestHeaderLayer::overriding(agent, yes.clone()))
        .layer(SetResponseHeaderLayer::overriding(said, yes));
    let stub = stub("a", builder);
    let reply = stub.say(Word::new("agent")).await.expect("a reply");
    assert_eq!(reply.metadata().get("said").expect("the layer's"), "by a layer");
    assert_eq!(reply.into_inner().text, "by a layer");
    let mut followed = stub.follow(Word::new("agent")).await.expect("a stream").into_inner();
    assert_eq!(followed.message().await.expect("ok").expect("a word").text, "by a layer");
    let status = stub.say(Word::new("missing")).await.expect_err("no word");
    assert_eq!(status.metadata().get("said").expect("the layer's"), "by a layer");

    let before = calls.load(Ordering::SeqCst);
    let hangs = tokio::spawn(stub.say(Word::new("sleep")).into_future());
    until(|| running.load(Ordering::SeqCst) == 1).await;
    let waits = tokio::spawn(stub.say(Word::new("who?")).into_future());
    stub.follow(Word::new("who?")).await.expect("it is not limited");
    assert_eq!(calls.load(Ordering::SeqCst), before + 2, "one at a time");
    hangs.abort();
    assert_eq!(waits.await.expect("no panic").expect("its turn").into_inner().text, "a");

    let status = stub.read(Word::new("sleep")).await.expect_err("it sleeps");
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(status.message(), "a layer failed: request timed out");
    none_runs(&running).await;
}

#[tokio::test]
async fn an_answer_without_a_status_is_told_to_be_a_layers() {
    let empty = async |_, _| Ok(Response::new(Body::empty()));
    let stub = stub("nobody", builder("memory://client-layers-empty").intercept(empty));
    let words = || tokio_stream::iter([Word::new("who?")]);
    let mut stream = stub.down(Word::new("who?")).await.expect("it has begun").into_inner();
    for status in [
        stub.say(Word::new("who?")).await.expect_err("no status"),
        stub.up(words()).await.expect_err("no status"),
        stream.message().await.expect_err("no status"),
    ] {
        assert_eq!(status.code(), Code::Internal, "{status}");
        let text = "what came through the layers ended without a grpc-status: a layer that answers";
        assert!(status.message().starts_with(text), "{status}");
    }
}

#[tokio::test]
async fn a_request_that_a_layer_cuts_off_is_internal() {
    let registry = "memory://client-layers-cut";
    let _a = start(registry, "a", Echo::named("a")).await;
    let limit = tower_http::limit::RequestBodyLimitLayer::new(8);
    let stub = stub("a", builder(registry).layer(limit));
    let long = || Word::new("more than eight bytes");
    for status in [
        stub.say(long()).await.expect_err("too long"),
        stub.up(tokio_stream::iter([long()])).await.expect_err("too long"),
    ] {
        assert_eq!(status.code(), Code::Internal, "{status}");
        assert!(status.message().ends_with("a layer failed: length limit exceeded"), "{status}");
    }
}

#[tokio::test]
async fn a_scope_that_a_call_only_nearly_is_in_is_told_once() {
    let registry = "memory://client-layers-near";
    let _a = start(registry, "a", Echo::named("a")).await;
    for (scope, is_told) in [
        ("echo", true),
        ("Echo/Say", true),
        ("test.v1.Echo", true),
        ("test.Echo/say", true),
        ("Test.Echo", true),
        ("test_echo", true),
        ("test.Echo/Down", false),
        ("test.Echo/Say", false),
        ("test.Echo", false),
        ("test.Ledger", false),
    ] {
        let log = Log::down_to(Level::WARN);
        let stub = stub("a", builder(registry).intercept_on(scope, tag).intercept(tag));
        for _ in 0..2 {
            stub.say(Word::new("who?")).await.expect("a reply");
            stub.follow(Word::new("who?")).await.expect("a stream");
        }
        let lines = log.lines_with("a layer's scope has no call in it so far");
        assert_eq!(lines.len(), usize::from(is_told), "{scope}: {lines:?}");
        let is_named = |line: &String| line.contains(scope) && line.contains("/test.Echo/");
        assert!(lines.iter().all(is_named), "{lines:?}");
    }
}

#[tokio::test]
async fn a_scope_that_has_had_a_call_is_not_told() {
    let registry = "memory://client-layers-had";
    let _a = start(registry, "a", Echo::named("a")).await;
    let log = Log::down_to(Level::WARN);
    let client = builder(registry).intercept_on("test.Echo/Say", tag).build().expect("a client");
    Stub::new("a", &client).say(Word::new("who?")).await.expect("a reply");
    let mut grpc = tonic::client::Grpc::new(client.channel("a"));
    let path = http::uri::PathAndQuery::from_static("/test.v2.Echo/Say");
    let codec = ProstCodec::<Word, Word>::default();
    let status = grpc.unary(Request::new(Word::new("who?")), path, codec).await;
    assert!(status.is_ok(), "by the short name");
    assert_eq!(log.lines_with("a layer's scope"), [""; 0], "it is what it should be");
}
