//! A call as it is told to metrics and traces.

use http::HeaderMap;
use hyper::body::Incoming;

use crate::{
    headers,
    metrics::{HandledMetrics, Weighed},
    trace::HandlerSpan,
};

/// A call under way. One that is dropped before it has ended was cancelled.
#[derive(Debug)]
pub(super) struct Observed(Option<Told>);

/// Until the end was told.
#[derive(Debug)]
struct Told {
    metrics: HandledMetrics,
    span: HandlerSpan,
}

impl Observed {
    /// A call at `path`.
    pub(super) fn start(metrics: HandledMetrics, path: &str, fields: &HeaderMap) -> Self {
        Self(Some(Told { metrics, span: HandlerSpan::start(path, fields) }))
    }

    /// The body of the request, as it is read.
    pub(super) fn request(&mut self, body: Incoming) -> Weighed<Incoming> {
        let Self(told) = self;
        told.as_mut().expect("it has only begun").metrics.weigh(body)
    }

    /// Runs a part of the handler, whose calls are of the same trace.
    pub(super) fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        match &self.0 {
            Some(told) => told.span.within(work),
            None => work(),
        }
    }

    /// Some of the response's messages are sent.
    pub(super) fn sent(&mut self, data: &[u8]) {
        if let Some(told) = &mut self.0 {
            told.metrics.sent_data(data);
        }
    }

    /// It has ended if these headers, or trailers, have a status.
    pub(super) fn answered(&mut self, fields: &HeaderMap) {
        if size_of::<Told>() == 0 {
            // There is nobody to tell.
            return;
        }
        if let Some((code, message)) = headers::status(fields)
            && let Some(Told { metrics, span }) = self.0.take()
        {
            metrics.ended(code);
            span.ended(code, &message);
        }
    }
}
