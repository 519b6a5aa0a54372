//! What may happen to certificates, under 16 callers.

use std::time::Duration;

use tests::{
    etcd::Etcd,
    fault::{CALLS, CertificateFault, Who},
};

async fn under(fault: CertificateFault) {
    let etcd = Etcd::start().await;
    let audit = fault.done(&etcd.url(), Who::Micro, Duration::ZERO).await;
    assert_eq!(audit.failed().len(), 0, "{:?}", audit.failed().first());
    assert!(audit.broken_rules().is_empty(), "{:?}", audit.broken_rules());
    assert!(audit.calls() as u64 >= CALLS, "{} calls", audit.calls());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_to_another_ca_fails_no_call() {
    under(CertificateFault::Rotated).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_a_wrong_certificate_fails_no_call_and_is_called_once_it_has_a_right_one() {
    under(CertificateFault::OneWrong).await;
}
