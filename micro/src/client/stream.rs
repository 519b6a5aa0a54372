//! A call of any kind as HTTP: streams of our stubs, and everything of tonic's.

use bytes::Bytes;
use http::{HeaderMap, Uri, Version, header};
use http_body::Body;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::{Code, Status};

use super::{
    Channel, Served, deadline,
    limit::Limit,
    observed::{Attempt, Observed},
    replay::Replay,
    retry::{Next, PREVIOUS_ATTEMPTS, Retry},
    status,
    unary::USER_AGENT,
};
use crate::{
    balance::{self, Outcome, Pick},
    framing::{Checked, read_prefix},
    grpc_timeout, headers,
    metrics::AttemptKind,
};

mod bounded;

use bounded::{Bounded, End};

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
    let wait = deadline_of(&channel, headers, start);
    let wait = wait.unwrap_or(start + deadline::WAIT_WITHOUT_DEADLINE);
    channel.hear(channel.options().fail_fast, wait).await;
    let options = channel.configured(channel.options(), uri.path());
    channel.with_options(options)
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
    let observed = channel.observe(&options, head.uri.path(), start);
    match one_by_one(&channel, &observed, &head, body, start, deadline).await {
        Ok((response, Begun::Streams(attempt))) => {
            Ok(response.map(|body| observed.streams(attempt, body)))
        }
        Ok((response, Begun::Over(ended))) => {
            observed.failed(ended);
            Ok(response)
        }
        Err(status) => Err(observed.failed(status)),
    }
}

/// What is known of a call with its response's headers.
enum Begun {
    Streams(Attempt),
    /// They are all, with this status.
    Over(Status),
}

/// A stream under way.
struct Streaming {
    pick: Pick,
    /// What counts its end, if anything does.
    retry: Option<Retry<'static>>,
}

impl Streaming {
    fn ended(self, end: End<'_>) {
        if let Some(mut retry) = self.retry {
            // It is not made again, whatever is said.
            match end {
                End::Whole(trailers) => match trailers.and_then(Status::from_header_map) {
                    Some(status) if status.code() == Code::Ok => retry.succeeded(),
                    Some(status) => _ = retry.after_status(&status, Instant::now()),
                    None => {}
                },
                End::Broken(failure) => _ = retry.after_failure(failure, Instant::now()),
                End::Struck => {}
            }
        }
        self.pick.finish(end.outcome());
    }
}

async fn one_by_one(
    channel: &Channel,
    observed: &Observed,
    head: &http::request::Parts,
    body: tonic::body::Body,
    start: Instant,
    deadline: Option<Instant>,
) -> Result<(http::Response<tonic::body::Body>, Begun), Status> {
    let options = channel.options();
    // Without a deadline: the bound on all waiting for a node that takes the call, in line for one
    // of its streams included.
    let struck = sleep_until(deadline.unwrap_or(start + deadline::WAIT_WITHOUT_DEADLINE));
    tokio::pin!(struck);

    let service = channel.service();
    let body = limited(body, options.max_request, status::request_too_large);
    let (replay, mut body) = Replay::new(body);
    let mut retry = Retry::new(options.policy(), channel.settings().max_attempts, channel.purse());
    let mut tried = Vec::new();
    let request = channel.request(&options, head.uri.path(), &head.headers);
    let (mut kind, mut last) = (AttemptKind::First, None);
    loop {
        let previous = retry.previous_attempts();
        let mut attempt = observed.attempt(kind, previous);
        let asked = balance::Request { tried: &tried, ..request };
        let pick = match channel.pick(&asked, options.fail_fast, &mut struck, &attempt).await {
            Ok(pick) => pick,
            Err(none) => return Err(attempt.failed(status::after(last.as_ref(), none))),
        };
        let (mut pick, slot) = match channel.slot(pick, &asked, &mut struck).await {
            Ok(seated) => seated,
            Err(node) => {
                return Err(attempt.failed(match deadline {
                    Some(deadline) => status::in_line(service, &node, deadline - start),
                    None => status::no_stream(service, &node),
                }));
            }
        };
        let (endpoint, node) = (pick.endpoint(), pick.node().clone());
        let picked = Instant::now();
        if deadline.is_some_and(|deadline| deadline <= picked) {
            let late = status::no_answer(service, &node, struck.deadline() - start);
            return Err(attempt.failed(late));
        }
        let mut head = again(head, deadline, previous);
        attempt.goes_to(&node, &mut head.headers);
        let connection = pick.connection().clone();
        let sent = attempt.request(body);
        let response =
            async { connection.stream(slot?, http::Request::from_parts(head, sent)).await };
        let response = tokio::select! {
            biased;
            response = response => response,
            () = &mut struck, if deadline.is_some() => {
                pick.finish(Outcome::Failure);
                let late = status::no_answer(service, &node, struck.deadline() - start);
                return Err(attempt.failed(late));
            }
        };
        let (next, failed) = match response {
            Ok(response) => {
                // A stream's latency is that of its headers, and they commit the call to this attempt,
                // unless they are its end too: a status and nothing else (gRFC A6).
                let ended = Status::from_header_map(response.headers());
                let code = ended.as_ref().map(Status::code);
                pick.report(code.map_or(Outcome::Begun, Outcome::of_code));
                if code == Some(Code::Ok) {
                    retry.succeeded();
                }
                match ended.map(|ended| (retry.after_status(&ended, Instant::now()), ended)) {
                    stays @ (None | Some((Next::Fail, _))) => {
                        replay.commit();
                        let mut response = response;
                        let served = Served::new(node.clone(), tried.len() + 1);
                        response.extensions_mut().insert(served);
                        let (begun, end): (_, fn(Streaming, End<'_>)) = match stays {
                            None => (Begun::Streams(attempt), Streaming::ended),
                            // It was reported, and is no more than in flight.
                            Some((_, ended)) => (Begun::Over(attempt.failed(ended)), |_, _| {}),
                        };
                        if retry.is_unpaid() {
                            observed.retry_refused();
                        }
                        let streaming = Streaming { pick, retry: retry.committed() };
                        let response = response.map(|body| {
                            let body = Bounded::new(body, deadline, node.clone(), streaming, end);
                            limited(body, options.max_response, move |length, limit| {
                                status::reply_too_large(&node, length, limit)
                            })
                        });
                        return Ok((response, begun));
                    }
                    Some(retried) => retried,
                }
            }
            Err(failure) => {
                pick.report(Outcome::of_failure(&failure));
                (
                    retry.after_failure(&failure, Instant::now()),
                    status::failed(service, &node, &failure),
                )
            }
        };
        drop(pick);
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
        body = match replay.attempt() {
            Some(body) => body,
            None => return Err(failed),
        };
        let is_declared = retry.previous_attempts() > previous;
        kind = if is_declared { AttemptKind::Retry } else { AttemptKind::TransparentRetry };
        tracing::debug!(service, node = %node.id, error = %failed.message(), "call moves on");
        if deadline.is_none() {
            // What a node had the call for was no waiting.
            let until = struck.deadline() + picked.elapsed();
            struck.as_mut().reset(until);
        }
        if let Some(pause) = pause {
            tokio::select! {
                biased;
                () = &mut struck => return Err(match deadline {
                    Some(deadline) => status::between_attempts(service, deadline - start, &failed),
                    None => failed,
                }),
                () = sleep(pause) => {}
            }
        }
        last = Some(failed);
    }
}

/// The body with a bound on each of its messages; those of tonic's stubs have one only by the service
/// config.
fn limited<B>(
    body: B,
    limit: Option<Limit>,
    refuse: impl Fn(usize, Limit) -> Status + Send + 'static,
) -> tonic::body::Body
where
    B: Body<Data = Bytes, Error = Status> + Send + 'static,
{
    let Some(limit) = limit else {
        return tonic::body::Body::new(body);
    };
    tonic::body::Body::new(Checked::new(body, move |prefix| {
        let (_, length) = read_prefix(prefix);
        if length <= limit.bytes { Ok(length) } else { Err(refuse(length, limit)) }
    }))
}

/// The head of one attempt: the path alone, since the connection knows its authority, what is left
/// of the deadline, and how many declared retries went before.
fn again(
    head: &http::request::Parts,
    deadline: Option<Instant>,
    previous_attempts: u32,
) -> http::request::Parts {
    let mut head = head.clone();
    head.version = Version::HTTP_2;
    if let Some(path) = head.uri.path_and_query().cloned() {
        head.uri = Uri::from(path);
    }
    if let Some(deadline) = deadline {
        let left = deadline.saturating_duration_since(Instant::now());
        head.headers.insert(grpc_timeout::GRPC_TIMEOUT, grpc_timeout::format(left));
    }
    if previous_attempts > 0 {
        head.headers.insert(PREVIOUS_ATTEMPTS, previous_attempts.into());
    }
    head
}
