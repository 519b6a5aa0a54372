//! More callers at once than the nodes take streams.

use std::time::Duration;

use micro::Client;
use tests::{
    etcd::Etcd,
    fault::{Audit, Callers, Fleet, Line, Who, record},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_callers_at_once_fail_no_call() {
    let etcd = Etcd::start().await;
    let fleet = Fleet::start(&etcd.url()).await;
    let client = Client::builder().registry(&fleet.url).build().unwrap();
    // All begin at once. Without a pause later calls would measure how many a second this machine can do.
    let callers = Callers::start_by(Who::Micro, &client, 10_000, Duration::from_secs(1));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let audit = Audit::new(callers.stop().await, fleet.visits());
    println!("p99 {:?}", audit.p99());
    record(Line {
        fault: "10 000 callers at once".to_owned(),
        calls: audit.calls(),
        failed: audit.failed().len(),
        allowed: 0,
        seconds_to_recover: audit.recovery_from_the_start().as_secs_f64(),
    });
    assert_eq!(audit.failed().len(), 0, "{:?}", audit.failed().first());
    assert!(audit.broken_rules().is_empty(), "{:?}", audit.broken_rules());
}
