//! The limit on messages in our stubs' streams, either way.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::Status;

/// gRPC's length prefix: a flag for compression and the length.
pub(super) const PREFIX: usize = 5;

/// Finds a message that is too large in a stream of them, by its prefix: before tonic's codec,
/// which calls that `OutOfRange`, where gRPC says `ResourceExhausted`.
#[derive(Debug)]
struct Limit {
    limit: usize,
    prefix: [u8; PREFIX],
    filled: usize,
    /// Bytes to come of the message whose prefix has been read.
    left: usize,
}

/// A message over the limit.
#[derive(Debug, PartialEq, Eq)]
struct TooLarge {
    /// How many bytes of the last piece came before its prefix.
    before: usize,
    length: usize,
    limit: usize,
}

impl Limit {
    fn new(limit: usize) -> Self {
        Self { limit, prefix: [0; PREFIX], filled: 0, left: 0 }
    }

    /// Looks at the stream's next piece.
    fn check(&mut self, piece: &[u8]) -> Result<(), TooLarge> {
        let mut rest = piece;
        while !rest.is_empty() {
            let before = piece.len() - rest.len();
            if self.left > 0 {
                let step = self.left.min(rest.len());
                self.left -= step;
                rest = &rest[step..];
                continue;
            }
            let step = (PREFIX - self.filled).min(rest.len());
            self.prefix[self.filled..][..step].copy_from_slice(&rest[..step]);
            self.filled += step;
            rest = &rest[step..];
            if self.filled < PREFIX {
                continue;
            }
            self.filled = 0;
            let [_, length @ ..] = self.prefix;
            self.left = u32::from_be_bytes(length) as usize;
            if self.left > self.limit {
                return Err(TooLarge { before, length: self.left, limit: self.limit });
            }
        }
        Ok(())
    }
}

pin_project! {
    /// A body that ends with an error in place of a message over the limit; what comes before that
    /// is handed on.
    pub(super) struct Limited<B, F> {
        // Gone when nothing more is wanted of it: a stream cut short is to be reset.
        #[pin]
        body: Option<B>,
        limit: Limit,
        refuse: F,
        fault: Option<Status>,
    }
}

impl<B, F> Limited<B, F> {
    /// `refuse` makes the error of a message's length and the limit.
    pub(super) fn new(body: B, max_message_size: usize, refuse: F) -> Self {
        Self { body: Some(body), limit: Limit::new(max_message_size), refuse, fault: None }
    }
}

impl<B, F> Body for Limited<B, F>
where
    B: Body<Data = Bytes, Error: Into<Status>>,
    F: Fn(usize, usize) -> Status,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut this = self.project();
        if let Some(fault) = this.fault.take() {
            return Poll::Ready(Some(Err(fault)));
        }
        let Some(body) = this.body.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        let mut frame = match ready!(body.poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            other => return Poll::Ready(other.map(|frame| frame.map_err(Into::into))),
        };
        if let Some(data) = frame.data_mut()
            && let Err(TooLarge { before, length, limit }) = this.limit.check(data)
        {
            data.truncate(before);
            *this.fault = Some((this.refuse)(length, limit));
            this.body.set(None);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.fault.is_none() && self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(length: usize) -> Vec<u8> {
        let prefix = u32::try_from(length).expect("small").to_be_bytes();
        [&[0], &prefix[..], &vec![7; length]].concat()
    }

    #[test]
    fn a_message_over_the_limit_is_found_however_the_bytes_are_cut() {
        let sound = [framed(3), framed(0), framed(10)].concat();
        let all = [&sound[..], &framed(11)].concat();
        for size in 1..=all.len() {
            let mut limit = Limit::new(10);
            let mut start = 0;
            let fault = all.chunks(size).find_map(|piece| {
                let fault = limit.check(piece).err();
                start += if fault.is_none() { piece.len() } else { 0 };
                fault
            });
            let fault = fault.expect("the last is too large");
            assert_eq!((fault.length, fault.limit), (11, 10), "in pieces of {size}");
            assert!(start + fault.before >= sound.len(), "what is sound comes before");
            assert!(start < sound.len() + PREFIX, "as soon as its prefix is there");
        }
        let mut limit = Limit::new(10);
        let fault = limit.check(&all).expect_err("too large");
        assert_eq!(fault.before, sound.len());
    }
}
