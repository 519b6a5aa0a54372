//! The spans of gRPC's [A72].
//!
//! [A72]: https://github.com/grpc/proposal/blob/master/A72-open-telemetry-tracing.md

use http::HeaderMap;
use opentelemetry::{
    Context, InstrumentationScope, KeyValue, global,
    trace::{Link, SpanBuilder, SpanKind, Status, TraceContextExt as _, Tracer as _},
};
use tonic::Code;

use super::wire;
use crate::registry::Node;

/// A span under way. One that is dropped before it has ended was cancelled.
#[derive(Debug)]
struct Span {
    context: Context,
    has_ended: bool,
}

impl Span {
    fn start(name: String, kind: SpanKind, parent: &Context, links: Vec<Link>) -> Self {
        let scope = InstrumentationScope::builder("micro").with_version(env!("CARGO_PKG_VERSION"));
        // Asked each time: the program may install its provider later.
        let tracer = global::tracer_with_scope(scope.build());
        let builder = SpanBuilder::from_name(name).with_kind(kind).with_links(links);
        let span = tracer.build_with_context(builder, parent);
        Self { context: parent.with_span(span), has_ended: false }
    }

    fn end(&mut self, code: Code, message: &str) {
        if std::mem::replace(&mut self.has_ended, true) {
            return;
        }
        let span = self.context.span();
        span.set_attribute(KeyValue::new("rpc.grpc.status_code", i64::from(i32::from(code))));
        span.set_status(match code {
            Code::Ok => Status::Ok,
            _ if message.is_empty() => Status::error(format!("{code:?}")),
            _ => Status::error(format!("{code:?}: {message}")),
        });
        span.end();
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        self.end(Code::Cancelled, "");
    }
}

/// `package.Service/Method` of a path.
fn method(path: &str) -> &str {
    path.trim_start_matches('/')
}

/// A client's call, all its attempts together.
pub(crate) struct CallSpan {
    span: Span,
    method: String,
}

impl CallSpan {
    /// A child of the span that is current; of a detached call, a root that links to that.
    pub(crate) fn start(path: &str, is_detached: bool) -> Self {
        let current = Context::current();
        let (parent, links) = if is_detached {
            let context = current.span().span_context().clone();
            let link = context.is_valid().then(|| Link::with_context(context));
            (Context::new(), link.into_iter().collect())
        } else {
            (current, Vec::new())
        };
        let method = method(path).to_owned();
        // The attempts are the requests that leave the process: a server's span is the child of one of
        // them, and what draws services and their callers looks for that pair.
        let span = Span::start(format!("Sent.{method}"), SpanKind::Internal, &parent, links);
        Self { span, method }
    }

    /// Begins an attempt, after so many that count.
    pub(crate) fn attempt(&self, previous: u32, is_transparent: bool) -> AttemptSpan {
        let name = format!("Attempt.{}", self.method);
        let span = Span::start(name, SpanKind::Client, &self.span.context, Vec::new());
        span.context.span().set_attributes([
            KeyValue::new("rpc.system", "grpc"),
            KeyValue::new("previous-rpc-attempts", i64::from(previous)),
            KeyValue::new("transparent-retry", is_transparent),
        ]);
        AttemptSpan(span)
    }

    pub(crate) fn ended(mut self, code: Code, message: &str) {
        self.span.end(code, message);
    }
}

/// One attempt of a client's call.
pub(crate) struct AttemptSpan(Span);

impl AttemptSpan {
    /// It is sent to this node, which finds the trace in the headers.
    pub(crate) fn goes_to(&self, node: &Node, headers: &mut HeaderMap) {
        self.0.context.span().set_attributes([
            KeyValue::new("micro.node.id", node.id.clone()),
            KeyValue::new("network.peer.address", node.address.clone()),
        ]);
        wire::inject(&self.0.context, headers);
    }

    pub(crate) fn ended(mut self, code: Code, message: &str) {
        self.0.end(code, message);
    }
}

/// A call at its server.
#[derive(Debug)]
pub(crate) struct HandlerSpan(Span);

impl HandlerSpan {
    /// A child of the attempt that the headers tell of.
    pub(crate) fn start(path: &str, headers: &HeaderMap) -> Self {
        let parent = wire::extract(headers);
        let name = format!("Recv.{}", method(path));
        let span = Span::start(name, SpanKind::Server, &parent, Vec::new());
        span.context.span().set_attribute(KeyValue::new("rpc.system", "grpc"));
        Self(span)
    }

    /// Runs a part of the handler, in which the span is the current one.
    pub(crate) fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        let _attached = self.0.context.clone().attach();
        work()
    }

    pub(crate) fn ended(mut self, code: Code, message: &str) {
        self.0.end(code, message);
    }
}
