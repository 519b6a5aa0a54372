//! Sends a request's body as fast as the peer takes it.

use std::{
    error::Error,
    mem,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use h2::{Reason, SendStream};
use http::HeaderMap;
use pin_project_lite::pin_project;

use super::Failure;

/// What is put together into one frame: as much as HTTP/2 has in one unless asked. Each frame costs
/// its receiver some 250 bytes until it is read, whatever is in it, and those of `h2` close the
/// connection at a few thousand small ones unread.
const BATCH: usize = 16 * 1024;

pin_project! {
    /// A future that ends when the body has been sent, has failed, or is not wanted any more.
    ///
    /// Small frames of the body go as one, as long as each turn of the scheduler brings more: also
    /// those of a sender that hands over one message at a time. Only the first frame goes at once,
    /// with the headers. While the peer has no room, nothing more is taken of the body.
    ///
    /// If the body fails, says why and resets the stream.
    pub(super) struct Pump<B> {
        send: SendStream<Bytes>,
        #[pin]
        body: B,
        held: Bytes,
        next: Option<Next>,
        is_first: bool,
        failure: Arc<OnceLock<Failure>>,
    }
}

/// What was found behind what is held, and does not go with it.
enum Next {
    Data(Bytes),
    Trailers(HeaderMap),
    Failed(Failure),
    End,
}

impl<B> Pump<B> {
    /// Says why the body failed and resets the stream.
    pub(super) fn fail(self: Pin<&mut Self>, failure: Failure) {
        let this = self.project();
        let _ = this.failure.set(failure);
        this.send.send_reset(Reason::CANCEL);
    }
}

impl<B> Pump<B>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    pub(super) fn new(send: SendStream<Bytes>, body: B, failure: Arc<OnceLock<Failure>>) -> Self {
        Self { send, body, held: Bytes::new(), next: None, is_first: true, failure }
    }

    /// Takes of the body what goes as one; `Pending` when it has no more for now.
    fn poll_batch(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        while this.next.is_none() && this.held.len() < BATCH {
            *this.next = match ready!(this.body.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if this.held.is_empty() => {
                        *this.held = data;
                        None
                    }
                    Ok(data) if this.held.len() + data.len() <= BATCH => {
                        // In place, from the second on.
                        let mut batch = BytesMut::from(mem::take(this.held));
                        batch.extend_from_slice(&data);
                        *this.held = batch.freeze();
                        None
                    }
                    Ok(data) => Some(Next::Data(data)),
                    Err(frame) => frame.into_trailers().ok().map(Next::Trailers),
                },
                Some(Err(error)) => Some(Next::Failed(Failure::of_body(error.into()))),
                None => Some(Next::End),
            };
        }
        Poll::Ready(())
    }
}

impl<B> Future for Pump<B>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut is_new = false;
        loop {
            let this = self.as_mut().project();
            // Also has a reset wake this task.
            if this.send.poll_reset(cx).is_ready() {
                return Poll::Ready(());
            }
            // The first frame goes with the headers: `h2` keeps it until the window allows.
            if !*this.is_first {
                ready!(poll_room(this.send, cx, this.held.len()));
            }
            let before = this.held.len();
            let batch = self.as_mut().poll_batch(cx);
            let this = self.as_mut().project();
            if this.held.is_empty() && batch.is_pending() {
                return Poll::Pending;
            }
            is_new |= this.held.len() > before;
            if !*this.is_first && mem::take(&mut is_new) {
                if batch.is_pending() {
                    // Whoever writes the messages has a turn before they go.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                continue;
            }
            *this.is_first = false;
            let data = mem::take(this.held);
            let is_last = match this.next {
                None => this.body.is_end_stream(),
                Some(next) => matches!(next, Next::End),
            };
            if is_last {
                let _ = this.send.send_data(data, true);
                return Poll::Ready(());
            }
            if !data.is_empty() && this.send.send_data(data, false).is_err() {
                return Poll::Ready(());
            }
            match this.next.take() {
                None | Some(Next::End) => {}
                Some(Next::Data(data)) => {
                    *this.held = data;
                    is_new = true;
                }
                Some(Next::Trailers(trailers)) => {
                    let _ = this.send.send_trailers(trailers);
                    return Poll::Ready(());
                }
                Some(Next::Failed(failure)) => {
                    self.fail(failure);
                    return Poll::Ready(());
                }
            }
        }
    }
}

/// Ready when the peer has some room, or the stream has ended.
fn poll_room(send: &mut SendStream<Bytes>, cx: &mut Context<'_>, size: usize) -> Poll<()> {
    if size == 0 {
        return Poll::Ready(());
    }
    send.reserve_capacity(size);
    while send.capacity() == 0 {
        match ready!(send.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(_)) | None => break,
        }
    }
    Poll::Ready(())
}
