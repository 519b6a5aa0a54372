//! Connections to the API server: where it speaks HTTP/2 many requests have one, as with client-go.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
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
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::connect::{Connection as _, HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use kube::{
    Config,
    client::{Body, ConfigExt as _, RustlsTlsError},
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
    /// Held by who makes one: those who wait for it find room on the one that is made.
    dialing: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Connection {
    sender: Mutex<Sender>,
    /// Requests at a time.
    limit: Arc<AtomicUsize>,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

/// An answer's body. Until it is dropped its request counts.
#[derive(Debug)]
pub(super) struct Answer {
    body: Incoming,
    _connection: Arc<Connection>,
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
            let (connection, is_new) = self.with_room(&uri).await?;
            let mut failed = match connection.send(request).await {
                Ok(answer) => {
                    return Ok(answer.map(|body| Answer { body, _connection: connection }));
                }
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

    /// A connection with room for a request, and whether it is new.
    async fn with_room(&self, to: &Uri) -> Result<(Arc<Connection>, bool), BoxError> {
        if let Some(connection) = self.find() {
            return Ok((connection, false));
        }
        let _dialing = match self.has_http1() {
            // There is room for nobody else on it.
            true => None,
            false => Some(self.dialing.lock().await),
        };
        if let Some(connection) = self.find() {
            return Ok((connection, false));
        }
        let connection = Arc::new(self.dial(to).await?);
        self.open().push(connection.clone());
        Ok((connection, true))
    }

    fn find(&self) -> Option<Arc<Connection>> {
        let mut open = self.open();
        open.retain(|connection| !connection.sender().is_closed());
        open.iter().find(|connection| connection.has_room()).cloned()
    }

    fn has_http1(&self) -> bool {
        self.open().iter().any(|connection| matches!(*connection.sender(), Sender::Http1(_)))
    }

    async fn dial(&self, to: &Uri) -> Result<Connection, BoxError> {
        let io = self.connector.clone().oneshot(to.clone()).await?;
        if !io.connected().is_negotiated_h2() {
            let (sender, connection) = http1::handshake(io).await?;
            tokio::spawn(connection.map(drop));
            let limit = Arc::new(AtomicUsize::new(1));
            return Ok(Connection { sender: Mutex::new(Sender::Http1(sender)), limit });
        }
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new());
        builder.keep_alive_interval(PING_EVERY).keep_alive_timeout(PING_TIMEOUT);
        builder.initial_stream_window_size(WINDOW);
        builder.initial_connection_window_size(WINDOW * STREAMS as u32);
        let (sender, mut connection) = builder.handshake(io).await?;
        let limit = Arc::new(AtomicUsize::new(STREAMS));
        let allowed = limit.clone();
        tokio::spawn(poll_fn(move |context| {
            let ended = connection.poll_unpin(context);
            let most = connection.current_max_send_streams().clamp(1, STREAMS);
            allowed.store(most, Ordering::Relaxed);
            ended.map(drop)
        }));
        Ok(Connection { sender: Mutex::new(Sender::Http2(sender)), limit })
    }

    fn open(&self) -> MutexGuard<'_, Vec<Arc<Connection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// Only asked by who holds all connections, so that no other takes the room meanwhile.
    fn has_room(self: &Arc<Self>) -> bool {
        let requests = Arc::strong_count(self) - 1;
        requests < self.limit.load(Ordering::Relaxed) && self.sender().is_ready()
    }

    async fn send(
        &self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        let sent = match &mut *self.sender() {
            Sender::Http1(sender) => sender.try_send_request(in_http1(request)).left_future(),
            Sender::Http2(sender) => sender.try_send_request(request).right_future(),
        };
        sent.await
    }

    fn sender(&self) -> MutexGuard<'_, Sender> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
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
        Pin::new(&mut self.body).poll_frame(context)
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
