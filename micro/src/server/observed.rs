//! A call as it is told to traces.

use http::HeaderMap;

use crate::{headers, trace::HandlerSpan};

/// A call under way. One that is dropped before it has ended was cancelled.
#[derive(Debug)]
pub(super) struct Observed {
    /// Until the end was told.
    span: Option<HandlerSpan>,
}

impl Observed {
    pub(super) fn start(path: &str, headers: &HeaderMap) -> Self {
        Self { span: Some(HandlerSpan::start(path, headers)) }
    }

    /// Runs a part of the handler, whose calls are of the same trace.
    pub(super) fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        match &self.span {
            Some(span) => span.within(work),
            None => work(),
        }
    }

    /// It has ended if these headers, or trailers, have a status.
    pub(super) fn answered(&mut self, fields: &HeaderMap) {
        if size_of::<HandlerSpan>() == 0 {
            // There is nobody to tell.
            return;
        }
        if let Some((code, message)) = headers::status(fields)
            && let Some(span) = self.span.take()
        {
            span.ended(code, &message);
        }
    }
}
