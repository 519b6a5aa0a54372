//! What may happen to certificates, under 16 callers.

use std::time::Duration;

use micro::{ChannelOptions, Client, tls::ClientTls};
use tests::{
    certificates::{Authority, FOLDERS, folders, replace, tls},
    etcd::Etcd,
    fault::{Audit, CALLERS, CALLS, Callers, Fleet, Line, SERVICE, now, record, told},
    proto::ledger::{Entry, LedgerClient},
};
use tokio::time::{sleep, timeout};

const SOON: Duration = Duration::from_secs(20);

fn client(url: &str, tls: ClientTls) -> Client {
    let options = ChannelOptions::new().tls(tls);
    Client::builder().registry(url).for_service(SERVICE, options).build().expect("a client")
}

/// Until a node is called by a client that has nothing else to go by: each time on new connections.
async fn until_answered(url: &str, tls: &ClientTls) {
    let answered = async {
        let ask = async || {
            let client = client(url, tls.clone());
            LedgerClient::new(SERVICE, &client).read(Entry { id: u64::MAX }).fail_fast().await
        };
        while ask().await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(SOON, answered).await.expect("files are taken up within about a second");
}

fn finish(fault: &str, audit: &Audit) {
    let (calls, failed) = (audit.calls(), audit.failed().len());
    let fault = fault.to_owned();
    let seconds_to_recover = audit.recovery_from_the_start().as_secs_f64();
    record(Line { fault, calls, failed, allowed: 0, seconds_to_recover });
    assert_eq!(failed, 0, "{:?}", audit.failed().first());
    assert!(audit.broken_rules().is_empty(), "{:?}", audit.broken_rules());
    assert!(calls as u64 >= CALLS, "{calls} calls");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_to_another_ca_fails_no_call() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let (etcd, dir) = (Etcd::start().await, folders(&old));
    let mut fleet = Fleet::over_tls(&etcd.url(), dir.path()).await;
    let url = fleet.url.clone();
    let ours = tls(&dir.path().join("client"));
    let callers = Callers::start(&client(&url, ours.clone()), CALLERS);

    // Both CAs are trusted, then the new one's certificates shown, then it is trusted alone.
    let both = format!("{}{}", old.pem, new.pem);
    let probe = folders(&new);
    let probe = tls(&probe.path().join("client"));
    let trust = |pem: &str| {
        for name in FOLDERS {
            replace(&dir.path().join(name).join("ca"), pem);
        }
    };
    trust(&both);
    // One that shows a certificate of the new CA, to nodes that still have the old one's.
    until_answered(&url, &probe.clone().ca(&both)).await;
    sleep(Duration::from_secs(2)).await;
    for name in FOLDERS {
        new.issue(&dir.path().join(name));
    }
    until_answered(&url, &probe).await;
    sleep(Duration::from_secs(2)).await;
    trust(&new.pem);
    sleep(Duration::from_secs(2)).await;
    // Nobody has a connection of the old time after this.
    for node in 0..3 {
        let status = fleet.terminate(node).await;
        assert!(status.success(), "a node left with {status}");
        fleet.restart(node).await;
        sleep(Duration::from_secs(1)).await;
    }
    finish("TLS: rotation to another CA", &Audit::new(callers.stop().await, fleet.visits()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_a_wrong_certificate_fails_no_call_and_is_called_once_it_has_a_right_one() {
    let (right, wrong) = (Authority::new("right"), Authority::new("wrong"));
    let (etcd, dir) = (Etcd::start().await, folders(&right));
    wrong.issue(&dir.path().join("c"));
    let fleet = Fleet::over_tls(&etcd.url(), dir.path()).await;
    let begin = now();
    let client = client(&fleet.url, tls(&dir.path().join("client")));
    let callers = Callers::start(&client, CALLERS);
    sleep(Duration::from_secs(5)).await;
    let refused = told(&client, fleet.id(2)).await.expect("it is listed");
    let error = refused.error.expect("it was tried");
    assert!(error.contains("certificate"), "{error}");
    let mended = now();
    right.issue(&dir.path().join("c"));
    // The files within about a second, and the client's next attempt within its longest pause.
    sleep(Duration::from_secs(10)).await;
    let audit = Audit::new(callers.stop().await, fleet.visits());
    let c = Some(fleet.id(2));
    assert_eq!(audit.visits_between(c, begin, mended), 0, "it is not to be trusted");
    assert!(audit.visits_between(c, mended, now()) > 0, "it is called without a restart");
    finish("TLS: one node with a wrong certificate", &audit);
}
