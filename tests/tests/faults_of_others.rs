//! The faults under the clients of others, for comparison: what becomes of their calls is written into the
//! table beside ours, and held to nothing. A fault takes 20 s at most.
//!
//! Their nodes are those of our `Subscription`, so what comes to a registry is seen as far as it lets it
//! through. A link to one that is cut and mended, which ours is under too, is nothing to them: the last
//! good list stays. Of 10 000 nodes grpc-go hears all at once, of their changes as soon as it has taken up
//! those before; for the first list it takes longer than the fault lasts. Neither takes up changed
//! certificates by itself: tonic has no means to, grpc-go those of another module.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use micro::Client;
use tests::{
    etcd::Etcd,
    fault::{
        Audit, CertificateFault, Fleet, NodeFault, PAUSE, RecordsFault, Server, ServerFault, Trial,
        Who, crowd, give_up_beside_callers, now, slow_fleet,
    },
};
use tokio::time::sleep;

fn check(audit: &Audit, fault: &str) {
    assert!(audit.calls() > 0, "{fault}: no call was made");
    let lasted = audit.lasted();
    assert!(lasted <= Duration::from_secs(20), "{fault}: it took {lasted:?}");
}

async fn under_every_fault_of_nodes(who: Who) {
    let done = NodeFault::ALL.map(|fault| async move {
        let etcd = Etcd::start().await;
        // As long as the fault lasts, however few calls that are.
        (fault, fault.done(&etcd.url(), who, 0).await)
    });
    let verdicts = stream::iter(done).buffer_unordered(4).collect::<Vec<_>>().await;
    for (fault, verdict) in &verdicts {
        check(verdict.audit(), fault.name());
    }
}

async fn under_every_fault_of_certificates(who: Who) {
    for fault in CertificateFault::ALL {
        let etcd = Etcd::start().await;
        check(&fault.done(&etcd.url(), who, PAUSE).await, fault.name());
    }
}

async fn under_every_fault_of_registries(who: Who) {
    // With it, three of them are over in time.
    const TTL: Duration = Duration::from_secs(3);
    for fault in ServerFault::ALL {
        let mut etcd = Etcd::start().await;
        let ttl = TTL.as_secs().to_string();
        let fleet = Fleet::with_flags(&etcd.url(), &["--ttl", &ttl]).await;
        let name = who.line(&format!("{}: {}", Etcd::NAME, fault.name()));
        let mut trial = Trial::over(fleet, &etcd.url(), &name, who, PAUSE).await;
        fault.act(&mut etcd, TTL).await;
        trial.measured_from(now());
        // Nodes are back by then, and a client that waits between its attempts has made one.
        sleep(Duration::from_secs(5)).await;
        check(trial.end().await.audit(), fault.name());
    }
    for fault in RecordsFault::ALL {
        let etcd = Etcd::start().await;
        let trial = fault.done(&etcd.url(), who, 0).await;
        sleep(Duration::from_secs(3)).await;
        check(trial.end().await.audit(), fault.name());
    }
}

async fn under_a_crowd(who: Who) {
    let etcd = Etcd::start().await;
    check(&crowd(&etcd.url(), who).await, "10 000 callers at once");
}

async fn beside_calls_given_up(who: Who) {
    let etcd = Etcd::start().await;
    let fleet = slow_fleet(&etcd.url()).await;
    let client = Client::builder().registry(&fleet.url).build().expect("a client");
    let audit = give_up_beside_callers(&fleet, &client, who).await;
    check(&audit, "10 000 calls given up midway");
}

macro_rules! each {
    ($($name:ident: $who:ident;)*) => {
        $(mod $name {
            use super::*;

            each! { $who:
                faults_of_nodes: under_every_fault_of_nodes;
                faults_of_certificates: under_every_fault_of_certificates;
                faults_of_registries: under_every_fault_of_registries;
                ten_thousand_callers: under_a_crowd;
                ten_thousand_calls_given_up: beside_calls_given_up;
            }
        })*
    };
    ($who:ident: $($name:ident: $under:ident;)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            $under(Who::$who).await;
        })*
    };
}

each! {
    tonics_balanced_channel: Tonic;
    grpc_gos_round_robin: GrpcGo;
}
