//! The body of a response, and how responses are put together.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};
use http_body::{Body, Frame};
use pin_project_lite::pin_project;
use prost::Message;
use tonic::{Code, Response, Status, metadata::MetadataMap};

use super::frame;
use crate::{headers, layer};

/// What gRPC says itself; a handler's metadata cannot say it too (the list is tonic's).
const RESERVED: [HeaderName; 5] = [
    HeaderName::from_static("te"),
    HeaderName::from_static("content-type"),
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("grpc-message-type"),
    HeaderName::from_static("grpc-status"),
];
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// Messages that are ready together go out together, up to this many bytes (tonic's figure).
const BATCH: usize = 32 * 1024;

/// The body of a response.
#[derive(Debug)]
pub(super) enum Content {
    /// All is said in the headers.
    Nothing,
    /// One message with its prefix, then the trailers.
    One { message: Option<Bytes>, trailers: Option<HeaderMap> },
    /// What a streaming handler or a mounted service answers.
    Stream(tonic::body::Body),
}

impl Content {
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self {
            Self::Nothing => Poll::Ready(None),
            Self::One { message, trailers } => {
                let data = message.take().map(Frame::data);
                Poll::Ready(data.or_else(|| trailers.take().map(Frame::trailers)).map(Ok))
            }
            Self::Stream(body) => Pin::new(body).poll_frame(cx),
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::One { message, trailers } => message.is_none() && trailers.is_none(),
            Self::Stream(body) => body.is_end_stream(),
        }
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.get_mut().poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.is_end_stream()
    }
}

/// The most that a response's headers or trailers may take, as HTTP/2 counts them (32 bytes a
/// field more). Many peers take 16 KiB; one that is sent more than it takes may close the
/// connection, and with it the calls of everybody else on it.
const MOST_HEADERS: usize = 12 * 1024;

/// The trailers that carry `status`; of one that is too large the code and the beginning of its
/// text, without its details and metadata.
pub(super) fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(3);
    if status.add_header(&mut trailers).is_ok() && headers::size(&trailers) <= MOST_HEADERS {
        return trailers;
    }
    trailers.clear();
    let start: String = status.message().chars().take(512).collect();
    if Status::new(status.code(), start).add_header(&mut trailers).is_err() {
        // A text that no header can carry: the code still goes out.
        trailers.insert(GRPC_STATUS, HeaderValue::from(status.code() as i32));
    }
    trailers
}

/// A response that is only a status: "trailers-only" in gRPC's terms.
pub(super) fn refuse(status: &Status) -> http::Response<Content> {
    let mut response = http::Response::new(Content::Nothing);
    *response.headers_mut() = trailers(status);
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

/// The response of a method that answers with one message.
pub(super) fn one<M: Message>(
    response: Response<M>,
    limit: usize,
) -> Result<http::Response<Content>, Status> {
    let (metadata, message, _) = response.into_parts();
    let mut buffer = BytesMut::new();
    frame::encode(&message, limit, &mut buffer)?;
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
    let content = Content::One { message: Some(buffer.freeze()), trailers: Some(trailers) };
    Ok(with_metadata(metadata, content))
}

/// The response of a method that answers with a stream of messages. Its headers go out at once.
pub(super) fn stream<M, S>(response: Response<S>, limit: usize) -> http::Response<Content>
where
    M: Message + 'static,
    S: Stream<Item = Result<M, Status>> + Send + 'static,
{
    let (metadata, messages, _) = response.into_parts();
    let body = Messages { messages, limit, buffer: BytesMut::new(), status: None, is_done: false };
    with_metadata(metadata, Content::Stream(tonic::body::Body::new(body)))
}

fn with_metadata(metadata: MetadataMap, content: Content) -> http::Response<Content> {
    let mut headers = metadata.into_headers();
    if !headers.is_empty() {
        for name in &RESERVED {
            headers.remove(name);
        }
    }
    if let Err(status) = check_size(&headers) {
        return refuse(&status);
    }
    headers.insert(CONTENT_TYPE, GRPC);
    let mut response = http::Response::new(content);
    *response.headers_mut() = headers;
    response
}

fn check_size(headers: &HeaderMap) -> Result<(), Status> {
    let taken = headers::size(headers);
    if taken <= MOST_HEADERS {
        return Ok(());
    }
    Err(Status::resource_exhausted(format!(
        "the response's metadata takes {taken} bytes, the limit is {MOST_HEADERS}"
    )))
}

/// The response that has come through layers, which may have added to its headers.
pub(super) fn layered(answer: layer::Answer) -> http::Response<Content> {
    let checked = answer.and_then(|response| {
        check_size(response.headers())?;
        Ok(response.map(Content::Stream))
    });
    checked.unwrap_or_else(|status| refuse(&status))
}

pin_project! {
    /// A handler's stream as frames: those that are ready together in one buffer, then trailers.
    struct Messages<S> {
        #[pin]
        messages: S,
        limit: usize,
        buffer: BytesMut,
        status: Option<Status>,
        is_done: bool,
    }
}

impl<S> fmt::Debug for Messages<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages").field("is_done", &self.is_done).finish_non_exhaustive()
    }
}

impl<M, S> Body for Messages<S>
where
    M: Message,
    S: Stream<Item = Result<M, Status>>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut this = self.project();
        if *this.is_done {
            return Poll::Ready(None);
        }
        while this.status.is_none() && this.buffer.len() < BATCH {
            match this.messages.as_mut().poll_next(cx) {
                Poll::Ready(Some(Ok(message))) => {
                    *this.status = frame::encode(&message, *this.limit, this.buffer).err();
                }
                Poll::Ready(Some(Err(status))) => *this.status = Some(status),
                Poll::Ready(None) => *this.status = Some(Status::new(Code::Ok, "")),
                Poll::Pending if this.buffer.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        let frame = if this.buffer.is_empty() {
            *this.is_done = true;
            this.status.take().map(|status| Frame::trailers(trailers(&status)))
        } else {
            Some(Frame::data(this.buffer.split().freeze()))
        };
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.is_done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_too_large_for_a_peer_keeps_its_code_and_the_beginning_of_its_text() {
        for text in ["x".repeat(100_000), "\u{20ac}".repeat(50_000)] {
            let trailers = trailers(&Status::not_found(&*text));
            assert!(headers::size(&trailers) <= MOST_HEADERS, "{}", headers::size(&trailers));
            let status = Status::from_header_map(&trailers).expect("a status");
            assert_eq!(status.code(), tonic::Code::NotFound);
            assert!(status.message().len() >= 512 && text.starts_with(status.message()));
        }
    }

    #[test]
    fn metadata_too_large_for_a_peer_fails_this_call_alone() {
        let mut metadata = MetadataMap::new();
        metadata.insert("large", "x".repeat(100_000).parse().expect("a value"));
        let response = with_metadata(metadata, Content::Nothing);
        let status = Status::from_header_map(response.headers()).expect("a status");
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        assert!(headers::size(response.headers()) <= MOST_HEADERS);
    }
}
