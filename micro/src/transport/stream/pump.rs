//! Sends a request's body as fast as the peer takes it.

use std::{
    error::Error,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream};
use pin_project_lite::pin_project;

use super::Failure;

pin_project! {
    /// A future that ends when the body has been sent, has failed, or is not wanted any more.
    ///
    /// At most one frame of the body is taken before the peer has room for it. If the body fails,
    /// says why and resets the stream.
    pub(super) struct Pump<B> {
        send: SendStream<Bytes>,
        #[pin]
        body: B,
        held: Option<Bytes>,
        is_first: bool,
        failure: Arc<OnceLock<Failure>>,
    }
}

impl<B> Pump<B> {
    pub(super) fn new(send: SendStream<Bytes>, body: B, failure: Arc<OnceLock<Failure>>) -> Self {
        Self { send, body, held: None, is_first: true, failure }
    }
}

impl<B> Future for Pump<B>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let this = self.as_mut().project();
            if let Some(data) = this.held.take() {
                // The first frame goes with the headers: `h2` keeps it until the window allows.
                if !*this.is_first && poll_room(this.send, cx, data.len()).is_pending() {
                    *this.held = Some(data);
                    return Poll::Pending;
                }
                *this.is_first = false;
                let is_last = this.body.is_end_stream();
                if this.send.send_data(data, is_last).is_err() || is_last {
                    return Poll::Ready(());
                }
                continue;
            }
            // Also has a reset wake this task.
            if this.send.poll_reset(cx).is_ready() {
                return Poll::Ready(());
            }
            match ready!(this.body.poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => *this.held = Some(data),
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            let _ = this.send.send_trailers(trailers);
                            return Poll::Ready(());
                        }
                    }
                },
                Some(Err(error)) => {
                    let _ = this.failure.set(Failure::of_body(error.into()));
                    this.send.send_reset(Reason::CANCEL);
                    return Poll::Ready(());
                }
                None => {
                    let _ = this.send.send_data(Bytes::new(), true);
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
