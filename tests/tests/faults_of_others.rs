//! The faults of nodes under the clients of others, for comparison: what becomes of their calls is
//! written into the table beside ours, and held to nothing.

use futures_util::{StreamExt, stream};
use tests::{
    etcd::Etcd,
    fault::{NodeFault, Who},
};

async fn under_every_fault(who: Who) {
    let done = NodeFault::ALL.map(|fault| async move {
        let etcd = Etcd::start().await;
        // As long as the fault lasts, however few calls that are.
        fault.done(&etcd.url(), who, 0).await
    });
    let verdicts = stream::iter(done).buffer_unordered(4).collect::<Vec<_>>().await;
    for verdict in &verdicts {
        assert!(verdict.calls() > 0, "no call was made: {verdict:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tonics_balanced_channel() {
    under_every_fault(Who::Tonic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_gos_round_robin() {
    under_every_fault(Who::GrpcGo).await;
}
