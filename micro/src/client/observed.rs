//! Calls as they are told to metrics.

mod body;

use bytes::Bytes;
use http_body::Body;
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::metrics::{AttemptKind, AttemptMetrics, CallMetrics, ChannelMetrics};

/// A call under way. One that is dropped before it has ended was cancelled.
pub(super) struct Observed {
    metrics: CallMetrics,
}

impl Observed {
    pub(super) fn new(metrics: &ChannelMetrics, path: Option<&str>, start: Instant) -> Self {
        Self { metrics: metrics.call(path, start) }
    }

    /// Begins an attempt.
    pub(super) fn attempt(&self, kind: AttemptKind) -> Attempt {
        Attempt { metrics: self.metrics.attempt(kind) }
    }

    /// No attempt is under way, and the call has not ended.
    pub(super) fn idle(&self) {
        self.metrics.idle();
    }

    /// Another attempt would have been made, had there been a budget for it.
    pub(super) fn retry_refused(&self) {
        self.metrics.retry_refused();
    }

    pub(super) fn ended(self, code: Code) {
        self.metrics.ended(code);
    }

    /// It ended with this status.
    pub(super) fn failed(self, status: Status) -> Status {
        self.ended(status.code());
        status
    }

    /// A stream goes on to its end, which is the call's and its last attempt's.
    pub(super) fn streams(self, attempt: Attempt, body: tonic::body::Body) -> tonic::body::Body {
        if size_of::<(Self, Attempt)>() == 0 {
            // There is nobody to tell.
            return body;
        }
        tonic::body::Body::new(body::Observed::new(body, self, attempt))
    }
}

/// An attempt under way. One that is dropped before it has ended was given up.
pub(super) struct Attempt {
    metrics: AttemptMetrics,
}

impl Attempt {
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

    /// So many bytes of messages came.
    pub(super) fn received(&mut self, bytes: usize) {
        self.metrics.received(bytes);
    }

    pub(super) fn ended(self, code: Code) {
        self.metrics.ended(code);
    }

    /// It ended with this status.
    pub(super) fn failed(self, status: Status) -> Status {
        self.ended(status.code());
        status
    }
}
