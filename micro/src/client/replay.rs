//! A request body that can be sent a second time.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame};
use tonic::Status;

/// What is kept for a second attempt: bodies over 64 KiB, and streams once they have sent as
/// much, are sent once.
const KEPT: usize = 64 * 1024;

/// Keeps what has been sent of a body, so that another attempt can send it again.
#[derive(Debug)]
pub(super) struct Replay {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    body: tonic::body::Body,
    sent: Vec<Bytes>,
    size: usize,
    trailers: Option<HeaderMap>,
    /// More than [`KEPT`] was sent, so nothing is kept.
    is_spent: bool,
    is_ended: bool,
    /// Attempts so far; only the newest may read on.
    attempt: u32,
}

/// The body of one attempt.
#[derive(Debug)]
pub(super) struct Attempt {
    shared: Arc<Mutex<Shared>>,
    attempt: u32,
    next: usize,
    are_trailers_sent: bool,
}

impl Replay {
    /// The body as its first attempt sends it, and the means to send it again.
    pub(super) fn new(body: tonic::body::Body) -> (Self, Attempt) {
        let is_ended = body.is_end_stream();
        let shared = Shared {
            body,
            sent: Vec::new(),
            size: 0,
            trailers: None,
            is_spent: false,
            is_ended,
            attempt: 1,
        };
        let shared = Arc::new(Mutex::new(shared));
        (Self { shared: shared.clone() }, Attempt::new(shared, 1))
    }

    /// The body from its beginning, or `None` when too much of it has been sent to be kept.
    pub(super) fn attempt(&self) -> Option<Attempt> {
        let mut shared = lock(&self.shared);
        if shared.is_spent {
            return None;
        }
        shared.attempt += 1;
        Some(Attempt::new(self.shared.clone(), shared.attempt))
    }
}

impl Attempt {
    fn new(shared: Arc<Mutex<Shared>>, attempt: u32) -> Self {
        Self { shared, attempt, next: 0, are_trailers_sent: false }
    }
}

impl Body for Attempt {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let mut shared = lock(&this.shared);
        if shared.attempt != this.attempt {
            return Poll::Ready(Some(Err(Status::cancelled("a later attempt has taken over"))));
        }
        if let Some(data) = shared.sent.get(this.next) {
            this.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(data.clone()))));
        }
        if shared.is_ended {
            let trailers = shared.trailers.clone().filter(|_| !this.are_trailers_sent);
            this.are_trailers_sent = true;
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let frame = match ready!(Pin::new(&mut shared.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                // What comes of it when it is asked again is nobody's request.
                shared.is_spent = true;
                return Poll::Ready(Some(Err(error)));
            }
            None => {
                shared.is_ended = true;
                return Poll::Ready(None);
            }
        };
        match frame.into_data() {
            Ok(data) => {
                shared.is_ended = shared.body.is_end_stream();
                shared.keep(&data, &mut this.next);
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                shared.is_ended = true;
                shared.trailers = Some(trailers.clone());
                this.are_trailers_sent = true;
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let shared = lock(&self.shared);
        shared.is_ended
            && self.next >= shared.sent.len()
            && (self.are_trailers_sent || shared.trailers.is_none())
    }
}

impl Shared {
    fn keep(&mut self, data: &Bytes, next: &mut usize) {
        self.size = self.size.saturating_add(data.remaining());
        self.is_spent |= self.size > KEPT;
        if self.is_spent {
            self.sent.clear();
            *next = 0;
        } else {
            self.sent.push(data.clone());
            *next = self.sent.len();
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full, StreamBody};

    use super::*;

    fn streamed(parts: Vec<usize>) -> tonic::body::Body {
        let frames = parts.into_iter().map(|len| Ok::<_, Status>(Frame::data(vec![7; len].into())));
        tonic::body::Body::new(StreamBody::new(tokio_stream::iter(frames)))
    }

    async fn read(attempt: Attempt) -> usize {
        attempt.collect().await.expect("body").to_bytes().len()
    }

    #[tokio::test]
    async fn a_small_body_can_be_sent_again() {
        let body = tonic::body::Body::new(Full::new(Bytes::from_static(b"hello")));
        let (replay, first) = Replay::new(body);
        assert_eq!(read(first).await, 5);
        assert_eq!(read(replay.attempt().expect("second")).await, 5);
    }

    #[tokio::test]
    async fn a_body_half_sent_is_sent_from_its_beginning() {
        let (replay, mut first) = Replay::new(streamed(vec![10, 20, 30]));
        first.frame().await.expect("a frame").expect("no error");
        let second = replay.attempt().expect("second");
        assert_eq!(read(second).await, 60);
        let stale = first.frame().await.expect("a frame");
        assert!(stale.is_err(), "only the newest attempt reads on");
    }

    #[tokio::test]
    async fn a_body_that_failed_is_not_sent_again() {
        let frames =
            [Ok(Frame::data(Bytes::from_static(b"half"))), Err(Status::aborted("no more"))];
        let body = tonic::body::Body::new(StreamBody::new(tokio_stream::iter(frames)));
        let (replay, first) = Replay::new(body);
        assert_eq!(first.collect().await.expect_err("fails").code(), tonic::Code::Aborted);
        assert!(replay.attempt().is_none());
    }

    #[tokio::test]
    async fn a_large_body_is_sent_once() {
        let (replay, first) = Replay::new(streamed(vec![KEPT, 1, 5]));
        assert_eq!(read(first).await, KEPT + 6);
        assert!(replay.attempt().is_none());
    }
}
