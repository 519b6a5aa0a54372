//! The callers: as many tasks as asked for, each calling without a pause or after one.

use std::{
    ffi::OsStr,
    fmt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use micro::{Client, Code, Status, client::Hedge, discovery::tonic_channel};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tonic::transport::Channel;

use super::{fleet::SERVICE, grpc_go, now, tonic_tls};
use crate::proto::{
    ledger::{Entry, LedgerClient},
    tonic_ledger::{self, ledger_client::LedgerClient as TonicLedgerClient},
};

/// The deadline of every call.
pub const DEADLINE: Duration = Duration::from_secs(3);

/// Which method was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Declared idempotent: must never fail.
    Read,
    /// Not declared so: must never reach two handlers.
    Write,
}

/// What is called: our stub, or tonic's over tonic's own balanced channel.
pub trait Ledger: Clone + Send + 'static {
    /// Calls, and says which node answered.
    fn call(&mut self, method: Method, id: u64) -> impl Future<Output = Answer> + Send;
}

type Answer = Result<String, Status>;

impl Ledger for LedgerClient {
    async fn call(&mut self, method: Method, id: u64) -> Answer {
        let receipt = match method {
            Method::Read => self.read(Entry { id }).timeout(DEADLINE).await,
            Method::Write => self.write(Entry { id }).timeout(DEADLINE).await,
        };
        receipt.map(|receipt| receipt.into_inner().node)
    }
}

/// Our stub, whose reads are hedged.
#[derive(Debug, Clone)]
pub struct Hedged(pub LedgerClient, pub Hedge);

impl Ledger for Hedged {
    async fn call(&mut self, method: Method, id: u64) -> Answer {
        match method {
            Method::Read => {
                let read = self.0.read(Entry { id }).timeout(DEADLINE).hedge(self.1).await;
                read.map(|receipt| receipt.into_inner().node)
            }
            Method::Write => self.0.call(method, id).await,
        }
    }
}

impl Ledger for TonicLedgerClient<Channel> {
    async fn call(&mut self, method: Method, id: u64) -> Answer {
        let entry = tonic_ledger::Entry { id };
        let call = async {
            match method {
                Method::Read => self.read(entry).await,
                Method::Write => self.write(entry).await,
            }
        };
        let late = |_| Status::deadline_exceeded("the caller's own timer");
        let receipt = timeout(DEADLINE, call).await.map_err(late)?;
        receipt.map(|receipt| receipt.into_inner().node)
    }
}

/// A call as its caller saw it.
#[derive(Debug, Clone)]
pub struct Call {
    /// Its id.
    pub id: u64,
    /// What was called.
    pub method: Method,
    /// When the caller began.
    pub began: Duration,
    /// When the caller had the outcome.
    pub ended: Duration,
    /// The node that answered, or the status.
    pub outcome: Result<String, (Code, String)>,
}

impl Call {
    /// How long the caller waited.
    pub fn took(&self) -> Duration {
        self.ended.saturating_sub(self.began)
    }

    /// Makes the next call, which takes turns with the two methods.
    pub async fn make(ledger: &mut impl Ledger) -> Self {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let method = if id.is_multiple_of(2) { Method::Read } else { Method::Write };
        let began = now();
        let outcome = ledger.call(method, id).await;
        let outcome = outcome.map_err(|status| (status.code(), status.message().to_owned()));
        Self { id, method, began, ended: now(), outcome }
    }

    /// A call as another process writes it in a line.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut words = line.splitn(6, ' ');
        let id = words.next()?.parse().ok()?;
        let method = match words.next()? {
            "r" => Method::Read,
            "w" => Method::Write,
            _ => return None,
        };
        let mut time = || Some(Duration::from_micros(words.next()?.parse().ok()?));
        let (began, ended) = (time()?, time()?);
        let code = Code::from_i32(words.next()?.parse().ok()?);
        let text = words.next()?.to_owned();
        let outcome = if code == Code::Ok { Ok(text) } else { Err((code, text)) };
        Some(Self { id, method, began, ended, outcome })
    }
}

/// `ID r|w BEGAN ENDED CODE TEXT`, in microseconds; the text is the node's id where the code is 0.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = match self.method {
            Method::Read => 'r',
            Method::Write => 'w',
        };
        let (code, text) = match &self.outcome {
            Ok(node) => (Code::Ok, node),
            Err((code, text)) => (*code, text),
        };
        let (began, ended) = (self.began.as_micros(), self.ended.as_micros());
        let (code, text) = (code as i32, text.replace('\n', " "));
        write!(f, "{} {method} {began} {ended} {code} {text}", self.id)
    }
}

/// Whose client the callers call with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Ours.
    Micro,
    /// tonic's own balanced channel, over our discovery.
    Tonic,
    /// grpc-go's `round_robin`, over our discovery.
    GrpcGo,
}

impl Who {
    /// What the table calls this fault, done to these.
    pub fn line(self, fault: &str) -> String {
        match self {
            Self::Micro => fault.to_owned(),
            Self::Tonic => format!("tonic's balanced channel: {fault}"),
            Self::GrpcGo => format!("grpc-go's round_robin: {fault}"),
        }
    }
}

/// Callers at work.
#[derive(Debug, Default)]
pub struct Callers {
    tasks: JoinSet<Vec<Call>>,
    stop: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
}

impl Callers {
    /// Starts `count` callers of our stub, which take turns with the two methods.
    pub fn start(client: &Client, count: usize) -> Self {
        Self::start_with(&LedgerClient::new(SERVICE, client), count, Duration::ZERO)
    }

    /// Starts `count` callers of any stub, each with so long a pause after a call.
    pub fn start_with(ledger: &impl Ledger, count: usize, pause: Duration) -> Self {
        let mut callers = Self::default();
        for _ in 0..count {
            let mut ledger = ledger.clone();
            let (stop, made) = (callers.stop.clone(), callers.made.clone());
            callers.tasks.spawn(async move {
                let mut calls = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    made.fetch_add(1, Ordering::Relaxed);
                    calls.push(Call::make(&mut ledger).await);
                    if !pause.is_zero() {
                        sleep(pause).await;
                    }
                }
                calls
            });
        }
        callers
    }

    /// Starts `count` callers of this client's, whose nodes are those that ours finds.
    ///
    /// # Panics
    /// When grpc-go's program does not start.
    pub fn start_by(who: Who, client: &Client, count: usize, pause: Duration) -> Self {
        Self::start_as(who, client, None, count, pause)
    }

    /// The same over TLS, where others have what is in this folder; ours has what its options say.
    ///
    /// # Panics
    /// As [`Callers::start_by`], and when something is missing in the folder.
    pub fn start_over_tls(
        who: Who,
        client: &Client,
        folder: &Path,
        count: usize,
        pause: Duration,
    ) -> Self {
        Self::start_as(who, client, Some(folder), count, pause)
    }

    fn start_as(
        who: Who,
        client: &Client,
        tls: Option<&Path>,
        count: usize,
        pause: Duration,
    ) -> Self {
        let nodes = || client.discovery().subscribe(SERVICE);
        match who {
            Who::Micro => Self::start_with(&LedgerClient::new(SERVICE, client), count, pause),
            Who::Tonic => {
                let channel = match tls {
                    None => tonic_channel(nodes()),
                    Some(folder) => tonic_tls::channel(nodes(), folder),
                };
                Self::start_with(&TonicLedgerClient::new(channel), count, pause)
            }
            Who::GrpcGo => {
                let flags = tls.iter().flat_map(|folder| ["-tls".as_ref(), folder.as_os_str()]);
                Self::start_grpc_go(client, flags, count, pause)
            }
        }
    }

    /// Starts `count` callers in a process of grpc-go's, with these flags of its own.
    ///
    /// # Panics
    /// As [`Callers::start_by`].
    pub(super) fn start_grpc_go(
        client: &Client,
        flags: impl IntoIterator<Item: AsRef<OsStr>>,
        count: usize,
        pause: Duration,
    ) -> Self {
        let mut callers = Self::default();
        let (stop, made) = (callers.stop.clone(), callers.made.clone());
        let process = grpc_go::start(flags, count, pause);
        let nodes = client.discovery().subscribe(SERVICE);
        callers.tasks.spawn(grpc_go::calls(process, nodes, stop, made));
        callers
    }

    /// How many calls were begun so far.
    pub fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Lets the calls under way finish, and hands over all of them.
    ///
    /// # Panics
    /// When one has not ended 5 s after its deadline.
    pub async fn stop(self) -> Vec<Call> {
        self.stop.store(true, Ordering::Relaxed);
        let all = tokio::time::timeout(DEADLINE + Duration::from_secs(5), self.tasks.join_all());
        all.await.expect("a call hung past its deadline").concat()
    }
}

/// The ids of this process: two runs of callers on one fleet share its journals.
static NEXT_ID: AtomicU64 = AtomicU64::new(0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_written_in_a_line_is_read_back() {
        let (began, ended) = (Duration::from_micros(1), Duration::from_micros(3));
        for (method, outcome) in [
            (Method::Read, Ok("a-1".to_owned())),
            (Method::Write, Err((Code::Unavailable, "node a-1: gone".to_owned()))),
        ] {
            let call = Call { id: 7, method, began, ended, outcome };
            let read = Call::parse(&call.to_string());
            assert_eq!(format!("{read:?}"), format!("{:?}", Some(call)));
        }
        assert!(Call::parse("# 12").is_none());
    }
}
