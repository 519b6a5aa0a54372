//! Calls with one message each way.

use bytes::Bytes;
use http::HeaderMap;

use super::{
    Connection, Failure,
    connection::Slot,
    message::Message,
    response::{self, Rest},
};
use crate::headers::drop_malformed_details;

/// What a peer answered. Its gRPC status is for the caller to read: in the trailers, or in the
/// headers of an answer that has neither message nor trailers. With an OK there is a message.
#[derive(Debug)]
pub(crate) struct UnaryReply {
    /// The response's headers.
    pub(crate) headers: HeaderMap,
    /// The message without gRPC's prefix; `None` if none came, as in a response of trailers only.
    pub(crate) message: Option<Bytes>,
    /// The response's trailers.
    pub(crate) trailers: HeaderMap,
}

impl Connection {
    /// Sends one message and takes at most one. `frame` is gRPC's prefix of five bytes and the
    /// message; the stream ends with it.
    ///
    /// # Errors
    /// When no handler answered, see [`FailureKind`](super::FailureKind), or the answer is none.
    ///
    /// # Cancel safety
    /// Dropping the future resets the stream (CANCEL).
    pub(crate) async fn unary(
        &self,
        _slot: Slot,
        head: http::Request<()>,
        frame: Bytes,
    ) -> Result<UnaryReply, Failure> {
        let (mut response, mut send) = self.open(head, false)?;
        let shared = self.shared();
        // `h2` keeps to the peer's windows, and cuts frames out of what is one buffer. An error
        // here is the stream's, which the response knows better.
        let _ = send.send_data(frame, true);
        drop(send);

        let (mut head, mut body) = match (&mut response).await {
            Ok(response) => response.into_parts(),
            Err(error) => return Err(shared.failure(&error, response.stream_id(), false)),
        };
        let rest = response::check(&shared.peer, head.status, &head.headers)?;
        if rest == Rest::Nothing {
            response::check_end(&shared.peer, &head.headers, false)?;
            drop_malformed_details(&mut head.headers);
            return Ok(UnaryReply {
                headers: head.headers,
                message: None,
                trailers: HeaderMap::new(),
            });
        }

        let mut message = Message::new(shared.max_message_size);
        while let Some(chunk) = body.data().await {
            let chunk = chunk.map_err(|error| shared.failure(&error, body.stream_id(), true))?;
            let length = chunk.len();
            message.push(chunk).map_err(|fault| Failure::of_fault(&shared.peer, &fault))?;
            // A whole message's window goes back when the stream is dropped, which is soon.
            if !message.is_whole() {
                let _ = body.flow_control().release_capacity(length);
            }
        }
        let mut trailers = match body.trailers().await {
            Ok(trailers) => trailers.unwrap_or_default(),
            Err(error) => return Err(shared.failure(&error, body.stream_id(), true)),
        };
        let is_error = response::is_error(&trailers);
        if is_error {
            drop_malformed_details(&mut trailers);
        }
        let message = match message.finish() {
            Ok(message) => message,
            // What a failing handler had begun to send is of no use, its status is.
            Err(_) if is_error => None,
            Err(fault) => return Err(Failure::of_fault(&shared.peer, &fault)),
        };
        response::check_end(&shared.peer, &trailers, message.is_some())?;
        Ok(UnaryReply { headers: head.headers, message, trailers })
    }
}
