//! Calls whose callers give them up, while etcd is away and others call by the same client: nothing is
//! left of them, and no node is taken for a bad one.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;
use tests::{
    etcd::Etcd,
    fault::{CALLS, Fleet, SERVICE, Trial, now},
    process::connections,
    proto::ledger::{Entry, LedgerClient},
};
use tokio::{
    runtime::Handle,
    task::JoinSet,
    time::{sleep, timeout},
};

/// Longer than a TTL.
const AWAY: Duration = Duration::from_secs(20);

/// How long what is closing may take.
const SETTLED: Duration = Duration::from_secs(20);

/// No node that is not ejected is without a call for so long, however busy the machine.
const STEP: Duration = Duration::from_secs(3);

/// How many give up one call after the other, beside the callers that wait.
const IMPATIENT: u64 = 8;

/// None of the callers' calls.
const GIVEN_UP: u64 = u64::MAX;

/// Those who give up: after up to 4 ms, of which a handler takes two; and of a service of which there
/// is no node, so that the call waits for one.
fn impatient(trial: &Trial, given_up: &Arc<AtomicU64>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for seed in 0..IMPATIENT {
        let service = if seed == 0 { "nobody" } else { SERVICE };
        let ledger = LedgerClient::new(service, &trial.client);
        let (mut rng, given_up) = (Rng::with_seed(seed), given_up.clone());
        tasks.spawn(async move {
            loop {
                let patience = Duration::from_micros(rng.u64(..4000));
                let entry = Entry { id: GIVEN_UP };
                let is_given_up = match rng.bool() {
                    true => timeout(patience, ledger.read(entry)).await.is_err(),
                    false => timeout(patience, ledger.write(entry)).await.is_err(),
                };
                given_up.fetch_add(u64::from(is_given_up), Ordering::Relaxed);
                sleep(Duration::from_millis(5)).await;
            }
        });
    }
    tasks
}

fn connections_to(fleet: &Fleet) -> usize {
    let port = |node| fleet.address(node).rsplit(':').next().and_then(|port| port.parse().ok());
    (0..3).map(|node| connections(port(node).expect("host:port"))).sum()
}

/// What this process holds once nothing moves any more: tasks, and connections to nodes.
async fn holds(trial: &Trial) -> (usize, usize) {
    let metrics = Handle::current().metrics();
    let mut held = BTreeMap::<_, usize>::new();
    for _ in 0..100 {
        *held.entry((metrics.num_alive_tasks(), connections_to(&trial.fleet))).or_default() += 1;
        sleep(Duration::from_millis(20)).await;
    }
    // Callers come and go; what stands most of the time is what is held.
    held.into_iter().max_by_key(|(_, times)| *times).expect("some").0
}

async fn calls_are_given_up(name: &str, away: impl Fn(&mut Etcd), back: impl AsyncFn(&mut Etcd)) {
    let mut etcd = Etcd::start().await;
    let name = format!("etcd: {name}, calls given up");
    let mut trial = Trial::beside_others(&name, &etcd.url()).await;
    let given_up = Arc::new(AtomicU64::new(0));
    // The service without a node is followed from its first call on, like any.
    let mut tasks = impatient(&trial, &given_up);
    sleep(Duration::from_secs(2)).await;
    tasks.shutdown().await;
    let before = holds(&trial).await;

    away(&mut etcd);
    let mut tasks = impatient(&trial, &given_up);
    let (from, earlier) = (now(), given_up.load(Ordering::Relaxed));
    sleep(AWAY).await;
    let until = now();
    let during = given_up.load(Ordering::Relaxed) - earlier;
    back(&mut etcd).await;
    trial.all_listed(now()).await;
    tasks.shutdown().await;
    let mut after = holds(&trial).await;
    let deadline = now() + SETTLED;
    // What is closing still may be.
    while (after.0 > before.0 || after.1 > before.1) && now() < deadline {
        after = holds(&trial).await;
    }

    assert!(during > 1000, "{during} calls were given up");
    let has_grown = after.0 > before.0 || after.1 > before.1;
    assert!(!has_grown, "tasks, and connections to nodes: {before:?}, then {after:?}");
    let ids = trial.fleet.ids();
    let audit = trial.finish(CALLS).await;
    assert!(audit.failed().is_empty(), "no call of those who wait fails");
    // All the while each node was called: none was ejected.
    let mut begin = from;
    while begin + STEP <= until {
        for id in &ids {
            let visits = audit.visits_between(Some(id), begin, begin + STEP);
            assert!(visits > 0, "{id} had no call for {STEP:?}, {:?} in", begin - from);
        }
        begin += STEP;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_given_up_while_it_is_stopped() {
    calls_are_given_up("stopped", |etcd| etcd.pause(), async |etcd| etcd.resume()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_given_up_while_it_is_killed() {
    calls_are_given_up("killed", Etcd::kill, Etcd::restart).await;
}
