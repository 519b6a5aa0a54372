//! Messages in and out of their frames, within the server's limit.

use std::pin::Pin;

use bytes::{BufMut, Bytes, BytesMut};
use http_body::Body;
use prost::Message;
use tonic::Status;

use crate::framing::{PREFIX, read_prefix};

/// What is set aside for a message on its sender's word alone; beyond it memory follows the bytes
/// that have really come, so that a lying length costs nothing.
const TRUSTED: usize = 64 * 1024;

/// Appends `message` and its prefix to `buffer`.
///
/// # Errors
///
/// `ResourceExhausted` if the message is larger than `limit` bytes: nothing is appended then.
pub(super) fn encode(
    message: &impl Message,
    limit: usize,
    buffer: &mut BytesMut,
) -> Result<(), Status> {
    let length = message.encoded_len();
    let prefix = u32::try_from(length).ok().filter(|_| length <= limit);
    let Some(prefix) = prefix else {
        return Err(Status::resource_exhausted(format!(
            "the response message has {length} bytes; the server sends at most {limit} (raise its \
             max_message_size)"
        )));
    };
    buffer.reserve(PREFIX + length);
    buffer.put_u8(0);
    buffer.put_u32(prefix);
    message.encode(buffer).expect("room for it is reserved");
    Ok(())
}

/// Decodes a message without its prefix.
pub(super) fn decode<M: Message + Default>(message: Bytes) -> Result<M, Status> {
    M::decode(message)
        .map_err(|error| Status::internal(format!("the request message is malformed: {error}")))
}

/// The length a prefix announces.
pub(super) fn length(prefix: [u8; PREFIX], limit: usize) -> Result<usize, Status> {
    let (flag, length) = read_prefix(prefix);
    match flag {
        0 => {}
        1 => {
            return Err(Status::internal(
                "the request message is flagged as compressed, without a grpc-encoding",
            ));
        }
        _ => {
            return Err(Status::internal(format!(
                "the request message's compression flag is {flag}, neither 0 nor 1"
            )));
        }
    }
    if length > limit {
        return Err(Status::resource_exhausted(format!(
            "the request message has {length} bytes; the server takes at most {limit} (raise its \
             max_message_size)"
        )));
    }
    Ok(length)
}

/// When a request with one message is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// At the end of the stream: the rule for unary calls.
    EndOfStream,
    /// At the end of the message: go-micro's client never half-closes a server-streaming call.
    Message,
}

/// Reads the one message of a request, without its prefix. One that comes in one piece is not
/// copied.
///
/// # Errors
///
/// `Internal` if there is none, it is cut short, or more follows; `ResourceExhausted` if it is
/// larger than `limit` bytes; what the body failed with.
pub(super) async fn read_one<B>(mut body: B, limit: usize, until: Until) -> Result<Bytes, Status>
where
    B: Body<Data = Bytes, Error = Status> + Unpin,
{
    let mut first = Bytes::new();
    while first.len() < PREFIX {
        let Some(data) = next_data(&mut body).await? else {
            return Err(match first.len() {
                0 => Status::internal("the request has no message"),
                _ => Status::internal("the request ends within a message's prefix"),
            });
        };
        first = append(first, data);
    }
    let announced = length(first.split_to(PREFIX).as_ref().try_into().expect("split so"), limit)?;

    let message = if first.len() >= announced {
        first
    } else {
        let mut whole = BytesMut::with_capacity(announced.min(TRUSTED.max(first.len() * 2)));
        whole.put(first);
        while whole.len() < announced {
            let Some(data) = next_data(&mut body).await? else {
                return Err(Status::internal(format!(
                    "the request ends after {} of its message's {announced} bytes",
                    whole.len()
                )));
            };
            whole.put(data);
        }
        whole.freeze()
    };
    let is_more = || Status::internal("the request has more than the one message of this method");
    if message.len() > announced {
        return Err(is_more());
    }
    if until == Until::EndOfStream && !body.is_end_stream() {
        while let Some(data) = next_data(&mut body).await? {
            if !data.is_empty() {
                return Err(is_more());
            }
        }
    }
    Ok(message)
}

/// The next piece of data; `None` at the end or at trailers, which gRPC requests do not have.
async fn next_data<B>(body: &mut B) -> Result<Option<Bytes>, Status>
where
    B: Body<Data = Bytes, Error = Status> + Unpin,
{
    let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
    Ok(frame.transpose()?.and_then(|frame| frame.into_data().ok()))
}

fn append(first: Bytes, data: Bytes) -> Bytes {
    if first.is_empty() {
        return data;
    }
    let mut both = BytesMut::with_capacity(first.len() + data.len());
    both.put(first);
    both.put(data);
    both.freeze()
}

#[cfg(test)]
pub(super) mod tests {
    use futures_util::{FutureExt as _, StreamExt as _, stream};
    use http_body::Frame;
    use http_body_util::{BodyExt as _, StreamBody};
    use tonic::Code;

    use super::*;

    const LIMIT: usize = 100;

    pub(in crate::server) fn body(
        pieces: &[&[u8]],
    ) -> impl Body<Data = Bytes, Error = Status> + Unpin + use<> {
        let pieces = pieces.iter().map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece))));
        StreamBody::new(stream::iter(pieces.collect::<Vec<_>>()))
    }

    pub(in crate::server) fn framed(message: &[u8]) -> Vec<u8> {
        let length = u32::try_from(message.len()).expect("small").to_be_bytes();
        [&[0], &length[..], message].concat()
    }

    fn read(pieces: &[&[u8]]) -> Result<Bytes, (Code, String)> {
        read_one(body(pieces), LIMIT, Until::EndOfStream)
            .now_or_never()
            .expect("all of the body is there")
            .map_err(|status| (status.code(), status.message().to_owned()))
    }

    #[test]
    fn a_message_is_read_however_it_is_cut() {
        for length in [0, 1, 5, 99, 100] {
            let message: Vec<u8> = (0..length).collect();
            let bytes = framed(&message);
            assert_eq!(read(&[&bytes]).unwrap(), message, "in one piece");
            assert_eq!(read(&[b"", &bytes, b"", b""]).unwrap(), message, "beside empty pieces");
            for cut in 0..bytes.len() {
                let (head, tail) = bytes.split_at(cut);
                assert_eq!(read(&[head, tail]).unwrap(), message, "cut at {cut}");
            }
            let single: Vec<_> = bytes.chunks(1).collect();
            assert_eq!(read(&single).unwrap(), message, "byte by byte");
        }
    }

    #[test]
    fn a_malformed_request_is_internal_and_says_what_is_wrong() {
        let two = [framed(b"one"), framed(b"two")].concat();
        let cases: [(&[&[u8]], &str); 9] = [
            (&[], "has no message"),
            (&[b""], "has no message"),
            (&[&[0, 0, 0]], "within a message's prefix"),
            (&[&framed(b"hello")[..9]], "after 4 of its message's 5 bytes"),
            (&[&[0, 0, 0, 0, 100], b"short"], "after 5 of its message's 100 bytes"),
            (&[&two], "more than the one message"),
            (&[&framed(b"one"), &framed(b"two")], "more than the one message"),
            (&[&[1, 0, 0, 0, 1, 7]], "flagged as compressed"),
            (&[&[2, 0, 0, 0, 1, 7]], "compression flag is 2"),
        ];
        for (pieces, text) in cases {
            let (code, message) = read(pieces).expect_err(text);
            assert_eq!(code, Code::Internal, "{text}");
            assert!(message.contains(text), "{message:?} should say {text:?}");
        }
    }

    #[test]
    fn a_message_over_the_limit_is_refused_at_its_prefix() {
        let (code, message) = read(&[&[0, 0, 0, 0, 101]]).expect_err("over the limit");
        assert_eq!(code, Code::ResourceExhausted);
        assert!(message.contains("101") && message.contains("100"), "names both: {message}");
        assert_eq!(read(&[&[0, 255, 255, 255, 255]]).unwrap_err().0, Code::ResourceExhausted);
    }

    #[test]
    fn a_streaming_method_starts_without_a_half_close() {
        let bytes = framed(b"go");
        let read = |until| {
            let frames = body(&[&bytes]).into_data_stream().chain(stream::pending());
            let open = StreamBody::new(frames.map(|data| data.map(Frame::data)));
            read_one(open, LIMIT, until).now_or_never()
        };
        assert_eq!(read(Until::Message).expect("ready").expect("whole"), b"go"[..]);
        assert!(read(Until::EndOfStream).is_none(), "a unary call waits for the end");
    }

    #[test]
    fn what_is_sent_is_bounded_too() {
        let mut buffer = BytesMut::new();
        encode(&"x".repeat(98), LIMIT, &mut buffer).expect("100 bytes");
        assert_eq!((buffer.len(), &buffer[..5]), (105, &[0, 0, 0, 0, 100][..]));
        let status = encode(&"x".repeat(99), LIMIT, &mut buffer).expect_err("101 bytes");
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(status.message().contains("101"), "{status}");
        assert_eq!(buffer.len(), 105, "nothing of it is in the buffer");
    }
}
