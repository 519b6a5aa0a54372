//! An address of ZooKeeper's that is silent, while another answers and calls go on.

use std::time::Duration;

use tests::{
    fault::{CALLS, Silent, TTL, Trial, now},
    zookeeper::ZooKeeper,
};

/// A renewal every TTL/3, and a second for the registration itself.
const BACK_WITHIN: Duration = Duration::from_secs(TTL.as_secs() / 3 + 1);

/// A node leaves, and another takes its place.
async fn changes_hands(trial: &mut Trial, node: usize) {
    assert!(trial.fleet.terminate(node).await.success());
    trial.replace(node).await;
}

/// The one that is named first accepts connections and never says a word.
#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_addresses_was_always_silent() {
    let (silent, server) = (Silent::start().await, ZooKeeper::start().await);
    let url = format!("zookeeper://{},{}", silent.address, server.address());
    let mut trial = Trial::beside_others("zookeeper, two addresses: one silent", &url).await;
    for node in 0..3 {
        changes_hands(&mut trial, node).await;
    }
    let took = trial.all_listed(now()).await;
    assert!(took <= BACK_WITHIN, "the nodes were back {took:?} after the last registration");
    let audit = trial.finish(CALLS).await;
    assert!(audit.failed().is_empty(), "no call fails");
}
