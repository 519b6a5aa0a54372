use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use micro::{
    registration::{Options, Registration, RegistrationState},
    registry::{Node, Registry as _},
};
use tokio::time::sleep;

use crate::{
    SECOND,
    collected::Collected,
    faulty::{Faulty, Mode},
    settle,
};

const TTL: Duration = Duration::from_secs(15);

fn node() -> Node {
    Node::new("greeter", "greeter-1", "127.0.0.1:1")
}

async fn registered(name: &str) -> (Arc<Faulty>, Registration) {
    Collected::now();
    let registry = Faulty::named(name);
    let registration = Registration::start(registry.clone(), node(), Options::new(TTL));
    let mut state = registration.state();
    state.wait_for(|state| *state == RegistrationState::Registered).await.unwrap();
    (registry, registration)
}

/// The state that the one series with a 1 names, and how many have a 0.
fn status(now: &Collected) -> (String, usize) {
    let of = |value| {
        let series = now.0.iter().filter(|it| it.name == "micro.registration.status");
        let series = series.filter(move |it| it.value == value);
        series.map(|it| it.attributes["micro.registration.state"].clone()).collect::<Vec<_>>()
    };
    let [state] = &of(1.0)[..] else { panic!("one state: {now:?}") };
    (state.clone(), of(0.0).len())
}

fn transitions(now: &Collected, state: &str) -> Option<f64> {
    now.get("micro.registration.transitions", &[("micro.registration.state", state)])
}

fn renewals(now: &Collected, outcome: &str) -> Option<f64> {
    now.get("micro.registration.renewals", &[("micro.renewal.outcome", outcome)])
}

fn last_success(now: &Collected) -> Option<f64> {
    now.get("micro.registration.last_success", &[])
}

#[tokio::test(start_paused = true)]
async fn a_registered_node_has_its_state_and_its_renewals() {
    let unix = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let begin = unix();
    let (_registry, _registration) = registered("faulty://registered").await;
    let now = Collected::of("faulty://registered");
    assert_eq!(status(&now), ("registered".to_owned(), 6));
    assert_eq!(transitions(&now, "registering"), Some(1.0));
    assert_eq!(transitions(&now, "registered"), Some(1.0));
    assert_eq!(transitions(&now, "lost"), None);
    assert_eq!(renewals(&now, "ok"), None, "a registration is no renewal");
    let at = last_success(&now).unwrap();
    assert!((begin..=unix()).contains(&at), "{at} is a time on the clock");
    for series in &now.0 {
        assert_eq!(series.attributes["micro.service"], "greeter");
        assert_eq!(series.attributes["micro.node.id"], "greeter-1");
    }

    sleep(2 * TTL / 3).await;
    settle().await;
    let now = Collected::of("faulty://registered");
    assert_eq!(renewals(&now, "ok"), Some(2.0));
    assert!(last_success(&now).unwrap() > at, "a renewal is a success, too");
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_deleted_or_taken_is_told_with_what_followed() {
    let (registry, _registration) = registered("faulty://lost").await;
    registry.delete(&node()).await;
    sleep(TTL / 3).await;
    settle().await;
    let now = Collected::of("faulty://lost");
    assert_eq!(renewals(&now, "lost"), Some(1.0));
    assert_eq!(transitions(&now, "lost"), Some(1.0));
    assert_eq!(transitions(&now, "registered"), Some(2.0));
    assert_eq!(status(&now).0, "registered");

    let other = Node::new("greeter", "greeter-1", "127.0.0.1:2");
    registry.memory.register(&other, TTL).await.unwrap();
    sleep(TTL / 3).await;
    settle().await;
    let now = Collected::of("faulty://lost");
    assert_eq!(renewals(&now, "taken"), Some(1.0));
    assert_eq!(renewals(&now, "lost"), Some(1.0));
    assert_eq!(transitions(&now, "lost"), Some(2.0));
    assert_eq!(transitions(&now, "registered"), Some(3.0));
}

#[tokio::test(start_paused = true)]
async fn while_the_registry_is_down_renewals_fail_and_the_last_success_stands() {
    let (registry, _registration) = registered("faulty://down").await;
    let at = last_success(&Collected::of("faulty://down"));
    let mut failed = 0.0;
    for mode in [Mode::Down, Mode::Silent] {
        registry.set(mode);
        sleep(TTL).await;
        let now = Collected::of("faulty://down");
        let then = std::mem::replace(&mut failed, renewals(&now, "failed").unwrap());
        assert!(failed >= then + 2.0, "{mode:?}: {failed} after {then}");
        assert_eq!(last_success(&now), at);
        assert_eq!(renewals(&now, "ok"), None);
        assert_eq!(status(&now).0, "registered", "the record may well stand");
    }
    registry.set(Mode::Up);
    sleep(TTL / 3 + SECOND).await;
    let now = Collected::of("faulty://down");
    assert!(last_success(&now) > at);
    assert_eq!(transitions(&now, "registered"), Some(2.0), "its TTL was over");
}

#[tokio::test(start_paused = true)]
async fn what_has_never_been_registered_has_no_last_success() {
    Collected::now();
    let registry = Faulty::named("faulty://never");
    registry.set(Mode::Down);
    let _registration = Registration::start(registry, node(), Options::new(TTL));
    sleep(TTL).await;
    let now = Collected::of("faulty://never");
    assert_eq!(status(&now).0, "registering");
    assert_eq!(last_success(&now), None);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_ends_its_gauges_and_not_its_counters() {
    let (_registry, registration) = registered("faulty://left").await;
    registration.leave().await;
    let now = Collected::of("faulty://left");
    assert!(now.0.iter().all(|it| it.kind == "counter"), "{now:?}");
    for state in ["leaving", "gone"] {
        assert_eq!(transitions(&now, state), Some(1.0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_is_dropped_ends_its_gauges_too() {
    let (_registry, registration) = registered("faulty://dropped").await;
    drop(registration);
    settle().await;
    let now = Collected::of("faulty://dropped");
    assert!(now.0.iter().all(|it| it.kind == "counter"), "{now:?}");
}

#[tokio::test(start_paused = true)]
async fn in_several_registries_each_has_its_own_series() {
    Collected::now();
    let one = Faulty::named("faulty://one");
    let two = Faulty::named("faulty://two");
    two.set(Mode::Down);
    let _registration = Registration::start_in(vec![one, two], node(), Options::new(TTL));
    settle().await;
    assert_eq!(status(&Collected::of("faulty://one")).0, "registered");
    assert_eq!(status(&Collected::of("faulty://two")).0, "registering");
}
