//! A call of any kind as HTTP: streams of our stubs, and everything of tonic's.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Uri, Version};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tonic::Status;

use super::{
    Channel, deadline,
    replay::Replay,
    retry::{Next, Retry},
    status,
};
use crate::{
    balance::{Outcome, Pick},
    grpc_timeout,
};

pub(super) async fn call(
    channel: Channel,
    request: http::Request<tonic::body::Body>,
) -> Result<http::Response<tonic::body::Body>, Status> {
    let start = Instant::now();
    let options = channel.options();
    let (head, body) = request.into_parts();
    let inherited = if options.detached { None } else { crate::deadline::current() };
    let asked = options.timeout.or_else(|| deadline::from_headers(&head.headers));
    let deadline = deadline::sooner(asked.map(|left| deadline::after(start, left)), inherited);
    // Without a deadline: the bound on all waiting for a node that takes the call.
    let struck = sleep_until(deadline.unwrap_or(start + deadline::WAIT_WITHOUT_DEADLINE));
    tokio::pin!(struck);

    let service = channel.service();
    status::check_metadata(&head.headers)?;
    let (replay, mut body) = Replay::new(body);
    let mut retry = Retry::new(false, 1);
    let mut tried = Vec::new();
    loop {
        let mut pick = channel.pick(&tried, options.fail_fast, &mut struck).await?;
        let (endpoint, node) = (pick.endpoint(), pick.node().clone());
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(status::no_answer(service, &node, struck.deadline() - start));
        }
        let request = http::Request::from_parts(again(&head, deadline), body);
        let response = tokio::select! {
            biased;
            response = pick.connection().stream(request) => response,
            () = &mut struck, if deadline.is_some() => {
                pick.finish(Outcome::Failure);
                return Err(status::no_answer(service, &node, struck.deadline() - start));
            }
        };
        let failure = match response {
            Ok(response) => {
                pick.report(outcome_of(response.headers()));
                let bound = |body| tonic::body::Body::new(Bounded::new(body, deadline, pick));
                return Ok(response.map(bound));
            }
            Err(failure) => failure,
        };
        pick.finish(Outcome::of_failure(&failure));
        let failed = status::failed(service, &node, &failure);
        if retry.after_failure(&failure) == Next::Fail {
            return Err(failed);
        }
        body = match replay.attempt() {
            Some(body) => body,
            None => return Err(failed),
        };
        if tried.contains(&endpoint) {
            tokio::select! {
                () = sleep(retry.pause()) => {}
                () = &mut struck => {
                    return Err(status::between_attempts(service, struck.deadline() - start, &failed));
                }
            }
        }
        tried.push(endpoint);
        tracing::debug!(service, node = %node.id, error = %failed.message(), "call moves on");
    }
}

/// The head of one attempt: the path alone, since the connection knows its authority, and what is
/// left of the deadline.
fn again(head: &http::request::Parts, deadline: Option<Instant>) -> http::request::Parts {
    let mut head = head.clone();
    head.version = Version::HTTP_2;
    if let Some(path) = head.uri.path_and_query().cloned() {
        head.uri = Uri::from(path);
    }
    if let Some(deadline) = deadline {
        let left = deadline.saturating_duration_since(Instant::now());
        head.headers.insert(grpc_timeout::GRPC_TIMEOUT, grpc_timeout::format(left));
    }
    head
}

/// A stream is judged at its headers: whether they are also its end, and with which status.
fn outcome_of(headers: &HeaderMap) -> Outcome {
    Status::from_header_map(headers)
        .map_or(Outcome::Success, |ended| Outcome::of_code(ended.code()))
}

pin_project! {
    /// A response body that counts as in flight while it lives, and that ends with
    /// `DeadlineExceeded` when the call's deadline strikes.
    struct Bounded<B> {
        #[pin]
        body: B,
        #[pin]
        struck: Option<Sleep>,
        pick: Pick,
        is_over: bool,
    }
}

impl<B> Bounded<B> {
    fn new(body: B, deadline: Option<Instant>, pick: Pick) -> Self {
        Self { body, struck: deadline.map(sleep_until), pick, is_over: false }
    }
}

impl<B> Body for Bounded<B>
where
    B: Body<Data = Bytes, Error: Into<Status>>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.project();
        if *this.is_over {
            return Poll::Ready(None);
        }
        // Asked first: a stream whose messages are always there must end too.
        let struck = this.struck.as_pin_mut();
        if struck.is_some_and(|struck| struck.poll(cx).is_ready()) {
            *this.is_over = true;
            return Poll::Ready(Some(Err(status::mid_stream(this.pick.node()))));
        }
        let frame = this.body.poll_frame(cx);
        frame.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
