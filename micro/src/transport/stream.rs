//! Calls with a body each way.

use std::{
    error::Error,
    fmt,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use h2::{RecvStream, StreamId};
use http_body::{Frame, SizeHint};
use tokio::task::AbortHandle;
use tonic::Status;

use super::{
    Connection, Failure, FailureKind,
    connection::Slot,
    response::{self, Rest},
};
use crate::headers::drop_malformed_details;

mod pump;
use pump::Pump;

/// The body of a response, as it comes in. Reading it gives the peer room for more; dropping it
/// resets the stream (CANCEL), and the request with it, unless both had ended.
pub(crate) struct Body {
    /// `None` once it has ended.
    open: Option<Open>,
}

struct Open {
    stream: RecvStream,
    is_at_trailers: bool,
    request: Request,
    slot: Slot,
}

/// Our side of a stream.
#[derive(Debug, Default)]
struct Request {
    /// Why our own body failed, said before it resets the stream.
    failure: Option<Arc<OnceLock<Failure>>>,
    /// The task that sends what was not sent at once; ends with this.
    task: Option<AbortHandle>,
}

impl Connection {
    /// Sends a body and returns with the response's headers; the body goes on being sent, as fast
    /// as the peer takes it, while the response is read.
    ///
    /// # Errors
    /// When no handler answered, see [`FailureKind`](super::FailureKind), or the answer is not
    /// gRPC's. What happens later is an error of the response's body.
    ///
    /// # Cancel safety
    /// Dropping the future resets the stream (CANCEL).
    pub(crate) async fn stream<B>(
        &self,
        slot: Slot,
        request: http::Request<B>,
    ) -> Result<http::Response<Body>, Failure>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let is_empty = body.is_end_stream();
        let (mut response, send) = self.open(http::Request::from_parts(head, ()), is_empty)?;
        let request =
            if is_empty { Request::default() } else { Request::begin(send, body).await? };
        let mut response = match (&mut response).await {
            Ok(response) => response,
            Err(error) => {
                let shared = self.shared();
                let failure = || shared.failure(&error, response.stream_id(), false);
                return Err(request.failure(&error).unwrap_or_else(failure));
            }
        };
        let peer = &self.shared().peer;
        if response::check(peer, response.status(), response.headers())? == Rest::Nothing {
            drop_malformed_details(response.headers_mut());
        }
        Ok(response.map(|stream| Body {
            open: Some(Open { stream, is_at_trailers: false, request, slot }),
        }))
    }
}

impl Request {
    /// Sends what there is of the body, and has a task send the rest.
    async fn begin<B>(send: h2::SendStream<Bytes>, body: B) -> Result<Self, Failure>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let failure = Arc::new(OnceLock::new());
        let mut pump = Box::pin(Pump::new(send, body, failure.clone()));
        // A body of one message, such as a unary call of tonic's stubs, needs no task.
        let is_sent = std::future::poll_fn(|cx| Poll::Ready(pump.as_mut().poll(cx).is_ready()));
        let is_sent = is_sent.await;
        let rest = async move {
            // Left as it is, the stream would wait for the rest of its request for ever.
            if AssertUnwindSafe(pump.as_mut()).catch_unwind().await.is_err() {
                let status = Status::internal("the call's own request stream panicked");
                pump.as_mut().fail(Failure::new(FailureKind::Body, status));
            }
        };
        let task = (!is_sent).then(|| tokio::spawn(rest).abort_handle());
        Ok(Self { failure: Some(failure), task })
    }

    /// Why the stream was reset, if our own body was the reason.
    fn failure(&self, error: &h2::Error) -> Option<Failure> {
        if error.is_remote() {
            return None;
        }
        self.failure.as_ref()?.get().cloned()
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Open {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Frame<Bytes>>, h2::Error>> {
        if !self.is_at_trailers {
            match ready!(self.stream.poll_data(cx)).transpose()? {
                Some(chunk) => {
                    let _ = self.stream.flow_control().release_capacity(chunk.len());
                    return Poll::Ready(Ok(Some(Frame::data(chunk))));
                }
                None => self.is_at_trailers = true,
            }
        }
        let mut trailers = std::pin::pin!(self.stream.trailers());
        let mut trailers = ready!(trailers.as_mut().poll(cx))?;
        if let Some(trailers) = &mut trailers {
            drop_malformed_details(trailers);
        }
        Poll::Ready(Ok(trailers.map(Frame::trailers)))
    }

    fn failure(&mut self, error: &h2::Error) -> Failure {
        let stream: StreamId = self.stream.stream_id();
        let failure = || self.slot.shared().failure(error, stream, true);
        self.request.failure(error).unwrap_or_else(failure)
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let Some(open) = &mut self.open else {
            return Poll::Ready(None);
        };
        let frame = match ready!(open.poll_frame(cx)) {
            Ok(Some(frame)) if frame.is_data() => return Poll::Ready(Some(Ok(frame))),
            Ok(trailers) => trailers.map(Ok),
            Err(error) => Some(Err(open.failure(&error))),
        };
        // Nothing follows: the next caller in line need not wait for this body to be dropped.
        self.open = None;
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.open.as_ref().is_none_or(|open| open.stream.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        if self.open.is_none() { SizeHint::with_exact(0) } else { SizeHint::default() }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("is_open", &self.open.is_some()).finish()
    }
}
