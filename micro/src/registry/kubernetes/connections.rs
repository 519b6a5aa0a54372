//! Connections to the API server: where it speaks HTTP/2 many requests have one, as with client-go.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderValue, Request, Response, Uri, header::HOST, uri::PathAndQuery};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};
use hyper_rustls::{
    FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream,
};
use hyper_util::{
    client::legacy::connect::{Connection as _, HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use kube::{
    Config,
    client::{Body, ConfigExt as _, RustlsTlsError},
};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};
use tower::{BoxError, ServiceExt as _};

use super::cluster::EXCHANGE;

/// Requests at a time on one connection, watches included: what Go's servers take, and with them an
/// API server, unless they say that they take fewer.
const STREAMS: usize = 100;

/// What may have come of one answer and not been read, in bytes. A connection has room for as much of
/// each, so that a watch that nobody reads holds up no other.
const WINDOW: u32 = 256 * 1024;

/// With a watch on it, a connection without a byte for this long is asked for a sign of life, and
/// given this long for it: one that is dead is found, and another made, within 5 s.
const PING_EVERY: Duration = Duration::from_secs(3);
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// How long those who wait for a connection that is made wait for the first answer on it besides. With
/// that it is known how many requests at a time the server takes; a slow one is not waited for.
const FIRST_ANSWER: Duration = Duration::from_millis(250);

/// A connection that was silent for this long when a request on it was given up takes no other: it may
/// be dead, and a new one is not. What is under way on it goes on.
const SILENCE: Duration = Duration::from_millis(500);

/// A connection without a request for this long is closed.
const IDLE: Duration = Duration::from_secs(90);

/// The same by TCP, for servers that speak HTTP/1.1: given up after three questions.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRY: Duration = Duration::from_secs(3);
const KEEPALIVE_RETRIES: u32 = 3;

/// The connections of one client. Each takes as many requests at a time as its server allows, one
/// in HTTP/1.1; another is made when none has room.
#[derive(Debug)]
pub(super) struct Connections {
    connector: HttpsConnector<HttpConnector>,
    open: Mutex<Vec<Arc<Connection>>>,
    /// Held by who makes one: those who wait for it find room on the one that is made. In HTTP/1.1
    /// there is none on it, and nobody waits.
    dialing: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Connection {
    sender: Mutex<Sender>,
    /// In HTTP/2, while it lasts.
    http2: Option<Arc<Mutex<Option<Http2>>>>,
    /// When a request on it last ended.
    used: Mutex<Instant>,
    /// When something of an answer last came.
    heard: Mutex<Instant>,
    is_silent: AtomicBool,
}

/// A request for whose answer we wait. Dropped, it was given up.
struct Unanswered<'a> {
    connection: &'a Connection,
    since: Instant,
    is_over: bool,
}

type Http2 = http2::Connection<MaybeHttpsStream<TokioIo<TcpStream>>, Body, TokioExecutor>;

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

/// Whose turn it is to make a connection.
type Dialing<'a> = tokio::sync::MutexGuard<'a, ()>;

/// An answer's body. Until it is dropped its request counts.
#[derive(Debug)]
pub(super) struct Answer {
    body: Incoming,
    connection: Arc<Connection>,
}

impl Connections {
    /// None yet, and how they are made.
    ///
    /// # Errors
    /// What is wrong with the certificates.
    pub(super) fn new(config: &Config) -> Result<Self, kube::Error> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(EXCHANGE));
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE_RETRY));
        tcp.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
        let tls = config.rustls_client_config()?;
        let mut connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        if let Some(name) = &config.tls_server_name {
            let name = name.clone().try_into();
            let name = name.map_err(RustlsTlsError::InvalidServerName);
            let resolver = FixedServerNameResolver::new(name.map_err(kube::Error::RustlsTls)?);
            connector = connector.with_server_name_resolver(resolver);
        }
        // kube's own connector offers HTTP/1.1 alone.
        let connector = connector.enable_http1().enable_http2().wrap_connector(tcp);
        Ok(Self { connector, open: Mutex::default(), dialing: tokio::sync::Mutex::default() })
    }

    /// Sends a request, whose URI is absolute, and waits for the head of its answer.
    pub(super) async fn send(
        &self,
        mut request: Request<Body>,
    ) -> Result<Response<Answer>, BoxError> {
        let uri = request.uri().clone();
        loop {
            let (connection, is_new, dialing) = self.with_room(&uri).await?;
            let mut failed = match connection.send_before_others(request, dialing).await {
                Ok(answer) => return Ok(answer.map(|body| Answer { body, connection })),
                Err(failed) => failed,
            };
            match failed.take_message() {
                // The connection had ended, and has sent nothing of it.
                Some(unsent) if !is_new => request = unsent,
                _ => return Err(failed.into_error().into()),
            }
            *request.uri_mut() = uri.clone();
        }
    }

    /// A connection with room for a request, whether it is new, and what others wait for that look for
    /// room on a new one.
    async fn with_room(
        &self,
        to: &Uri,
    ) -> Result<(Arc<Connection>, bool, Option<Dialing<'_>>), BoxError> {
        if let Some(connection) = self.find() {
            return Ok((connection, false, None));
        }
        let mut dialing = None;
        if !self.has_http1() {
            dialing = Some(self.dialing.lock().await);
            if let Some(connection) = self.find() {
                return Ok((connection, false, None));
            }
        }
        // The one that was waited for may have been the first.
        if self.has_http1() {
            dialing = None;
        }
        let connection = Arc::new(self.dial(to).await?);
        let dialing = dialing.filter(|_| connection.http2.is_some());
        self.open().push(connection.clone());
        Ok((connection, true, dialing))
    }

    fn find(&self) -> Option<Arc<Connection>> {
        let mut open = self.open();
        open.retain(|connection| {
            let is_silent = connection.is_silent.load(Ordering::Relaxed);
            !is_silent && !connection.sender().is_closed() && !connection.is_idle()
        });
        open.iter().find(|connection| connection.has_room()).cloned()
    }

    fn has_http1(&self) -> bool {
        self.open().iter().any(|connection| connection.http2.is_none())
    }

    async fn dial(&self, to: &Uri) -> Result<Connection, BoxError> {
        let io = self.connector.clone().oneshot(to.clone()).await?;
        if !io.connected().is_negotiated_h2() {
            let (sender, connection) = http1::handshake(io).await?;
            tokio::spawn(connection.map(drop));
            return Ok(Connection::new(Sender::Http1(sender), None));
        }
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new());
        builder.keep_alive_interval(PING_EVERY).keep_alive_timeout(PING_TIMEOUT);
        builder.initial_stream_window_size(WINDOW);
        builder.initial_connection_window_size(WINDOW * STREAMS as u32);
        // Until the server says how many it takes.
        builder.initial_max_send_streams(1);
        let (sender, connection) = builder.handshake(io).await?;
        let http2 = Arc::new(Mutex::new(Some(connection)));
        let running = http2.clone();
        tokio::spawn(poll_fn(move |context| {
            let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
            let ended =
                running.as_mut().map_or(Poll::Ready(()), |it| it.poll_unpin(context).map(drop));
            if ended.is_ready() {
                // With it goes what tells the sender that it has ended.
                *running = None;
            }
            ended
        }));
        Ok(Connection::new(Sender::Http2(sender), Some(http2)))
    }

    fn open(&self) -> MutexGuard<'_, Vec<Arc<Connection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    fn new(sender: Sender, http2: Option<Arc<Mutex<Option<Http2>>>>) -> Self {
        let (sender, now) = (Mutex::new(sender), Instant::now());
        let (used, heard) = (Mutex::new(now), Mutex::new(now));
        Self { sender, http2, used, heard, is_silent: AtomicBool::new(false) }
    }

    /// Requests at a time.
    fn limit(&self) -> usize {
        let Some(http2) = &self.http2 else { return 1 };
        let http2 = http2.lock().unwrap_or_else(PoisonError::into_inner);
        http2.as_ref().map_or(0, |it| it.current_max_send_streams().clamp(1, STREAMS))
    }

    /// Only asked by who holds all connections, as below.
    fn is_idle(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1 && self.used().elapsed() > IDLE
    }

    /// Only asked by who holds all connections, so that no other takes the room meanwhile.
    fn has_room(self: &Arc<Self>) -> bool {
        let requests = Arc::strong_count(self) - 1;
        requests < self.limit() && self.sender().is_ready()
    }

    /// Sends a request, and lets others make connections again once its answer has come.
    async fn send_before_others(
        &self,
        request: Request<Body>,
        dialing: Option<Dialing<'_>>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        let mut sent = pin!(self.send(request));
        if let Some(dialing) = dialing {
            if let Ok(answer) = timeout(FIRST_ANSWER, sent.as_mut()).await {
                return answer;
            }
            drop(dialing);
        }
        sent.await
    }

    async fn send(
        &self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        let sent = match &mut *self.sender() {
            Sender::Http1(sender) => sender.try_send_request(in_http1(request)).left_future(),
            Sender::Http2(sender) => sender.try_send_request(request).right_future(),
        };
        let mut unanswered = Unanswered { connection: self, since: Instant::now(), is_over: false };
        let answer = sent.await;
        unanswered.is_over = true;
        *self.heard() = Instant::now();
        answer
    }

    fn heard(&self) -> MutexGuard<'_, Instant> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sender(&self) -> MutexGuard<'_, Sender> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn used(&self) -> MutexGuard<'_, Instant> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        let Self { connection, since, is_over } = self;
        let last = (*connection.heard()).max(*since);
        if !*is_over && last.elapsed() >= SILENCE {
            connection.is_silent.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        *self.connection.used() = Instant::now();
    }
}

impl Sender {
    fn is_ready(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_ready(),
            Self::Http2(sender) => sender.is_ready(),
        }
    }

    fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }
}

/// The request as HTTP/1.1 has it: the server's name apart from the path.
fn in_http1(mut request: Request<Body>) -> Request<Body> {
    let host = request.uri().authority().map(|it| HeaderValue::try_from(it.as_str()));
    if let Some(Ok(host)) = host {
        request.headers_mut().insert(HOST, host);
    }
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.unwrap_or_else(|| PathAndQuery::from_static("/")).into();
    request
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if frame.is_ready() {
            *self.connection.heard() = Instant::now();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
