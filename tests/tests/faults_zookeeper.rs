//! What may happen to ZooKeeper while calls go on: none of it may fail one, and every node is back
//! in the registry within a renewal's time of ZooKeeper's return.

use std::time::Duration;

use tests::{
    fault::{TTL, Trial, now},
    zookeeper::ZooKeeper,
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
    assert!(took <= BACK_WITHIN, "the nodes were back {took:?} after ZooKeeper");
}

#[tokio::test(flavor = "multi_thread")]
async fn zookeeper_killed_and_restarted() {
    let mut zookeeper = ZooKeeper::start().await;
    let trial = Trial::start("ZooKeeper killed and restarted", &zookeeper.url()).await;
    zookeeper.kill();
    sleep(Duration::from_secs(5)).await;
    zookeeper.restart().await;
    check(trial, now()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn zookeeper_stopped_for_three_ttls_and_continued() {
    let zookeeper = ZooKeeper::start().await;
    let trial = Trial::start("ZooKeeper stopped for 3 x TTL, continued", &zookeeper.url()).await;
    zookeeper.pause();
    sleep(3 * TTL).await;
    zookeeper.resume();
    check(trial, now()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn zookeeper_wiped() {
    let mut zookeeper = ZooKeeper::start().await;
    let trial = Trial::start("ZooKeeper wiped", &zookeeper.url()).await;
    zookeeper.wipe().await;
    check(trial, now()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn zookeeper_restored_from_an_older_state() {
    let mut zookeeper = ZooKeeper::start().await;
    let mut trial = Trial::start("ZooKeeper restored from an older state", &zookeeper.url()).await;
    let snapshot = zookeeper.snapshot();
    // The copy has a node that is gone, and lacks the one that took its place.
    assert!(trial.fleet.terminate(1).await.success());
    trial.restart(1).await;
    sleep(Duration::from_secs(3)).await;

    zookeeper.restore(&snapshot).await;
    check(trial, now()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_deleted_and_one_overwritten_by_hand() {
    let zookeeper = ZooKeeper::start().await;
    let trial = Trial::start("records deleted by hand in ZooKeeper", &zookeeper.url()).await;
    let client = zookeeper.client().await;
    let folder = format!("/micro-registry/{}", tests::fault::SERVICE);
    let records = client.list_children(&folder).await.expect("the records are there");
    client.set_data(&format!("{folder}/{}", records[0]), b"{}", None).await.expect("it is written");
    for record in &records[1..] {
        client.delete(&format!("{folder}/{record}"), None).await.expect("it is deleted");
    }
    check(trial, now()).await;
}
