//! The server over real sockets, called by a bare `h2` client and by peers that speak no HTTP/2.

mod calls;
mod deadlines;
mod drain;
mod health;
mod hostile;
mod panics;
mod routes;
mod streams;

use std::{io, sync::Arc, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream::BoxStream};
use http::{HeaderMap, Request as HttpRequest, Response as HttpResponse};
use prost::Message;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream},
    net::TcpStream,
    sync::{Notify, mpsc},
    time::Instant,
};
use tonic::{Code, Request, Response, Status, Streaming};

use super::{Handlers, Listening, Server, listen::Accept};
use crate::{
    deadline,
    descriptor::{
        IdempotencyLevel, MethodDescriptor, MethodKind, ServiceDescriptor, TypeDescriptor,
    },
};

const TEXT: TypeDescriptor = TypeDescriptor {
    name: "Text",
    kind: "Text",
    fields: &[],
};

const fn method(name: &'static str, path: &'static str, kind: MethodKind) -> MethodDescriptor {
    MethodDescriptor {
        name,
        path,
        kind,
        idempotency: IdempotencyLevel::Unknown,
        deprecated: false,
        comment: "",
        request: TEXT,
        response: TEXT,
    }
}

const ECHO: ServiceDescriptor = ServiceDescriptor {
    name: "test.v1.Echo",
    comment: "",
    deprecated: false,
    methods: &[
        method("Say", "/test.v1.Echo/Say", MethodKind::Unary),
        method("Down", "/test.v1.Echo/Down", MethodKind::ServerStreaming),
        method("Up", "/test.v1.Echo/Up", MethodKind::ClientStreaming),
        method("Chat", "/test.v1.Echo/Chat", MethodKind::BidiStreaming),
    ],
};
const SAY: &str = ECHO.methods[0].path;
const DOWN: &str = ECHO.methods[1].path;
const UP: &str = ECHO.methods[2].path;
const CHAT: &str = ECHO.methods[3].path;

const SECOND: Duration = Duration::from_secs(1);
/// For what must happen: long enough for a machine under load.
const SOON: Duration = Duration::from_secs(20);

#[derive(Clone, PartialEq, Message)]
struct Text {
    #[prost(string, tag = "1")]
    text: String,
}

fn text(text: impl Into<String>) -> Text {
    Text { text: text.into() }
}

/// What handlers tell of themselves, beside their answers.
#[derive(Debug, PartialEq)]
enum Event {
    Started,
    Dropped,
    Failed(Code),
}

/// A service that does what the request says.
struct Echo {
    events: mpsc::UnboundedSender<Event>,
    go_on: Arc<Notify>,
}

struct TellsDrop(mpsc::UnboundedSender<Event>);

impl Drop for TellsDrop {
    fn drop(&mut self) {
        let _ = self.0.send(Event::Dropped);
    }
}

impl Echo {
    fn begin(&self) -> TellsDrop {
        let _ = self.events.send(Event::Started);
        TellsDrop(self.events.clone())
    }

    async fn say(&self, request: Request<Text>) -> Result<Response<Text>, Status> {
        let _drop = self.begin();
        match request.get_ref().text.as_str() {
            "hang" => std::future::pending().await,
            "wait" => self.go_on.notified().await,
            "panic" => panic!("the {} is out", "cat"),
            "large" => return Ok(Response::new(text("x".repeat(5 << 20)))),
            "deadline" => {
                let left = deadline::current().map(|deadline| deadline - Instant::now());
                return Ok(Response::new(text(format!("{left:?}"))));
            }
            "metadata" => {
                let mut response = Response::new(text(format!("{:?}", request.metadata())));
                let metadata = response.metadata_mut();
                metadata.insert("answer", "42".parse().expect("a value"));
                metadata.insert_bin(
                    "raw-bin",
                    tonic::metadata::MetadataValue::from_bytes(&[0, 255]),
                );
                metadata.insert("grpc-status", "7".parse().expect("a value"));
                return Ok(response);
            }
            "status" => {
                let details = Bytes::from_static(b"\x08\x05");
                let mut status = Status::with_details(Code::NotFound, "no café\n100%", details);
                status
                    .metadata_mut()
                    .insert("hint", "later".parse().expect("a value"));
                return Err(status);
            }
            _ => {}
        }
        Ok(Response::new(request.into_inner()))
    }

    fn down(
        &self,
        request: &Request<Text>,
    ) -> Result<Response<BoxStream<'static, Answer>>, Status> {
        let tells_drop = self.begin();
        let one = futures_util::stream::iter([Ok(text("one"))]);
        let messages = match request.get_ref().text.as_str() {
            "refuse" => return Err(Status::permission_denied("not for you")),
            "hang" => one.chain(futures_util::stream::pending()).boxed(),
            "forever" => {
                let zeros = futures_util::stream::repeat_with(|| Ok(text("x".repeat(100))));
                zeros
                    .then(|item| async {
                        tokio::task::yield_now().await;
                        item
                    })
                    .boxed()
            }
            "fail" => one
                .chain(futures_util::stream::iter([Err(Status::data_loss("gone"))]))
                .boxed(),
            "panic" => {
                let panics = futures_util::stream::once(async {
                    tokio::task::yield_now().await;
                    panic!("in the stream")
                });
                one.chain(panics).boxed()
            }
            "large" => one
                .chain(futures_util::stream::iter([Ok(text("x".repeat(5 << 20)))]))
                .boxed(),
            "wait" => {
                let go_on = Arc::clone(&self.go_on);
                let last = async move {
                    go_on.notified().await;
                    Ok(text("last"))
                };
                one.chain(futures_util::stream::once(last)).boxed()
            }
            "deadline" => futures_util::stream::once(async {
                Ok(text(format!("{}", deadline::current().is_some())))
            })
            .boxed(),
            _ => one
                .chain(futures_util::stream::iter([
                    Ok(text("two")),
                    Ok(text("three")),
                ]))
                .boxed(),
        };
        let messages = messages.inspect(move |_| {
            let _ = &tells_drop;
        });
        Ok(Response::new(messages.boxed()))
    }

    async fn up(&self, request: Request<Streaming<Text>>) -> Result<Response<Text>, Status> {
        let _drop = self.begin();
        let mut request = request.into_inner();
        let mut all = Vec::new();
        while let Some(message) = request.message().await? {
            if message.text == "enough" {
                break;
            }
            if message.text == "spawn" {
                let events = self.events.clone();
                tokio::spawn(async move {
                    let code = match request.message().await {
                        Ok(_) => Code::Ok,
                        Err(status) => status.code(),
                    };
                    let _ = events.send(Event::Failed(code));
                });
                return std::future::pending().await;
            }
            all.push(message.text);
        }
        Ok(Response::new(text(all.join("+"))))
    }

    fn chat(
        &self,
        request: Request<Streaming<Text>>,
    ) -> Response<impl Stream<Item = Answer> + use<>> {
        let tells_drop = self.begin();
        Response::new(request.into_inner().map(move |message| {
            let _ = &tells_drop;
            Ok(text(format!("{}!", message?.text)))
        }))
    }
}

type Answer = Result<Text, Status>;

fn echo(echo: Echo) -> Handlers {
    Handlers::new(&ECHO, echo)
        .unary(0, |echo, request| async move { echo.say(request).await })
        .server_streaming(1, |echo, request| async move { echo.down(&request) })
        .client_streaming(2, |echo, request| async move { echo.up(request).await })
        .bidi_streaming(3, |echo, request| async move { Ok(echo.chat(request)) })
        .build()
}

/// A server with the echo service, what its handlers tell, and a hand to let them go on.
struct Fixture {
    listening: Listening,
    events: mpsc::UnboundedReceiver<Event>,
    go_on: Arc<Notify>,
    pipes: mpsc::UnboundedSender<io::Result<DuplexStream>>,
}

/// Connections without a network: paused time does not wait for sockets.
struct Pipes(mpsc::UnboundedReceiver<io::Result<DuplexStream>>);

impl Accept for Pipes {
    type Io = DuplexStream;

    async fn accept(&mut self) -> io::Result<DuplexStream> {
        match self.0.recv().await {
            Some(accepted) => accepted,
            None => std::future::pending().await,
        }
    }
}

impl Fixture {
    /// Over sockets.
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(configure: impl FnOnce(&mut Server)) -> Self {
        let (server, events, go_on) = Self::server(configure);
        let listening = server.bind("127.0.0.1:0").await.expect("a free port");
        let (pipes, _) = mpsc::unbounded_channel();
        Self {
            listening,
            events,
            go_on,
            pipes,
        }
    }

    /// Over pipes.
    fn piped() -> Self {
        Self::piped_with(|_| {})
    }

    fn piped_with(configure: impl FnOnce(&mut Server)) -> Self {
        let (server, events, go_on) = Self::server(configure);
        let (shared, health) = server.prepare().expect("nothing is wrong with it");
        let (pipes, accepted) = mpsc::unbounded_channel();
        let nowhere = ([0; 4], 0).into();
        let listening = Listening::start(Pipes(accepted), nowhere, shared, health);
        Self {
            listening,
            events,
            go_on,
            pipes,
        }
    }

    fn server(
        configure: impl FnOnce(&mut Server),
    ) -> (Server, mpsc::UnboundedReceiver<Event>, Arc<Notify>) {
        let (sender, events) = mpsc::unbounded_channel();
        let go_on = Arc::new(Notify::new());
        let mut server = Server::new();
        server.add_handlers(echo(Echo {
            events: sender,
            go_on: Arc::clone(&go_on),
        }));
        configure(&mut server);
        (server, events, go_on)
    }

    async fn connect(&self) -> Client {
        Client::connect(self.socket().await).await
    }

    async fn connect_pipe(&self) -> Client {
        Client::connect(self.pipe()).await
    }

    async fn socket(&self) -> TcpStream {
        TcpStream::connect(self.listening.local_addr())
            .await
            .expect("it listens")
    }

    fn pipe(&self) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        self.pipes.send(Ok(theirs)).expect("it accepts");
        ours
    }

    async fn event(&mut self) -> Event {
        soon(self.events.recv()).await.expect("the server lives")
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future)
        .await
        .expect("it should not take so long")
}

/// A bare HTTP/2 client.
#[derive(Clone)]
struct Client {
    sender: h2::client::SendRequest<Bytes>,
    /// Ends with the connection; aborting it closes the socket.
    driver: Arc<tokio::task::JoinHandle<()>>,
}

/// A whole response.
#[derive(Debug)]
struct Reply {
    http: u16,
    headers: HeaderMap,
    messages: Vec<String>,
    trailers: Option<HeaderMap>,
}

impl Reply {
    fn status(&self) -> Status {
        let headers = self.trailers.as_ref().unwrap_or(&self.headers);
        Status::from_header_map(headers).unwrap_or_else(|| panic!("no status in {self:?}"))
    }

    #[track_caller]
    fn expect(&self, code: Code, text: &str) {
        let status = self.status();
        assert_eq!(status.code(), code, "{self:?}");
        assert!(
            status.message().contains(text),
            "{:?} should say {text:?}",
            status.message()
        );
    }

    #[track_caller]
    fn one(&self) -> &str {
        self.expect(Code::Ok, "");
        assert_eq!(self.messages.len(), 1, "{self:?}");
        &self.messages[0]
    }
}

fn framed(message: &Text) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.encoded_len()).expect("small"));
    message.encode(&mut bytes).expect("it grows");
    bytes.freeze()
}

fn head(path: &str) -> http::request::Builder {
    HttpRequest::post(format!("http://test{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

/// With the windows our own client has. `h2` bounds small frames that nobody has read yet by half
/// of the connection's window, and gives a connection up over it: with its default window at about a
/// hundred messages.
async fn handshake<IO: AsyncRead + AsyncWrite + Unpin>(
    io: IO,
) -> (h2::client::SendRequest<Bytes>, h2::client::Connection<IO>) {
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(1 << 20)
        .initial_connection_window_size(4 << 20);
    builder.handshake(io).await.expect("a handshake")
}

impl Client {
    async fn connect(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (sender, connection) = handshake(io).await;
        let driver = tokio::spawn(async move { drop(connection.await) });
        Self {
            sender,
            driver: Arc::new(driver),
        }
    }

    /// Sends the headers of a call, to be continued.
    async fn open(&self, request: http::request::Builder) -> Open {
        let mut sender = self
            .sender
            .clone()
            .ready()
            .await
            .expect("the connection is open");
        let request = request.body(()).expect("a request");
        let (response, body) = sender.send_request(request, false).expect("it is sent");
        Open { response, body }
    }

    async fn send(&self, request: http::request::Builder, body: impl Into<Bytes>) -> Reply {
        let mut open = self.open(request).await;
        // A refusal may reset the stream while the body is still on its way.
        let _ = open.body.send_data(body.into(), true);
        open.reply().await
    }

    async fn call(&self, path: &str, message: &str) -> Reply {
        self.send(head(path), framed(&text(message))).await
    }

    async fn call_within(&self, path: &str, message: &str, timeout: &str) -> Reply {
        self.send(
            head(path).header("grpc-timeout", timeout),
            framed(&text(message)),
        )
        .await
    }
}

/// A call whose request is under way.
struct Open {
    response: h2::client::ResponseFuture,
    body: h2::SendStream<Bytes>,
}

impl Open {
    fn message(&mut self, message: &str, end: bool) {
        self.body
            .send_data(framed(&text(message)), end)
            .expect("the stream is open");
    }

    async fn reply(self) -> Reply {
        let (response, body) = (self.response, self.body);
        let reply = soon(Answered::from(soon(response).await.expect("a response")).rest()).await;
        drop(body);
        reply
    }

    /// The response's headers, and its body to read.
    async fn answered(&mut self) -> Answered {
        Answered::from(soon(&mut self.response).await.expect("a response"))
    }

    fn reset(&mut self) {
        self.body.send_reset(h2::Reason::CANCEL);
    }
}

struct Answered {
    head: http::response::Parts,
    body: h2::RecvStream,
    buffer: BytesMut,
}

impl From<HttpResponse<h2::RecvStream>> for Answered {
    fn from(response: HttpResponse<h2::RecvStream>) -> Self {
        let (head, body) = response.into_parts();
        Self {
            head,
            body,
            buffer: BytesMut::new(),
        }
    }
}

impl Answered {
    async fn message(&mut self) -> Option<String> {
        loop {
            if let Some(length) = self.buffer.get(1..5) {
                let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
                if self.buffer.len() >= 5 + length {
                    let frame = self.buffer.split_to(5 + length).split_off(5);
                    return Some(Text::decode(frame).expect("a message").text);
                }
            }
            let data = soon(self.body.data())
                .await?
                .expect("the stream is not reset");
            self.body
                .flow_control()
                .release_capacity(data.len())
                .expect("so many came");
            self.buffer.put(data);
        }
    }

    async fn rest(mut self) -> Reply {
        let mut messages = Vec::new();
        while let Some(message) = self.message().await {
            messages.push(message);
        }
        let trailers = soon(self.body.trailers())
            .await
            .expect("the stream is not reset");
        let (http, headers) = (self.head.status.as_u16(), self.head.headers);
        Reply {
            http,
            headers,
            messages,
            trailers,
        }
    }
}
