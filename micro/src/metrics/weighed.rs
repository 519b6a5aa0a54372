//! The messages of a stream, weighed on their way.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::framing::Lengths;

pin_project! {
    /// A body that says how many bytes its messages took so far.
    #[derive(Debug)]
    pub(crate) struct Weighed<B> {
        #[pin]
        body: B,
        lengths: Lengths,
        weight: Arc<AtomicUsize>,
    }
}

impl<B> Weighed<B> {
    pub(super) fn new(body: B, weight: Arc<AtomicUsize>) -> Self {
        Self { body, lengths: Lengths::default(), weight }
    }
}

impl<B: Body<Data = Bytes>> Body for Weighed<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        let frame = ready!(this.body.poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            this.weight.store(this.lengths.add(data), Relaxed);
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
