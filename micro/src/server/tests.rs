//! The server over real sockets, called by a bare `h2` client and by peers that speak no HTTP/2.

mod calls;
mod client;
mod deadlines;
mod drain;
mod health;
mod hostile;
mod layers;
mod panics;
mod routes;
mod streams;
mod wire;

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream::BoxStream};
use prost::Message;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream},
    net::TcpStream,
    sync::{Notify, mpsc},
    time::Instant,
};
use tonic::{Code, Request, Response, Status, Streaming};

use self::client::{Answered, Client, Open, framed, handshake, head};
use super::{Handlers, Listening, Server, listen::Accept};
use crate::{
    deadline,
    descriptor::{
        IdempotencyLevel, MethodDescriptor, MethodKind, ServiceDescriptor, TypeDescriptor,
    },
};

const TEXT: TypeDescriptor = TypeDescriptor { name: "Text", kind: "Text", fields: &[] };

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

/// The text of the answer to "big": more than a pipe and HTTP/2's first window hold.
const BIG: usize = 300 << 10;

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

/// Panics so often when it is dropped: each time with the rest of it.
struct Bomb(u8);

impl Drop for Bomb {
    fn drop(&mut self) {
        if let Some(left) = self.0.checked_sub(1) {
            std::panic::panic_any(Self(left));
        }
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
            "bomb" => std::panic::panic_any(Bomb(2)),
            "big" => return Ok(Response::new(text("x".repeat(BIG)))),
            "large" => return Ok(Response::new(text("x".repeat(5 << 20)))),
            "deadline" => {
                let left = deadline::current().map(|deadline| deadline - Instant::now());
                return Ok(Response::new(text(format!("{left:?}"))));
            }
            "metadata" => {
                let mut response = Response::new(text(format!("{:?}", request.metadata())));
                let metadata = response.metadata_mut();
                metadata.insert("answer", "42".parse().expect("a value"));
                metadata
                    .insert_bin("raw-bin", tonic::metadata::MetadataValue::from_bytes(&[0, 255]));
                metadata.insert("grpc-status", "7".parse().expect("a value"));
                return Ok(response);
            }
            "status" => {
                let details = Bytes::from_static(b"\x08\x05");
                let mut status = Status::with_details(Code::NotFound, "no café\n100%", details);
                status.metadata_mut().insert("hint", "later".parse().expect("a value"));
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
            "fail" => {
                one.chain(futures_util::stream::iter([Err(Status::data_loss("gone"))])).boxed()
            }
            "panic" => {
                let panics = futures_util::stream::once(async {
                    tokio::task::yield_now().await;
                    panic!("in the stream")
                });
                one.chain(panics).boxed()
            }
            "bomb" => {
                let bomb = Bomb(1);
                let goes_off = futures_util::stream::poll_fn(move |_| {
                    let _ = &bomb;
                    std::task::Poll::Pending
                });
                one.chain(goes_off).boxed()
            }
            "large" => {
                one.chain(futures_util::stream::iter([Ok(text("x".repeat(5 << 20)))])).boxed()
            }
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
            _ => {
                one.chain(futures_util::stream::iter([Ok(text("two")), Ok(text("three"))])).boxed()
            }
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
        Self { listening, events, go_on, pipes }
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
        Self { listening, events, go_on, pipes }
    }

    fn server(
        configure: impl FnOnce(&mut Server),
    ) -> (Server, mpsc::UnboundedReceiver<Event>, Arc<Notify>) {
        let (sender, events) = mpsc::unbounded_channel();
        let go_on = Arc::new(Notify::new());
        let mut server = Server::new();
        server.add_handlers(echo(Echo { events: sender, go_on: Arc::clone(&go_on) }));
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
        TcpStream::connect(self.listening.local_addr()).await.expect("it listens")
    }

    fn pipe(&self) -> DuplexStream {
        self.pipe_of(64 << 10)
    }

    fn pipe_of(&self, bytes: usize) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(bytes);
        self.pipes.send(Ok(theirs)).expect("it accepts");
        ours
    }

    async fn event(&mut self) -> Event {
        soon(self.events.recv()).await.expect("the server lives")
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("it should not take so long")
}
