//! The attempts of a stream, one after the other.

use std::sync::Arc;

use bytes::Bytes;
use http::{Uri, Version};
use http_body_util::{BodyExt as _, Empty, Full, combinators::UnsyncBoxBody};
use tokio::time::{Instant, sleep, sleep_until};
use tonic::{Code, Status};

use super::{
    super::{
        Channel, Served, deadline,
        hedge::Hedging,
        hedged::{Hedged, Sending, Won},
        observed::{self, Observed},
        replay::{self, Replay},
        retry::{Next, PREVIOUS_ATTEMPTS, Retry},
        status,
        unary::Options,
    },
    bounded::{Bounded, Cut, End},
    within,
};
use crate::{
    balance::{self, EndpointId, Outcome, Pick},
    framing::Checked,
    grpc_timeout,
    metrics::AttemptKind,
    registry::Node,
};

/// The body of one attempt's response.
pub(super) type Body = UnsyncBoxBody<Bytes, Cut>;

/// A call with all that its further attempts need.
pub(super) struct Call {
    pub(super) observed: Observed,
    pub(super) retry: Retry,
    pub(super) replay: Replay,
    channel: Channel,
    options: Options,
    head: http::request::Parts,
    start: Instant,
    deadline: Option<Instant>,
    /// The deadline, or without one: the bound on all waiting for a node that takes the call, in line
    /// for one of its streams included.
    struck: Instant,
    tried: Vec<EndpointId>,
    made: usize,
    newest: Newest,
    /// What the last attempt came to that failed.
    failed: Option<Status>,
}

/// The newest attempt.
struct Newest {
    /// How many went before it that count.
    previous: u32,
    node: Option<Arc<Node>>,
    picked: Instant,
}

/// What is known of a call with its response's headers.
pub(super) enum Begun {
    Streams(http::Response<Body>, observed::Attempt),
    /// They are all, with this status.
    Over(http::Response<Body>, Status),
}

impl Call {
    pub(super) fn new(
        channel: Channel,
        options: Options,
        head: http::request::Parts,
        replay: Replay,
        start: Instant,
        deadline: Option<Instant>,
    ) -> Self {
        let most = channel.settings().max_attempts;
        Self {
            observed: channel.observe(&options, head.uri.path(), start),
            retry: Retry::new(options.policy(), most, channel.purse(), deadline),
            replay,
            struck: deadline.unwrap_or(start + deadline::WAIT_WITHOUT_DEADLINE),
            tried: Vec::new(),
            made: 0,
            newest: Newest { previous: 0, node: None, picked: start },
            failed: None,
            channel,
            options,
            head,
            start,
            deadline,
        }
    }

    /// Attempts the call until its response begins.
    pub(super) async fn begin(&mut self, mut body: replay::Attempt) -> Result<Begun, Status> {
        loop {
            match self.attempt(body).await {
                Ok(begun) => return Ok(begun),
                Err((next, failed)) => body = self.moves_on(next, failed).await?,
            }
        }
    }

    /// As [`begin`](Self::begin), with further attempts while others are under way: the first response
    /// that begins well is the call's. `message` is all of the request.
    pub(super) async fn begin_hedged(
        &mut self,
        hedging: Hedging,
        message: Bytes,
    ) -> Result<Begun, Status> {
        let Self { observed, channel, options, head, start, deadline, .. } = self;
        let (start, deadline) = (*start, *deadline);
        let (path, metadata) = (head.uri.path(), &head.headers);
        let hedged = Hedged { channel, observed, options, path, metadata, start, deadline };
        let send = |Sending { attempt, connection, slot, node, previous }: Sending<'_>| {
            let mut head = again(head, deadline, previous);
            attempt.goes_to(node, &mut head.headers);
            let body = attempt.request(Full::new(message.clone()));
            let request = http::Request::from_parts(head, body);
            async move { connection.stream(slot?, request).await }
        };
        let ended = |response: &http::Response<_>| Status::from_header_map(response.headers());
        let is_good = |ended: &Status| ended.code() == Code::Ok;
        let check = |response: &http::Response<_>| match ended(response) {
            Some(ended) if !is_good(&ended) => Err(ended),
            _ => Ok(()),
        };
        let won = hedged.race(hedging, send, check).await?;
        let Won { reply: response, attempt, mut pick, node, race, tried, made } = won;
        self.retry = race.into_retry();
        (self.tried, self.made) = (tried, made);
        self.newest = Newest {
            previous: self.retry.previous_attempts(),
            node: Some(node.clone()),
            picked: Instant::now(),
        };
        self.struck = deadline.unwrap_or(self.newest.picked + deadline::WAIT_WITHOUT_DEADLINE);
        Ok(match ended(&response) {
            None => {
                pick.report(Outcome::Begun);
                let response = self.answered(response, node, pick);
                Begun::Streams(response, attempt)
            }
            Some(ended) => {
                pick.report(Outcome::Success);
                self.retry.succeeded();
                let ended = attempt.failed(ended);
                Begun::Over(self.over(response, node), ended)
            }
        })
    }

    /// Once more, after a response that ended before its first message.
    pub(super) async fn begin_again(
        &mut self,
        next: Next,
        failed: Status,
    ) -> Result<Begun, Status> {
        let body = self.moves_on(next, failed).await?;
        self.begin(body).await
    }

    /// # Errors
    /// What the attempt came to, and what follows.
    async fn attempt(&mut self, body: replay::Attempt) -> Result<Begun, (Next, Status)> {
        let Self { channel, options, head, start, deadline, retry, tried, made, newest, .. } = self;
        let struck = sleep_until(self.struck);
        tokio::pin!(struck);
        let service = channel.service();
        let before = std::mem::replace(&mut newest.previous, retry.previous_attempts());
        let kind = if *made == 0 {
            AttemptKind::First
        } else if newest.previous > before {
            AttemptKind::Retry
        } else {
            AttemptKind::TransparentRetry
        };
        let mut attempt = self.observed.attempt(kind, newest.previous);
        let request = channel.request(options, head.uri.path(), &head.headers);
        let asked = balance::Request { tried, ..request };
        let pick = match channel.pick(&asked, options.fail_fast, &mut struck, &attempt).await {
            Ok(pick) => pick,
            Err(none) => {
                let none = status::after(self.failed.as_ref(), none);
                return Err((Next::Fail, attempt.failed(none)));
            }
        };
        let (mut pick, slot) = match channel.slot(pick, &asked, &mut struck).await {
            Ok(seated) => seated,
            Err(node) => {
                let in_line = match *deadline {
                    Some(deadline) => status::in_line(service, &node, deadline - *start),
                    None => status::no_stream(service, &node),
                };
                return Err((Next::Fail, attempt.failed(in_line)));
            }
        };
        let node = pick.node().clone();
        tried.push(pick.endpoint());
        *made += 1;
        (newest.node, newest.picked) = (Some(node.clone()), Instant::now());
        let late = || status::no_answer(service, &node, self.struck - *start);
        if deadline.is_some_and(|deadline| deadline <= newest.picked) {
            return Err((Next::Fail, attempt.failed(late())));
        }
        let mut head = again(head, *deadline, newest.previous);
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
                return Err((Next::Fail, attempt.failed(late())));
            }
        };
        if self.replay.is_spent() {
            // What is not to be paid for.
            retry.commit();
        }
        let response = match response {
            Ok(response) => response,
            Err(failure) => {
                pick.report(Outcome::of_failure(&failure));
                let next = retry.after_failure(&failure, Instant::now());
                return Err((next, attempt.failed(status::failed(service, &node, &failure))));
            }
        };
        // A stream's latency is that of its headers, unless they are its end too: a status and nothing
        // else (gRFC A6).
        let Some(ended) = Status::from_header_map(response.headers()) else {
            pick.report(Outcome::Begun);
            let response = self.answered(response, node, pick);
            return Ok(Begun::Streams(response, attempt));
        };
        pick.report(Outcome::of_code(ended.code(), request.method));
        let ended = attempt.failed(ended);
        if ended.code() == Code::Ok {
            retry.succeeded();
        } else {
            match retry.after_status(&ended, Instant::now()) {
                Next::Fail => {}
                next => return Err((next, ended)),
            }
        }
        self.unpaid();
        Ok(Begun::Over(self.over(response, node), ended))
    }

    /// A response that was over with its headers, as its caller has it: nothing that follows matters.
    fn over<B>(&self, response: http::Response<B>, node: Arc<Node>) -> http::Response<Body> {
        let mut response =
            response.map(|_| Empty::new().map_err(|never| match never {}).boxed_unsync());
        response.extensions_mut().insert(Served::new(node, self.made));
        response
    }

    /// One whose body is still to come.
    fn answered(
        &self,
        response: http::Response<crate::transport::Body>,
        node: Arc<Node>,
        pick: Pick,
    ) -> http::Response<Body> {
        let (mut head, body) = response.into_parts();
        head.extensions.insert(Served::new(node.clone(), self.made));
        let in_flight = (pick, self.head.uri.clone());
        let body = Bounded::new(body, self.deadline, node.clone(), in_flight, judged);
        let body = match self.options.max_response {
            None => body.boxed_unsync(),
            Some(limit) => {
                let refuse = move |length, limit| status::reply_too_large(&node, length, limit);
                Checked::new(body, within(limit, refuse)).boxed_unsync()
            }
        };
        http::Response::from_parts(head, body)
    }

    /// The body of the next attempt, when it is time for it.
    ///
    /// # Errors
    /// What the call ends with.
    async fn moves_on(&mut self, next: Next, failed: Status) -> Result<replay::Attempt, Status> {
        let Self { channel, options, head, retry, tried, newest, .. } = self;
        let request = channel.request(options, head.uri.path(), &head.headers);
        let pause = match next {
            Next::Fail => {
                self.unpaid();
                return Err(failed);
            }
            Next::AttemptAfter(pause) => Some(pause),
            Next::Attempt if channel.balancer().repeats(&balance::Request { tried, ..request }) => {
                Some(retry.pause())
            }
            Next::Attempt => None,
        };
        self.observed.idle();
        let Some(body) = self.replay.attempt() else {
            return Err(failed);
        };
        let service = channel.service();
        let node = newest.node.as_ref().map(|node| &*node.id);
        tracing::debug!(service, node, error = %failed.message(), "call moves on");
        if self.deadline.is_none() {
            // What a node had the call for was no waiting.
            self.struck += newest.picked.elapsed();
        }
        if let Some(pause) = pause {
            tokio::select! {
                biased;
                () = sleep_until(self.struck) => return Err(match self.deadline {
                    Some(deadline) => {
                        status::between_attempts(service, deadline - self.start, &failed)
                    }
                    None => failed,
                }),
                () = sleep(pause) => {}
            }
        }
        self.failed = Some(failed);
        Ok(body)
    }

    /// What the last attempt came to that failed.
    pub(super) fn last_failure(&self) -> Status {
        self.failed.clone().unwrap_or_else(|| Status::unknown(""))
    }

    /// Whether an attempt that a handler has seen may be followed by another.
    pub(super) fn may_follow(&self) -> bool {
        self.retry.may_follow() && !self.replay.is_spent()
    }

    /// Says it if only the budget kept it from another attempt.
    pub(super) fn unpaid(&self) {
        if self.retry.is_unpaid() {
            self.observed.retry_refused();
        }
    }
}

/// A stream's end says something of its node.
fn judged((pick, uri): (Pick, Uri), end: End<'_>) {
    pick.finish(end.outcome(uri.path()));
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
