//! A bare HTTP/2 client, which sees what a gRPC library would hide.

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, Request as HttpRequest, Response as HttpResponse};

use super::*;

/// A bare HTTP/2 client.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) sender: h2::client::SendRequest<Bytes>,
    /// Ends with the connection; aborting it closes the socket.
    pub(super) driver: Arc<tokio::task::JoinHandle<()>>,
}

/// A whole response.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) http: u16,
    pub(super) headers: HeaderMap,
    pub(super) messages: Vec<String>,
    pub(super) trailers: Option<HeaderMap>,
}

impl Reply {
    pub(super) fn status(&self) -> Status {
        let headers = self.trailers.as_ref().unwrap_or(&self.headers);
        Status::from_header_map(headers).unwrap_or_else(|| panic!("no status in {self:?}"))
    }

    #[track_caller]
    pub(super) fn expect(&self, code: Code, text: &str) {
        let status = self.status();
        assert_eq!(status.code(), code, "{self:?}");
        assert!(status.message().contains(text), "{:?} should say {text:?}", status.message());
    }

    #[track_caller]
    pub(super) fn one(&self) -> &str {
        self.expect(Code::Ok, "");
        assert_eq!(self.messages.len(), 1, "{self:?}");
        &self.messages[0]
    }
}

pub(super) fn framed(message: &Text) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.encoded_len()).expect("small"));
    message.encode(&mut bytes).expect("it grows");
    bytes.freeze()
}

pub(super) fn head(path: &str) -> http::request::Builder {
    HttpRequest::post(format!("http://test{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

/// With the windows our own client has. `h2` bounds small frames that nobody has read yet by half
/// of the connection's window, and gives a connection up over it: with its default window at about a
/// hundred messages.
pub(super) async fn handshake<IO: AsyncRead + AsyncWrite + Unpin>(
    io: IO,
) -> (h2::client::SendRequest<Bytes>, h2::client::Connection<IO>) {
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(4 << 20);
    builder.handshake(io).await.expect("a handshake")
}

impl Client {
    pub(super) async fn connect(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (sender, connection) = handshake(io).await;
        let driver = tokio::spawn(async move { drop(connection.await) });
        Self { sender, driver: Arc::new(driver) }
    }

    /// Sends the headers of a call, to be continued.
    pub(super) async fn open(&self, request: http::request::Builder) -> Open {
        let mut sender = self.sender.clone().ready().await.expect("the connection is open");
        let request = request.body(()).expect("a request");
        let (response, body) = sender.send_request(request, false).expect("it is sent");
        Open { response, body }
    }

    pub(super) async fn send(
        &self,
        request: http::request::Builder,
        body: impl Into<Bytes>,
    ) -> Reply {
        let mut open = self.open(request).await;
        // A refusal may reset the stream while the body is still on its way.
        let _ = open.body.send_data(body.into(), true);
        open.reply().await
    }

    pub(super) async fn call(&self, path: &str, message: &str) -> Reply {
        self.send(head(path), framed(&text(message))).await
    }

    pub(super) async fn call_within(&self, path: &str, message: &str, timeout: &str) -> Reply {
        self.send(head(path).header("grpc-timeout", timeout), framed(&text(message))).await
    }
}

/// A call whose request is under way.
pub(super) struct Open {
    pub(super) response: h2::client::ResponseFuture,
    pub(super) body: h2::SendStream<Bytes>,
}

impl Open {
    pub(super) fn message(&mut self, message: &str, end: bool) {
        self.body.send_data(framed(&text(message)), end).expect("the stream is open");
    }

    pub(super) async fn reply(self) -> Reply {
        let (response, body) = (self.response, self.body);
        let reply = soon(Answered::from(soon(response).await.expect("a response")).rest()).await;
        drop(body);
        reply
    }

    /// The response's headers, and its body to read.
    pub(super) async fn answered(&mut self) -> Answered {
        Answered::from(soon(&mut self.response).await.expect("a response"))
    }

    pub(super) fn reset(&mut self) {
        self.body.send_reset(h2::Reason::CANCEL);
    }
}

pub(super) struct Answered {
    pub(super) head: http::response::Parts,
    pub(super) body: h2::RecvStream,
    pub(super) buffer: BytesMut,
}

impl From<HttpResponse<h2::RecvStream>> for Answered {
    fn from(response: HttpResponse<h2::RecvStream>) -> Self {
        let (head, body) = response.into_parts();
        Self { head, body, buffer: BytesMut::new() }
    }
}

impl Answered {
    pub(super) async fn message(&mut self) -> Option<String> {
        loop {
            if let Some(length) = self.buffer.get(1..5) {
                let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
                if self.buffer.len() >= 5 + length {
                    let frame = self.buffer.split_to(5 + length).split_off(5);
                    return Some(Text::decode(frame).expect("a message").text);
                }
            }
            let data = soon(self.body.data()).await?.expect("the stream is not reset");
            self.body.flow_control().release_capacity(data.len()).expect("so many came");
            self.buffer.put(data);
        }
    }

    pub(super) async fn rest(mut self) -> Reply {
        let mut messages = Vec::new();
        while let Some(message) = self.message().await {
            messages.push(message);
        }
        let trailers = soon(self.body.trailers()).await.expect("the stream is not reset");
        let (http, headers) = (self.head.status.as_u16(), self.head.headers);
        Reply { http, headers, messages, trailers }
    }
}
