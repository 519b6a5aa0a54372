//! A call of any kind as HTTP: streams of our stubs, and everything of tonic's.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Uri, Version, header};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
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
    registry::Node,
};

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
        let mut pick = match channel.pick(&asked, options.fail_fast, &mut struck, &attempt).await {
            Ok(pick) => pick,
            Err(none) => return Err(attempt.failed(status::after(last.as_ref(), none))),
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
        let slot = tokio::select! {
            biased;
            slot = connection.slot() => slot,
            () = &mut struck => {
                pick.finish(Outcome::Failure);
                return Err(attempt.failed(match deadline {
                    Some(deadline) => status::no_answer(service, &node, deadline - start),
                    None => status::no_stream(service, &node),
                }));
            }
        };
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
                if code.is_none_or(|code| code == Code::Ok) {
                    retry.succeeded();
                }
                match ended.map(|ended| (retry.after_status(&ended, Instant::now()), ended)) {
                    stays @ (None | Some((Next::Fail, _))) => {
                        let mut response = response;
                        let served = Served::new(node.clone(), tried.len() + 1);
                        response.extensions_mut().insert(served);
                        let begun = match stays {
                            None => Begun::Streams(attempt),
                            Some((_, ended)) => Begun::Over(attempt.failed(ended)),
                        };
                        if retry.is_unpaid() {
                            observed.retry_refused();
                        }
                        let response = response.map(|body| {
                            let end = |pick: Pick, outcome| pick.finish(outcome);
                            let body = Bounded::new(body, deadline, node.clone(), pick, end);
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
            Next::Attempt if channel.repeats(&balance::Request { tried: &tried, ..request }) => {
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

pin_project! {
    /// A response body that counts as in flight until it ends or is dropped, and that ends with
    /// `DeadlineExceeded` when the call's deadline strikes.
    struct Bounded<B, P> {
        // Neither is kept once nothing follows: who has read a stream to its end may hold it for
        // long, and a stream cut short is to be reset.
        #[pin]
        body: Option<B>,
        in_flight: Option<P>,
        end: fn(P, Outcome),
        #[pin]
        struck: Option<Sleep>,
        node: Arc<Node>,
    }
}

impl<B, P> Bounded<B, P> {
    /// `end` takes how it went.
    fn new(
        body: B,
        deadline: Option<Instant>,
        node: Arc<Node>,
        in_flight: P,
        end: fn(P, Outcome),
    ) -> Self {
        let struck = deadline.map(sleep_until);
        Self { body: Some(body), in_flight: Some(in_flight), end, struck, node }
    }
}

impl<B, P> Body for Bounded<B, P>
where
    B: Body<Data = Bytes, Error: Into<Status>>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut this = self.project();
        let Some(body) = this.body.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        // By the clock: a stream whose messages are always there must end too, and a sleep never
        // ends for a task that does not yield.
        let is_struck =
            this.struck.as_ref().as_pin_ref().is_some_and(|it| it.deadline() <= Instant::now());
        let frame = if is_struck { Poll::Pending } else { body.poll_frame(cx) };
        let frame = match frame {
            Poll::Ready(frame) => {
                frame.map(|frame| frame.map_err(|error| status::broken(this.node, &error.into())))
            }
            Poll::Pending => {
                match this.struck.as_pin_mut() {
                    None => return Poll::Pending,
                    Some(struck) if !is_struck => ready!(struck.poll(cx)),
                    Some(_) => {}
                }
                // The caller's time is over, which for a stream says nothing of the node.
                if let Some(in_flight) = this.in_flight.take() {
                    (this.end)(in_flight, Outcome::Cancelled);
                }
                Some(Err(status::mid_stream(this.node)))
            }
        };
        if !matches!(&frame, Some(Ok(frame)) if frame.is_data()) {
            this.body.set(None);
            if let Some(in_flight) = this.in_flight.take() {
                (this.end)(in_flight, outcome(frame.as_ref()));
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// What the end of a stream says of its node.
fn outcome(last: Option<&Result<Frame<Bytes>, Status>>) -> Outcome {
    match last {
        Some(Ok(frame)) => {
            let status = frame.trailers_ref().and_then(headers::status);
            status.map_or(Outcome::Success, |(code, _)| Outcome::of_code(code))
        }
        Some(Err(status)) => Outcome::of_code(status.code()),
        None => Outcome::Success,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use http_body_util::{BodyExt as _, StreamBody};

    fn node() -> Arc<Node> {
        Arc::new(Node::new("a", "a-1", "host:1"))
    }

    /// A guard, and whether it is still held.
    fn guard() -> (Arc<()>, impl Fn() -> bool) {
        let guard = Arc::new(());
        let weak = Arc::downgrade(&guard);
        (guard, move || weak.strong_count() > 0)
    }

    #[tokio::test]
    async fn a_stream_read_to_its_end_is_no_longer_in_flight() {
        let trailers = Frame::trailers(HeaderMap::new());
        let frames = [Ok::<_, Status>(Frame::data(Bytes::from_static(b"word"))), Ok(trailers)];
        let (in_flight, is_in_flight) = guard();
        let body = StreamBody::new(tokio_stream::iter(frames));
        let mut body = Box::pin(Bounded::new(body, None, node(), in_flight, |_, _| {}));
        body.frame().await.expect("data").expect("ok");
        assert!(is_in_flight());
        body.frame().await.expect("trailers").expect("ok");
        assert!(!is_in_flight(), "though its reader holds it still");
        assert!(body.frame().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_its_deadline_ends_is_dropped() {
        let (in_flight, is_in_flight) = guard();
        let (held, is_held) = guard();
        let body = StreamBody::new(futures_util::stream::once(async move {
            std::future::pending::<()>().await;
            drop(held);
            Ok::<_, Status>(Frame::data(Bytes::new()))
        }));
        let deadline = Instant::now() + Duration::from_secs(1);
        let mut body = Box::pin(Bounded::new(body, Some(deadline), node(), in_flight, |_, _| {}));
        let status = body.frame().await.expect("an error").expect_err("the deadline");
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert!(!is_in_flight() && !is_held(), "the peer is told by the reset");
    }

    #[tokio::test]
    async fn a_deadline_ends_a_stream_whose_messages_are_always_there() {
        let frame = || Some((Ok::<_, Status>(Frame::data(Bytes::from_static(b"word"))), ()));
        let body = StreamBody::new(futures_util::stream::unfold((), |()| async { frame() }));
        let start = Instant::now();
        let deadline = start + Duration::from_millis(10);
        let mut body = Box::pin(Bounded::new(body, Some(deadline), node(), (), |(), _| {}));
        // Never yields: every frame is there at once.
        let status = loop {
            match body.frame().await.expect("not at its end") {
                Ok(_) => assert!(start.elapsed() < Duration::from_secs(5), "it goes on for ever"),
                Err(status) => break status,
            }
        };
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert!(start.elapsed() >= Duration::from_millis(10));
        assert!(body.frame().await.is_none(), "and nothing follows");
    }
}
