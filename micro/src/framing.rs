//! gRPC's length-prefixed messages: one flag byte, four bytes of length, the message.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::Status;

/// The bytes before each message.
pub(crate) const PREFIX: usize = 5;

/// What stands before a message: the flag that says whether it is compressed, and its length.
pub(crate) fn read_prefix([flag, length @ ..]: [u8; PREFIX]) -> (u8, usize) {
    (flag, u32::from_be_bytes(length) as usize)
}

/// Where a stream of messages is: fed with its bytes, it says how many of them are sound.
#[derive(Debug, Default)]
struct Scanner {
    prefix: [u8; PREFIX],
    filled: usize,
    /// Bytes to come of the message whose prefix has been read.
    remaining: usize,
}

impl Scanner {
    /// Advances over `data`, asking `judge` for the length that each prefix gives. `Err` has the
    /// number of bytes before the prefix that is at fault.
    fn scan<E>(
        &mut self,
        mut data: &[u8],
        judge: impl Fn([u8; PREFIX]) -> Result<usize, E>,
    ) -> Result<(), (usize, E)> {
        let whole = data.len();
        while !data.is_empty() {
            if self.remaining > 0 {
                let step = self.remaining.min(data.len());
                self.remaining -= step;
                data.advance(step);
                continue;
            }
            let before = whole - data.len();
            let step = (PREFIX - self.filled).min(data.len());
            self.prefix[self.filled..][..step].copy_from_slice(&data[..step]);
            self.filled += step;
            data.advance(step);
            if self.filled == PREFIX {
                self.filled = 0;
                self.remaining = judge(self.prefix).map_err(|fault| (before, fault))?;
            }
        }
        Ok(())
    }

    fn is_between_messages(&self) -> bool {
        self.filled == 0 && self.remaining == 0
    }
}

/// How many bytes the messages of a stream take, without what stands before each.
#[cfg(feature = "metrics")]
#[derive(Debug, Default)]
pub(crate) struct Lengths {
    scanner: Scanner,
    bytes: usize,
    prefixes: usize,
}

#[cfg(feature = "metrics")]
impl Lengths {
    /// Takes some more of the stream; how many there are now.
    pub(crate) fn add(&mut self, data: &[u8]) -> usize {
        let prefixes = std::cell::Cell::new(self.prefixes);
        let Ok(()) = self.scanner.scan(data, |prefix| {
            prefixes.set(prefixes.get() + 1);
            Ok::<_, std::convert::Infallible>(read_prefix(prefix).1)
        });
        self.prefixes = prefixes.get();
        self.bytes += data.len();
        self.bytes - PREFIX * self.prefixes
    }
}

pin_project! {
    /// A stream of messages, each judged by its prefix on its way to or from tonic's codec, which
    /// calls one that is too large `OutOfRange` where gRPC says `ResourceExhausted`. At the first
    /// fault it ends with its status; what came before that is handed on.
    pub(crate) struct Checked<B, F> {
        // Gone when nothing more is wanted of it: a stream cut short is to be reset.
        #[pin]
        body: Option<B>,
        scanner: Scanner,
        judge: F,
        fault: Option<Status>,
    }
}

impl<B, F> Checked<B, F> {
    /// `judge` has the length that a prefix gives, or says why its message is refused.
    pub(crate) fn new(body: B, judge: F) -> Self {
        Self { body: Some(body), scanner: Scanner::default(), judge, fault: None }
    }
}

impl<B, F> Body for Checked<B, F>
where
    B: Body<Data = Bytes, Error: From<Status>>,
    F: Fn([u8; PREFIX]) -> Result<usize, Status>,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        if let Some(fault) = this.fault.take() {
            return Poll::Ready(Some(Err(fault.into())));
        }
        let Some(body) = this.body.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        let mut frame = match ready!(body.poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            None if !this.scanner.is_between_messages() => {
                this.body.set(None);
                let status = Status::internal("the stream ends within a message");
                return Poll::Ready(Some(Err(status.into())));
            }
            other => return Poll::Ready(other),
        };
        if let Some(data) = frame.data_mut()
            && let Err((sound, fault)) = this.scanner.scan(data, &*this.judge)
        {
            data.truncate(sound);
            *this.fault = Some(fault);
            this.body.set(None);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.fault.is_none()
            && self
                .body
                .as_ref()
                .is_none_or(|body| body.is_end_stream() && self.scanner.is_between_messages())
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, StreamExt as _, stream};
    use http_body_util::{BodyExt as _, StreamBody};
    use tonic::Code;

    use super::*;

    const LIMIT: usize = 100;

    fn framed(message: &[u8]) -> Vec<u8> {
        let length = u32::try_from(message.len()).expect("small").to_be_bytes();
        [&[0], &length[..], message].concat()
    }

    fn judge(prefix: [u8; PREFIX]) -> Result<usize, Status> {
        match read_prefix(prefix) {
            (0, length) if length <= LIMIT => Ok(length),
            (0, _) => Err(Status::resource_exhausted("too large")),
            _ => Err(Status::unimplemented("compressed")),
        }
    }

    fn checked(pieces: &[&[u8]]) -> (Vec<u8>, Option<Code>) {
        let frames = pieces.iter().map(|piece| Bytes::copy_from_slice(piece));
        let frames: Vec<_> = frames.map(|data| Ok::<_, Status>(Frame::data(data))).collect();
        let body = StreamBody::new(stream::iter(frames));
        let mut frames = Checked::new(body, judge).into_data_stream();
        let mut sound = Vec::new();
        while let Some(data) = frames.next().now_or_never().expect("ready") {
            match data {
                Ok(data) => sound.extend_from_slice(&data),
                Err(status) => {
                    let after = frames.next().now_or_never().expect("ready");
                    assert!(after.is_none(), "nothing follows a fault: {after:?}");
                    return (sound, Some(status.code()));
                }
            }
        }
        (sound, None)
    }

    #[test]
    fn a_stream_is_handed_on_up_to_its_fault_however_it_is_cut() {
        let sound = [framed(b"one"), framed(b""), framed(&[7; LIMIT])].concat();
        for (tail, code) in [
            (&b""[..], None),
            (&[0, 0, 0, 0, 101, 1, 2, 3], Some(Code::ResourceExhausted)),
            (&[9, 0, 0, 0, 0], Some(Code::Unimplemented)),
        ] {
            let all = [&sound[..], tail].concat();
            for size in 1..=all.len() {
                let pieces: Vec<_> = all.chunks(size).collect();
                let (handed_on, fault) = checked(&pieces);
                assert_eq!(fault, code, "in pieces of {size}");
                assert!(handed_on.starts_with(&sound), "in pieces of {size}");
                assert!(handed_on.len() < sound.len() + PREFIX, "in pieces of {size}");
            }
        }
    }

    #[cfg(feature = "metrics")]
    #[test]
    fn the_messages_of_a_stream_are_weighed_however_it_is_cut() {
        let all = [framed(b"one"), framed(b""), framed(&[7; LIMIT])].concat();
        for size in 1..=all.len() {
            let mut lengths = Lengths::default();
            let weights: Vec<_> = all.chunks(size).map(|piece| lengths.add(piece)).collect();
            assert_eq!(weights.last(), Some(&(3 + LIMIT)), "in pieces of {size}");
        }
    }

    #[test]
    fn an_end_within_a_message_or_its_prefix_is_a_fault() {
        let one = framed(b"one");
        for end in 1..one.len() {
            assert_eq!(checked(&[&one[..end]]), (one[..end].to_vec(), Some(Code::Internal)));
        }
        assert_eq!(checked(&[]), (vec![], None));
    }
}
