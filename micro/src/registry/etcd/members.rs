//! The members of a cluster: a connection to each that is in use, and which one that is.

use std::{
    error::Error as _,
    fmt::{self, Write},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use etcd_client::{Channel, Client, Error as ClientError};
use tokio::time::{Instant, timeout_at};
use tonic::{Code, transport::Endpoint};

use super::{
    super::{causes::with_causes, url::is_loopback},
    options::Options,
};
use crate::Error;

/// How long an exchange may take, all its requests and all members tried together.
pub(super) const EXCHANGE: Duration = Duration::from_secs(1);

/// An exchange given up after this long, by its bound or by its caller, speaks against the
/// connection it was on.
const SUSPECT: Duration = Duration::from_millis(500);

/// A PING this often, also on a connection without streams, so that a stopped or unreachable etcd
/// ends its watches. etcd takes one every 5 s, as long as there are streams; without them it
/// closes the connection at the third, and the next exchange makes a new one.
const PING_EVERY: Duration = Duration::from_secs(10);

/// How long the answer to a PING may take.
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// The members, one of them in use: exchanges begin there, and go on at the next when it fails.
///
/// Each has a client of its own. etcd-client's own way with several endpoints, and with one, is
/// tonic's balanced channel, whose calls wait for ever while nobody can be reached.
#[derive(Debug)]
pub(super) struct Members {
    options: Options,
    members: Vec<Member>,
    current: AtomicUsize,
}

struct Member {
    address: String,
    held: Mutex<Option<Connection>>,
    /// Connecting is one exchange's work; those that come meanwhile wait for what it makes.
    connecting: tokio::sync::Mutex<()>,
}

/// A connection to one member, signed in.
#[derive(Clone)]
pub(super) struct Connection {
    /// Unlike that of any other connection of this process.
    pub(super) id: u64,
    pub(super) client: Client,
}

/// Why an exchange failed, everywhere or by etcd's own word.
#[derive(Debug)]
pub(super) struct CallError {
    text: String,
    answer: Option<(Code, String)>,
}

enum Failure {
    /// This member could not say: another may.
    Member(String),
    /// etcd's answer, which another member would give as well.
    Answer(ClientError),
}

impl Members {
    pub(super) fn new(options: Options) -> Self {
        let member = |address: &String| Member {
            address: address.clone(),
            held: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
        };
        let members = options.members.iter().map(member).collect();
        Self { options, members, current: AtomicUsize::new(0) }
    }

    pub(super) fn name(&self) -> &str {
        &self.options.name
    }

    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    /// Whether all of them are on this machine.
    pub(super) fn are_local(&self) -> bool {
        self.members.iter().all(|member| is_loopback(&member.address))
    }

    /// One exchange with etcd, bounded by [`EXCHANGE`]. It may run several times, on connections
    /// to several members, so it must do no harm when repeated.
    pub(super) async fn call<T, F, Fut>(&self, what: &str, exchange: F) -> Result<T, CallError>
    where
        F: Fn(Connection) -> Fut,
        Fut: Future<Output = Result<T, ClientError>>,
    {
        let deadline = Instant::now() + EXCHANGE;
        let first = self.current.load(Ordering::Relaxed);
        let mut failures = String::new();
        for step in 0..self.members.len() {
            let index = (first + step) % self.members.len();
            let failure = match timeout_at(deadline, self.call_one(index, &exchange)).await {
                Ok(Ok(value)) => {
                    if step > 0 {
                        self.current.store(index, Ordering::Relaxed);
                    }
                    return Ok(value);
                }
                Ok(Err(Failure::Answer(error))) => {
                    let answer = match &error {
                        ClientError::GRpcStatus(status) => {
                            Some((status.code(), status.message().to_owned()))
                        }
                        _ => None,
                    };
                    let text = format!("{}: cannot {what}: {}", self.name(), describe(&error));
                    return Err(CallError { text, answer });
                }
                Ok(Err(Failure::Member(why))) => why,
                Err(_) => format!("no answer within {EXCHANGE:?}"),
            };
            let separator = if step > 0 { "; " } else { "" };
            let _ = write!(failures, "{separator}{}: {failure}", self.members[index].address);
            if Instant::now() >= deadline {
                break;
            }
        }
        let text = format!("{}: cannot {what}: {failures}", self.name());
        Err(CallError { text, answer: None })
    }

    async fn call_one<T, F, Fut>(&self, index: usize, exchange: &F) -> Result<T, Failure>
    where
        F: Fn(Connection) -> Fut,
        Fut: Future<Output = Result<T, ClientError>>,
    {
        let member = &self.members[index];
        let mut pending = Pending { members: self, index, since: Some(Instant::now()) };
        let result = loop {
            let (connection, is_new) = match member.connection(&self.options).await {
                Ok(connection) => connection,
                Err(why) => break Err(Failure::Member(why)),
            };
            match exchange(connection.clone()).await {
                Ok(value) => break Ok(value),
                Err(error) if is_answer(&error) => break Err(Failure::Answer(error)),
                Err(error) => {
                    member.discard(|held| held.id == connection.id);
                    // One that has been there a while may have been broken for as long.
                    if is_new {
                        break Err(Failure::Member(describe(&error)));
                    }
                }
            }
        };
        pending.since = None;
        result
    }

    /// Forgets a connection: the next exchange makes a new one.
    pub(super) fn discard(&self, connection: u64) {
        for member in &self.members {
            member.discard(|held| held.id == connection);
        }
    }
}

/// An exchange under way with a member. Dropped before its answer and after [`SUSPECT`], it
/// discards the member's connection and turns to the next member.
struct Pending<'a> {
    members: &'a Members,
    index: usize,
    since: Option<Instant>,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if self.since.is_some_and(|since| since.elapsed() >= SUSPECT) {
            let Members { members, current, .. } = self.members;
            members[self.index].discard(|_| true);
            let next = (self.index + 1) % members.len();
            let _ =
                current.compare_exchange(self.index, next, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

impl Member {
    /// The connection, and whether it is new.
    async fn connection(&self, options: &Options) -> Result<(Connection, bool), String> {
        if let Some(connection) = self.held().clone() {
            return Ok((connection, false));
        }
        let _turn = self.connecting.lock().await;
        if let Some(connection) = self.held().clone() {
            return Ok((connection, false));
        }
        static IDS: AtomicU64 = AtomicU64::new(0);
        let client = self.connect(options).await?;
        let connection = Connection { id: IDS.fetch_add(1, Ordering::Relaxed), client };
        *self.held() = Some(connection.clone());
        Ok((connection, true))
    }

    async fn connect(&self, options: &Options) -> Result<Client, String> {
        let uri = format!("{}://{}", options.scheme(), self.address);
        let mut endpoint = Endpoint::from_shared(uri)
            .map_err(|error| with_causes(&error))?
            .connect_timeout(EXCHANGE)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true);
        if let Some(tls) = options.tls()? {
            endpoint = endpoint.tls_config(tls).map_err(|error| with_causes(&error))?;
        }
        let channel = endpoint.connect().await.map_err(|error| with_causes(&error))?;
        // Signs in, if there is a user.
        Client::from_channel(Channel::Tonic(channel), Some(options.client()))
            .await
            .map_err(|error| describe(&error))
    }

    fn discard(&self, is_it: impl Fn(&Connection) -> bool) {
        let mut held = self.held();
        if held.as_ref().is_some_and(is_it) {
            *held = None;
        }
    }

    fn held(&self) -> MutexGuard<'_, Option<Connection>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether etcd itself said so, and not the way there or the state of this one member.
fn is_answer(error: &ClientError) -> bool {
    match error {
        ClientError::GRpcStatus(status) => match status.code() {
            // A token that expired, or that a restarted etcd does not know: a new connection
            // signs in anew.
            Code::Unauthenticated => false,
            Code::InvalidArgument => !status.message().contains("auth store is old"),
            Code::Unavailable
            | Code::Unknown
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Internal => false,
            _ => true,
        },
        ClientError::TransportError(_)
        | ClientError::IoError(_)
        | ClientError::WatchError(_)
        | ClientError::LeaseKeepAliveError(_) => false,
        _ => true,
    }
}

pub(super) fn is_not_found(error: &ClientError) -> bool {
    matches!(error, ClientError::GRpcStatus(status) if status.code() == Code::NotFound)
}

/// The error in words, causes included. etcd's texts carry no credentials.
pub(super) fn describe(error: &ClientError) -> String {
    match error {
        ClientError::GRpcStatus(status) => {
            let mut text = status.message().to_owned();
            if text.is_empty() {
                text = status.code().description().to_owned();
            }
            if let Some(source) = status.source() {
                let _ = write!(text, ": {}", with_causes(source));
            }
            text
        }
        ClientError::TransportError(error) => with_causes(error),
        ClientError::IoError(error) => with_causes(error),
        error => error.to_string(),
    }
}

impl CallError {
    /// Whether the answer has more than a gRPC message may have.
    pub(super) fn is_too_large(&self) -> bool {
        let is_too_large = |(code, message): &(Code, String)| {
            *code == Code::OutOfRange && message.contains("message length too large")
        };
        self.answer.as_ref().is_some_and(is_too_large)
    }
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        Self::registry(error.text)
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("address", &self.address).finish_non_exhaustive()
    }
}
