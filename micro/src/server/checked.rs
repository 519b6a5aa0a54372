//! A stream of requests, checked on its way to tonic's codec.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame};
use tonic::Status;

use super::frame::{PREFIX, length};

/// Where a stream of messages is: fed with its bytes, it says how many of them are sound.
#[derive(Debug, Default)]
struct Scanner {
    prefix: [u8; PREFIX],
    filled: usize,
    remaining: usize,
}

impl Scanner {
    /// Advances over `data`. `Err` has the number of bytes before the prefix that is at fault.
    fn scan(&mut self, mut data: &[u8], limit: usize) -> Result<(), (usize, Status)> {
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
                self.remaining = length(self.prefix, limit).map_err(|status| (before, status))?;
            }
        }
        Ok(())
    }

    fn is_between_messages(&self) -> bool {
        self.filled == 0 && self.remaining == 0
    }
}

/// The body of a request with a stream of messages, checked before tonic's codec sees it: that
/// calls a message that is too large `OutOfRange`, where gRPC says `ResourceExhausted`.
#[derive(Debug)]
pub(super) struct Checked<B> {
    body: B,
    scanner: Scanner,
    limit: usize,
    fault: Option<Status>,
}

impl<B> Checked<B> {
    pub(super) fn new(body: B, limit: usize) -> Self {
        Self { body, scanner: Scanner::default(), limit, fault: None }
    }
}

impl<B> Body for Checked<B>
where
    B: Body<Data = Bytes, Error = Status> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if let Some(status) = this.fault.take() {
            return Poll::Ready(Some(Err(status)));
        }
        let frame = match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
            None if this.scanner.is_between_messages() => return Poll::Ready(None),
            None => {
                this.scanner = Scanner::default();
                let status = Status::internal("the request ends within a message");
                return Poll::Ready(Some(Err(status)));
            }
            Some(frame) => frame?,
        };
        let mut data = match frame.into_data() {
            Ok(data) => data,
            Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
        };
        if let Err((sound, status)) = this.scanner.scan(&data, this.limit) {
            // What came before the fault is the handler's; the fault follows it.
            data.truncate(sound);
            this.fault = Some(status);
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.fault.is_none() && self.scanner.is_between_messages() && self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, StreamExt as _};
    use http_body_util::BodyExt as _;
    use tonic::Code;

    use super::{
        super::frame::tests::{body, framed},
        *,
    };

    const LIMIT: usize = 100;

    fn checked(pieces: &[&[u8]]) -> (Vec<u8>, Option<Code>) {
        let mut frames = Checked::new(body(pieces), LIMIT).into_data_stream();
        let mut sound = Vec::new();
        while let Some(data) = frames.next().now_or_never().expect("ready") {
            match data {
                Ok(data) => sound.extend_from_slice(&data),
                Err(status) => return (sound, Some(status.code())),
            }
        }
        (sound, None)
    }

    #[test]
    fn a_stream_is_handed_on_up_to_its_fault() {
        let two = [framed(b"one"), framed(b""), framed(b"three")].concat();
        assert_eq!(checked(&[&two]), (two.clone(), None));
        for size in 1..two.len() {
            let pieces: Vec<_> = two.chunks(size).collect();
            assert_eq!(checked(&pieces), (two.clone(), None), "in pieces of {size}");
        }
        let large = [&two[..], &[0, 0, 0, 1, 0], b"..."].concat();
        assert_eq!(checked(&[&large]), (two.clone(), Some(Code::ResourceExhausted)));
        let (code, cut) = (Some(Code::Internal), &two[..two.len() - 1]);
        assert_eq!(checked(&[cut]), (cut.to_vec(), code), "an end within a message");
        assert_eq!(checked(&[&two, &[0, 0]]).1, code, "an end within a prefix");
        assert_eq!(checked(&[&two, &[9, 0, 0, 0, 0]]).1, code, "a flag that is none");
        assert_eq!(checked(&[]), (vec![], None));
    }
}
