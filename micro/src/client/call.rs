//! What the methods of a generated stub return: a call that is awaited.

use std::{fmt, marker::PhantomData, pin::Pin, sync::Arc, time::Duration};

use futures_core::Stream;
use http::uri::PathAndQuery;
use prost::Message;
use tonic::{Request, Response, Status, Streaming, metadata::AsciiMetadataKey};
use tonic_prost::ProstCodec;

use super::{Channel, Hedge, RetryPolicy, layers, limit::Limit, status, unary};
use crate::{balance::hash_text, descriptor::MethodDescriptor, registry::BoxFuture};

/// A call that has not begun: it does when it is awaited.
///
/// ```
/// # use std::time::Duration;
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doc/greeter.v1.rs"));
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), micro::Error> {
/// # let client = micro::Client::builder().without_env().registry("memory://call-docs").build()?;
/// let greeter = GreeterClient::new("greeter", &client);
/// let call = greeter.hello(HelloRequest { name: "world".into() });
/// let reply = call.timeout(Duration::from_millis(300)).await;
/// # assert_eq!(reply.unwrap_err().code(), micro::Code::Unavailable, "there is no greeter");
/// # Ok(())
/// # }
/// ```
///
/// A call owns what it needs, so [`into_future`](IntoFuture::into_future) gives a future that can
/// be spawned. Dropping that future resets the call's stream, and the server drops the handler.
///
/// The reply's extensions have the node that answered, and the number of attempts: [`Served`](super::Served).
///
/// # Deadline
/// A unary call has 5 s unless [`timeout`](Self::timeout), `Request::set_timeout` or
/// [`ClientBuilder::request_timeout`](super::ClientBuilder::request_timeout) says otherwise, or the
/// method's `timeout` in a [service config](super::ServiceConfig), of which and the call's own the sooner counts;
/// streaming calls have none unless asked, and a deadline then covers every message. A call made
/// inside a handler ends with the deadline of the call being handled, if that is sooner, unless it
/// is [`detached`](Self::detached).
///
/// # Attempts
/// A call that provably no handler has seen moves to another node by itself, as often as its
/// deadline allows; but one that a node threw out together with its connection, for an error, does
/// so once ([gRFC A6](https://github.com/grpc/proposal/blob/master/A6-client-retries.md)), and one
/// that nodes refuse (REFUSED_STREAM) pauses from the fourth time on, for longer each time up to
/// 1 s, so that a large fleet that sheds load is not sent each call thousands of times. A method
/// whose `.proto` gives it an `idempotency_level`, and a call that is
/// [`idempotent`](Self::idempotent), is also made again after `Unavailable`, after
/// `ResourceExhausted`, and after a connection or a stream that broke, up to five attempts in all;
/// [`retry`](Self::retry) says it otherwise. Such attempts are paid from the channel's budget, which
/// is 20% of its calls and 10 a second, so that a service that fails is not sent a multiple of its
/// load. A stream that may be made again is, until its first message: its caller has the headers of
/// the response that began first, and the messages of the one that had any. What happens later is the
/// caller's. Of the request of a streaming call 64 KiB are kept until then; one that has sent more
/// fails instead.
///
/// # Errors
/// - `Unavailable` when no node was ready until the deadline, with the last reason.
/// - `DeadlineExceeded` when the deadline struck later, with the node that did not answer.
/// - `ResourceExhausted` when the metadata takes over 16 KiB, or more than the node takes, or when a
///   message either way is over
///   [`ClientBuilder::max_message_size`](super::ClientBuilder::max_message_size). Such a message is
///   not sent, nor is metadata over 16 KiB.
/// - `ResourceExhausted` too when the channel's own limit of calls in flight
///   ([`max_in_flight`](crate::ChannelOptions::max_in_flight)) left no room for it.
/// - `Internal` at once when the registry cannot hold a service of the stub's name.
/// - Whatever status the server sent.
#[must_use = "a call begins when it is awaited"]
pub struct Call<Kind, Req, Res> {
    channel: Channel,
    method: &'static MethodDescriptor,
    /// Unless something that it was given cannot be sent.
    request: Result<Request<Req>, Status>,
    options: unary::Options,
    kind: PhantomData<fn() -> (Kind, Res)>,
}

/// One request, one response.
#[derive(Debug)]
pub enum Unary {}
/// One request, a stream of responses.
#[derive(Debug)]
pub enum ServerStreaming {}
/// A stream of requests, one response.
#[derive(Debug)]
pub enum ClientStreaming {}
/// Both sides stream.
#[derive(Debug)]
pub enum BidiStreaming {}

/// A call with one request and one response.
pub type UnaryCall<Req, Res> = Call<Unary, Req, Res>;
/// A call with one request and a stream of responses.
pub type ServerStreamingCall<Req, Res> = Call<ServerStreaming, Req, Res>;
/// A call with a stream of requests and one response.
pub type ClientStreamingCall<Req, Res> = Call<ClientStreaming, BoxStream<Req>, Res>;
/// A call with streams both ways.
pub type BidiStreamingCall<Req, Res> = Call<BidiStreaming, BoxStream<Req>, Res>;

type BoxStream<T> = Pin<Box<dyn Stream<Item = T> + Send>>;

impl<Kind, Req, Res> Call<Kind, Req, Res> {
    fn with(channel: &Channel, method: &'static MethodDescriptor, request: Request<Req>) -> Self {
        let is_idempotent = method.idempotency.is_idempotent();
        let limit = Some(Limit::of_channel(channel.settings().max_message_size));
        let options = unary::Options {
            is_idempotent,
            is_generated: true,
            max_request: limit,
            max_response: limit,
            ..Default::default()
        };
        Self { channel: channel.clone(), method, request: Ok(request), options, kind: PhantomData }
    }

    /// Bounds the call: waiting for a node, connecting, every attempt, and for streams every
    /// message. Default: 5 s for unary calls, none for streams. Zero fails at once,
    /// [`Duration::MAX`] is as good as none.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// Fails with `Unavailable`, rather than waiting until its deadline, when no node is ready.
    /// Default: waits.
    ///
    /// As in gRPC (`wait_for_ready` = false) it still waits, within its deadline, for what has only
    /// begun: the registry's first answer, and the first attempt to connect to each of the nodes in
    /// it, or the next to one that has asked its connection to leave (1 s at most, and 1 s for its first
    /// word where it is asked for its [health](crate::ChannelOptions::health_check)). Where there is no node at all, that is also the
    /// list of the services that are registered instead (2 s at most), for the text of the error.
    /// Later calls fail at once. (In line for a stream of a ready node that has as many as it allows,
    /// it waits all the same.)
    pub fn fail_fast(mut self) -> Self {
        self.options.fail_fast = true;
        self
    }

    /// Sends calls of one key to one node, where the channel's policy is
    /// [`consistent_hash`](crate::balance::ConsistentHash): a user's id, say. Another policy leaves it
    /// alone.
    ///
    /// The key is the text: `42`, `"42"`, and a header with that value are one key. It goes before the
    /// header that the policy may name.
    ///
    /// ```
    /// # use micro::{Request, Response, Service, Status, Stream};
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doc/greeter.v1.rs"));
    /// # async fn of(greeter: GreeterClient, user_id: u64) -> Result<(), Status> {
    /// # let request = HelloRequest { name: "world".into() };
    /// let reply = greeter.hello(request).hash_key(user_id).await?;
    /// # Ok(())
    /// # }
    /// # fn main() {}
    /// ```
    pub fn hash_key(mut self, key: impl fmt::Display) -> Self {
        self.options.hash = Some(hash_text(key));
        self
    }

    /// Pins the call to the node of this id, whatever the policy.
    ///
    /// It waits for that node within its deadline while it is not connected, or says that it is
    /// [not well](crate::ChannelOptions::health_check), and fails then with `Unavailable`; it moves to no
    /// other. What would be tried again elsewhere is tried again there. That the node is ejected, since
    /// calls to it have failed, is no reason to wait: whoever pins has chosen, as who looks into such a
    /// node does. One that a [subset](crate::ChannelOptions::subset) leaves out is never connected to.
    pub fn node(mut self, id: impl Into<Arc<str>>) -> Self {
        self.options.node = Some(id.into());
        self
    }

    /// Adds to the request's metadata. A name that the request has already has both values.
    ///
    /// Names are in lower case, values printable ASCII; the call fails with `InvalidArgument` where
    /// they are not. Binary values, whose names end in `-bin`, go into `Request::metadata_mut`.
    pub fn metadata(mut self, name: &str, value: &str) -> Self {
        if let Ok(request) = &mut self.request {
            match (AsciiMetadataKey::from_bytes(name.as_bytes()), value.parse()) {
                (Ok(name), Ok(value)) => {
                    request.metadata_mut().append(name, value);
                }
                (Err(_), _) => self.request = Err(status::bad_metadata_name(name)),
                (Ok(_), Err(_)) => self.request = Err(status::bad_metadata_value(name)),
            }
        }
        self
    }

    /// Declares that a second attempt is harmless, as an `idempotency_level` in the `.proto` would
    /// for all calls of the method: see [attempts](Self#attempts).
    pub fn idempotent(mut self) -> Self {
        self.options.is_idempotent = true;
        self
    }

    /// Declares after what the call is made again, whatever the `.proto` and the service config say
    /// of its method.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.options.retry = Some(policy);
        self
    }

    /// Does not inherit the deadline of the handler that makes the call, nor its trace: with the feature
    /// `trace` it begins one of its own, that links to the handler's. Default: inherits both.
    pub fn detached(mut self) -> Self {
        self.options.detached = true;
        self
    }
}

impl<Req, Res> UnaryCall<Req, Res> {
    /// Makes the call a second time when the first attempt has not been answered for a while, on
    /// another node while there is one: see [`Hedge`]. Declares that this is harmless.
    pub fn hedge(mut self, hedge: Hedge) -> Self {
        self.options.is_idempotent = true;
        self.options.hedge = Some(hedge);
        self
    }

    /// For generated code.
    #[doc(hidden)]
    pub fn new(
        channel: &Channel,
        method: &'static MethodDescriptor,
        request: Request<Req>,
    ) -> Self {
        Self::with(channel, method, request)
    }
}

impl<Req, Res> ServerStreamingCall<Req, Res> {
    /// Makes the call a second time when its response has not begun for a while, on another node while
    /// there is one: see [`Hedge`]. Declares that this is harmless.
    pub fn hedge(mut self, hedge: Hedge) -> Self {
        self.options.is_idempotent = true;
        self.options.hedge = Some(hedge);
        self
    }

    /// For generated code.
    #[doc(hidden)]
    pub fn new(
        channel: &Channel,
        method: &'static MethodDescriptor,
        request: Request<Req>,
    ) -> Self {
        Self::with(channel, method, request)
    }
}

impl<Req, Res> ClientStreamingCall<Req, Res> {
    /// For generated code.
    #[doc(hidden)]
    pub fn new(
        channel: &Channel,
        method: &'static MethodDescriptor,
        request: Request<impl Stream<Item = Req> + Send + 'static>,
    ) -> Self {
        Self::with(channel, method, boxed(request))
    }
}

impl<Req, Res> BidiStreamingCall<Req, Res> {
    /// For generated code.
    #[doc(hidden)]
    pub fn new(
        channel: &Channel,
        method: &'static MethodDescriptor,
        request: Request<impl Stream<Item = Req> + Send + 'static>,
    ) -> Self {
        Self::with(channel, method, boxed(request))
    }
}

fn boxed<T>(request: Request<impl Stream<Item = T> + Send + 'static>) -> Request<BoxStream<T>> {
    request.map(|stream| Box::pin(stream) as BoxStream<T>)
}

impl<Req, Res> IntoFuture for UnaryCall<Req, Res>
where
    Req: Message + 'static,
    Res: Message + Default + 'static,
{
    type Output = Result<Response<Res>, Status>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { channel, method, request, options, .. } = self;
        if channel.layers().covers(method.path) {
            Box::pin(layers::unary(channel, method, request, options))
        } else {
            Box::pin(unary::call(channel, method, request, options))
        }
    }
}

impl<Req, Res> IntoFuture for ServerStreamingCall<Req, Res>
where
    Req: Message + 'static,
    Res: Message + Default + 'static,
{
    type Output = Result<Response<Streaming<Res>>, Status>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let (mut grpc, request, path) = self.prepare()?;
            grpc.server_streaming(request, path, ProstCodec::<Req, Res>::default()).await
        })
    }
}

impl<Req, Res> IntoFuture for ClientStreamingCall<Req, Res>
where
    Req: Message + 'static,
    Res: Message + Default + 'static,
{
    type Output = Result<Response<Res>, Status>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let (mut grpc, request, path) = self.prepare()?;
            grpc.client_streaming(request, path, ProstCodec::<Req, Res>::default()).await
        })
    }
}

impl<Req, Res> IntoFuture for BidiStreamingCall<Req, Res>
where
    Req: Message + 'static,
    Res: Message + Default + 'static,
{
    type Output = Result<Response<Streaming<Res>>, Status>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let (mut grpc, request, path) = self.prepare()?;
            grpc.streaming(request, path, ProstCodec::<Req, Res>::default()).await
        })
    }
}

impl<Kind, Req, Res> Call<Kind, Req, Res> {
    /// A streaming call goes through tonic's codec on our channel.
    fn prepare(self) -> Result<(tonic::client::Grpc<Channel>, Request<Req>, PathAndQuery), Status> {
        let Self { channel, method, request, options, .. } = self;
        let mut request = request?;
        // The messages are sent as they are, both ways.
        request.metadata_mut().remove("grpc-encoding");
        request.metadata_mut().remove("grpc-accept-encoding");
        let limit = channel.settings().max_message_size;
        let grpc = tonic::client::Grpc::new(channel.with_options(options))
            .max_decoding_message_size(limit);
        Ok((grpc, request, PathAndQuery::from_static(method.path)))
    }
}

impl<Kind, Req, Res> fmt::Debug for Call<Kind, Req, Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("service", &self.channel.service())
            .field("method", &self.method.path)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
