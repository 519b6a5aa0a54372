//! The body of a stream's response, followed to its end.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Code, Status};

use super::super::status;
use crate::{balance::Outcome, headers, registry::Node, transport::Failure};

pin_project! {
    /// A response body that counts as in flight until it ends or is dropped, and that ends with a
    /// status: `DeadlineExceeded` when the call's deadline strikes, `Internal` when its server says none.
    pub(super) struct Bounded<B, P> {
        // Neither is kept once nothing follows: who has read a stream to its end may hold it for
        // long, and a stream cut short is to be reset.
        #[pin]
        body: Option<B>,
        in_flight: Option<P>,
        end: fn(P, End<'_>),
        #[pin]
        struck: Option<Sleep>,
        node: Arc<Node>,
    }
}

/// Why a stream was cut short.
#[derive(Debug)]
pub(super) struct Cut {
    /// What its reader is told.
    pub(super) status: Status,
    /// What its connection said of it.
    pub(super) failure: Option<Failure>,
}

impl From<Status> for Cut {
    fn from(status: Status) -> Self {
        Self { status, failure: None }
    }
}

impl From<Cut> for Status {
    fn from(cut: Cut) -> Self {
        cut.status
    }
}

/// How a stream ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum End<'a> {
    /// In order, with this status.
    Whole(Code),
    /// Without the server's word.
    Broken(&'a Failure),
    /// With the caller's time.
    Struck,
}

impl End<'_> {
    /// What it says of the node that was asked for this method.
    pub(super) fn outcome(self, method: &str) -> Outcome {
        match self {
            Self::Whole(code) => Outcome::of_code(code, method),
            // A stream may be meant to last until then, by the node's clock as by ours.
            Self::Broken(failure) if failure.to_status().code() == Code::Cancelled => {
                Outcome::Cancelled
            }
            Self::Struck => Outcome::Cancelled,
            Self::Broken(failure) => Outcome::of_failure(failure),
        }
    }
}

impl<B, P> Bounded<B, P> {
    /// `end` takes how it went.
    pub(super) fn new(
        body: B,
        deadline: Option<Instant>,
        node: Arc<Node>,
        in_flight: P,
        end: fn(P, End<'_>),
    ) -> Self {
        let struck = deadline.map(sleep_until);
        Self { body: Some(body), in_flight: Some(in_flight), end, struck, node }
    }
}

impl<B, P> Body for Bounded<B, P>
where
    B: Body<Data = Bytes, Error = Failure>,
{
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let mut this = self.project();
        let Some(body) = this.body.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        // By the clock: a stream whose messages are always there must end too, and a sleep never
        // ends for a task that does not yield.
        let is_struck =
            this.struck.as_ref().as_pin_ref().is_some_and(|it| it.deadline() <= Instant::now());
        let frame = if is_struck { Poll::Pending } else { body.poll_frame(cx) };
        let mut tell = |end: End<'_>| {
            if let Some(in_flight) = this.in_flight.take() {
                (this.end)(in_flight, end);
            }
        };
        let ended = match frame {
            Poll::Ready(Some(Ok(frame))) if frame.is_data() => {
                return Poll::Ready(Some(Ok(frame)));
            }
            Poll::Ready(Some(Ok(frame))) => {
                let status = frame.trailers_ref().and_then(headers::status);
                match status.map(|(code, _)| code) {
                    Some(code) => Poll::Ready(Ok((frame, code))),
                    None => Poll::Ready(Err(Failure::without_status(&this.node.address))),
                }
            }
            Poll::Ready(None) => Poll::Ready(Err(Failure::without_status(&this.node.address))),
            Poll::Ready(Some(Err(failure))) => Poll::Ready(Err(failure)),
            Poll::Pending => Poll::Pending,
        };
        let last = match ended {
            Poll::Ready(Ok((frame, code))) => {
                tell(End::Whole(code));
                Some(Ok(frame))
            }
            Poll::Ready(Err(failure)) => {
                // By what it is: a lost connection is told by each stream, and is one.
                tell(End::Broken(&failure));
                let status = status::broken(this.node, &failure.to_status());
                Some(Err(Cut { status, failure: Some(failure) }))
            }
            Poll::Pending => {
                match this.struck.as_pin_mut() {
                    None => return Poll::Pending,
                    Some(struck) if !is_struck => ready!(struck.poll(cx)),
                    Some(_) => {}
                }
                tell(End::Struck);
                Some(Err(status::mid_stream(this.node).into()))
            }
        };
        this.body.set(None);
        Poll::Ready(last)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, time::Duration};

    use http::HeaderMap;

    use super::*;
    use crate::transport::FailureKind::{self, Lost, Reset};
    use http_body_util::{BodyExt as _, StreamBody};

    fn node() -> Arc<Node> {
        Arc::new(Node::new("a", "a-1", "host:1"))
    }

    /// A guard, and whether it is still held.
    fn guard() -> (Arc<()>, impl Fn() -> bool) {
        let guard = Arc::new(());
        let weak = Arc::downgrade(&guard);
        (guard, move || weak.strong_count() > 0)
    }

    #[tokio::test]
    async fn a_stream_read_to_its_end_is_no_longer_in_flight() {
        let ok = http::HeaderValue::from_static("0");
        let trailers = Frame::trailers(HeaderMap::from_iter([(Status::GRPC_STATUS, ok)]));
        let frames = [Ok::<_, Failure>(Frame::data(Bytes::from_static(b"word"))), Ok(trailers)];
        let (in_flight, is_in_flight) = guard();
        let body = StreamBody::new(tokio_stream::iter(frames));
        let mut body = Box::pin(Bounded::new(body, None, node(), in_flight, |_, _| {}));
        body.frame().await.expect("data").expect("ok");
        assert!(is_in_flight());
        body.frame().await.expect("trailers").expect("ok");
        assert!(!is_in_flight(), "though its reader holds it still");
        assert!(body.frame().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_its_deadline_ends_is_dropped() {
        let (in_flight, is_in_flight) = guard();
        let (held, is_held) = guard();
        let body = StreamBody::new(futures_util::stream::once(async move {
            std::future::pending::<()>().await;
            drop(held);
            Ok::<_, Failure>(Frame::data(Bytes::new()))
        }));
        let deadline = Instant::now() + Duration::from_secs(1);
        let mut body = Box::pin(Bounded::new(body, Some(deadline), node(), in_flight, |_, _| {}));
        let cut = body.frame().await.expect("an error").expect_err("the deadline");
        assert_eq!(cut.status.code(), Code::DeadlineExceeded);
        assert!(!is_in_flight() && !is_held(), "the peer is told by the reset");
    }

    #[tokio::test]
    async fn a_deadline_ends_a_stream_whose_messages_are_always_there() {
        let frame = || Some((Ok::<_, Failure>(Frame::data(Bytes::from_static(b"word"))), ()));
        let body = StreamBody::new(futures_util::stream::unfold((), |()| async { frame() }));
        let start = Instant::now();
        let deadline = start + Duration::from_millis(10);
        let mut body = Box::pin(Bounded::new(body, Some(deadline), node(), (), |(), _| {}));
        // Never yields: every frame is there at once.
        let cut = loop {
            match body.frame().await.expect("not at its end") {
                Ok(_) => assert!(start.elapsed() < Duration::from_secs(5), "it goes on for ever"),
                Err(cut) => break cut,
            }
        };
        assert_eq!(cut.status.code(), Code::DeadlineExceeded);
        assert!(start.elapsed() >= Duration::from_millis(10));
        assert!(body.frame().await.is_none(), "and nothing follows");
    }

    #[tokio::test]
    async fn a_streams_end_is_judged_by_what_ended_it() {
        let trailers = |code: &'static str| {
            let fields = [("grpc-status", code)].map(|(name, value)| {
                (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
            });
            Ok(Frame::trailers(HeaderMap::from_iter(fields)))
        };
        let broken = |kind, code| Err(Failure::new(kind, Status::new(code, "")));
        for (last, expected) in [
            (None, Outcome::TransportFailure),
            (Some(Ok(Frame::trailers(HeaderMap::new()))), Outcome::TransportFailure),
            (Some(trailers("0")), Outcome::Success),
            (Some(trailers("14")), Outcome::Failure),
            (Some(trailers("12")), Outcome::of_code(Code::Unimplemented, "/a.B/C")),
            (Some(broken(Lost, Code::Unavailable)), Outcome::ConnectionLost),
            (Some(broken(Reset, Code::Internal)), Outcome::TransportFailure),
            (Some(broken(Reset, Code::Cancelled)), Outcome::Cancelled),
            (Some(broken(FailureKind::Body, Code::ResourceExhausted)), Outcome::Cancelled),
        ] {
            let text = format!("{last:?}");
            let first = Ok(Frame::data(Bytes::from_static(b"word")));
            let body = StreamBody::new(tokio_stream::iter([first].into_iter().chain(last)));
            let told = Arc::new(Mutex::new(Vec::new()));
            let tell = |told: Arc<Mutex<Vec<Outcome>>>, end: End<'_>| {
                told.lock().expect("no panic").push(end.outcome("/a.B/C"));
            };
            let mut body = Box::pin(Bounded::new(body, None, node(), told.clone(), tell));
            while body.frame().await.is_some() {}
            assert_eq!(*told.lock().expect("no panic"), [expected], "{text}");
        }
    }
}
