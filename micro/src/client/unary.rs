//! A unary call of a generated stub: our own framing, one buffer a message.

use std::{sync::Arc, time::Duration};

use bytes::{BufMut, Bytes};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header};
use prost::Message;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::{Request, Response, Status, metadata::MetadataMap};

use super::{
    Channel, deadline,
    retry::{Next, PREVIOUS_ATTEMPTS, Retry},
    status,
};
use crate::{
    balance::{self, Outcome},
    descriptor::MethodDescriptor,
    framing::PREFIX,
    grpc_timeout, headers,
    transport::UnaryReply,
};

/// How a single call differs from its channel's defaults.
#[derive(Debug, Clone, Default)]
pub(super) struct Options {
    pub(super) timeout: Option<Duration>,
    pub(super) fail_fast: bool,
    pub(super) detached: bool,
    /// Whether the method's `.proto` gives an `idempotency_level`.
    pub(super) is_idempotent: bool,
    /// The limit on the messages of a stream, in bytes. None for tonic's stubs, which have limits
    /// of their own.
    pub(super) max_message_size: Option<usize>,
    /// The hash of its key.
    pub(super) hash: Option<u64>,
    /// The id of the node that it is pinned to.
    pub(super) node: Option<Arc<str>>,
}

pub(super) async fn call<Req, Res>(
    channel: Channel,
    method: &'static MethodDescriptor,
    request: Request<Req>,
    options: Options,
) -> Result<Response<Res>, Status>
where
    Req: Message,
    Res: Message + Default,
{
    let start = Instant::now();
    let (metadata, _, message) = request.into_parts();
    let metadata = metadata.into_headers();
    let deadline = deadline_of(&channel, &metadata, &options, start);
    let frame_len = check_size(message.encoded_len(), channel.settings().max_message_size)?;
    let call = Prepared { channel, method, metadata, options, start, deadline };
    attempts(call, || encode(&message, frame_len), |reply| decode(reply, Extensions::new())).await
}

/// A call but for its message.
pub(super) struct Prepared {
    pub(super) channel: Channel,
    pub(super) method: &'static MethodDescriptor,
    pub(super) metadata: HeaderMap,
    pub(super) options: Options,
    pub(super) start: Instant,
    pub(super) deadline: Instant,
}

/// Attempts the call until it succeeds, fails for good, or its deadline strikes. `frame` is its
/// message with the prefix, asked for by each attempt; `read` makes the reply the caller's.
pub(super) async fn attempts<T>(
    call: Prepared,
    frame: impl Fn() -> Bytes,
    read: impl Fn(UnaryReply) -> Result<T, Status>,
) -> Result<T, Status> {
    let Prepared { channel, method, metadata, options, start, deadline } = call;
    let timeout = deadline - start;
    let struck = sleep_until(deadline);
    tokio::pin!(struck);

    let service = channel.service();
    status::check_metadata(&metadata)?;
    let mut retry = Retry::new(options.is_idempotent, channel.settings().max_attempts);
    let mut tried = Vec::new();
    let request = channel.request(&options, method.path, &metadata);
    loop {
        let request = balance::Request { tried: &tried, ..request };
        let pick = channel.pick(&request, options.fail_fast, &mut struck).await?;
        let endpoint = pick.endpoint();
        let node = pick.node().clone();
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(status::no_answer(service, &node, timeout));
        }
        let head = head(method, &metadata, left, retry.previous_attempts());
        let reply = tokio::select! {
            biased;
            reply = pick.connection().unary(head, frame()) => reply,
            () = &mut struck => {
                pick.finish(Outcome::Failure);
                return Err(status::no_answer(service, &node, timeout));
            }
        };
        let (next, failed) = match reply {
            Ok(reply) => match status::of_reply(&reply.headers, &reply.trailers) {
                Ok(()) => {
                    let response = read(reply);
                    pick.finish(match &response {
                        Ok(_) => Outcome::Success,
                        Err(_) => Outcome::Failure,
                    });
                    return response;
                }
                Err(ended) => {
                    pick.finish(Outcome::of_code(ended.code()));
                    (retry.after_status(&ended), ended)
                }
            },
            Err(failure) => {
                pick.finish(Outcome::of_failure(&failure));
                (retry.after_failure(&failure), status::failed(service, &node, &failure))
            }
        };
        let pause = match next {
            Next::Fail => return Err(failed),
            Next::AttemptAfter(pause) => Some(pause),
            Next::Attempt if tried.contains(&endpoint) => Some(retry.pause()),
            Next::Attempt => None,
        };
        tried.push(endpoint);
        tracing::debug!(service, node = %node.id, error = %failed.message(), "call moves on");
        if let Some(pause) = pause {
            tokio::select! {
                () = sleep(pause) => {}
                () = &mut struck => return Err(status::between_attempts(service, timeout, &failed)),
            }
        }
    }
}

/// The soonest of what the call, its metadata, the handler it is made in and the default say.
pub(super) fn deadline_of(
    channel: &Channel,
    metadata: &HeaderMap,
    options: &Options,
    start: Instant,
) -> Instant {
    let inherited = if options.detached { None } else { crate::deadline::current() };
    let asked = options.timeout.or_else(|| deadline::from_headers(metadata));
    let own = deadline::after(start, asked.unwrap_or(channel.settings().request_timeout));
    deadline::sooner(Some(own), inherited).unwrap_or(own)
}

/// The length of the frame for a message of `len` bytes, if it may be sent.
pub(super) fn check_size(len: usize, limit: usize) -> Result<usize, Status> {
    if len > limit || u32::try_from(len).is_err() {
        return Err(status::request_too_large(len, limit));
    }
    Ok(PREFIX + len)
}

/// Encoded anew for each attempt: cheaper than sharing one buffer among attempts that are rarely
/// made.
pub(super) fn encode(message: &impl Message, frame_len: usize) -> Bytes {
    let mut frame = Vec::with_capacity(frame_len);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(frame_len - PREFIX).expect("checked against the limit"));
    message.encode(&mut frame).expect("a Vec grows");
    frame.into()
}

pub(super) fn decode<Res: Message + Default>(
    reply: UnaryReply,
    extensions: Extensions,
) -> Result<Response<Res>, Status> {
    let UnaryReply { headers, message, mut trailers } = reply;
    let message = message.ok_or_else(|| {
        Status::internal("the server ended the call with status OK and without a message")
    })?;
    let message = Res::decode(message).map_err(|error| {
        Status::internal(format!("the server's message cannot be decoded: {error}"))
    })?;
    let mut metadata = headers;
    // Its status has been read; most replies have no other trailer.
    trailers.remove(Status::GRPC_STATUS);
    if !trailers.is_empty() {
        metadata.extend(trailers);
    }
    Ok(Response::from_parts(MetadataMap::from_headers(metadata), message, extensions))
}

/// What a server or a proxy on the way reserves for itself: a caller's metadata cannot set it.
const RESERVED: [HeaderName; 9] = [
    header::TE,
    header::CONTENT_TYPE,
    grpc_timeout::GRPC_TIMEOUT,
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("grpc-status"),
    PREVIOUS_ATTEMPTS,
    // Ours is one message, sent as it is, and so is its reply.
    header::CONTENT_LENGTH,
    HeaderName::from_static("grpc-encoding"),
    HeaderName::from_static("grpc-accept-encoding"),
];
pub(super) const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
pub(super) const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("grpc-rust-micro/", env!("CARGO_PKG_VERSION")));

fn head(
    method: &MethodDescriptor,
    metadata: &HeaderMap,
    left: Duration,
    previous_attempts: u32,
) -> http::Request<()> {
    let mut fields =
        if metadata.is_empty() { HeaderMap::with_capacity(4) } else { metadata.clone() };
    if !metadata.is_empty() {
        for name in RESERVED.iter().chain(&headers::CONNECTION_SPECIFIC) {
            fields.remove(name);
        }
    }
    fields.insert(header::TE, TRAILERS);
    fields.insert(header::CONTENT_TYPE, GRPC);
    fields.entry(header::USER_AGENT).or_insert(USER_AGENT);
    fields.insert(grpc_timeout::GRPC_TIMEOUT, grpc_timeout::format(left));
    if previous_attempts > 0 {
        fields.insert(PREVIOUS_ATTEMPTS, previous_attempts.into());
    }
    let mut head = http::Request::new(());
    *head.method_mut() = Method::POST;
    *head.version_mut() = Version::HTTP_2;
    *head.uri_mut() = Uri::from_static(method.path);
    *head.headers_mut() = fields;
    head
}
