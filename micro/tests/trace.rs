//! What calls tell OpenTelemetry as spans, with its SDK. The provider is the process's, so that these
//! tests are a program of their own; each has a trace of its own in it. In real time: the calls are of
//! real sockets.

use std::{
    collections::HashMap,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use micro::{Client, Code, Handle, Request, Response, Service, Status};
use opentelemetry::{
    Context, KeyValue, Value, global,
    trace::{
        FutureExt as _, SpanId, SpanKind, Status as SpanStatus, TraceContextExt as _, TraceId,
        Tracer as _,
    },
};
use opentelemetry_sdk::{
    propagation::TraceContextPropagator,
    trace::{InMemorySpanExporter, SdkTracerProvider, SpanData},
};
use tokio::net::TcpListener;

#[allow(unreachable_pub, reason = "it is generated for a module of a library")]
mod generated {
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doc/greeter.v1.rs"));
}
use generated::{
    GreeterClient, GreeterHandler, HelloReply, HelloRequest, register_greeter_handler,
};

/// The spans of one trace that ended: of a test, which has begun it.
struct Trace {
    context: Context,
}

impl Trace {
    /// Begins one. The first installs the provider.
    fn begin() -> Self {
        exporter();
        let span = global::tracer("test").start("test");
        Self { context: Context::new().with_span(span) }
    }

    fn id(&self) -> TraceId {
        self.context.span().span_context().trace_id()
    }

    fn root(&self) -> SpanId {
        self.context.span().span_context().span_id()
    }

    /// Those that are there once there are so many, by their end.
    async fn spans(&self, count: usize) -> Vec<SpanData> {
        let those = async {
            loop {
                let all = exporter().get_finished_spans().unwrap();
                let ours = all.into_iter().filter(|it| it.span_context.trace_id() == self.id());
                let ours: Vec<_> = ours.collect();
                if ours.len() >= count {
                    return ours;
                }
                // A server's span ends when its last frame is taken, on whichever task.
                tokio::task::yield_now().await;
            }
        };
        let spans = tokio::time::timeout(Duration::from_secs(10), those).await;
        spans.unwrap_or_else(|_| panic!("{count} spans of {:?}", exporter().get_finished_spans()))
    }
}

fn exporter() -> &'static InMemorySpanExporter {
    static EXPORTER: OnceLock<InMemorySpanExporter> = OnceLock::new();
    EXPORTER.get_or_init(|| {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        global::set_tracer_provider(provider);
        global::set_text_map_propagator(TraceContextPropagator::new());
        exporter
    })
}

fn attribute(span: &SpanData, name: &str) -> Option<Value> {
    let mut found = span.attributes.iter().filter(|KeyValue { key, .. }| key.as_str() == name);
    found.next().map(|it| it.value.clone())
}

fn named<'a>(spans: &'a [SpanData], name: &str) -> &'a SpanData {
    let mut found = spans.iter().filter(|span| span.name == name);
    let span = found.next().unwrap_or_else(|| panic!("{name} among {spans:?}"));
    assert!(found.next().is_none(), "one {name}");
    span
}

/// Fails so many times, and answers by another, if there is one.
#[derive(Default)]
struct Greeter {
    fails: AtomicU32,
    by: Option<GreeterClient>,
    detached: bool,
}

impl GreeterHandler for Greeter {
    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        let less = |left: u32| left.checked_sub(1);
        if self.fails.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok() {
            return Err(Status::unavailable("not yet"));
        }
        let Some(by) = &self.by else {
            return Ok(Response::new(HelloReply::default()));
        };
        tokio::task::yield_now().await; // the trace is there in later polls too
        let call = by.hello(request.into_inner());
        if self.detached { call.detached().await } else { call.await }
    }
}

async fn node(name: &str, greeter: Greeter) -> Handle {
    let service = Service::builder(name).without_env().registry(format!("memory://{name}"));
    let mut service = service.build().await.expect("a service");
    register_greeter_handler(service.server(), greeter);
    service.start().await.expect("a free port")
}

fn client(name: &str) -> GreeterClient {
    let client = Client::builder().without_env().registry(format!("memory://{name}"));
    GreeterClient::new(name, &client.build().expect("a client"))
}

const SENT: &str = "Sent.greeter.v1.Greeter/Hello";
const ATTEMPT: &str = "Attempt.greeter.v1.Greeter/Hello";
const RECEIVED: &str = "Recv.greeter.v1.Greeter/Hello";

#[tokio::test]
async fn a_call_its_attempt_and_its_handler_are_of_the_callers_trace() {
    let trace = Trace::begin();
    let node = node("traced", Greeter::default()).await;
    let call = client("traced").hello(HelloRequest::default()).into_future();
    call.with_context(trace.context.clone()).await.unwrap();
    let spans = trace.spans(3).await;
    let [sent, attempt, received] = [SENT, ATTEMPT, RECEIVED].map(|name| named(&spans, name));
    assert_eq!(sent.parent_span_id, trace.root());
    assert_eq!(attempt.parent_span_id, sent.span_context.span_id());
    assert_eq!(received.parent_span_id, attempt.span_context.span_id());
    assert!(received.parent_span_is_remote);
    for (span, kind) in
        [(sent, SpanKind::Internal), (attempt, SpanKind::Client), (received, SpanKind::Server)]
    {
        assert_eq!(span.span_kind, kind, "{}", span.name);
        assert_eq!(span.status, SpanStatus::Ok, "{}", span.name);
        assert_eq!(attribute(span, "rpc.grpc.status_code"), Some(Value::I64(0)));
    }
    assert_eq!(attribute(attempt, "micro.node.id"), Some(node.id().to_owned().into()));
    assert_eq!(attribute(attempt, "network.peer.address"), Some(node.address().to_owned().into()));
}

#[tokio::test]
async fn a_handlers_calls_are_of_its_trace_and_a_detached_one_links_to_it() {
    let trace = Trace::begin();
    let _end = node("end", Greeter::default()).await;
    let by = Some(client("end"));
    let _middle = node("middle", Greeter { by: by.clone(), ..Greeter::default() }).await;
    let call = client("middle").hello(HelloRequest::default()).into_future();
    call.with_context(trace.context.clone()).await.unwrap();
    let spans = trace.spans(6).await;
    let mut parents = HashMap::new();
    for span in &spans {
        parents.insert(span.span_context.span_id(), (span.name.clone(), span.parent_span_id));
    }
    let is_end = |span: &&SpanData| {
        span.name == RECEIVED
            && !spans.iter().any(|it| it.parent_span_id == span.span_context.span_id())
    };
    let mut at = spans.iter().find(is_end).expect("the last node's").span_context.span_id();
    let mut way = Vec::new();
    while let Some((name, parent)) = parents.get(&at) {
        way.push(name.to_string());
        at = *parent;
    }
    assert_eq!(way, [RECEIVED, ATTEMPT, SENT, RECEIVED, ATTEMPT, SENT]);
    assert_eq!(at, trace.root());

    let trace = Trace::begin();
    let greeter = Greeter { by, detached: true, ..Greeter::default() };
    let _detached = node("detached", greeter).await;
    let call = client("detached").hello(HelloRequest::default()).into_future();
    call.with_context(trace.context.clone()).await.unwrap();
    let spans = trace.spans(3).await;
    assert_eq!(spans.len(), 3, "what is detached has a trace of its own");
    let handler = named(&spans, RECEIVED).span_context.span_id();
    let all = exporter().get_finished_spans().unwrap();
    let linked =
        |span: &&SpanData| span.links.iter().any(|it| it.span_context.span_id() == handler);
    let detached = all.iter().find(linked).expect("it links to the handler's");
    assert_eq!((&*detached.name, detached.parent_span_id), (SENT, SpanId::INVALID));
}

#[tokio::test]
async fn a_status_ends_its_spans_and_each_further_attempt_has_one() {
    let trace = Trace::begin();
    let greeter = Greeter { fails: AtomicU32::new(1), ..Greeter::default() };
    let _node = node("failing", greeter).await;
    let call = client("failing").hello(HelloRequest::default()).idempotent().into_future();
    call.with_context(trace.context.clone()).await.unwrap();
    let mut spans = trace.spans(5).await;
    spans.retain(|span| span.name == ATTEMPT);
    spans.sort_by_key(|span| span.start_time);
    let [first, second] = &spans[..] else { panic!("two attempts: {spans:?}") };
    assert_eq!(first.status, SpanStatus::error("Unavailable: not yet"));
    assert_eq!(attribute(first, "rpc.grpc.status_code"), Some(Value::I64(14)));
    assert_eq!(second.status, SpanStatus::Ok);
    for (span, previous) in [(first, 0), (second, 1)] {
        assert_eq!(attribute(span, "previous-rpc-attempts"), Some(Value::I64(previous)));
        assert_eq!(attribute(span, "transparent-retry"), Some(Value::Bool(false)));
    }
}

/// A node that dies with the first call that it gets.
async fn dying() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        drop(listener);
        let mut connection = h2::server::handshake(stream).await.unwrap();
        drop(connection.accept().await);
        drop(connection);
    });
    address
}

#[tokio::test]
async fn a_call_to_a_node_that_dies_shows_both_attempts() {
    exporter();
    let dying = dying().await;
    let node = node("alive", Greeter::default()).await;
    let alive = node.address();
    let registry = format!("static://dies={dying},{alive}");
    let client = Client::builder().without_env().registry(registry).build().unwrap();
    let greeter = GreeterClient::new("dies", &client);
    let attempts = async {
        loop {
            let trace = Trace::begin();
            let call = greeter.hello(HelloRequest::default()).idempotent().into_future();
            call.with_context(trace.context.clone()).await.unwrap();
            let mut spans = trace.spans(3).await;
            spans.retain(|span| span.name == ATTEMPT);
            if spans.len() > 1 {
                spans.sort_by_key(|span| span.start_time);
                return spans;
            }
        }
    };
    let attempts = tokio::time::timeout(Duration::from_secs(10), attempts).await.unwrap();
    let to: Vec<_> = attempts
        .iter()
        .map(|span| attribute(span, "network.peer.address").unwrap().to_string())
        .collect();
    assert_eq!(to, [dying, alive.to_owned()]);
    assert_ne!(attempts[0].status, SpanStatus::Ok);
    assert_eq!(attempts[1].status, SpanStatus::Ok);
}

#[tokio::test]
async fn a_call_that_its_caller_drops_ends_its_spans_as_cancelled() {
    let trace = Trace::begin();
    let client = client("nobody");
    let call = client.hello(HelloRequest::default()).into_future();
    let call = call.with_context(trace.context.clone());
    tokio::time::timeout(Duration::from_millis(50), call).await.unwrap_err();
    let spans = trace.spans(2).await;
    for name in [SENT, ATTEMPT] {
        let span = named(&spans, name);
        let code = i64::from(i32::from(Code::Cancelled));
        assert_eq!(attribute(span, "rpc.grpc.status_code"), Some(Value::I64(code)), "{name}");
    }
}
