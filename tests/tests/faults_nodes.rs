//! What may happen to a node, under 16 callers and a real etcd.

use std::time::Duration;

use micro::{Client, registry::Node};
use tests::{
    etcd::Etcd,
    fault::{
        Audit, CALLERS, CALLS, Callers, Fleet, Line, SERVICE, Silent, TTL, Trial, free_address,
        now, record,
    },
};
use tokio::time::sleep;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Calls for a while with a fresh client, and joins the logs.
async fn calls(fleet: &Fleet, duration: Duration) -> Audit {
    let client = Client::builder().registry(&fleet.url).build().unwrap();
    let callers = Callers::start(&client, CALLERS);
    sleep(duration).await;
    Audit::new(callers.stop().await, fleet.visits())
}

/// Registers a node that nobody renews, for longer than any test.
async fn register(fleet: &Fleet, id: &str, address: &str) {
    let node = Node::new(SERVICE, id, address);
    fleet.registry.register(&node, seconds(600)).await.unwrap();
}

fn record_healthy(fault: &str, audit: &Audit) {
    let (calls, failed) = (audit.calls(), audit.failed().len());
    let fault = fault.to_owned();
    let seconds_to_recover = audit.recovery_from_the_start().as_secs_f64();
    record(Line { fault, calls, failed, allowed: 0, seconds_to_recover });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_takes_no_more_than_its_own_calls_with_it_and_has_its_share_when_back() {
    let etcd = Etcd::start().await;
    let mut trial = Trial::start("SIGKILL and restart, 20 times", &etcd.url()).await;
    for round in 0..20 {
        let victim = round % 3;
        trial.kill(victim).await;
        sleep(seconds(1)).await;
        trial.restart(victim).await;
        sleep(seconds(3)).await;
    }
    let (faults, returns) = (trial.faults(), trial.returns());
    let audit = trial.finish(50_000).await;

    for fault in faults {
        let in_flight = audit.in_flight(&fault.victim, fault.at);
        assert!(in_flight >= 1, "{} was killed without a call in flight", fault.victim);
    }
    for (id, at) in returns {
        let (from, to) = (at + seconds(2), at + seconds(3));
        let (own, all) =
            (audit.visits_between(Some(&id), from, to), audit.visits_between(None, from, to));
        assert!(
            own * 15 >= all,
            "{id} had {own} of {all} calls in the third second: under a fifth of a third"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_node_is_found_out_and_called_again_when_it_goes_on() {
    let etcd = Etcd::start().await;
    let mut trial = Trial::start("SIGSTOP and SIGCONT", &etcd.url()).await;
    // Once it keeps its registration, once it loses it.
    for (victim, stopped) in [(0, seconds(5)), (1, TTL + seconds(3))] {
        trial.pause(victim);
        sleep(stopped).await;
        let at = trial.resume(victim);
        let took = trial.all_listed(at).await;
        assert!(took <= TTL / 3 + seconds(1), "back in the registry after {took:?}");
    }
    trial.finish(CALLS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_refuses_connections_fails_no_call() {
    let etcd = Etcd::start().await;
    let fleet = Fleet::start(&etcd.url()).await;
    let healthy = calls(&fleet, seconds(6)).await.p99();
    register(&fleet, "refusing", &free_address()).await;

    let audit = calls(&fleet, seconds(6)).await;
    record_healthy("one node refuses connections", &audit);
    assert_eq!(audit.failed().len(), 0, "{:?}", audit.failed().first());
    assert!(audit.broken_rules().is_empty(), "{:?}", audit.broken_rules());
    let p99 = audit.p99();
    assert!(p99 <= healthy * 2, "p99 {p99:?}, against {healthy:?} without the refusing node");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_always_silent_gets_no_call_and_delays_none() {
    let etcd = Etcd::start().await;
    let fleet = Fleet::start(&etcd.url()).await;
    let healthy = calls(&fleet, seconds(6)).await.p99();
    let silent = Silent::start().await;
    register(&fleet, "silent", &silent.address).await;

    let audit = calls(&fleet, seconds(6)).await;
    record_healthy("one node silent from the start", &audit);
    assert_eq!(audit.failed().len(), 0, "{:?}", audit.failed().first());
    assert!(audit.broken_rules().is_empty(), "{:?}", audit.broken_rules());
    assert!(silent.connections() > 0, "the client never tried the silent node");
    assert_eq!(silent.calls(), 0, "calls went to a node that never sent its SETTINGS");
    let p99 = audit.p99();
    assert!(p99 <= healthy * 2, "p99 {p99:?}, against {healthy:?} without the silent node");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_fails_no_call() {
    let etcd = Etcd::start().await;
    let mut trial = Trial::start("rolling restart by SIGTERM, 3 rounds", &etcd.url()).await;
    for _round in 0..3 {
        for node in 0..3 {
            let status = trial.fleet.terminate(node).await;
            assert!(status.success(), "a node left with {status}");
            trial.restart(node).await;
            sleep(seconds(1)).await;
        }
    }
    // No fault is on record, so no failure is excused.
    trial.finish(50_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_nodes_share_the_calls_within_20_percent_of_even() {
    let etcd = Etcd::start().await;
    let fleet = Fleet::start(&etcd.url()).await;
    let begin = now();
    let audit = calls(&fleet, seconds(10)).await;

    let (from, to) = (begin + seconds(1), begin + seconds(10));
    let all = audit.visits_between(None, from, to);
    for id in fleet.ids() {
        let share = audit.visits_between(Some(&id), from, to) as f64 / (all as f64 / 3.0);
        assert!((0.8..=1.2).contains(&share), "{id} had {share:.2} of an even share");
    }
}
