//! What may happen to the members of an etcd of three, while calls go on: the loss of the leader is a
//! matter of an election, and a member without the others is no registry.

use std::time::Duration;

use tests::{
    etcd::Etcd,
    fault::{TTL, Trial, now},
};
use tokio::time::sleep;

/// A renewal every TTL/3, and a second for the registration itself.
const BACK_WITHIN: Duration = Duration::from_secs(TTL.as_secs() / 3 + 1);

/// Longer than a TTL.
const AWAY: Duration = Duration::from_secs(20);

/// How members are away.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Killed,
    Stopped,
}

fn take_away(members: &mut [Etcd], which: &[usize], how: How) {
    for member in which {
        match how {
            How::Killed => members[*member].kill(),
            How::Stopped => members[*member].pause(),
        }
    }
}

fn bring_back(members: &mut [Etcd], which: &[usize], how: How) {
    // None of them serves before there is a majority.
    for member in which {
        match how {
            How::Killed => members[*member].restart_without_waiting(),
            How::Stopped => members[*member].resume(),
        }
    }
}

async fn start(name: &str) -> ([Etcd; 3], Trial) {
    let members = Etcd::cluster().await;
    let url = format!("etcd://{}", members.each_ref().map(Etcd::address).join(","));
    let trial = Trial::beside_others(&format!("etcd, three members: {name}"), &url).await;
    (members, trial)
}

/// Which of them leads, `but` for one.
async fn leader(members: &[Etcd], but: Option<usize>) -> usize {
    for (index, member) in members.iter().enumerate().filter(|(index, _)| Some(*index) != but) {
        let status = member.client().await.status().await.expect("etcd answers");
        if status.header().is_some_and(|header| header.member_id() == status.leader()) {
            return index;
        }
    }
    panic!("there is no leader");
}

/// The nodes are there within a renewal and a second, and for good.
async fn are_listed(trial: &mut Trial, from: Duration, what: &str) {
    let took = trial.all_listed(from).await;
    assert!(took <= BACK_WITHIN, "the nodes were back {took:?} after {what}");
}

async fn finish(mut trial: Trial) {
    assert!(trial.fleet.terminate(0).await.success());
    trial.replace(0).await;
    let audit = trial.finish(0).await;
    assert!(audit.failed().is_empty(), "no call fails");
}

async fn the_leader_is(how: How, name: &str) {
    let (mut members, mut trial) = start(name).await;
    let lost = leader(&members, None).await;
    take_away(&mut members, &[lost], how);
    // The other two are a registry as soon as they have chosen one of them.
    are_listed(&mut trial, now(), "the leader's loss").await;
    leader(&members, Some(lost)).await;
    bring_back(&mut members, &[lost], how);
    are_listed(&mut trial, now(), "its return").await;
    finish(trial).await;
}

/// The first member, which clients and nodes ask first, is left alone: it answers, and is no registry.
async fn the_others_are(how: How, name: &str) {
    let (mut members, mut trial) = start(name).await;
    take_away(&mut members, &[1, 2], how);
    sleep(AWAY).await;
    assert_eq!(trial.fleet.listed().await, None, "a minority lists nothing");
    bring_back(&mut members, &[1, 2], how);
    are_listed(&mut trial, now(), "the majority's return").await;
    finish(trial).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_is_killed_and_restarted() {
    the_leader_is(How::Killed, "leader killed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_is_stopped_and_goes_on() {
    the_leader_is(How::Stopped, "leader stopped").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_is_a_minority_for_the_others_are_killed() {
    the_others_are(How::Killed, "minority, others killed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_is_a_minority_for_the_others_are_stopped() {
    the_others_are(How::Stopped, "minority, others stopped").await;
}
