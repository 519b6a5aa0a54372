//! Calls through layers: outside of retries and balancing, inside of the deadline.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Uri, Version, header};
use http_body_util::{BodyExt as _, Full};
use prost::Message;
use tokio::time::{Instant, sleep_until};
use tonic::{Request, Response, Status};
use tower_layer::Layer;

use super::{
    Channel, ClientBuilder, deadline, status, stream,
    unary::{self, Options},
};
use crate::{
    descriptor::MethodDescriptor,
    framing::{PREFIX, read_prefix},
    grpc_timeout::GRPC_TIMEOUT,
    layer::{Answer, Body, BoxError, End, Inner, Next},
    transport::UnaryReply,
};

impl ClientBuilder {
    /// Puts an interceptor around every call, those of tonic's stubs on a [`Channel`] included. See
    /// [`layer`](crate::layer) for what it may do, and for the order.
    ///
    /// It is run once a call, however many nodes the call moves to, and within the call's deadline:
    /// a `grpc-timeout` that it sets in the metadata, counted from the call's start, makes it sooner
    /// and never later. What the channel writes itself (`grpc-timeout`, `user-agent` and the like) it
    /// does not see. A status that an interceptor returns is the caller's; it is not retried.
    pub fn intercept<F, Fut>(mut self, interceptor: F) -> Self
    where
        F: Fn(Request<Body>, Next) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<Body>, Status>> + Send + 'static,
    {
        self.layers.intercept(None, interceptor);
        self
    }

    /// As [`intercept`](Self::intercept), around the calls of one service of a `.proto`
    /// (`greeter.v1.Greeter`, whatever its name in the registry is) or of one method
    /// (`greeter.v1.Greeter/Hello`). What cannot be such a name is an error of
    /// [`build`](Self::build). Which ones will be called is not known then: the log warns, once a
    /// scope, when the first call that it may mean goes out and is not in it.
    pub fn intercept_on<F, Fut>(mut self, scope: &str, interceptor: F) -> Self
    where
        F: Fn(Request<Body>, Next) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<Body>, Status>> + Send + 'static,
    {
        self.layers.intercept(Some(scope), interceptor);
        self
    }

    /// Puts one of tower's layers around every call, where [`intercept`](Self::intercept) would put
    /// an interceptor. See [`layer`](crate::layer#towers-layers) for what is asked of it.
    pub fn layer<L, B>(mut self, layer: L) -> Self
    where
        L: Layer<Inner>,
        L::Service: tower_service::Service<
                http::Request<Body>,
                Response = http::Response<B>,
                Error: Into<BoxError>,
                Future: Send,
            > + Clone
            + Send
            + Sync
            + 'static,
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        self.layers.layer(None, &layer);
        self
    }

    /// As [`layer`](Self::layer), around the calls of one service or method, as
    /// [`intercept_on`](Self::intercept_on) has it.
    pub fn layer_on<L, B>(mut self, scope: &str, layer: L) -> Self
    where
        L: Layer<Inner>,
        L::Service: tower_service::Service<
                http::Request<Body>,
                Response = http::Response<B>,
                Error: Into<BoxError>,
                Future: Send,
            > + Clone
            + Send
            + Sync
            + 'static,
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        self.layers.layer(Some(scope), &layer);
        self
    }
}

/// A unary call of a generated stub: one message through the layers, and within them the same
/// attempts as without.
pub(super) async fn unary<Req, Res>(
    channel: Channel,
    method: &'static MethodDescriptor,
    request: Result<Request<Req>, Status>,
    options: Options,
) -> Result<Response<Res>, Status>
where
    Req: Message,
    Res: Message + Default,
{
    let start = Instant::now();
    let (metadata, extensions, message) = request?.into_parts();
    let mut headers = metadata.into_headers();
    let options = unary::configured(&channel, method, &headers, options, start).await;
    let deadline = unary::deadline_of(&channel, &headers, &options, start);
    // It has been heard. What layers ask for is another's word.
    headers.remove(GRPC_TIMEOUT);
    let frame_len = unary::check_size(message.encoded_len(), options.max_request)?;

    let mut request = http::Request::new(Body::new(Full::new(unary::encode(&message, frame_len))));
    *request.method_mut() = http::Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = Uri::from_static(method.path);
    *request.headers_mut() = headers;
    *request.extensions_mut() = extensions;
    request.headers_mut().insert(header::CONTENT_TYPE, unary::GRPC);

    let inner = channel.clone();
    let end: End = Arc::new(move |request| {
        Box::pin(one_message(inner.clone(), method, request, options.clone(), start, deadline))
    });
    let answered = async {
        let answer = channel.layers().clone().run(request, end).await;
        let (head, body) = answer?.into_parts();
        let body = body.collect().await?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        status::of_reply(&head.headers, &trailers)?;
        let message = unframed(body.to_bytes())?;
        let reply = UnaryReply { headers: head.headers, message, trailers };
        unary::decode(reply, head.extensions)
    };
    within(Some(deadline), start, channel.service(), answered).await
}

/// What the layers lead to: the call itself, with what they have made of its message.
async fn one_message(
    channel: Channel,
    method: &'static MethodDescriptor,
    request: http::Request<Body>,
    options: Options,
    start: Instant,
    deadline: Instant,
) -> Answer {
    let (head, body) = request.into_parts();
    let frame = body.collect().await?.to_bytes();
    unary::check_size(frame.len().saturating_sub(PREFIX), options.max_request)?;
    let asked = asked(&head.headers, start);
    let deadline = asked.map_or(deadline, |asked| asked.min(deadline));
    let call =
        unary::Prepared { channel, method, metadata: head.headers, options, start, deadline };
    let (mut response, served) =
        unary::attempts(call, || frame.clone(), |reply| Ok(into_http(reply))).await?;
    response.extensions_mut().insert(served);
    Ok(response)
}

fn into_http(reply: UnaryReply) -> http::Response<Body> {
    let UnaryReply { headers, message, trailers } = reply;
    let frame = message.map(|message| {
        let mut frame = BytesMut::with_capacity(PREFIX + message.len());
        frame.put_u8(0);
        frame.put_u32(u32::try_from(message.len()).expect("it came with such a length"));
        frame.put(message);
        frame.freeze()
    });
    let frame = Full::new(frame.unwrap_or_default());
    let mut response = http::Response::new(Body::new(
        frame.with_trailers(std::future::ready((!trailers.is_empty()).then_some(Ok(trailers)))),
    ));
    *response.headers_mut() = headers;
    response
}

/// The one message of a body, if it has any.
fn unframed(mut body: Bytes) -> Result<Option<Bytes>, Status> {
    let Some(prefix) = body.first_chunk::<PREFIX>() else {
        return Ok(None);
    };
    let (flag, length) = read_prefix(*prefix);
    let message = body.split_off(PREFIX);
    if flag == 0 && length == message.len() {
        return Ok(Some(message));
    }
    Err(Status::internal("what the layers have left of the response is not one whole message"))
}

/// A call of any kind as HTTP.
pub(super) async fn stream(channel: Channel, mut request: http::Request<Body>) -> Answer {
    let start = Instant::now();
    let (uri, headers) = (request.uri(), request.headers());
    let channel = stream::configured(channel, uri, headers, start).await;
    let deadline = stream::deadline_of(&channel, request.headers(), start);
    request.headers_mut().remove(GRPC_TIMEOUT);
    let inner = channel.clone();
    let end: End = Arc::new(move |request: http::Request<Body>| {
        let deadline = deadline::sooner(deadline, asked(request.headers(), start));
        Box::pin(stream::attempts(inner.clone(), request, start, deadline))
    });
    let answer = channel.layers().clone().run(request, end);
    within(deadline, start, channel.service(), answer).await
}

/// When the call is to be over for what a layer has put into its metadata.
fn asked(headers: &HeaderMap, start: Instant) -> Option<Instant> {
    deadline::from_headers(headers).map(|timeout| deadline::after(start, timeout))
}

/// Bounds the layers by the call's deadline. The call within has it too, and knows better what it
/// waited for: it is asked first.
async fn within<T>(
    deadline: Option<Instant>,
    start: Instant,
    service: &str,
    answer: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let Some(deadline) = deadline else {
        return answer.await;
    };
    tokio::select! {
        biased;
        answer = answer => answer,
        () = sleep_until(deadline) => Err(status::in_layers(service, deadline - start)),
    }
}
