//! The session for reading and watching: one a registry, on one member at a time.

use std::{
    fmt::Write,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, future::try_join_all, stream::FuturesUnordered};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout_at},
};
use zookeeper_client::{Client, Error as ClientError, SessionState};

use super::{
    super::url::is_loopback,
    options::Options,
    record::{Record, revision},
};
use crate::Error;

/// How long an exchange may take, all its requests and all members tried together.
pub(super) const EXCHANGE: Duration = Duration::from_secs(1);

/// An exchange given up after this long, by its bound or by its caller, speaks against the
/// connection it was on: less than what a renewal leaves for one.
const SUSPECT: Duration = Duration::from_millis(400);

/// What is asked for as the timeout of the session. A PING goes out after 3/20 of it without a
/// word, and a connection is given up after 2/5 without an answer: so a watch on a stopped
/// ZooKeeper ends within 6 s.
const SESSION: Duration = Duration::from_secs(15);

/// What is read in ZooKeeper. A session here holds nothing, so it is no more than a connection: it
/// is never kept over the loss of one. One that is taken up again insists on a member that has all
/// that it has seen, which a wiped ZooKeeper never has; and persistent watches are not told what
/// they missed meanwhile ([ZOOKEEPER-4698](https://issues.apache.org/jira/browse/ZOOKEEPER-4698)).
#[derive(Debug)]
pub(super) struct Reader {
    options: Options,
    held: Mutex<Option<Client>>,
    /// Connecting is one exchange's work; those that come meanwhile wait for what it makes.
    connecting: tokio::sync::Mutex<()>,
    /// The member that the next connection is made to.
    current: AtomicUsize,
}

enum Failure {
    /// This member could not say: another may.
    Member(String),
    /// ZooKeeper's answer, which another member would give as well.
    Answer(ClientError),
}

impl Reader {
    pub(super) fn new(options: Options) -> Self {
        Self {
            options,
            held: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            current: AtomicUsize::new(0),
        }
    }

    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    /// Whether all members are on this machine.
    pub(super) fn is_local(&self) -> bool {
        self.options.members.iter().all(|member| is_loopback(member))
    }

    /// One exchange with ZooKeeper, bounded by [`EXCHANGE`]. It may run several times, on
    /// connections to several members, so it must do no harm when repeated.
    pub(super) async fn call<T, F, Fut>(&self, what: &str, exchange: F) -> Result<T, Error>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<T, ClientError>>,
    {
        let deadline = Instant::now() + EXCHANGE;
        let mut failures = String::new();
        for step in 0..self.options.members.len() {
            let index = self.current.load(Ordering::Relaxed);
            let failure = match timeout_at(deadline, self.call_one(index, &exchange)).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(Failure::Answer(error))) => {
                    return Err(self.failed(what, &describe(&error)));
                }
                Ok(Err(Failure::Member(why))) => {
                    self.leave(index);
                    why
                }
                Err(_) => format!("no answer within {EXCHANGE:?}"),
            };
            let separator = if step > 0 { "; " } else { "" };
            let _ = write!(failures, "{separator}{}: {failure}", self.options.members[index]);
            if Instant::now() >= deadline {
                break;
            }
        }
        Err(self.failed(what, &failures))
    }

    /// One exchange over this connection, and no other.
    pub(super) async fn call_on<T>(
        &self,
        client: &Client,
        what: &str,
        exchange: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, Error> {
        let answer = timeout_at(Instant::now() + EXCHANGE, exchange).await;
        let why = match answer {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => {
                if !is_answer(&error) {
                    self.discard(client);
                }
                describe(&error)
            }
            Err(_) => {
                self.discard(client);
                format!("no answer within {EXCHANGE:?}")
            }
        };
        Err(self.failed(what, &why))
    }

    pub(super) fn failed(&self, what: &str, why: &str) -> Error {
        Error::registry(format!("{}: cannot {what}: {why}", self.options.name))
    }

    async fn call_one<T, F, Fut>(&self, index: usize, exchange: &F) -> Result<T, Failure>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<T, ClientError>>,
    {
        let mut pending = Pending { reader: self, index, since: Some(Instant::now()) };
        let result = loop {
            let (client, is_new) = match self.connection(index).await {
                Ok(connection) => connection,
                Err(why) => break Err(Failure::Member(why)),
            };
            match exchange(client.clone()).await {
                Ok(value) => break Ok(value),
                Err(error) if is_answer(&error) => break Err(Failure::Answer(error)),
                Err(error) => {
                    self.discard(&client);
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

    /// The connection, and whether it is new.
    async fn connection(&self, index: usize) -> Result<(Client, bool), String> {
        if let Some(client) = self.connected() {
            return Ok((client, false));
        }
        let _turn = self.connecting.lock().await;
        if let Some(client) = self.connected() {
            return Ok((client, false));
        }
        let member = &self.options.members[index];
        let connector = self.options.connector().with_session_timeout(SESSION);
        match connector.connect(member).await {
            Ok(client) => {
                *self.held() = Some(client.clone());
                Ok((client, true))
            }
            Err(ClientError::NoHosts) => Err(unreachable(member).await),
            Err(error) => Err(describe(&error)),
        }
    }

    fn connected(&self) -> Option<Client> {
        let mut held = self.held();
        held.take_if(|client| client.state() != SessionState::SyncConnected);
        held.clone()
    }

    /// Forgets a connection: the next exchange makes a new one.
    pub(super) fn discard(&self, client: &Client) {
        self.held().take_if(|held| held.session_id() == client.session_id());
    }

    /// Turns from this member to the next.
    fn leave(&self, index: usize) {
        let next = (index + 1) % self.options.members.len();
        let _ = self.current.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn held(&self) -> MutexGuard<'_, Option<Client>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An exchange under way. Dropped before its answer and after [`SUSPECT`], it discards the
/// connection and turns to the next member.
struct Pending<'a> {
    reader: &'a Reader,
    index: usize,
    since: Option<Instant>,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if self.since.is_some_and(|since| since.elapsed() >= SUSPECT) {
            *self.reader.held() = None;
            self.reader.leave(self.index);
        }
    }
}

/// What stands at each of these paths, in their order, asked for all at once.
pub(super) async fn records(
    client: &Client,
    paths: impl IntoIterator<Item = String>,
) -> Result<Vec<Option<Record>>, ClientError> {
    let read = |path: String| {
        let answer = client.get_data(&path);
        async move {
            match answer.await {
                Ok((value, stat)) => Ok(Some(Record { path, value: Some(value), stat })),
                Err(ClientError::NoNode) => Ok(None),
                // No reason to do without the rest.
                Err(ClientError::NoAuth) => Ok(Some(Record::hidden(path))),
                Err(error) => Err(error),
            }
        }
    };
    try_join_all(paths.into_iter().map(read)).await
}

/// The children of a folder, and the revision of the last of them to come or go: nobody, at that
/// of the folder's nearest ancestor, if there is no such folder.
pub(super) async fn children(
    client: &Client,
    mut folder: &str,
) -> Result<(Vec<String>, u64), ClientError> {
    match client.get_children(folder).await {
        Ok((children, stat)) => return Ok((children, revision(stat.pzxid))),
        Err(ClientError::NoNode) => {}
        Err(error) => return Err(error),
    }
    loop {
        folder = match folder.rsplit_once('/') {
            Some(("", _)) | None => "/",
            Some((parent, _)) => parent,
        };
        if let Some(stat) = client.check_stat(folder).await? {
            return Ok((Vec::new(), revision(stat.pzxid)));
        }
        if folder == "/" {
            return Ok((Vec::new(), 0));
        }
    }
}

/// How long members may take to answer whether they are there.
const ANSWERS: Duration = Duration::from_millis(300);

/// The first members to answer, a majority of them if there is one: the client begins where chance
/// will have it, and at one that is silent would stay for longer than an exchange has. To a session
/// the others are no loss, since without any of that majority they have none themselves.
pub(super) async fn answering(members: &[String]) -> Vec<String> {
    if members.len() == 1 {
        return members.to_vec();
    }
    let asked = async |member: &String| answers(member).await.then(|| member.clone());
    let asked: FuturesUnordered<_> = members.iter().map(asked).collect();
    let most = members.len() / 2 + 1;
    let answered = asked.filter_map(std::future::ready).take(most);
    let answered: Vec<_> = answered.take_until(sleep(ANSWERS)).collect().await;
    // A session that only these can hold ends with them, and the node registers anew; one that waits for
    // a silent member does not begin.
    if answered.is_empty() { members.to_vec() } else { answered }
}

/// Whether a member says anything at all to the one word that it takes by default. One that does not
/// take it says so.
async fn answers(member: &str) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(member).await?;
        stream.write_all(b"srvr").await?;
        stream.read(&mut [0; 64]).await
    };
    ask.await.is_ok_and(|length| length > 0)
}

/// Why a member gives no session: what the client does not say.
pub(super) async fn unreachable(member: &str) -> String {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};

    match TcpStream::connect(member).await {
        // One that is closed at once may be so before we hear that it was taken.
        Err(error) if !matches!(error.kind(), BrokenPipe | ConnectionReset) => error.to_string(),
        _ => "it takes the connection, but gives no session: it is starting, without a \
                  majority, or behind what this process has seen, or has too many connections from \
                  here (its maxClientCnxns); its log says which"
            .to_owned(),
    }
}

/// Whether ZooKeeper itself said so, and not the way there or the state of this one member.
fn is_answer(error: &ClientError) -> bool {
    !matches!(
        error,
        ClientError::ConnectionLoss
            | ClientError::SessionExpired
            | ClientError::SessionMoved
            | ClientError::ClientClosed
            | ClientError::NoHosts
            | ClientError::Timeout
            | ClientError::Throttled
            | ClientError::NotReadOnly
            | ClientError::Custom(_)
    )
}

/// The error in words, with its remedy where there is one.
pub(super) fn describe(error: &ClientError) -> String {
    match error {
        ClientError::NoAuth => {
            "not authorized: the rights there (its ACL) are others'; a wrong password looks the \
             same, since ZooKeeper compares it with nothing else"
                .to_owned()
        }
        ClientError::Unimplemented => {
            "it does not know the request: micro needs ZooKeeper 3.6 or later".to_owned()
        }
        error => error.to_string(),
    }
}
