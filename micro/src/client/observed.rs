//! Calls as they are told to metrics and traces.

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::{
    metrics::{AttemptKind, AttemptMetrics, CallMetrics, ChannelMetrics, Picked},
    registry::Node,
    trace::{AttemptSpan, CallSpan},
};

/// A call under way. One that is dropped before it has ended was cancelled.
pub(super) struct Observed {
    metrics: CallMetrics,
    span: CallSpan,
}

impl Observed {
    /// A call of the method at `path`, which is one of many unless a stub was generated for it.
    pub(super) fn new(
        metrics: &ChannelMetrics,
        path: &str,
        is_generated: bool,
        is_detached: bool,
        start: Instant,
    ) -> Self {
        Self {
            metrics: metrics.call(is_generated.then_some(path), start),
            span: CallSpan::start(path, is_detached),
        }
    }

    /// Begins an attempt, after so many that count.
    pub(super) fn attempt(&self, kind: AttemptKind, previous: u32) -> Attempt {
        let is_transparent = kind == AttemptKind::TransparentRetry;
        let span = self.span.attempt(previous, is_transparent);
        Attempt { metrics: self.metrics.attempt(kind), span }
    }

    /// No attempt is under way, and the call has not ended.
    pub(super) fn idle(&self) {
        self.metrics.idle();
    }

    /// Another attempt would have been made, had there been a budget for it.
    pub(super) fn retry_refused(&self) {
        tracing::debug!(
            "the call is not made again: the channel's budget for that is spent (20% of its calls and \
             10 a second, or its config's retryThrottling)"
        );
        self.metrics.retry_refused();
    }

    pub(super) fn ended(self, code: Code, message: &str) {
        self.metrics.ended(code);
        self.span.ended(code, message);
    }

    /// It ended with this status.
    pub(super) fn failed(self, status: Status) -> Status {
        self.ended(status.code(), status.message());
        status
    }
}

/// An attempt under way. One that is dropped before it has ended was given up.
pub(super) struct Attempt {
    metrics: AttemptMetrics,
    span: AttemptSpan,
}

impl Attempt {
    /// A node was chosen for it, or there was none.
    pub(super) fn picked(&self, picked: Picked) {
        self.metrics.picked(picked);
    }

    /// It is sent to this node, with these headers.
    pub(super) fn goes_to(&self, node: &Node, headers: &mut HeaderMap) {
        self.span.goes_to(node, headers);
    }

    /// So many bytes of messages are sent.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.metrics.sent(bytes);
    }

    /// The body as it is sent.
    pub(super) fn request<B>(
        &mut self,
        body: B,
    ) -> impl Body<Data = Bytes, Error = B::Error> + use<B>
    where
        B: Body<Data = Bytes>,
    {
        self.metrics.weigh(body)
    }

    /// A part of the response's messages came, prefixes and all.
    pub(super) fn received_data(&mut self, data: &[u8]) {
        self.metrics.received_data(data);
    }

    /// So many bytes of messages came.
    pub(super) fn received(&mut self, bytes: usize) {
        self.metrics.received(bytes);
    }

    pub(super) fn ended(self, code: Code, message: &str) {
        self.metrics.ended(code);
        self.span.ended(code, message);
    }

    /// It ended with this status.
    pub(super) fn failed(self, status: Status) -> Status {
        self.ended(status.code(), status.message());
        status
    }
}
