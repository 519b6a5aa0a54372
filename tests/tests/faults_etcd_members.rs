//! What may happen to the members of an etcd of three, while calls go on: the loss of the leader is a
//! matter of an election, and a member without the others is no registry, whether they are gone or only
//! it is cut off.

use std::time::Duration;

use micro::registry::{self, Node};
use tests::{
    etcd::{self, Etcd},
    fault::{CALLS, TTL, Trial, now},
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
    let trial = trial(&members, name).await;
    (members, trial)
}

async fn trial(members: &[Etcd], name: &str) -> Trial {
    let version = etcd::version();
    let name = format!("etcd {version}, three members: {name}");
    Trial::beside_others(&name, &url(members)).await
}

fn url(members: &[Etcd]) -> String {
    let addresses: Vec<_> = members.iter().map(Etcd::address).collect();
    format!("etcd://{}", addresses.join(","))
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
    let audit = trial.finish(CALLS).await;
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

/// The first member, where the client watches and the nodes renew, hears nothing of the others any
/// more, nor they of it. It goes on to answer clients, and the others are the registry.
async fn the_first_is_cut_off(leads: bool, name: &str) {
    let (members, peers) = Etcd::cluster_with_links().await;
    lead(&members, if leads { 0 } else { 1 }).await;
    let mut trial = trial(&members, name).await;
    let mut watches = Vec::new();
    for member in &members {
        watches.push(member.watches().await);
    }
    assert_eq!(watches, [1, 0, 0], "the client watches at the first member");
    let stay = trial.fleet.records().await.split_off(1);
    // Whoever looks asks the others.
    let others = url(&members[1..]);
    trial.fleet.registry = registry::open(&others).expect("a good URL");
    // One comes back elsewhere, written at the others: nobody tells the first member of it.
    assert!(trial.fleet.terminate(0).await.success());
    trial.fleet.url = others;

    peers.cut_off(0, members[0].process_id());
    let cut = now();
    let renewed = async {
        // A new leader gives every lease its whole time again, renewed or not.
        if !leads {
            let took = renewed(&members[1], &stay, cut).await;
            assert!(took <= BACK_WITHIN, "the nodes were renewed {took:?} after the cut");
        }
    };
    let apart = leaders_become(&members, |[first, second, third]| {
        first == NONE && second != NONE && second == third
    });
    let ((), written, apart) = tokio::join!(renewed, trial.replace(0), apart);
    let stands_in = trial.fleet.id(0).to_owned();
    are_listed(&mut trial, apart, "the cut").await;
    assert_eq!(members[0].watches().await, 0, "a member without a leader has no watch");
    peers.mend();
    let together = leaders_become(&members, |[first, second, third]| {
        first != NONE && first == second && second == third
    });
    are_listed(&mut trial, together.await, "its return").await;

    let audit = trial.finish(CALLS).await;
    assert!(audit.failed().is_empty(), "no call fails");
    let first = audit.first_answer(&stands_in, cut).expect("it was called");
    let told = apart.max(written);
    let took = first.saturating_sub(told);
    println!(
        "written {:?} after the cut, told {:?}, called {took:?} later",
        written - cut,
        told - cut
    );
    assert!(took <= BACK_WITHIN, "what the others were told was seen {took:?} later");
}

/// What a member says that knows of no leader.
const NONE: u64 = 0;

/// When the members' leaders have become so. How long they take to choose one is etcd's own affair, and
/// so is when one that hears of nobody says so.
async fn leaders_become(members: &[Etcd; 3], so: impl Fn([u64; 3]) -> bool) -> Duration {
    let begin = now();
    loop {
        let mut leaders = [NONE; 3];
        for (member, leader) in members.iter().zip(&mut leaders) {
            let status = member.client().await.status().await.expect("etcd answers");
            *leader = status.leader();
        }
        if so(leaders) {
            return now();
        }
        assert!(now() - begin < AWAY, "after {AWAY:?} the members have the leaders {leaders:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Has this member lead.
async fn lead(members: &[Etcd], member: usize) {
    let now = leader(members, None).await;
    if now == member {
        return;
    }
    let status = members[member].client().await.status().await.expect("etcd answers");
    let id = status.header().expect("it tells who it is").member_id();
    members[now].client().await.move_leader(id).await.expect("the leader gives way");
    assert_eq!(leader(members, None).await, member);
}

/// How long after the cut the last of these nodes was renewed.
async fn renewed(member: &Etcd, nodes: &[Node], cut: Duration) -> Duration {
    let mut waiting: Vec<_> = nodes.iter().map(|node| (node, i64::MAX)).collect();
    while !waiting.is_empty() {
        sleep(Duration::from_millis(50)).await;
        let mut waiting_on = Vec::new();
        for (node, left) in waiting {
            let now_left = member.lease_left(node).await;
            if now_left <= left {
                waiting_on.push((node, now_left));
            }
        }
        waiting = waiting_on;
    }
    now() - cut
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

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_is_cut_off() {
    the_first_is_cut_off(false, "follower cut off").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_is_cut_off() {
    the_first_is_cut_off(true, "leader cut off").await;
}
