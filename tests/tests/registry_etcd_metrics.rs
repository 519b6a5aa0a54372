//! What OpenTelemetry is told while etcd is away. The meter provider is the process's, so that this is a
//! program of its own.

#[allow(dead_code, reason = "units and kinds are held to the guide elsewhere")]
#[path = "../../micro/tests/metrics/collected.rs"]
mod collected;

use std::time::Duration;

use collected::Collected;
use micro::{
    discovery::Discovery,
    registration::{Options, Registration, RegistrationState},
    registry,
};
use tests::{away::node, etcd::Etcd};
use tokio::time::{sleep, timeout};

const TTL: Duration = Duration::from_secs(3);

/// Waits until what is told of the registry is so.
async fn until(etcd: &Etcd, what: &str, is_so: impl Fn(&Collected) -> bool) -> Collected {
    let come = async {
        loop {
            let now = Collected::of(&etcd.url());
            if is_so(&now) {
                return now;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    let late = || panic!("within 30 s {what}: {:#?}", Collected::of(&etcd.url()));
    timeout(Duration::from_secs(30), come).await.unwrap_or_else(|_elapsed| late())
}

fn renewals(now: &Collected, outcome: &str) -> f64 {
    let attributes = [("micro.renewal.outcome", outcome)];
    now.get("micro.registration.renewals", &attributes).unwrap_or_default()
}

fn staleness(now: &Collected) -> Option<f64> {
    now.get("micro.discovery.staleness", &[])
}

fn is_registered(now: &Collected) -> bool {
    let attributes = [("micro.registration.state", "registered")];
    now.get("micro.registration.status", &attributes) == Some(1.0)
}

#[tokio::test]
async fn a_killed_etcd_is_seen_in_staleness_and_renewals_and_so_is_its_return() {
    Collected::now();
    let mut etcd = Etcd::start().await;
    let registry = registry::open(&etcd.url()).unwrap();
    let registration = Registration::start(registry.clone(), node("a"), Options::new(TTL));
    let mut state = registration.state();
    state.wait_for(|state| *state == RegistrationState::Registered).await.unwrap();
    let _nodes = Discovery::new(registry).subscribe("greeter");
    let well = until(&etcd, "a node is found and renewed", |now| {
        now.get("micro.discovery.nodes", &[]) == Some(1.0) && renewals(now, "ok") > 0.0
    });
    let well = well.await;
    assert_eq!((staleness(&well), renewals(&well, "failed")), (Some(0.0), 0.0));
    assert!(is_registered(&well));

    etcd.kill();
    let away = until(&etcd, "renewals fail", |now| {
        renewals(now, "failed") >= 2.0 && staleness(now) > Some(1.0)
    });
    let away = away.await;
    assert_eq!(away.get("micro.discovery.nodes", &[]), Some(1.0), "the node is kept");
    let attributes = [("micro.read.outcome", "failed")];
    assert!(away.get("micro.discovery.reads", &attributes) > Some(0.0), "{away:#?}");

    etcd.restart().await;
    let back = until(&etcd, "all is well again", |now| {
        staleness(now) == Some(0.0)
            && is_registered(now)
            && renewals(now, "ok") > renewals(&away, "ok")
    });
    let back = back.await;
    let last_success = |now: &Collected| now.get("micro.registration.last_success", &[]);
    assert!(last_success(&back) > last_success(&away));
    // Of what has failed the counter stays where it is: it is its growth that falls back.
    let calm = async {
        loop {
            let before = Collected::of(&etcd.url());
            sleep(TTL).await;
            let after = Collected::of(&etcd.url());
            let grown = |outcome| renewals(&after, outcome) - renewals(&before, outcome);
            if grown("ok") > 0.0 && grown("failed") == 0.0 {
                return;
            }
        }
    };
    timeout(Duration::from_secs(30), calm).await.expect("no renewal fails any more");

    registration.leave().await;
    assert_eq!(Collected::of(&etcd.url()).get("micro.registration.last_success", &[]), None);
}
