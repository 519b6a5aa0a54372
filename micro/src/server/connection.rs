//! One accepted connection, on hyper: its greeting, its calls, its end. hyper's types stay here.

mod tasks;

use std::{
    borrow::Cow,
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Uri, request::Parts, uri::PathAndQuery};
use http_body::{Body, Frame, SizeHint};
use hyper::{body::Incoming, server::conn::http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
    time::{Instant, sleep},
};
use tonic::Status;

use self::tasks::Tasks;
#[cfg(feature = "tls")]
use super::handshakes::Handshakes;
use super::{
    Bounds,
    guard::{Call, Calls, Guarded, Reply},
    head::{self, Refusal},
    observed::Observed,
    router::{Route, Router},
    timeout,
};
use crate::{
    layer::Row,
    metrics::{ServerMetrics, Weighed},
    transport::gather::Gather,
};

/// How long a peer may take over the HTTP/2 preface and its SETTINGS. Ample for a slow link, and
/// short enough that port scanners and the like do not pile up (grpc-go waits 120 s).
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);

/// The least a peer must have sent by then: the preface and the head of one frame.
const GREETING: u64 = 24 + 9;

/// An idle peer is asked for a sign of life this often, and given this long for it, so that calls of
/// a caller that vanished without a word end (grpc-go asks after two hours).
const PING_EVERY: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// `h2` closes a connection, with everybody's calls on it, over so many resets of two kinds:
/// - calls that their callers gave up before they were accepted, as they do when the server is
///   busy. A reset frees the call's place among the concurrent ones, so that their number bounds
///   nothing. What does: `h2` reads at most 1 MiB before it hands calls over (tokio stops it after
///   128 reads of 8 KiB), and a call takes more than 64 bytes of that. Each costs 1 to 2 KiB.
/// - streams that `h2` reset for what the peer sent, in all of the connection's life: faults, and
///   the rest of uploads that the server answered early, when there are many at once. It holds a few
///   hundred bytes for each until the reset is written.
const MOST_RESETS: usize = 16 << 10;

/// While draining, a connection without work on which not a byte moved for this long is closed: its
/// peer has not even answered the PING that goes with the GOAWAY.
const SILENCE: Duration = Duration::from_secs(2);

/// While draining, a connection that has had no work for this long is closed, whatever its peer
/// sends: long enough for a slow peer to take in the end of its last reply.
const WORKLESS: Duration = Duration::from_secs(10);

/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// How far a server is in leaving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// No new calls; those under way finish.
    Draining,
    /// Those under way end now.
    Cut,
}

/// What the connections of a server share.
pub(super) struct Shared {
    router: Router,
    layers: Arc<Row>,
    max_message_size: usize,
    http2: http2::Builder<Tasks>,
    metrics: ServerMetrics,
    /// `None` is plaintext.
    #[cfg(feature = "tls")]
    pub(super) tls: Option<Handshakes>,
}

impl Shared {
    pub(super) fn new(router: Router, layers: Arc<Row>, bounds: &Bounds) -> Self {
        let resets = MOST_RESETS.max(bounds.max_concurrent_streams as usize);
        let mut http2 = http2::Builder::new(Tasks);
        http2
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .initial_stream_window_size(bounds.stream_window)
            .initial_connection_window_size(bounds.connection_window)
            .max_header_list_size(bounds.max_header_list_size)
            .max_concurrent_streams(bounds.max_concurrent_streams)
            .max_pending_accept_reset_streams(resets)
            .max_local_error_reset_streams(resets)
            // gRPC has no use for it.
            .auto_date_header(false);
        Self {
            router,
            layers,
            max_message_size: bounds.max_message_size,
            http2,
            metrics: ServerMetrics::new(),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// By itself: the peer left, or the last call finished after a GOAWAY.
    Finished,
    /// By [`Phase::Cut`], with this many calls under way.
    Cut(usize),
}

/// Serves a connection of that peer until its end, once it is secure if the server wants that.
#[cfg_attr(not(feature = "tls"), expect(unused_variables, reason = "for the log of handshakes"))]
pub(super) async fn begin<IO>(
    io: IO,
    peer: Option<SocketAddr>,
    shared: Arc<Shared>,
    phase: watch::Receiver<Phase>,
) -> End
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    #[cfg(feature = "tls")]
    if let Some(tls) = &shared.tls {
        return match tls.secure(io, peer, phase.clone()).await {
            Some(io) => serve(io, Arc::clone(&shared), phase).await,
            None => End::Finished,
        };
    }
    serve(io, shared, phase).await
}

/// Serves a connection until its end.
async fn serve<IO>(io: IO, shared: Arc<Shared>, mut phase: watch::Receiver<Phase>) -> End
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let calls = Arc::new(Calls::new(Arc::clone(&shared.layers)));
    let traffic = Arc::new(Traffic::default());
    let io = Metered { io, traffic: Arc::clone(&traffic) };
    let io = TokioIo::new(Gather::new(io));
    let dispatch = Dispatch { shared: Arc::clone(&shared), calls: Arc::clone(&calls) };
    let mut connection = pin!(shared.http2.serve_connection(io, dispatch));

    let no_greeting = async {
        sleep(GREETING_TIMEOUT).await;
        if traffic.received() >= GREETING {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        // In order, so that a seed decides on all that happens; a busy connection, which may use up
        // what tokio lets a task do at a time, comes last.
        biased;
        _ = phase.wait_for(|phase| *phase != Phase::Open) => {}
        () = no_greeting => {
            tracing::debug!("a peer did not begin to speak HTTP/2 in time");
            return End::Finished;
        }
        result = &mut connection => return finished(result),
    }

    // The first GOAWAY and a PING; hyper sends the second GOAWAY when the PING is answered, and ends
    // the connection after its last stream.
    connection.as_mut().graceful_shutdown();
    let mut seen = traffic.total();
    let mut moved = Instant::now();
    let mut had_work = moved;
    // What the socket does not take may be all that is left of a reply.
    let work = || calls.under_way().max(usize::from(traffic.is_stuck()));
    loop {
        tokio::select! {
            biased;
            _ = phase.wait_for(|phase| *phase == Phase::Cut) => return End::Cut(work()),
            () = sleep(LOOK) => {
                let now = Instant::now();
                let total = traffic.total();
                if total != seen {
                    (seen, moved) = (total, now);
                }
                if work() > 0 {
                    had_work = now;
                } else if now - moved >= SILENCE || now - had_work >= WORKLESS {
                    return End::Finished;
                }
            }
            result = &mut connection => return finished(result),
        }
    }
}

fn finished(result: hyper::Result<()>) -> End {
    if let Err(error) = result {
        tracing::debug!(error = &error as &dyn std::error::Error, "a connection broke");
    }
    End::Finished
}

/// Takes the calls of a connection to their handlers.
struct Dispatch {
    shared: Arc<Shared>,
    calls: Arc<Calls>,
}

impl hyper::service::Service<http::Request<Incoming>> for Dispatch {
    type Response = http::Response<Reply>;
    type Error = Infallible;
    type Future = Guarded;

    fn call(&self, request: http::Request<Incoming>) -> Guarded {
        let (parts, body) = request.into_parts();
        let call = self.dispatch(parts, body).unwrap_or_else(|refusal| {
            self.shared.metrics.call(None).ended(refusal.code());
            Guarded::answered(refusal.into_response())
        });
        Tasks::bound_next(call.deadline());
        call
    }
}

impl Dispatch {
    fn dispatch(&self, mut parts: Parts, body: Incoming) -> Result<Guarded, Refusal> {
        head::check(&parts)?;
        let timeout = timeout::take(&mut parts.headers).map_err(Refusal::malformed_timeout)?;
        Ok(match self.shared.router.find(parts.uri.path())? {
            Route::Method(path, method) => {
                head::check_codec(&parts)?;
                let metrics = self.shared.metrics.call(Some(path));
                let mut observed = Observed::start(metrics, path, &parts.headers);
                let body = Inbound::Wire(observed.request(body));
                let call = Call::new(Cow::Borrowed(path), timeout, &self.calls, observed);
                let request = http::Request::from_parts(parts, body);
                Guarded::start(call, || method(request, self.shared.max_message_size))
            }
            Route::Mounted(service, rewritten) => {
                if let Some(path) = rewritten {
                    parts.uri = with_path(parts.uri, path);
                }
                let path = parts.uri.path();
                let metrics = self.shared.metrics.call_mounted(path);
                let mut observed = Observed::start(metrics, path, &parts.headers);
                let body = Inbound::Wire(observed.request(body));
                let path = path.to_owned().into();
                let call = Call::new(path, timeout, &self.calls, observed);
                let request = http::Request::from_parts(parts, body);
                Guarded::start(call, || service(request))
            }
        })
    }
}

pub(super) fn with_path(uri: Uri, path: String) -> Uri {
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = PathAndQuery::try_from(path).ok();
    Uri::from_parts(parts).unwrap_or(uri)
}

/// The body of a request.
#[derive(Debug)]
pub(super) enum Inbound {
    /// As the connection has it.
    Wire(Weighed<Incoming>),
    /// As layers have left it.
    Layered(tonic::body::Body),
}

impl Inbound {
    pub(super) fn into_body(self) -> tonic::body::Body {
        match self {
            Self::Layered(body) => body,
            wire @ Self::Wire(_) => tonic::body::Body::new(wire),
        }
    }
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match &mut *self {
            Self::Wire(body) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(|error| broken(&error))))
            }
            Self::Layered(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Wire(body) => body.is_end_stream(),
            Self::Layered(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Wire(body) => body.size_hint(),
            Self::Layered(body) => body.size_hint(),
        }
    }
}

/// Not `Cancelled`, whatever the caller did: tonic's `Streaming` makes a clean end of that, and a
/// handler would take half of a stream for the whole.
fn broken(error: &hyper::Error) -> Status {
    let reason =
        std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    Status::aborted(format!("the request ended early: {reason}"))
}

/// Bytes that went through a connection.
#[derive(Debug, Default)]
struct Traffic {
    received: AtomicU64,
    sent: AtomicU64,
    is_stuck: AtomicBool,
}

impl Traffic {
    fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    fn total(&self) -> u64 {
        self.received() + self.sent.load(Ordering::Relaxed)
    }

    /// Whether there is more to write than the socket takes.
    fn is_stuck(&self) -> bool {
        self.is_stuck.load(Ordering::Relaxed)
    }
}

/// An IO that counts its [`Traffic`].
struct Metered<IO> {
    io: IO,
    traffic: Arc<Traffic>,
}

impl<IO> Metered<IO> {
    fn count_sent(&self, sent: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.traffic.is_stuck.store(sent.is_pending(), Ordering::Relaxed);
        if let Poll::Ready(Ok(sent)) = sent {
            self.traffic.sent.fetch_add(sent as u64, Ordering::Relaxed);
        }
        sent
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Metered<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buffer);
        let received = buffer.filled().len() - before;
        self.traffic.received.fetch_add(received as u64, Ordering::Relaxed);
        result
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Metered<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.io).poll_write(cx, data);
        self.count_sent(sent)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.io).poll_write_vectored(cx, data);
        self.count_sent(sent)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.traffic.is_stuck.store(flushed.is_pending(), Ordering::Relaxed);
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
