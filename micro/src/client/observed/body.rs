//! A response's body, and who is told of its end.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tonic::{Code, Status};

use super::Attempt;
use crate::headers;

/// A body that is followed to its end. One that is dropped before is a call that was cancelled.
pub(super) struct Observed<B> {
    body: B,
    /// Until the end was told.
    told: Option<(super::Observed, Attempt)>,
}

impl<B> Observed<B> {
    pub(super) fn new(body: B, call: super::Observed, attempt: Attempt) -> Self {
        Self { body, told: Some((call, attempt)) }
    }

    fn end(&mut self, code: Code, message: &str) {
        if let Some((call, attempt)) = self.told.take() {
            attempt.ended(code, message);
            call.ended(code, message);
        }
    }
}

impl<B> Body for Observed<B>
where
    B: Body<Data = Bytes, Error = Status> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(data), Some((_, attempt))) = (frame.data_ref(), &mut this.told) {
                    attempt.metrics.received_data(data);
                } else if let Some(trailers) = frame.trailers_ref() {
                    let none = || (Code::Unknown, "".into());
                    let (code, message) = headers::status(trailers).unwrap_or_else(none);
                    this.end(code, &message);
                }
            }
            Some(Err(status)) => this.end(status.code(), status.message()),
            None => this.end(Code::Unknown, ""),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
