//! The callers: as many tasks as asked for, each calling without a pause or after one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use micro::{Client, Code, Status, discovery::tonic_channel};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tonic::transport::Channel;

use super::{fleet::SERVICE, grpc_go, now};
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
                    calls.push(call(&mut ledger).await);
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
        let nodes = || client.discovery().subscribe(SERVICE);
        match who {
            Who::Micro => Self::start_with(&LedgerClient::new(SERVICE, client), count, pause),
            Who::Tonic => {
                let ledger = TonicLedgerClient::new(tonic_channel(nodes()));
                Self::start_with(&ledger, count, pause)
            }
            Who::GrpcGo => {
                let mut callers = Self::default();
                let (stop, made) = (callers.stop.clone(), callers.made.clone());
                callers.tasks.spawn(grpc_go::calls(nodes(), count, pause, stop, made));
                callers
            }
        }
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

async fn call(ledger: &mut impl Ledger) -> Call {
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    let method = if id.is_multiple_of(2) { Method::Read } else { Method::Write };
    let began = now();
    let outcome = ledger.call(method, id).await;
    let outcome = outcome.map_err(|status| (status.code(), status.message().to_owned()));
    Call { id, method, began, ended: now(), outcome }
}
