//! A call of any kind as HTTP: streams of our stubs, and everything of tonic's.

use http::{HeaderMap, Uri, header};
use http_body_util::{BodyExt as _, Full};
use tokio::time::Instant;
use tonic::Status;

use super::{
    Channel, deadline, limit::Limit, replay::Replay, retry::PREVIOUS_ATTEMPTS, status,
    unary::USER_AGENT,
};
use crate::{
    framing::{Checked, PREFIX, read_prefix},
    grpc_timeout, headers,
};

mod ahead;
mod attempts;
mod body;
mod bounded;

use attempts::{Begun, Call};
use body::ResponseBody;

pub(super) async fn call(
    channel: Channel,
    request: http::Request<tonic::body::Body>,
) -> Result<http::Response<tonic::body::Body>, Status> {
    let start = Instant::now();
    let channel = configured(channel, request.uri(), request.headers(), start).await;
    let deadline = deadline_of(&channel, request.headers(), start);
    attempts(channel, request, start, deadline).await
}

/// The channel with what the service config says of the method laid under the call's own options.
pub(super) async fn configured(
    channel: Channel,
    uri: &Uri,
    headers: &HeaderMap,
    start: Instant,
) -> Channel {
    let asked = channel.options();
    let known = |channel: Channel| {
        let options = channel.configured(asked.clone(), uri.path());
        channel.with_options(options)
    };
    if channel.has_heard() {
        return known(channel);
    }
    // By the config that is known without it.
    let channel = known(channel);
    let wait = deadline_of(&channel, headers, start);
    let wait = wait.unwrap_or(start + deadline::WAIT_WITHOUT_DEADLINE);
    channel.hear(channel.options().fail_fast, wait).await;
    known(channel)
}

/// The soonest of what the call, its metadata and the handler it is made in say, if any does.
pub(super) fn deadline_of(
    channel: &Channel,
    headers: &HeaderMap,
    start: Instant,
) -> Option<Instant> {
    let options = channel.options();
    let inherited = if options.detached { None } else { crate::deadline::current() };
    deadline::sooner(options.timeout(headers).map(|left| deadline::after(start, left)), inherited)
}

pub(super) async fn attempts(
    channel: Channel,
    request: http::Request<tonic::body::Body>,
    start: Instant,
    deadline: Option<Instant>,
) -> Result<http::Response<tonic::body::Body>, Status> {
    let (mut head, body) = request.into_parts();
    // What is left of the deadline is said anew by each attempt, and what is malformed by none.
    head.headers.remove(grpc_timeout::GRPC_TIMEOUT);
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.remove(PREVIOUS_ATTEMPTS);
    for name in headers::CONNECTION_SPECIFIC {
        head.headers.remove(name);
    }
    head.headers.entry(header::USER_AGENT).or_insert(USER_AGENT);
    status::check_metadata(&head.headers)?;
    // Of tonic's stubs, the generated ones say what they are.
    let mut options = channel.options();
    options.is_generated |= head.extensions.get::<tonic::GrpcMethod<'_>>().is_some();
    let body = match options.max_request {
        None => body,
        Some(limit) => {
            let refuse = status::request_too_large;
            tonic::body::Body::new(Checked::new(body, within(limit, refuse)))
        }
    };
    let (hedged, body) = match options.hedging {
        None => (None, body),
        Some(hedging) => match ahead::whole(body).await {
            Ok(message) => {
                let body = tonic::body::Body::new(Full::new(message.clone()));
                (Some((hedging, message)), body)
            }
            Err(body) => (None, body),
        },
    };
    let (replay, first) = Replay::new(body);
    let mut call = Call::new(channel, options, head, replay, start, deadline);
    let begun = match hedged {
        Some((hedging, message)) => Box::pin(call.begin_hedged(hedging, message)).await,
        None => call.begin(first).await,
    };
    match begun {
        Ok(Begun::Streams(response, attempt)) => {
            Ok(ResponseBody::new(call, attempt, response).map(tonic::body::Body::new))
        }
        Ok(Begun::Over(response, ended)) => {
            call.observed.failed(ended);
            Ok(response.map(|body| tonic::body::Body::new(body.map_err(Status::from))))
        }
        Err(status) => Err(call.observed.failed(status)),
    }
}

/// Whether a message may have the length that its prefix gives. Those of tonic's stubs are bounded by
/// the service config alone.
fn within(
    limit: Limit,
    refuse: impl Fn(usize, Limit) -> Status,
) -> impl Fn([u8; PREFIX]) -> Result<usize, Status> {
    move |prefix| {
        let (_, length) = read_prefix(prefix);
        if length <= limit.bytes { Ok(length) } else { Err(refuse(length, limit)) }
    }
}
