//! What may happen to the API server while calls go on: none of it may fail one, and every node's
//! record is back within a renewal's time of the server's return.

use std::time::Duration;

use tests::{
    fault::{TTL, Trial, now},
    kubernetes::Kubernetes,
};
use tokio::time::sleep;

/// A renewal every TTL/3, and a second for the registration itself.
const BACK_WITHIN: Duration = Duration::from_secs(TTL.as_secs() / 3 + 1);

/// With a pod for every process that the trial starts.
async fn start() -> Kubernetes {
    let mut kubernetes = Kubernetes::start().await;
    kubernetes.run_pods(&["a-1", "b-1", "c-1", "a-2"]).await;
    kubernetes
}

async fn check(mut trial: Trial, returned: Duration) {
    let took = trial.all_listed(returned).await;
    // The client still follows the registry: a node that takes another's place is called.
    assert!(trial.fleet.terminate(0).await.success());
    trial.restart(0).await;
    trial.finish(0).await;
    assert!(took <= BACK_WITHIN, "the nodes were back {took:?} after the API server");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_killed_and_restarted() {
    let mut kubernetes = start().await;
    let trial = Trial::start("kube-apiserver killed and restarted", &kubernetes.url()).await;
    kubernetes.kill();
    sleep(Duration::from_secs(5)).await;
    kubernetes.restart().await;
    check(trial, now()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_stopped_for_three_ttls_and_continued() {
    let kubernetes = start().await;
    let name = "kube-apiserver stopped for 3 x TTL, continued";
    let trial = Trial::start(name, &kubernetes.url()).await;
    kubernetes.pause();
    sleep(3 * TTL).await;
    kubernetes.resume();
    check(trial, now()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_wiped() {
    let mut kubernetes = start().await;
    let trial = Trial::start("kube-apiserver wiped", &kubernetes.url()).await;
    kubernetes.wipe().await;
    check(trial, now()).await;
}
