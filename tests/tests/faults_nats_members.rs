//! What may happen to a member of a NATS of three, while calls go on: it falls silent, and the others
//! carry what is said.

use std::time::Duration;

use tests::{
    fault::{CALLS, Server, TTL, Trial, now},
    nats::Nats,
};

/// A renewal every TTL/3, and a second for the registration itself.
const BACK_WITHIN: Duration = Duration::from_secs(TTL.as_secs() / 3 + 1);

async fn are_listed(trial: &mut Trial, what: &str) {
    let took = trial.all_listed(now()).await;
    assert!(took <= BACK_WITHIN, "the nodes were back {took:?} after {what}");
}

/// Nodes and callers name the members in the order of `asked`; the first of all is stopped.
async fn the_first_is_stopped(name: &str, asked: [usize; 3]) {
    let members = Nats::cluster().await;
    let url = format!("nats://{}", asked.map(|member| members[member].address()).join(","));
    let mut trial = Trial::beside_others(&format!("nats, three members: {name}"), &url).await;
    members[0].pause();
    are_listed(&mut trial, "the member fell silent").await;
    // A node leaves and another takes its place, though the first that it asks may be the silent one.
    assert!(trial.fleet.terminate(0).await.success());
    trial.replace(0).await;
    members[0].resume();
    are_listed(&mut trial, "its return").await;
    assert!(trial.fleet.terminate(1).await.success());
    trial.replace(1).await;
    let audit = trial.finish(CALLS).await;
    assert!(audit.failed().is_empty(), "no call fails");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_member_of_all_falls_silent() {
    the_first_is_stopped("theirs stopped", [0, 1, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_member_falls_silent() {
    the_first_is_stopped("another stopped", [1, 0, 2]).await;
}
