//! What surrounds every call, whoever answers it: the caller's deadline, and panics.

use std::{
    any::Any,
    borrow::Cow,
    convert::Infallible,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use futures_util::future::BoxFuture;
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

use super::{
    observed::Observed,
    reply::{self, Content},
};
use crate::{deadline, layer::Row};

/// A handler at work.
pub(super) type Running = BoxFuture<'static, http::Response<Content>>;

/// `h2` gets a reply in pieces of so many bytes at most: it asks for the next when the caller has room
/// for its first byte. What it has it keeps until the caller reads, whatever the deadline.
const PIECE: usize = 64 * 1024;

/// Counts the calls of a connection that are under way, messages not yet written included, and knows
/// what surrounds them.
#[derive(Debug)]
pub(super) struct Calls {
    under_way: AtomicUsize,
    layers: Arc<Row>,
}

impl Calls {
    pub(super) fn new(layers: Arc<Row>) -> Self {
        Self { under_way: AtomicUsize::default(), layers }
    }

    pub(super) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    fn begin(self: &Arc<Self>) -> Arc<UnderWay> {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        Arc::new(UnderWay(Arc::clone(self)))
    }
}

/// One call that is counted, until the last of those that share this is gone.
#[derive(Debug)]
struct UnderWay(Arc<Calls>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A call, from its headers to the last frame of its response.
#[derive(Debug)]
pub(super) struct Call {
    path: Cow<'static, str>,
    deadline: Option<Instant>,
    timeout: Duration,
    under_way: Arc<UnderWay>,
    observed: Observed,
}

impl Call {
    /// A call whose patience, if it has any, ends `timeout` from now.
    pub(super) fn new(
        path: Cow<'static, str>,
        timeout: Option<Duration>,
        calls: &Arc<Calls>,
        observed: Observed,
    ) -> Self {
        Self {
            path,
            deadline: timeout.map(|timeout| Instant::now() + timeout),
            timeout: timeout.unwrap_or_default(),
            under_way: calls.begin(),
            observed,
        }
    }

    /// Runs a part of the handler: inside of the call's deadline and trace, with a panic made a
    /// status.
    fn run<T>(&self, part: impl FnOnce() -> T) -> Result<T, Status> {
        let part = || self.observed.within(part);
        catch_unwind(AssertUnwindSafe(|| deadline::sync_scope(self.deadline, part)))
            .map_err(|panic| self.panicked(panic))
    }

    fn panicked(&self, panic: Box<dyn Any + Send>) -> Status {
        let text = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("its payload is not a text");
        let id = format!("{:08x}", fastrand::u32(..));
        tracing::error!(method = %self.path, id, panic = text, "a handler panicked");
        if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
            // A payload that panics when it is dropped: who knows what its own payload does.
            std::mem::forget(another);
        }
        let layers = &self.under_way.0.layers;
        let or = if layers.surround(&self.path) { ", or a layer around it," } else { "" };
        Status::internal(format!("the handler{or} panicked; the server's log has it under id {id}"))
    }

    fn late(&self) -> Status {
        let Self { path, timeout, .. } = self;
        Status::deadline_exceeded(format!("the caller's {timeout:?} were over in {path}"))
    }

    /// Whether the deadline has struck; otherwise the task is woken when it does.
    fn poll_late(&self, timer: &mut Option<Pin<Box<Sleep>>>, cx: &mut Context<'_>) -> bool {
        self.deadline.is_some_and(|deadline| {
            let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            timer.as_mut().poll(cx).is_ready()
        })
    }
}

/// The future of a call: what hyper drops when the caller is gone.
pub(super) struct Guarded(Stage);

enum Stage {
    Answered(Option<http::Response<Content>>),
    Running { call: Option<Call>, running: Option<Running>, timer: Option<Pin<Box<Sleep>>> },
}

impl Guarded {
    /// A call that no handler sees.
    pub(super) fn answered(response: http::Response<Content>) -> Self {
        Self(Stage::Answered(Some(response)))
    }

    /// When the caller's patience ends, if a handler is at work and it does.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.0 {
            Stage::Running { call, .. } => call.as_ref()?.deadline,
            Stage::Answered(_) => None,
        }
    }

    /// A call that is answered by what `start` returns. Whose time is up already is not started.
    pub(super) fn start(mut call: Call, start: impl FnOnce() -> Running) -> Self {
        let is_late = call.deadline.is_some() && call.timeout.is_zero();
        let started = if is_late { Err(call.late()) } else { call.run(start) };
        match started {
            Ok(running) => {
                Self(Stage::Running { call: Some(call), running: Some(running), timer: None })
            }
            Err(status) => {
                let refused = reply::refuse(&status);
                call.observed.answered(refused.headers());
                Self::answered(refused)
            }
        }
    }
}

impl Future for Guarded {
    type Output = Result<http::Response<Reply>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        const DONE: &str = "not polled after it is ready";
        let (call, response) = match &mut self.get_mut().0 {
            Stage::Answered(response) => (None, response.take().expect(DONE)),
            Stage::Running { call, running, timer } => {
                let at_work = call.as_ref().expect(DONE);
                let polled = at_work.run(|| running.as_mut().expect(DONE).as_mut().poll(cx));
                let response = match polled {
                    Ok(Poll::Ready(response)) => response,
                    Ok(Poll::Pending) if at_work.poll_late(timer, cx) => {
                        let dropped = at_work.run(|| drop(running.take()));
                        reply::refuse(&dropped.err().unwrap_or_else(|| at_work.late()))
                    }
                    Ok(Poll::Pending) => return Poll::Pending,
                    Err(status) => reply::refuse(&status),
                };
                *running = None;
                if let Some(call) = call {
                    call.observed.answered(response.headers());
                }
                (call.take(), response)
            }
        };
        Poll::Ready(Ok(response.map(|content| Reply::new(content, call))))
    }
}

/// The body of a response, under the guard of its call.
#[derive(Debug)]
pub(super) struct Reply {
    content: Content,
    /// What the content has said that is still to be sent.
    unsent: Bytes,
    call: Option<Call>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// Some bytes of a response. `h2` drops them when they are written, or never will be.
#[derive(Debug)]
pub(super) struct Piece {
    bytes: Bytes,
    _under_way: Option<Arc<UnderWay>>,
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

impl Reply {
    fn new(content: Content, call: Option<Call>) -> Self {
        Self { content, unsent: Bytes::new(), call, timer: None }
    }

    fn piece(&self, bytes: Bytes) -> Piece {
        let under_way = self.call.as_ref().map(|call| Arc::clone(&call.under_way));
        Piece { bytes, _under_way: under_way }
    }

    fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let (Content::Stream(_), Some(call)) = (&self.content, &self.call) else {
            return self.content.poll_frame(cx);
        };
        // Asked first: a stream that is always ready must end too.
        let polled = if call.poll_late(&mut self.timer, cx) {
            Err(call.late())
        } else {
            call.run(|| self.content.poll_frame(cx))
        };
        let status = match polled {
            Ok(Poll::Ready(Some(Err(status)))) | Err(status) => status,
            Ok(ready_or_not) => return ready_or_not,
        };
        let dropped = call.run(|| self.content = Content::Nothing);
        let trailers = reply::trailers(&dropped.err().unwrap_or(status));
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}

impl Body for Reply {
    type Data = Piece;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, Status>>> {
        let this = self.get_mut();
        if this.unsent.is_empty() {
            let Some(frame) = ready!(this.poll_content(cx)?) else {
                return Poll::Ready(None);
            };
            match frame.into_data() {
                Ok(data) => {
                    if let Some(call) = &mut this.call {
                        call.observed.sent(&data);
                    }
                    this.unsent = data;
                }
                Err(rest) => {
                    if let (Some(call), Some(trailers)) = (&mut this.call, rest.trailers_ref()) {
                        call.observed.answered(trailers);
                    }
                    return Poll::Ready(Some(Ok(rest.map_data(|bytes| this.piece(bytes)))));
                }
            }
        }
        let bytes = this.unsent.split_to(PIECE.min(this.unsent.len()));
        Poll::Ready(Some(Ok(Frame::data(this.piece(bytes)))))
    }

    fn is_end_stream(&self) -> bool {
        self.unsent.is_empty() && self.content.is_end_stream()
    }
}
