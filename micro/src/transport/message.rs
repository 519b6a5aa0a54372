//! gRPC's length-prefixed message, put together from DATA.

use bytes::{Bytes, BytesMut};

use crate::framing::{PREFIX, read_prefix};

/// The most that is set aside at the peer's word before its bytes are here.
const RESERVED: usize = 64 * 1024;

/// Takes the chunks of a reply that may hold one message. A message that comes in one chunk, as
/// all small ones do, is passed on without a copy.
#[derive(Debug)]
pub(super) struct Message {
    limit: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    Nothing,
    /// A prefix cut in pieces.
    Prefix(BytesMut),
    Partial {
        length: usize,
        bytes: BytesMut,
    },
    Whole(Bytes),
}

/// What is wrong with what the peer sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// Compressed, which we did not offer to take; or a flag that gRPC does not know.
    Compressed,
    /// Longer than we take.
    TooLarge { length: usize, limit: usize },
    /// More than one message.
    Excess,
    /// The stream ended amid the message.
    Short,
}

impl Message {
    /// Takes a message of at most `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, state: State::Nothing }
    }

    /// Takes the payload of one DATA frame.
    pub(super) fn push(&mut self, mut chunk: Bytes) -> Result<(), Fault> {
        match &mut self.state {
            _ if chunk.is_empty() => Ok(()),
            State::Nothing if chunk.len() < PREFIX => {
                self.state = State::Prefix(BytesMut::from(chunk));
                Ok(())
            }
            State::Nothing => {
                let prefix = chunk.split_to(PREFIX);
                self.begin(&prefix, chunk)
            }
            State::Prefix(prefix) => {
                let taken = chunk.len().min(PREFIX - prefix.len());
                prefix.extend_from_slice(&chunk.split_to(taken));
                if prefix.len() < PREFIX {
                    return Ok(());
                }
                let prefix = std::mem::take(prefix);
                self.begin(&prefix, chunk)
            }
            State::Partial { length, bytes } => {
                if bytes.len() + chunk.len() > *length {
                    return Err(Fault::Excess);
                }
                bytes.extend_from_slice(&chunk);
                if bytes.len() == *length {
                    self.state = State::Whole(std::mem::take(bytes).freeze());
                }
                Ok(())
            }
            State::Whole(_) => Err(Fault::Excess),
        }
    }

    /// Whether the message is here whole, so that only trailers can follow.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.state, State::Whole(_))
    }

    /// The message, without its prefix; `None` if none came.
    pub(super) fn finish(self) -> Result<Option<Bytes>, Fault> {
        match self.state {
            State::Nothing => Ok(None),
            State::Whole(message) => Ok(Some(message)),
            State::Prefix(_) | State::Partial { .. } => Err(Fault::Short),
        }
    }

    /// Takes a whole prefix and what came behind it.
    fn begin(&mut self, prefix: &[u8], rest: Bytes) -> Result<(), Fault> {
        let prefix = prefix.try_into().map_err(|_| Fault::Short)?;
        let (flag, length) = read_prefix(prefix);
        if flag != 0 {
            return Err(Fault::Compressed);
        }
        if length > self.limit {
            return Err(Fault::TooLarge { length, limit: self.limit });
        }
        if rest.len() > length {
            return Err(Fault::Excess);
        }
        self.state = if rest.len() == length {
            State::Whole(rest)
        } else {
            let mut bytes = BytesMut::with_capacity(length.min(RESERVED.max(2 * rest.len())));
            bytes.extend_from_slice(&rest);
            State::Partial { length, bytes }
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(message: &[u8]) -> Bytes {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        [&[0], &length[..], message].concat().into()
    }

    fn put_together(limit: usize, chunks: &[&[u8]]) -> Result<Option<Bytes>, Fault> {
        let mut message = Message::new(limit);
        for chunk in chunks {
            message.push(Bytes::copy_from_slice(chunk))?;
        }
        message.finish()
    }

    #[test]
    fn a_message_in_one_chunk_is_not_copied() {
        let chunk = framed(b"hello");
        let inside = chunk.as_ptr().wrapping_add(PREFIX);
        let mut message = Message::new(64);
        message.push(chunk).unwrap();
        assert!(message.is_whole());
        let message = message.finish().unwrap().unwrap();
        assert_eq!(message, "hello");
        assert_eq!(message.as_ptr(), inside);
    }

    #[test]
    fn chunks_may_be_cut_anywhere() {
        let content: Vec<u8> = (0..200).collect();
        let bytes = framed(&content);
        for size in 1..=bytes.len() {
            let mut chunks: Vec<&[u8]> = bytes.chunks(size).collect();
            chunks.insert(1, b"");
            assert_eq!(put_together(200, &chunks).unwrap().unwrap(), content, "cut at {size}");
        }
    }

    #[test]
    fn an_empty_message_is_a_message_and_nothing_is_none() {
        assert_eq!(put_together(64, &[&framed(b"")]).unwrap().unwrap(), "");
        assert_eq!(put_together(64, &[b"\0", b"\0\0\0\0"]).unwrap().unwrap(), "");
        assert_eq!(put_together(64, &[]), Ok(None));
        assert_eq!(put_together(64, &[b""]), Ok(None));
    }

    #[test]
    fn what_is_too_large_is_refused_at_its_prefix() {
        let prefix = [0, 0xff, 0xff, 0xff, 0xff];
        let fault = Fault::TooLarge { length: 0xffff_ffff, limit: 64 };
        assert_eq!(put_together(64, &[&prefix]), Err(fault.clone()));
        let (head, tail) = prefix.split_at(2);
        assert_eq!(put_together(64, &[head, tail]), Err(fault));
        assert!(put_together(64, &[&framed(&[1; 64])]).is_ok(), "the limit itself is allowed");
    }

    #[test]
    fn a_lying_prefix_sets_little_aside() {
        let mut message = Message::new(usize::MAX);
        message.push(Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff, 1])).unwrap();
        let State::Partial { bytes, .. } = &message.state else { panic!("{message:?}") };
        assert!(bytes.capacity() <= 2 * RESERVED);
        assert_eq!(message.finish(), Err(Fault::Short));
    }

    #[test]
    fn bytes_behind_the_message_are_a_fault() {
        let one = framed(b"hello");
        assert_eq!(put_together(64, &[&one, b"x"]), Err(Fault::Excess));
        assert_eq!(put_together(64, &[&[&one[..], b"x"].concat()]), Err(Fault::Excess));
        assert_eq!(put_together(64, &[&one[..7], &one[7..], &one]), Err(Fault::Excess));
        assert_eq!(put_together(64, &[&one[..7], b"lloxx"]), Err(Fault::Excess));
    }

    #[test]
    fn a_compressed_message_is_a_fault() {
        assert_eq!(put_together(64, &[b"\x01\0\0\0\x01x"]), Err(Fault::Compressed));
        assert_eq!(put_together(64, &[b"\xff\0\0\0\x01x"]), Err(Fault::Compressed));
    }

    #[test]
    fn a_message_cut_short_is_a_fault() {
        let one = framed(b"hello");
        for end in 1..one.len() {
            assert_eq!(put_together(64, &[&one[..end]]), Err(Fault::Short));
        }
    }
}
