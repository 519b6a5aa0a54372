//! A request body that can be sent a second time.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame};
use tonic::Status;

/// What is kept for a second attempt: bodies over 64 KiB, and streams once they have sent as
/// much, are sent once.
pub(super) const KEPT: usize = 64 * 1024;

/// Keeps what has been sent of a body, so that another attempt can send it again.
#[derive(Debug)]
pub(super) struct Replay {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    /// Out while it is polled: what it is made of may read the call's own response, and end up here.
    body: Option<tonic::body::Body>,
    /// Who came meanwhile.
    waits: Option<Waker>,
    /// What it failed with before the newest attempt heard of it.
    failed: Option<Status>,
    sent: VecDeque<Bytes>,
    /// How many of those the newest attempt has sent.
    passed: usize,
    size: usize,
    trailers: Option<HeaderMap>,
    /// It is not sent again: more than [`KEPT`] was sent, say. Nothing is kept, but what the newest
    /// attempt has not sent yet.
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
    are_trailers_sent: bool,
}

impl Replay {
    /// The body as its first attempt sends it, and the means to send it again.
    pub(super) fn new(body: tonic::body::Body) -> (Self, Attempt) {
        let is_ended = body.is_end_stream();
        let shared = Shared {
            body: Some(body),
            waits: None,
            failed: None,
            sent: VecDeque::new(),
            passed: 0,
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
        shared.passed = 0;
        Some(Attempt::new(self.shared.clone(), shared.attempt))
    }

    /// Whether it can not be sent again.
    pub(super) fn is_spent(&self) -> bool {
        lock(&self.shared).is_spent
    }

    /// No attempt follows the last, which may go on for hours: what it has sent is kept no longer.
    pub(super) fn commit(self) {
        lock(&self.shared).spend();
    }
}

impl Attempt {
    fn new(shared: Arc<Mutex<Shared>>, attempt: u32) -> Self {
        Self { shared, attempt, are_trailers_sent: false }
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
            return Poll::Ready(Some(Err(taken_over())));
        }
        if let Some(data) = shared.next() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if shared.is_ended {
            let trailers = shared.trailers.clone().filter(|_| !this.are_trailers_sent);
            this.are_trailers_sent = true;
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        if let Some(error) = shared.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let Some(mut body) = shared.body.take() else {
            shared.waits = Some(cx.waker().clone());
            return Poll::Pending;
        };
        drop(shared);
        let frame = Pin::new(&mut body).poll_frame(cx);
        let mut shared = lock(&this.shared);
        let is_newest = shared.attempt == this.attempt;
        let is_last = body.is_end_stream();
        shared.body = Some(body);
        if let Some(waker) = shared.waits.take() {
            waker.wake();
        }
        let frame = match ready!(frame) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                // What comes of it when it is asked again is nobody's request.
                shared.spend();
                shared.failed = (!is_newest).then(|| error.clone());
                return Poll::Ready(Some(Err(error)));
            }
            None => {
                shared.is_ended = true;
                return Poll::Ready(None);
            }
        };
        let frame = match frame.into_data() {
            Ok(data) => {
                shared.is_ended = is_last;
                shared.keep(&data, is_newest);
                Frame::data(data)
            }
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                shared.is_ended = true;
                shared.trailers = Some(trailers.clone());
                this.are_trailers_sent = true;
                Frame::trailers(trailers)
            }
        };
        Poll::Ready(Some(if is_newest { Ok(frame) } else { Err(taken_over()) }))
    }

    fn is_end_stream(&self) -> bool {
        let shared = lock(&self.shared);
        shared.attempt == self.attempt
            && shared.is_ended
            && shared.passed >= shared.sent.len()
            && (self.are_trailers_sent || shared.trailers.is_none())
    }
}

impl Shared {
    /// The next of what another attempt has sent before.
    fn next(&mut self) -> Option<Bytes> {
        if self.is_spent {
            return self.sent.pop_front();
        }
        let data = self.sent.get(self.passed)?.clone();
        self.passed += 1;
        Some(data)
    }

    /// Keeps what is sent for the first time; by the newest attempt, unless that was made meanwhile.
    fn keep(&mut self, data: &Bytes, by_newest: bool) {
        self.size = self.size.saturating_add(data.remaining());
        if self.size > KEPT {
            self.spend();
        }
        if !self.is_spent || !by_newest {
            self.sent.push_back(data.clone());
        }
        if !self.is_spent && by_newest {
            self.passed = self.sent.len();
        }
    }

    fn spend(&mut self) {
        self.is_spent = true;
        self.sent.drain(..self.passed);
        self.sent.shrink_to_fit();
        self.passed = 0;
    }
}

fn taken_over() -> Status {
    Status::cancelled("a later attempt has taken over")
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

    #[tokio::test]
    async fn nothing_is_kept_once_there_is_no_further_attempt() {
        let (replay, mut only) = Replay::new(streamed(vec![10, 20, 30]));
        let kept = |attempt: &Attempt| lock(&attempt.shared).sent.len();
        only.frame().await.expect("a frame").expect("no error");
        assert_eq!(kept(&only), 1);
        replay.commit();
        assert_eq!(kept(&only), 0, "of what was sent before");
        only.frame().await.expect("a frame").expect("no error");
        assert_eq!(kept(&only), 0, "nor of what is sent since");
        assert_eq!(read(only).await, 30);
    }

    #[tokio::test]
    async fn the_last_attempt_sends_what_it_has_not_sent_yet() {
        let (replay, mut first) = Replay::new(streamed(vec![10, 20, 30]));
        for _ in 0..2 {
            first.frame().await.expect("a frame").expect("no error");
        }
        let mut second = replay.attempt().expect("second");
        second.frame().await.expect("a frame").expect("no error");
        replay.commit();
        assert_eq!(lock(&second.shared).sent.len(), 1);
        assert_eq!(read(second).await, 50);
    }
}
