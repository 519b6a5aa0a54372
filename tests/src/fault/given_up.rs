//! Calls that are given up midway, by anybody's client.

use std::{future::ready, time::Duration};

use futures_util::{StreamExt, stream};
use micro::{Client, Status, discovery::tonic_channel};
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;

use super::{Audit, CALLERS, Callers, Fleet, Ledger, Line, Method, SERVICE, Who, record};
use crate::proto::{
    ledger::{Entry, FollowerClient, LedgerClient},
    tonic_ledger::{
        self, follower_client::FollowerClient as TonicFollowerClient,
        ledger_client::LedgerClient as TonicLedgerClient,
    },
};

/// How many are given up.
pub const GIVEN_UP: usize = 10_000;

/// The first of their ids beside callers, apart from the callers'.
pub const FIRST_GIVEN_UP: u64 = 1 << 33;

/// What a handler takes, in milliseconds; a call is given up before that.
const TAKES: u64 = 100;

/// How many of them are under way at a time.
const AT_ONCE: usize = 500;

/// What is followed: our stub, or tonic's.
pub trait Follower: Clone + Send + 'static {
    /// Reads a stream to its end, which it does not have.
    fn read_all(&mut self, id: u64) -> impl Future<Output = Result<(), Status>> + Send;
}

impl Follower for FollowerClient {
    async fn read_all(&mut self, id: u64) -> Result<(), Status> {
        let mut receipts = self.follow(Entry { id }).await?.into_inner();
        while receipts.message().await?.is_some() {}
        Ok(())
    }
}

impl Follower for TonicFollowerClient<Channel> {
    async fn read_all(&mut self, id: u64) -> Result<(), Status> {
        let mut receipts = self.follow(tonic_ledger::Entry { id }).await?.into_inner();
        while receipts.message().await?.is_some() {}
        Ok(())
    }
}

/// Three nodes that take long enough for a call that it can be given up.
///
/// # Panics
/// When one does not start.
pub async fn slow_fleet(registry: &str) -> Fleet {
    Fleet::with_flags(registry, &["--takes", &TAKES.to_string()]).await
}

/// Begins calls, of them a third streams, until so many were given up before they were answered, and
/// with them those under way. Their ids begin at `first`.
///
/// # Panics
/// When it has not given up so many.
pub async fn give_up(ledger: &impl Ledger, follower: &impl Follower, first: u64, count: usize) {
    let mut random = fastrand::Rng::with_seed(first);
    let calls = (first..).map(|id| {
        let after = Duration::from_micros(random.u64(..TAKES * 1000));
        let (mut ledger, mut follower) = (ledger.clone(), follower.clone());
        async move {
            match id % 3 {
                0 => timeout(after, ledger.call(Method::Read, id)).await.is_err(),
                1 => timeout(after, ledger.call(Method::Write, id)).await.is_err(),
                _ => timeout(after, follower.read_all(id)).await.is_err(),
            }
        }
    });
    let given_up = stream::iter(calls).buffer_unordered(AT_ONCE).filter(|is| ready(*is));
    assert_eq!(given_up.take(count).count().await, count);
}

/// Gives calls to this fleet up beside 16 callers, which go on for a second, and writes the line in
/// `target/faults.json`; what became of the callers'.
///
/// # Panics
/// When handlers had fewer than half of them from ours, or none.
pub async fn give_up_beside_callers(fleet: &Fleet, client: &Client, who: Who) -> Audit {
    let callers = match who {
        Who::Micro => {
            let callers = Callers::start(client, CALLERS);
            let ledger = LedgerClient::new(SERVICE, client);
            let follower = FollowerClient::new(SERVICE, client);
            give_up(&ledger, &follower, FIRST_GIVEN_UP, GIVEN_UP).await;
            callers
        }
        Who::Tonic => {
            let channel = tonic_channel(client.discovery().subscribe(SERVICE));
            let ledger = TonicLedgerClient::new(channel.clone());
            let callers = Callers::start_with(&ledger, CALLERS, Duration::ZERO);
            let follower = TonicFollowerClient::new(channel);
            give_up(&ledger, &follower, FIRST_GIVEN_UP, GIVEN_UP).await;
            callers
        }
        Who::GrpcGo => {
            let flags = ["-give-up".to_owned(), GIVEN_UP.to_string()];
            let callers = Callers::start_grpc_go(client, flags, CALLERS, Duration::ZERO);
            // It gives them up by itself, and does not stop before it has.
            sleep(Duration::from_secs(5)).await;
            callers
        }
    };
    sleep(Duration::from_secs(1)).await;
    let calls = callers.stop().await;
    let visits = fleet.visits();
    let given_up = visits.iter().filter(|visit| visit.call >= FIRST_GIVEN_UP);
    let (seen, last) = (given_up.clone().count(), given_up.filter_map(|visit| visit.ended).max());
    // tonic's wait in its own queue for the most part.
    let at_least = if who == Who::Micro { GIVEN_UP / 2 } else { 0 };
    assert!(seen > at_least, "handlers had only {seen} of the calls given up");
    let audit = Audit::of(who, calls, visits);
    let recovery = audit.recovery(last.unwrap_or_default(), Duration::MAX);
    record(Line {
        fault: who.line("10 000 calls given up midway"),
        calls: audit.calls() + GIVEN_UP,
        failed: audit.failed().len(),
        allowed: 0,
        seconds_to_recover: recovery.as_secs_f64(),
    });
    audit
}
