//! The body of a stream's response, as its caller reads it.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderValue;
use http_body::Frame;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::{
    super::{
        observed::{Attempt, Observed},
        retry::{Next, Retry},
    },
    attempts::{Begun, Body, Call},
    bounded::Cut,
};
use crate::{headers, registry::BoxFuture};

/// A response's body. One that ends before its first message, in a way that is worth another attempt,
/// is followed by that attempt's. Its end is told; one that is dropped before is a call that was
/// cancelled.
pub(super) struct ResponseBody {
    state: State,
    /// How the messages are compressed that its reader was told of.
    encoding: Option<HeaderValue>,
}

enum State {
    /// Without a message so far: another attempt may take its place.
    Awaited {
        body: Body,
        attempt: Attempt,
        call: Box<Call>,
    },
    /// Another attempt, until its response begins.
    Again(BoxFuture<'static, (Box<Call>, Result<Begun, Status>)>),
    /// To its end. What the call was made of is kept no longer: it may go on for hours.
    Streams {
        body: Body,
        attempt: Attempt,
        told: Box<(Observed, Retry)>,
    },
    Over,
}

impl ResponseBody {
    /// The body of a response with these headers.
    pub(super) fn new(
        call: Call,
        attempt: Attempt,
        response: http::Response<Body>,
    ) -> http::Response<Self> {
        let encoding = encoding(&response);
        response.map(|body| {
            let mut this = Self { state: State::Over, encoding };
            this.await_message(body, attempt, Box::new(call));
            this
        })
    }

    fn await_message(&mut self, body: Body, attempt: Attempt, call: Box<Call>) {
        let may_follow = call.may_follow();
        self.state = State::Awaited { body, attempt, call };
        if !may_follow {
            self.commit();
        }
    }

    /// No other attempt takes its place: the first message has come, or a part of it.
    fn commit(&mut self) {
        if matches!(self.state, State::Awaited { .. })
            && let State::Awaited { body, attempt, call } =
                mem::replace(&mut self.state, State::Over)
        {
            let Call { observed, mut retry, replay, .. } = *call;
            retry.commit();
            replay.commit();
            let told = Box::new((observed, retry));
            self.state = State::Streams { body, attempt, told };
        }
    }

    /// Its end has come. Whether there is another attempt in its place.
    fn end(&mut self, last: &Last) -> bool {
        let now = Instant::now();
        match mem::replace(&mut self.state, State::Over) {
            State::Awaited { attempt, mut call, .. } => {
                if !call.may_follow() {
                    call.retry.commit();
                }
                let next = last.count(&mut call.retry, now);
                let status = attempt.failed(last.status());
                if next == Next::Fail {
                    call.unpaid();
                    call.observed.failed(status);
                    return false;
                }
                self.state = State::Again(Box::pin(async move {
                    let begun = call.begin_again(next, status).await;
                    (call, begun)
                }));
                true
            }
            State::Streams { attempt, told, .. } => {
                let (observed, mut retry) = *told;
                last.count(&mut retry, now);
                observed.failed(attempt.failed(last.status()));
                false
            }
            State::Again(_) | State::Over => false,
        }
    }

    /// The response of another attempt has begun, or there is none. What the body ends with, if it does.
    fn goes_on(
        &mut self,
        call: Box<Call>,
        begun: Result<Begun, Status>,
    ) -> Option<Result<Frame<Bytes>, Status>> {
        self.state = State::Over;
        match begun {
            Ok(Begun::Streams(response, attempt)) if encoding(&response) == self.encoding => {
                self.await_message(response.into_body(), attempt, call);
                None
            }
            // Its reader could not tell what the messages are.
            Ok(Begun::Streams(..)) => {
                let failed = call.last_failure();
                Some(Err(call.observed.failed(failed)))
            }
            // Its status came with its headers.
            Ok(Begun::Over(response, status)) => {
                call.observed.failed(status);
                Some(Ok(Frame::trailers(response.into_parts().0.headers)))
            }
            Err(status) => Some(Err(call.observed.failed(status))),
        }
    }
}

/// What ended a body.
enum Last<'a> {
    Ok,
    Status(Status),
    Cut(&'a Cut),
}

impl<'a> Last<'a> {
    /// None for a message. Each body has an end with a status, or one that it was cut short with.
    fn of(frame: Option<&'a Result<Frame<Bytes>, Cut>>) -> Option<Self> {
        match frame? {
            Ok(frame) => {
                let trailers = frame.trailers_ref()?;
                // `Status` copies the trailers it is read from, which a call that went well need not pay for.
                let is_ok = headers::status(trailers).is_some_and(|(code, _)| code == Code::Ok);
                if is_ok {
                    return Some(Self::Ok);
                }
                Status::from_header_map(trailers).map(Self::Status)
            }
            Err(cut) => Some(Self::Cut(cut)),
        }
    }

    fn status(&self) -> Status {
        match self {
            Self::Ok => Status::ok(""),
            Self::Status(status) => status.clone(),
            Self::Cut(cut) => cut.status.clone(),
        }
    }

    /// Counts it among the call's attempts, and has what follows.
    fn count(&self, retry: &mut Retry, now: Instant) -> Next {
        match self {
            Self::Ok => {
                retry.succeeded();
                Next::Fail
            }
            Self::Status(status) => retry.after_status(status, now),
            Self::Cut(Cut { failure: Some(failure), .. }) => retry.after_broken(failure, now),
            Self::Cut(_) => Next::Fail,
        }
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        loop {
            let (body, attempt) = match &mut this.state {
                State::Awaited { body, attempt, .. } | State::Streams { body, attempt, .. } => {
                    (body, attempt)
                }
                State::Again(begun) => {
                    let (call, begun) = ready!(begun.as_mut().poll(cx));
                    match this.goes_on(call, begun) {
                        None => continue,
                        last => return Poll::Ready(last),
                    }
                }
                State::Over => return Poll::Ready(None),
            };
            let frame = ready!(Pin::new(body).poll_frame(cx));
            if let Some(Ok(frame)) = &frame
                && let Some(data) = frame.data_ref()
            {
                attempt.received_data(data);
                this.commit();
            }
            if Last::of(frame.as_ref()).is_some_and(|last| this.end(&last)) {
                continue;
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Status::from)));
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Over)
    }
}

fn encoding(response: &http::Response<Body>) -> Option<HeaderValue> {
    response.headers().get("grpc-encoding").filter(|it| *it != "identity").cloned()
}
