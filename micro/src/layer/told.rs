//! How a call went, which every response has to end with.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderValue, header::CONTENT_TYPE};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;

use super::Body;

/// The response with a body that ends with an error if nothing tells how the call went: neither the
/// headers nor the trailers, as when a layer answers with an empty body of its own.
pub(super) fn told(mut response: http::Response<Body>) -> http::Response<Body> {
    if response.headers().contains_key(Status::GRPC_STATUS) {
        return response;
    }
    // A peer that finds none does not look for the status.
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().entry(CONTENT_TYPE).or_insert(grpc);
    response.map(|body| Body::new(Told { body, is_told: false }))
}

struct Told {
    body: Body,
    is_told: bool,
}

impl HttpBody for Told {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let (is_last, is_told) = match &frame {
            Some(Ok(frame)) => match frame.trailers_ref() {
                Some(trailers) => (true, trailers.contains_key(Status::GRPC_STATUS)),
                None => (false, false),
            },
            Some(Err(_)) => (true, true),
            None => (true, self.is_told),
        };
        self.is_told |= is_last;
        Poll::Ready(if is_last && !is_told {
            Some(Err(Status::internal(
                "what came through the layers ended without a grpc-status: a layer that answers by \
                 itself returns a Status, or sends the trailers too",
            )))
        } else {
            frame
        })
    }

    fn is_end_stream(&self) -> bool {
        self.is_told && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
