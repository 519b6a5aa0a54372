//! Registries that never come to rest, under 16 callers: the nodes that can be called are, however much
//! else is listed.

use std::time::Duration;

use tests::{
    etcd::Etcd,
    fault::{CALLS, RecordsFault, Who},
};

/// No call fails, and all nodes are called.
async fn under(fault: RecordsFault) {
    let etcd = Etcd::start().await;
    let trial = fault.done(&etcd.url(), Who::Micro, CALLS).await;
    let ids = trial.fleet.ids();
    let audit = trial.finish(CALLS).await;
    for id in ids {
        let visits = audit.visits_between(Some(&id), Duration::ZERO, Duration::MAX);
        assert!(visits > 0, "{id} was never called");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_nodes_that_come_and_go_fail_no_call() {
    under(RecordsFault::Churn).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_all_flap_100_times_a_second_fail_no_call() {
    under(RecordsFault::Flap).await;
}
