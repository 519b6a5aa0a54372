//! A unary call of a generated stub: our own framing, one buffer a message.

use std::{sync::Arc, time::Duration};

use bytes::{BufMut, Bytes};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header};
use prost::Message;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::{Code, Request, Response, Status, metadata::MetadataMap};

use super::{
    Channel, RetryPolicy, Served, deadline,
    hedge::{Hedge, Hedging},
    hedged::{Hedged, Sending, Won},
    limit::Limit,
    observed::Observed,
    retry::{Next, PREVIOUS_ATTEMPTS, Retry},
    service_config::MethodConfig,
    status,
};
use crate::{
    balance::{self, Outcome},
    descriptor::MethodDescriptor,
    framing::PREFIX,
    grpc_timeout, headers,
    metrics::AttemptKind,
    registry::Node,
    transport::{Failure, FailureKind, UnaryReply},
};

/// How a single call differs from its channel's defaults.
#[derive(Debug, Clone, Default)]
pub(super) struct Options {
    pub(super) timeout: Option<Duration>,
    pub(super) fail_fast: bool,
    pub(super) detached: bool,
    /// Whether the method's `.proto` gives an `idempotency_level`, or the call was said to be
    /// idempotent.
    pub(super) is_idempotent: bool,
    /// After what it is made again, if that was said.
    pub(super) retry: Option<RetryPolicy>,
    pub(super) hedge: Option<Hedge>,
    /// The limits on messages. None for tonic's stubs, which have limits of their own.
    pub(super) max_request: Option<Limit>,
    pub(super) max_response: Option<Limit>,
    /// The method's deadline by the service config.
    pub(super) method_timeout: Option<Duration>,
    /// How it is hedged, by call or service config.
    pub(super) hedging: Option<Hedging>,
    /// The hash of its key.
    pub(super) hash: Option<u64>,
    /// The id of the node that it is pinned to.
    pub(super) node: Option<Arc<str>>,
    /// Whether the path is of a method that a stub was generated for.
    pub(super) is_generated: bool,
}

impl Options {
    /// After what the call is made again, beyond what no handler has seen.
    pub(super) fn policy(&self) -> Option<RetryPolicy> {
        let declared = || self.is_idempotent.then(RetryPolicy::default);
        // What is not hedged all the same, a stream whose messages are yet to come, is made again when an
        // attempt has failed.
        self.retry.or_else(|| self.hedging.map(|it| it.others)).or_else(declared)
    }

    /// What the call says, and where it says nothing, the service config of its method.
    pub(super) fn configured(mut self, config: Option<&MethodConfig>) -> Self {
        if let Some(config) = config {
            self.method_timeout = config.timeout;
            self.fail_fast |= config.wait_for_ready == Some(false);
            self.max_request = Limit::lesser(self.max_request, config.max_request);
            self.max_response = Limit::lesser(self.max_response, config.max_response);
            if self.retry.is_none() {
                self.retry = config.retry;
                self.hedging = config.hedging;
            }
        }
        if let Some(Hedge { delay }) = self.hedge {
            let others = self.retry.unwrap_or_default();
            self.hedging = Some(Hedging { delay, timed: 1, others, is_strict: false });
        }
        self
    }

    /// The deadline that the call asks for: its own or its method's, whichever is sooner.
    pub(super) fn timeout(&self, headers: &HeaderMap) -> Option<Duration> {
        let own = self.timeout.or_else(|| deadline::from_headers(headers));
        own.into_iter().chain(self.method_timeout).min()
    }
}

pub(super) async fn call<Req, Res>(
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
    let (metadata, _, message) = request?.into_parts();
    let metadata = metadata.into_headers();
    let options = configured(&channel, method, &metadata, options, start).await;
    let deadline = deadline_of(&channel, &metadata, &options, start);
    let frame_len = check_size(message.encoded_len(), options.max_request)?;
    let call = Prepared { channel, method, metadata, options, start, deadline };
    let decode = |reply| decode(reply, Extensions::new());
    let (mut response, served) = attempts(call, || encode(&message, frame_len), decode).await?;
    response.extensions_mut().insert(served);
    Ok(response)
}

/// What a call says, laid over what the service config says of its method, once the registry was heard.
pub(super) async fn configured(
    channel: &Channel,
    method: &MethodDescriptor,
    metadata: &HeaderMap,
    options: Options,
    start: Instant,
) -> Options {
    if !channel.has_heard() {
        // By the config that is known without it.
        let known = channel.configured(options.clone(), method.path);
        let wait = deadline_of(channel, metadata, &known, start);
        channel.hear(known.fail_fast, wait).await;
    }
    channel.configured(options, method.path)
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
/// message with the prefix, asked for by each attempt; `read` makes the reply the caller's, if it is one.
pub(super) async fn attempts<T>(
    call: Prepared,
    frame: impl Fn() -> Bytes + Sync,
    read: impl Fn(UnaryReply) -> Result<T, Status> + Sync,
) -> Result<(T, Served), Status> {
    status::check_metadata(&call.metadata)?;
    let observed = call.channel.observe(&call.options, call.method.path, call.start);
    let ended = match call.options.hedging {
        // Apart, since most calls need no room for it.
        Some(hedging) => Box::pin(hedged(&call, &observed, hedging, frame, read)).await,
        None => one_by_one(&call, &observed, frame, read).await,
    };
    match ended {
        Ok(response) => {
            observed.ended(Code::Ok, "");
            Ok(response)
        }
        Err(status) => Err(observed.failed(status)),
    }
}

async fn hedged<T>(
    call: &Prepared,
    observed: &Observed,
    hedging: Hedging,
    frame: impl Fn() -> Bytes + Sync,
    read: impl Fn(UnaryReply) -> Result<T, Status> + Sync,
) -> Result<(T, Served), Status> {
    let Prepared { channel, method, metadata, options, start, deadline } = call;
    let path = method.path;
    let (start, deadline) = (*start, *deadline);
    let hedged =
        Hedged { channel, observed, options, path, metadata, start, deadline: Some(deadline) };
    let send = |Sending { attempt, connection, slot, node, previous }: Sending<'_>| {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut head = head(method, metadata, left, previous);
        attempt.goes_to(node, head.headers_mut());
        let frame = frame();
        attempt.sent(frame.len().saturating_sub(PREFIX));
        let (node, read) = (node.clone(), &read);
        async move { answer(connection.unary(slot?, head, frame).await?, &node, options, read) }
    };
    channel.purse().called();
    let check = |answer: &Answer<T>| match answer {
        Answer::Reply { .. } => Ok(()),
        Answer::Status(status) => Err(status.clone()),
    };
    let Won { reply: answer, mut attempt, pick, node, made, .. } =
        hedged.race(hedging, send, check).await?;
    let (length, reply) = match answer {
        Answer::Reply { length, reply } => (length, reply),
        Answer::Status(status) => return Err(attempt.failed(status)),
    };
    channel.purse().succeeded();
    attempt.received(length);
    attempt.ended(Code::Ok, "");
    pick.finish(Outcome::Success);
    Ok((reply?, Served::new(node, made)))
}

async fn one_by_one<T>(
    call: &Prepared,
    observed: &Observed,
    frame: impl Fn() -> Bytes + Sync,
    read: impl Fn(UnaryReply) -> Result<T, Status> + Sync,
) -> Result<(T, Served), Status> {
    let Prepared { channel, method, metadata, options, start, deadline } = call;
    let timeout = *deadline - *start;
    let struck = sleep_until(*deadline);
    tokio::pin!(struck);

    let service = channel.service();
    let (policy, most) = (options.policy(), channel.settings().max_attempts);
    let mut retry = Retry::new(policy, most, channel.purse(), Some(*deadline));
    let mut tried = Vec::new();
    let request = channel.request(options, method.path, metadata);
    let (mut kind, mut last) = (AttemptKind::First, None);
    loop {
        let previous = retry.previous_attempts();
        let mut attempt = observed.attempt(kind, previous);
        let asked = balance::Request { tried: &tried, ..request };
        let pick = match channel.pick(&asked, options.fail_fast, &mut struck, &attempt).await {
            Ok(pick) => pick,
            Err(none) => return Err(attempt.failed(status::after(last.as_ref(), none))),
        };
        let (pick, slot) = match channel.slot(pick, &asked, &mut struck).await {
            Ok(seated) => seated,
            Err(node) => return Err(attempt.failed(status::in_line(service, &node, timeout))),
        };
        let (endpoint, node) = (pick.endpoint(), pick.node().clone());
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(attempt.failed(status::no_answer(service, &node, timeout)));
        }
        let mut head = head(method, metadata, left, previous);
        attempt.goes_to(&node, head.headers_mut());
        let frame = frame();
        attempt.sent(frame.len().saturating_sub(PREFIX));
        let answered = tokio::select! {
            biased;
            answered = async {
                answer(pick.connection().unary(slot?, head, frame).await?, &node, options, &read)
            } => answered,
            () = &mut struck => {
                pick.finish(Outcome::Failure);
                return Err(attempt.failed(status::no_answer(service, &node, timeout)));
            }
        };
        let (next, failed) = match answered {
            Ok(Answer::Reply { length, reply }) => {
                retry.succeeded();
                attempt.received(length);
                attempt.ended(Code::Ok, "");
                pick.finish(Outcome::Success);
                return Ok((reply?, Served::new(node, tried.len() + 1)));
            }
            Ok(Answer::Status(ended)) => {
                pick.finish(Outcome::of_code(ended.code(), method.path));
                (retry.after_status(&ended, Instant::now()), ended)
            }
            Err(failure) => {
                pick.finish(Outcome::of_failure(&failure));
                (
                    retry.after_failure(&failure, Instant::now()),
                    status::failed(service, &node, &failure),
                )
            }
        };
        let failed = attempt.failed(failed);
        observed.idle();
        tried.push(endpoint);
        let pause = match next {
            Next::Fail => {
                if retry.is_unpaid() {
                    observed.retry_refused();
                }
                return Err(failed);
            }
            Next::AttemptAfter(pause) => Some(pause),
            Next::Attempt
                if channel.balancer().repeats(&balance::Request { tried: &tried, ..request }) =>
            {
                Some(retry.pause())
            }
            Next::Attempt => None,
        };
        let is_declared = retry.previous_attempts() > previous;
        kind = if is_declared { AttemptKind::Retry } else { AttemptKind::TransparentRetry };
        tracing::debug!(service, node = %node.id, error = %failed.message(), "call moves on");
        if let Some(pause) = pause {
            tokio::select! {
                biased;
                () = &mut struck => return Err(status::between_attempts(service, timeout, &failed)),
                () = sleep(pause) => {}
            }
        }
        last = Some(failed);
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
    let asked = options.timeout(metadata).unwrap_or(channel.settings().request_timeout);
    let own = deadline::after(start, asked);
    deadline::sooner(Some(own), inherited).unwrap_or(own)
}

/// The length of the frame for a message of `len` bytes, if it may be sent.
pub(super) fn check_size(len: usize, limit: Option<Limit>) -> Result<usize, Status> {
    let most = Limit::of_channel(u32::MAX as usize);
    let limit = limit.filter(|limit| limit.bytes < most.bytes).unwrap_or(most);
    if len > limit.bytes {
        return Err(status::request_too_large(len, limit));
    }
    Ok(PREFIX + len)
}

/// What a node answered.
enum Answer<T> {
    /// A message of so many bytes: as the caller has it, or one that this client is set not to take.
    Reply { length: usize, reply: Result<T, Status> },
    /// Any status but OK.
    Status(Status),
}

/// # Errors
/// When it is none.
fn answer<T>(
    reply: UnaryReply,
    node: &Node,
    options: &Options,
    read: impl Fn(UnaryReply) -> Result<T, Status>,
) -> Result<Answer<T>, Failure> {
    if let Err(status) = status::of_reply(&reply.headers, &reply.trailers) {
        return Ok(Answer::Status(status));
    }
    let length = reply.message.as_ref().map_or(0, Bytes::len);
    let reply = match check_reply(length, node, options) {
        Err(too_large) => Err(too_large),
        Ok(()) => {
            let undecodable = |status: Status| {
                let text = format!("{}: {}", node.address, status.message());
                Failure::new(FailureKind::Undecodable, Status::new(status.code(), text))
            };
            Ok(read(reply).map_err(undecodable)?)
        }
    };
    Ok(Answer::Reply { length, reply })
}

/// What is over the channel's limit was not even read; the method's may be less.
fn check_reply(length: usize, node: &Node, options: &Options) -> Result<(), Status> {
    match options.max_response {
        Some(limit) if length > limit.bytes => Err(status::reply_too_large(node, length, limit)),
        _ => Ok(()),
    }
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
    let message = message
        .ok_or_else(|| Status::internal("the layers have left the response without a message"))?;
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

pub(super) fn head(
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
