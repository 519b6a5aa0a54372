//! The handle that calls are made on.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, task::AtomicWaker};
use h2::client::{ResponseFuture, SendRequest};
use http::uri::{self, Authority, PathAndQuery, Scheme, Uri};
use tokio::sync::watch;

use super::{
    Config,
    disconnect::Disconnect,
    failure::{self, Failure, FailureKind},
    slots::Slots,
    tap::Activity,
};

/// One HTTP/2 connection, ready for calls since the peer's SETTINGS. Clones are cheap and share
/// it; when the last is dropped, the connection ends as its calls do.
#[derive(Clone)]
pub(crate) struct Connection {
    sender: SendRequest<Bytes>,
    shared: Arc<Shared>,
}

/// Where a connection stands. It only ever moves down this list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConnectionState {
    /// It takes calls.
    Open,
    /// It takes no new calls, those under way go on: the peer sent GOAWAY, or we are closing.
    Draining,
    /// It is gone, for this reason.
    Closed(Arc<str>),
}

/// What a connection's handles, calls and driver share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) peer: Arc<str>,
    scheme: Scheme,
    authority: Authority,
    pub(super) slots: Slots,
    pub(super) activity: Arc<Activity>,
    pub(super) max_message_size: usize,
    /// Wakes the driver when the connection is closing.
    pub(super) closing: AtomicWaker,
    state: watch::Sender<ConnectionState>,
    /// Why no new calls are taken, once that is so.
    ending: OnceLock<Arc<str>>,
    /// Why the connection ended, once it has.
    ended: OnceLock<Arc<str>>,
    /// The first reason for which no new calls are taken.
    disconnect: Arc<OnceLock<Disconnect>>,
    ping_after_millis: AtomicU64,
}

impl Connection {
    pub(super) fn new(sender: SendRequest<Bytes>, shared: Arc<Shared>) -> Self {
        Self { sender, shared }
    }

    /// Where the connection stands, as it changes.
    pub(crate) fn state(&self) -> watch::Receiver<ConnectionState> {
        self.shared.state.subscribe()
    }

    /// Why it takes no new calls: set before the [state](Self::state) says so. Does not keep the
    /// connection open.
    pub(crate) fn disconnect(&self) -> Arc<OnceLock<Disconnect>> {
        self.shared.disconnect.clone()
    }

    /// Closes gracefully: takes no new calls (who waits for a stream is turned away with
    /// [`FailureKind::NotSent`]), and ends when those under way have.
    pub(crate) fn close(&self) {
        self.shared.drain(Disconnect::SHUTDOWN, "the connection is closing");
        self.shared.closing.wake();
    }

    /// The [`ping_after`](super::Config::ping_after) that the next connection to this peer is to
    /// have: this one's, doubled if the peer found its PINGs too many (gRFC A8).
    pub(crate) fn ping_after(&self) -> Duration {
        self.shared.ping_after()
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Begins a stream, for whoever has a slot: to be held as long as the stream is.
    pub(super) fn open(
        &self,
        mut head: http::Request<()>,
        is_end: bool,
    ) -> Result<(ResponseFuture, h2::SendStream<Bytes>), Failure> {
        *head.uri_mut() = self.shared.absolute(head.uri());
        // A clone a call: a handle of `h2`'s takes no second request while its first is waiting
        // for a stream, and the slots already see to it that none waits long.
        let mut sender = self.sender.clone();
        match sender.send_request(head, is_end) {
            Ok(opened) => Ok(opened),
            Err(error) => Err(self.not_begun(&mut sender, &error)),
        }
    }

    /// Waits in line for a place among the streams that the peer allows.
    ///
    /// # Errors
    /// When the connection takes no more calls: this one was [`FailureKind::NotSent`].
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in line.
    pub(crate) async fn slot(&self) -> Result<Slot, Failure> {
        match self.shared.slots.take().await {
            Ok(()) => Ok(Slot(self.shared.clone())),
            Err(_) => Err(self.shared.not_sent()),
        }
    }

    /// Why a request was not taken: the connection's fault, or its own.
    fn not_begun(&self, sender: &mut SendRequest<Bytes>, error: &h2::Error) -> Failure {
        let takes_others = std::future::poll_fn(|cx| sender.poll_ready(cx)).now_or_never();
        match takes_others {
            None | Some(Ok(())) => {
                let text = format!("the request cannot be sent over HTTP/2: {error}");
                Failure::new(FailureKind::Body, tonic::Status::internal(text))
            }
            Some(Err(_)) => {
                // Also when the stream ids are used up, after a thousand million calls.
                self.shared.drain(Disconnect::UNKNOWN, "the connection takes no more calls");
                self.shared.closing.wake();
                self.shared.not_sent()
            }
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.shared.peer)
            .field("state", &*self.shared.state.borrow())
            .field("calls", &self.shared.slots.taken())
            .finish()
    }
}

impl Shared {
    pub(super) fn new(
        peer: Arc<str>,
        authority: Authority,
        activity: Arc<Activity>,
        config: &Config,
    ) -> Self {
        let millis = u64::try_from(config.ping_after.as_millis()).unwrap_or(u64::MAX);
        Self {
            peer,
            scheme: config.scheme(),
            authority,
            slots: Slots::new(),
            activity,
            max_message_size: config.max_message_size,
            closing: AtomicWaker::new(),
            state: watch::Sender::new(ConnectionState::Open),
            ending: OnceLock::new(),
            ended: OnceLock::new(),
            disconnect: Arc::default(),
            ping_after_millis: AtomicU64::new(millis),
        }
    }

    /// The path of a call on this peer: HTTP/2 wants the scheme and authority of each request.
    fn absolute(&self, path: &Uri) -> Uri {
        let mut parts = uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = path.path_and_query().cloned();
        parts.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
        Uri::from_parts(parts).expect("all three parts are there")
    }

    pub(super) fn ping_after(&self) -> Duration {
        Duration::from_millis(self.ping_after_millis.load(Ordering::Relaxed))
    }

    pub(super) fn double_ping_after(&self) {
        let doubled = self.ping_after().saturating_mul(2).as_millis();
        self.ping_after_millis.store(u64::try_from(doubled).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Takes no new calls from here on.
    pub(super) fn drain(&self, disconnect: Disconnect, why: impl Into<Arc<str>>) {
        let _ = self.disconnect.set(disconnect);
        let _ = self.ending.set(why.into());
        self.slots.close();
        self.state.send_if_modified(|state| {
            let is_open = *state == ConnectionState::Open;
            if is_open {
                *state = ConnectionState::Draining;
            }
            is_open
        });
    }

    /// The connection is gone, before its streams are told so.
    pub(super) fn end(&self, disconnect: Disconnect, why: impl Into<Arc<str>>) {
        let _ = self.disconnect.set(disconnect);
        let why = self.ended.get_or_init(|| why.into()).clone();
        let _ = self.ending.set(why.clone());
        self.slots.close();
        self.state.send_if_modified(|state| {
            let is_new = !matches!(state, ConnectionState::Closed(_));
            if is_new {
                *state = ConnectionState::Closed(why);
            }
            is_new
        });
    }

    /// The failure of a call that was turned away.
    fn not_sent(&self) -> Failure {
        let why = self.ended.get().or(self.ending.get());
        let why = why.map_or("the connection is closed", |why| why);
        Failure::unavailable(FailureKind::NotSent, &self.peer, why)
    }

    /// The failure of a call whose stream ended in `error`.
    pub(super) fn failure(
        &self,
        error: &h2::Error,
        stream: h2::StreamId,
        is_answered: bool,
    ) -> Failure {
        let was_sent = self.activity.was_sent(stream.as_u32());
        let why = self.ended.get().map(|why| &**why);
        failure::of_stream(error, &self.peer, was_sent, is_answered, why)
    }
}

/// A call's place among the streams that the peer allows; dropping it lets the next call begin.
#[derive(Debug)]
pub(crate) struct Slot(Arc<Shared>);

impl Slot {
    pub(super) fn shared(&self) -> &Shared {
        &self.0
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.slots.release();
        // After the release: the driver, woken by this or by `close`, then sees it.
        if self.0.slots.is_closed() {
            self.0.closing.wake();
        }
    }
}
