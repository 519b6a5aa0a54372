//! What is logged, line by line.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tracing::Level;

use super::scripted::{Mode, Scripted};
use crate::{
    fixture::Log,
    registration::{Options, Registration},
    registry::Node,
};

const TTL: Duration = Duration::from_secs(15);

fn start(registry: &Arc<Scripted>) -> Registration {
    fastrand::seed(7);
    let node = Node::new("greeter", "greeter-1", "127.0.0.1:1");
    Registration::start(registry.clone(), node, Options::new(TTL))
}

/// The lines without what is in all of them.
fn lines(log: &Log) -> Vec<String> {
    let fields = r#" service="greeter" node="greeter-1" registry="scripted://""#;
    let lines = log.lines().into_iter();
    lines.map(|line| line.replace(fields, "").replace("registration: ", "")).collect()
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_registration_is_one_line_and_renewals_are_quiet() {
    let log = Log::down_to(Level::INFO);
    let registry = Scripted::new();
    let registration = start(&registry);
    sleep(10 * TTL).await;
    registry.wipe();
    sleep(10 * TTL).await;
    registration.leave().await;
    assert!(registry.calls().len() > 50, "it renews");
    let expected = [
        "INFO registering",
        "INFO registered",
        "WARN lost: the record is gone",
        "INFO registering",
        "INFO registered",
        "INFO leaving",
        "INFO gone",
    ];
    assert_eq!(lines(&log), expected);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_is_away_is_one_line_and_its_return_another() {
    let log = Log::down_to(Level::INFO);
    let registry = Scripted::new();
    registry.set(Mode::Down);
    let registration = start(&registry);
    sleep(TTL).await;
    assert!(registry.calls().len() > 3, "it tries on: {:?}", registry.calls());
    registry.set(Mode::Up(Duration::ZERO));
    sleep(TTL).await;
    registry.set(Mode::Down);
    // One renewal falls into it, and the next attempt comes before the record expires.
    sleep(TTL / 3 + Duration::from_millis(100)).await;
    registry.set(Mode::Up(Duration::ZERO));
    sleep(TTL).await;
    drop(registration);
    let expected = [
        "INFO registering",
        "WARN connection refused; trying on",
        "INFO registered",
        "WARN connection refused; trying on",
        "INFO renewed again",
    ];
    assert_eq!(lines(&log), expected);
}
