//! What may happen to certificates, done to anybody's client alike.

use std::time::Duration;

use micro::{ChannelOptions, Client, tls::ClientTls};
use tokio::time::{sleep, timeout};

use super::{Audit, CALLERS, Callers, Fleet, Line, SERVICE, Who, now, record, told};
use crate::{
    certificates::{Authority, FOLDERS, folders, replace, tls},
    proto::ledger::{Entry, LedgerClient},
};

/// One fault, under 16 callers of three nodes that ask each other and their clients for certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateFault {
    /// Everybody's certificates and CA are replaced, in their files, by another's; then each node leaves
    /// on SIGTERM and is started again. Others' clients, which take what is in files once, are not.
    Rotated,
    /// One node's is of a CA that nobody trusts, for 5 s.
    OneWrong,
}

const SOON: Duration = Duration::from_secs(20);

impl CertificateFault {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Rotated, Self::OneWrong];

    /// What it is called in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rotated => "TLS: rotation to another CA",
            Self::OneWrong => "TLS: one node with a wrong certificate",
        }
    }

    /// Does it to three nodes that register in this registry, under the calls of this client, each
    /// caller's with so long a pause after it, and writes the line in `target/faults.json`.
    ///
    /// # Panics
    /// When a node does not start, or does not take up its files.
    pub async fn done(self, registry: &str, who: Who, pause: Duration) -> Audit {
        let (audit, since) = match self {
            Self::Rotated => rotated(registry, who, pause).await,
            Self::OneWrong => one_wrong(registry, who, pause).await,
        };
        record(Line {
            fault: who.line(self.name()),
            calls: audit.calls(),
            failed: audit.failed().len(),
            allowed: 0,
            seconds_to_recover: audit.recovery(since, Duration::MAX).as_secs_f64(),
        });
        audit
    }
}

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

/// The calls, and when the last node was started again.
async fn rotated(registry: &str, who: Who, pause: Duration) -> (Audit, Duration) {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let dir = folders(&old);
    let mut fleet = Fleet::over_tls(registry, dir.path()).await;
    let url = fleet.url.clone();
    let folder = dir.path().join("client");
    let client = client(&url, tls(&folder));
    let callers = Callers::start_over_tls(who, &client, &folder, CALLERS, pause);

    // Whoever takes what is in files once has it now.
    while callers.made() == 0 {
        sleep(Duration::from_millis(10)).await;
    }
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
    let mut since = now();
    for node in 0..3 {
        let status = fleet.terminate(node).await;
        assert!(status.success(), "a node left with {status}");
        since = fleet.restart(node).await;
        sleep(Duration::from_secs(1)).await;
    }
    (Audit::of(who, callers.stop().await, fleet.visits()), since)
}

/// The calls, and when they began.
async fn one_wrong(registry: &str, who: Who, pause: Duration) -> (Audit, Duration) {
    let (right, wrong) = (Authority::new("right"), Authority::new("wrong"));
    let dir = folders(&right);
    wrong.issue(&dir.path().join("c"));
    let fleet = Fleet::over_tls(registry, dir.path()).await;
    let begin = now();
    let folder = dir.path().join("client");
    let client = client(&fleet.url, tls(&folder));
    let callers = Callers::start_over_tls(who, &client, &folder, CALLERS, pause);
    sleep(Duration::from_secs(5)).await;
    if who == Who::Micro {
        let refused = told(&client, fleet.id(2)).await.expect("it is listed");
        let error = refused.error.expect("it was tried");
        assert!(error.contains("certificate"), "{error}");
    }
    let mended = now();
    right.issue(&dir.path().join("c"));
    // The files within about a second, and the client's next attempt within its longest pause.
    sleep(Duration::from_secs(10)).await;
    let audit = Audit::of(who, callers.stop().await, fleet.visits());
    let c = Some(fleet.id(2));
    assert_eq!(audit.visits_between(c, begin, mended), 0, "it is not to be trusted");
    let is_called = audit.visits_between(c, mended, now()) > 0;
    assert!(is_called || who != Who::Micro, "it is called without a restart");
    (audit, begin)
}
