//! More callers at once than the nodes take streams.

use tests::{
    etcd::Etcd,
    fault::{Who, crowd},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_callers_at_once_fail_no_call() {
    let etcd = Etcd::start().await;
    let audit = crowd(&etcd.url(), Who::Micro).await;
    println!("p99 {:?}", audit.p99());
    assert_eq!(audit.failed().len(), 0, "{:?}", audit.failed().first());
    assert!(audit.broken_rules().is_empty(), "{:?}", audit.broken_rules());
}
