//! What may happen to etcd while calls go on: none of it may fail one, and every node is back in
//! the registry within a renewal's time of etcd's return.

use std::time::Duration;

use tests::{
    etcd::Etcd,
    fault::{TTL, Trial, now},
};
use tokio::time::sleep;

/// A renewal every TTL/3, and a second for the registration itself.
const BACK_WITHIN: Duration = Duration::from_secs(TTL.as_secs() / 3 + 1);

async fn check(mut trial: Trial, returned: Duration) {
    let took = trial.all_listed(returned).await;
    // The client still follows the registry: a node that takes another's place is called.
    assert!(trial.fleet.terminate(0).await.success());
    trial.restart(0).await;
    trial.finish(0).await;
    assert!(took <= BACK_WITHIN, "the nodes were back {took:?} after etcd");
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_killed_and_restarted() {
    let mut etcd = Etcd::start().await;
    let trial = Trial::start("etcd killed and restarted", &etcd.url()).await;
    etcd.kill();
    sleep(Duration::from_secs(5)).await;
    etcd.restart().await;
    check(trial, now()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_stopped_for_three_ttls_and_continued() {
    let etcd = Etcd::start().await;
    let trial = Trial::start("etcd stopped for 3 x TTL, continued", &etcd.url()).await;
    etcd.pause();
    sleep(3 * TTL).await;
    etcd.resume();
    // It deletes every key on waking, its leases being over: the worst of all answers.
    check(trial, now()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_wiped() {
    let mut etcd = Etcd::start().await;
    let trial = Trial::start("etcd wiped", &etcd.url()).await;
    etcd.wipe().await;
    check(trial, now()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_restored_from_an_older_snapshot() {
    let mut etcd = Etcd::start().await;
    let mut trial = Trial::start("etcd restored from an older snapshot", &etcd.url()).await;
    let snapshot = etcd.snapshot().await;
    // The snapshot has a node that is gone, and lacks the one that took its place.
    assert!(trial.fleet.terminate(1).await.success());
    trial.restart(1).await;
    sleep(Duration::from_secs(3)).await;

    etcd.restore(&snapshot).await;
    check(trial, now()).await;
}
