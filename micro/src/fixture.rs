//! A small service for tests, written as `micro-build` would.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures_core::Stream;
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderValue};
use tonic::{
    Code, IntoRequest, IntoStreamingRequest, Request, Response, Status, Streaming,
    metadata::MetadataMap,
};

#[cfg(feature = "tls")]
mod authority;
mod log;

#[cfg(feature = "tls")]
pub(crate) use authority::Authority;
pub(crate) use log::Log;

use crate::{
    Client, Server, Service,
    client::{BidiStreamingCall, Channel, ClientStreamingCall, ServerStreamingCall, UnaryCall},
    descriptor::{
        IdempotencyLevel, MethodDescriptor, MethodKind, ServiceDescriptor, TypeDescriptor,
    },
    registration::RegistrationState,
    server::Handlers,
    service::Handle,
};

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Word {
    #[prost(string, tag = "1")]
    pub(crate) text: String,
}

impl Word {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }
}

const WORD: TypeDescriptor = TypeDescriptor { name: "Word", kind: "Word", fields: &[] };

const fn method(
    name: &'static str,
    path: &'static str,
    kind: MethodKind,
    idempotency: IdempotencyLevel,
) -> MethodDescriptor {
    MethodDescriptor {
        name,
        path,
        kind,
        idempotency,
        deprecated: false,
        comment: "",
        request: WORD,
        response: WORD,
    }
}

pub(crate) const ECHO: ServiceDescriptor = ServiceDescriptor {
    name: "test.Echo",
    comment: "",
    deprecated: false,
    methods: &[
        method("Say", "/test.Echo/Say", MethodKind::Unary, IdempotencyLevel::Unknown),
        method("Read", "/test.Echo/Read", MethodKind::Unary, IdempotencyLevel::NoSideEffects),
        method("Down", "/test.Echo/Down", MethodKind::ServerStreaming, IdempotencyLevel::Unknown),
        method("Up", "/test.Echo/Up", MethodKind::ClientStreaming, IdempotencyLevel::Unknown),
        method("Chat", "/test.Echo/Chat", MethodKind::BidiStreaming, IdempotencyLevel::Unknown),
        method(
            "Follow",
            "/test.Echo/Follow",
            MethodKind::ServerStreaming,
            IdempotencyLevel::NoSideEffects,
        ),
        method(
            "Collect",
            "/test.Echo/Collect",
            MethodKind::ClientStreaming,
            IdempotencyLevel::Idempotent,
        ),
    ],
};

/// Answers with its own name, or does what the request's text says: `sleep` for ever, `sleep NAME` if
/// that is its own, `busy` the
/// first time only, `closed` always, `missing`, `peer NAME` calls another service,
/// `count` is how many calls there were, `attempts` and `agent` what the client says of them.
#[derive(Debug, Default)]
pub(crate) struct Echo {
    pub(crate) name: String,
    pub(crate) client: Option<Client>,
    pub(crate) calls: Arc<AtomicU32>,
    /// Handlers that have begun and not ended.
    pub(crate) running: Arc<AtomicU32>,
}

struct Running(Arc<AtomicU32>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Echo {
    pub(crate) fn named(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    async fn say(&self, request: Request<Word>) -> Result<Response<Word>, Status> {
        self.running.fetch_add(1, Ordering::SeqCst);
        let _running = Running(self.running.clone());
        let calls = self.calls.fetch_add(1, Ordering::SeqCst);
        let said = |name: &str| {
            let value = request.metadata().get(name)?;
            Some(Word::new(value.to_str().unwrap_or("?")))
        };
        let (attempts, agent) = (said("grpc-previous-rpc-attempts"), said("user-agent"));
        match request.into_inner().text.as_str() {
            "sleep" => std::future::pending().await,
            "busy" if calls == 0 => Err(Status::unavailable("busy")),
            "closed" => {
                let mut status = Status::unavailable("closed");
                status.metadata_mut().insert("attempt", (calls + 1).into());
                Err(status)
            }
            "garbled" => Err(garbled()),
            "missing" => Err(Status::not_found("no such word")),
            "attempts" if calls == 0 => Err(Status::unavailable("once more")),
            "attempts" => Ok(Response::new(attempts.unwrap_or_default())),
            "count" => Ok(Response::new(Word::new((calls + 1).to_string()))),
            "agent" => Ok(Response::new(agent.unwrap_or_default())),
            text if text.strip_prefix("sleep ") == Some(&self.name) => std::future::pending().await,
            text => match (text.strip_prefix("peer "), &self.client) {
                (Some(peer), Some(client)) => Stub::new(peer, client).say(Word::new("sleep")).await,
                _ => Ok(Response::new(Word::new(&*self.name))),
            },
        }
    }

    fn down(request: Request<Word>) -> impl Stream<Item = Result<Word, Status>> + Send + 'static {
        let text = request.into_inner().text;
        let words: Vec<_> = text.split(' ').map(|word| Ok(Word::new(word))).collect();
        let (hang, is_garbled) = (text.ends_with("hang"), text.ends_with("garbled"));
        tokio_stream::iter(words).chain(futures_util::stream::once(async move {
            if hang {
                std::future::pending::<()>().await;
            }
            Err(if is_garbled { garbled() } else { Status::aborted("no more words") })
        }))
    }
}

pub(crate) fn register(server: &mut Server, echo: Echo) {
    server.add_handlers(
        Handlers::new(&ECHO, echo)
            .unary(0, |echo, request| async move { echo.say(request).await })
            .unary(1, |echo, request| async move { echo.say(request).await })
            .server_streaming(2, |_, request| async move {
                Ok::<_, Status>(Response::new(Echo::down(request)))
            })
            .client_streaming(
                3,
                |_, request| async move { Ok(Response::new(joined(request).await?)) },
            )
            .bidi_streaming(4, |_, request: Request<Streaming<Word>>| async move {
                Ok::<_, Status>(Response::new(request.into_inner()))
            })
            .server_streaming(5, |echo, request| async move {
                let word = echo.say(request).await?.into_inner();
                let twice = Word::new(format!("{0} {0}", word.text));
                Ok::<_, Status>(Response::new(tokio_stream::iter([Ok(word), Ok(twice)])))
            })
            .client_streaming(6, |echo, request| async move {
                echo.say(Request::new(joined(request).await?)).await
            })
            .build(),
    );
}

/// A status whose details are not what they have to be.
fn garbled() -> Status {
    let mut metadata = HeaderMap::new();
    metadata.insert("grpc-status-details-bin", HeaderValue::from_static("no base64!"));
    Status::with_metadata(Code::NotFound, "garbled", MetadataMap::from_headers(metadata))
}

async fn joined(request: Request<Streaming<Word>>) -> Result<Word, Status> {
    let words: Vec<_> = request.into_inner().map(|word| word.map(|word| word.text)).collect().await;
    let words: Vec<_> = words.into_iter().collect::<Result<_, _>>()?;
    Ok(Word::new(words.join(" ")))
}

#[derive(Debug, Clone)]
pub(crate) struct Stub {
    channel: Channel,
}

impl Stub {
    pub(crate) fn new(service: &str, client: &Client) -> Self {
        Self { channel: client.channel(service) }
    }

    /// The nodes as the channel sees them, as text.
    #[cfg(feature = "testing")]
    pub(crate) async fn explain(&self) -> String {
        self.channel.explain().await.expect("its runtime runs").to_string()
    }

    pub(crate) fn say(&self, request: impl IntoRequest<Word>) -> UnaryCall<Word, Word> {
        UnaryCall::new(&self.channel, &ECHO.methods[0], request.into_request())
    }

    pub(crate) fn read(&self, request: impl IntoRequest<Word>) -> UnaryCall<Word, Word> {
        UnaryCall::new(&self.channel, &ECHO.methods[1], request.into_request())
    }

    pub(crate) fn down(&self, request: impl IntoRequest<Word>) -> ServerStreamingCall<Word, Word> {
        ServerStreamingCall::new(&self.channel, &ECHO.methods[2], request.into_request())
    }

    pub(crate) fn up<R>(&self, request: R) -> ClientStreamingCall<Word, Word>
    where
        R: IntoStreamingRequest<Message = Word, Stream: 'static>,
    {
        ClientStreamingCall::new(&self.channel, &ECHO.methods[3], request.into_streaming_request())
    }

    pub(crate) fn follow(
        &self,
        request: impl IntoRequest<Word>,
    ) -> ServerStreamingCall<Word, Word> {
        ServerStreamingCall::new(&self.channel, &ECHO.methods[5], request.into_request())
    }

    pub(crate) fn collect<R>(&self, request: R) -> ClientStreamingCall<Word, Word>
    where
        R: IntoStreamingRequest<Message = Word, Stream: 'static>,
    {
        ClientStreamingCall::new(&self.channel, &ECHO.methods[6], request.into_streaming_request())
    }

    pub(crate) fn chat<R>(&self, request: R) -> BidiStreamingCall<Word, Word>
    where
        R: IntoStreamingRequest<Message = Word, Stream: 'static>,
    {
        BidiStreamingCall::new(&self.channel, &ECHO.methods[4], request.into_streaming_request())
    }
}

/// An echo service on a registry of the test's own, registered when this returns.
pub(crate) async fn start(registry: &str, service: &str, echo: Echo) -> Handle {
    let mut service = Service::builder(service)
        .registry(registry)
        .drain_timeout(Duration::from_secs(5))
        .build()
        .await
        .expect("a service");
    register(service.server(), echo);
    let handle = service.start().await.expect("a free port");
    registered(&handle).await;
    handle
}

pub(crate) async fn registered(handle: &Handle) {
    let is_registered = |state: &RegistrationState| *state == RegistrationState::Registered;
    handle.registration().wait_for(is_registered).await.expect("the service runs");
}

pub(crate) fn client(registry: &str) -> Client {
    Client::builder().registry(registry).build().expect("a client")
}
