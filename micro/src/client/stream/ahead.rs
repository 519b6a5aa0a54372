//! What a request has at once.

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use http_body::Frame;
use http_body_util::{BodyExt as _, BodyStream, StreamBody};
use tokio_stream::StreamExt as _;
use tonic::{Status, body::Body};

use super::super::replay::KEPT;

/// All of the body, when nothing of it is to come: the message of a stub that sends one, however long
/// that is, or of a stream as much as may be kept.
///
/// # Errors
/// Else the body, as it was.
pub(super) async fn whole(mut body: Body) -> Result<Bytes, Body> {
    let (mut frames, mut size) = (Vec::new(), 0);
    while let Some(next) = body.frame().now_or_never() {
        let Some(frame) = next else {
            return Ok(joined(&frames));
        };
        let data = frame.as_ref().ok().and_then(Frame::data_ref);
        let has_more = data.is_some() && size <= KEPT;
        size += data.map_or(0, Bytes::len);
        frames.push(frame);
        if !has_more {
            break;
        }
    }
    let rest = BodyStream::new(body);
    Err(Body::new(StreamBody::new(tokio_stream::iter(frames).chain(rest))))
}

fn joined(frames: &[Result<Frame<Bytes>, Status>]) -> Bytes {
    let data = || frames.iter().flatten().filter_map(Frame::data_ref);
    let mut several = BytesMut::new();
    match frames {
        [_] => data().next().cloned().unwrap_or_default(),
        _ => {
            data().for_each(|data| several.extend_from_slice(data));
            several.freeze()
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    type Frames = Vec<Result<Frame<Bytes>, Status>>;

    fn data(len: usize) -> Result<Frame<Bytes>, Status> {
        Ok(Frame::data(vec![7; len].into()))
    }

    fn trailers() -> Result<Frame<Bytes>, Status> {
        Ok(Frame::trailers(HeaderMap::new()))
    }

    fn at_once(frames: Frames) -> Body {
        Body::new(StreamBody::new(tokio_stream::iter(frames)))
    }

    fn broken() -> Result<Frame<Bytes>, Status> {
        Err(Status::aborted("no more"))
    }

    /// A frame as far as it is compared.
    fn seen(frame: Result<Frame<Bytes>, Status>) -> Result<Option<usize>, tonic::Code> {
        frame.map(|frame| frame.data_ref().map(Bytes::len)).map_err(|status| status.code())
    }

    #[tokio::test]
    async fn what_is_there_at_once_is_whole() {
        for (frames, size) in [
            (vec![], 0),
            (vec![data(5)], 5),
            (vec![data(10 * KEPT)], 10 * KEPT),
            (vec![data(5), data(7), data(9)], 21),
            (vec![data(KEPT), data(1)], KEPT + 1),
        ] {
            let message = whole(at_once(frames)).await.expect("all of it");
            assert_eq!(message.len(), size);
        }
    }

    #[tokio::test]
    async fn what_is_not_is_as_it_was() {
        let bodies: [fn() -> Frames; 3] = [
            || vec![data(5), broken()],
            || vec![data(5), trailers()],
            || vec![data(KEPT), data(1), data(1), data(1)],
        ];
        for frames in bodies {
            let body = whole(at_once(frames())).await.expect_err("not whole");
            let read: Vec<_> = BodyStream::new(body).map(seen).collect().await;
            let expected: Vec<_> = frames().into_iter().map(seen).collect();
            assert_eq!(read, expected);
        }
    }

    #[tokio::test]
    async fn a_stream_that_is_not_there_yet_is_read_no_further() {
        let (send, receive) = tokio::sync::mpsc::channel(4);
        send.send(data(5)).await.expect("room");
        let stream = tokio_stream::wrappers::ReceiverStream::new(receive);
        let body = whole(Body::new(StreamBody::new(stream))).await.expect_err("not whole");
        send.send(data(7)).await.expect("room");
        drop(send);
        assert_eq!(body.collect().await.expect("data").to_bytes().len(), 12);
    }
}
