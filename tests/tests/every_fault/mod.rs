//! The faults, and a test of each for each server.

use std::{fs, time::Duration};

use micro::{
    Client, Code,
    discovery::{Discovery, Update},
};
use tests::{
    fault::{
        AWAY, AWAY_FOR_A_MOMENT, CALLS, Cannot, Fleet, SERVICE, Server, ServerFault, TTL, Trial,
        flap, now, with_option,
    },
    link::Link,
    proto::ledger::{Entry, LedgerClient},
};
use tokio::time::{sleep, timeout};
use tokio_stream::StreamExt as _;

/// A renewal every TTL/3, and a second for the registration itself.
const BACK_WITHIN: Duration = Duration::from_secs(TTL.as_secs() / 3 + 1);

/// One longest wait between attempts, TTL/5 for those who register and 3 s for those who look, and a
/// second for the attempt.
const JOINED_WITHIN: Duration = Duration::from_secs(3 + 1);

async fn trial<S: Server>(fault: &str, server: &S) -> Trial {
    trial_at::<S>(fault, &server.url_at(&server.address())).await
}

async fn trial_at<S: Server>(fault: &str, url: &str) -> Trial {
    Trial::beside_others(&format!("{}: {fault}", S::NAME), url).await
}

async fn started<S: Server>() -> S {
    let mut server = S::stopped();
    server.restart().await;
    server
}

/// All nodes come back in time, and no call fails, then and after.
async fn check(mut trial: Trial, returned: Duration) -> Result<(), Cannot> {
    let took = trial.all_listed(returned).await;
    // The client still follows the registry: a node that takes another's place is called.
    assert!(trial.fleet.terminate(0).await.success());
    trial.replace(0).await;
    trial.finish(CALLS).await;
    assert!(took <= BACK_WITHIN, "the nodes were back {took:?} after the registry");
    Ok(())
}

async fn under<S: Server>(fault: ServerFault) -> Result<(), Cannot> {
    let mut server = started::<S>().await;
    let trial = trial(fault.name(), &server).await;
    fault.act(&mut server, TTL).await;
    check(trial, now()).await
}

pub(crate) async fn every_lease_lost<S: Server>() -> Result<(), Cannot> {
    let server = started::<S>().await;
    let trial = trial("every lease lost", &server).await;
    for node in trial.fleet.records().await {
        server.lose(&node).await?;
    }
    check(trial, now()).await
}

pub(crate) async fn every_record_deleted<S: Server>() -> Result<(), Cannot> {
    let server = started::<S>().await;
    let trial = trial("every record deleted", &server).await;
    for node in trial.fleet.records().await {
        server.delete(&node).await?;
    }
    check(trial, now()).await
}

pub(crate) async fn every_record_overwritten<S: Server>() -> Result<(), Cannot> {
    let server = started::<S>().await;
    let trial = trial("every record overwritten", &server).await;
    for node in trial.fleet.records().await {
        server.overwrite(&node).await?;
    }
    check(trial, now()).await
}

pub(crate) async fn killed_and_restarted<S: Server>() -> Result<(), Cannot> {
    let mut server = started::<S>().await;
    let trial = trial("killed and restarted", &server).await;
    server.kill();
    sleep(AWAY_FOR_A_MOMENT).await;
    server.restart().await;
    check(trial, now()).await
}

pub(crate) async fn wiped<S: Server>() -> Result<(), Cannot> {
    let mut server = started::<S>().await;
    let trial = trial("wiped", &server).await;
    server.wipe().await?;
    check(trial, now()).await
}

pub(crate) async fn restored_to_an_older_state<S: Server>() -> Result<(), Cannot> {
    let mut server = started::<S>().await;
    let mut trial = trial("restored to an older state", &server).await;
    server.remember().await?;
    // The older state has a node that is gone, and lacks the one that took its place.
    assert!(trial.fleet.terminate(1).await.success());
    trial.restart(1).await;
    sleep(Duration::from_secs(3)).await;
    server.go_back().await?;
    check(trial, now()).await
}

pub(crate) async fn stopped_for_three_ttls<S: Server>() -> Result<(), Cannot> {
    under::<S>(ServerFault::StoppedForThreeTtls).await
}

pub(crate) async fn connection_cut<S: Server>() -> Result<(), Cannot> {
    let server = started::<S>().await;
    let link = Link::to(&server.address()).await;
    let trial = trial_at::<S>("connection cut", &server.url_at(&link.address)).await;
    link.cut().await;
    sleep(AWAY_FOR_A_MOMENT).await;
    link.mend().await;
    check(trial, now()).await
}

pub(crate) async fn connection_black_holed<S: Server>() -> Result<(), Cannot> {
    let server = started::<S>().await;
    let link = Link::to(&server.address()).await;
    let trial = trial_at::<S>("connection black-holed", &server.url_at(&link.address)).await;
    link.silence().await;
    sleep(AWAY).await;
    link.mend().await;
    check(trial, now()).await
}

pub(crate) async fn connection_flaps<S: Server>() -> Result<(), Cannot> {
    let server = started::<S>().await;
    let link = Link::to(&server.address()).await;
    let fault = "connection cut and mended 100 times a second";
    let trial = trial_at::<S>(fault, &server.url_at(&link.address)).await;
    flap(async |is_there| if is_there { link.mend().await } else { link.cut().await }).await;
    check(trial, now()).await
}

pub(crate) async fn answers_garbage<S: Server>() -> Result<(), Cannot> {
    under::<S>(ServerFault::AnswersGarbage).await
}

pub(crate) async fn five_seconds_slow<S: Server>() -> Result<(), Cannot> {
    let server = started::<S>().await;
    let link = Link::to(&server.address()).await;
    let trial = trial_at::<S>("5 s slow for 20 s", &server.url_at(&link.address)).await;
    link.slow(Duration::from_secs(5)).await;
    sleep(AWAY).await;
    link.mend().await;
    check(trial, now()).await
}

pub(crate) async fn credentials_expired_and_renewed<S: Server>() -> Result<(), Cannot> {
    let server = S::guarded().await?;
    let trial = trial("credentials expired and renewed", &server).await;
    server.expire().await;
    sleep(AWAY).await;
    server.renew().await;
    check(trial, now()).await
}

pub(crate) async fn down_at_the_start<S: Server>() -> Result<(), Cannot> {
    let mut server = S::stopped();
    let url = server.url_at(&server.address());
    let fleet = Fleet::unregistered(&url);
    let client = Client::builder().registry(&url).build().expect("a client");
    let ledger = LedgerClient::new(SERVICE, &client);
    let early = ledger.read(Entry { id: 0 }).timeout(Duration::from_secs(3)).await;
    early.expect_err("nothing can be known yet");
    server.restart().await;
    let joined = async {
        let called = ledger.read(Entry { id: 1 }).timeout(JOINED_WITHIN).await;
        called.expect("a call that waits is answered once the registry is there");
        while fleet.listed().await.is_none_or(|ids| ids.len() < 3) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(JOINED_WITHIN, joined).await.expect("the nodes register within a step of the backoff");
    Ok(())
}

/// The id of calls that are none of the callers'.
const BY_HAND: u64 = u64::MAX;

/// A client from the cache that an earlier one has left.
pub(crate) async fn down_at_the_start_with_a_cache<S: Server>() -> Result<(), Cannot> {
    let mut server = started::<S>().await;
    let url = server.url_at(&server.address());
    let fleet = Fleet::beside_others(&url).await;
    let dir = tempfile::tempdir().expect("a folder for the cache");
    let file = dir.path().join("nodes.json");
    let url = with_option(&url, &format!("cache={}", file.display()));
    // A watch outlives its client by a minute, and the next with the same options would go on with it.
    let other = with_option(&url, "max_stale=1h");
    let earlier = Client::builder().registry(&other).build().expect("a client");
    let ledger = LedgerClient::new(SERVICE, &earlier);
    ledger.read(Entry { id: BY_HAND }).await.expect("the registry knows the nodes");
    let written = async {
        while !fs::read_to_string(&file)
            .is_ok_and(|text| (0..3).all(|node| text.contains(fleet.address(node))))
        {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(AWAY, written).await.expect("the cache has all nodes");
    drop((ledger, earlier));
    server.kill();
    // This process has a connection from before, which one that starts now would not wait for.
    fleet.registry.read(SERVICE).await.expect_err("it is down");

    let trial = Trial::of_fleet(fleet, &url, &format!("{}: started from a cache", S::NAME)).await;
    let discovery = Discovery::open(&url).expect("a URL");
    let mut status = discovery.subscribe(SERVICE).status();
    assert!(status.borrow().stale.is_some(), "marked stale: {status:?}");
    sleep(AWAY_FOR_A_MOMENT).await;
    assert!(status.borrow().stale.is_some(), "marked stale: {status:?}");
    server.restart().await;
    let returned = now();
    let fresh =
        timeout(JOINED_WITHIN, status.wait_for(|status| status.stale.is_none())).await.is_ok();
    assert!(fresh, "the registry's own word again: {status:?}");
    check(trial, returned).await
}

/// How old the nodes may be that [`away_for_longer_than_max_stale`] calls.
const MAX_STALE: Duration = Duration::from_secs(5);

pub(crate) async fn away_for_longer_than_max_stale<S: Server>() -> Result<(), Cannot> {
    let mut server = started::<S>().await;
    let url = server.url_at(&server.address());
    let fleet = Fleet::beside_others(&url).await;
    let url = with_option(&url, &format!("max_stale={}s", MAX_STALE.as_secs()));
    let client = Client::builder().registry(&url).build().expect("a client");
    let ledger = LedgerClient::new(SERVICE, &client);
    ledger.read(Entry { id: BY_HAND }).await.expect("the registry knows the nodes");
    let discovery = Discovery::open(&url).expect("a URL");
    let mut subscription = discovery.subscribe(SERVICE);
    let mut status = subscription.status();
    server.kill();

    let stale = timeout(AWAY, status.wait_for(|status| status.stale.is_some())).await.is_ok();
    assert!(stale, "the registry is silent: {status:?}");
    let since = now();
    let forgotten = async {
        while subscription.next().await.expect("it is endless") != Update::Forget {}
        now() - since
    };
    let called = async {
        loop {
            ledger.read(Entry { id: BY_HAND }).await.expect("until then the nodes are called");
            sleep(Duration::from_millis(40)).await;
        }
    };
    // The last call before is over a little sooner than the bound.
    let bounded = async {
        let _ = timeout(MAX_STALE - Duration::from_millis(500), called).await;
    };
    let ((), took) = tokio::join!(bounded, timeout(AWAY, forgotten));
    let took = took.expect("the nodes are given up");
    let late = took.saturating_sub(MAX_STALE);
    assert!(took + Duration::from_millis(200) > MAX_STALE, "given up after {took:?}");
    assert!(late < Duration::from_secs(1), "given up {late:?} too late");
    // The client is told of it when we are, and may have picked a node a moment before.
    let called = ledger.read(Entry { id: BY_HAND }).timeout(Duration::from_secs(1));
    let _ = called.await;
    let refused = ledger.read(Entry { id: BY_HAND }).timeout(Duration::from_secs(1)).await;
    let refused = refused.expect_err("there is nobody to call");
    let text = refused.message();
    assert!(refused.code() == Code::Unavailable && text.contains("max_stale"), "{refused}");

    server.restart().await;
    let back = ledger.read(Entry { id: BY_HAND }).timeout(BACK_WITHIN).await;
    back.expect("the nodes are back, and called");
    assert!(status.borrow().stale.is_none() && status.borrow().error.is_none(), "{status:?}");
    let mut trial = Trial::of_fleet(fleet, &url, &format!("{}: after max_stale", S::NAME)).await;
    assert!(trial.fleet.terminate(0).await.success());
    trial.replace(0).await;
    trial.finish(CALLS).await;
    Ok(())
}

macro_rules! on_server {
    ($name:ident: $server:ty, not { $($cannot:ident: $why:literal)* } => $($fault:ident)*) => {
        mod $name {
            use super::*;

            const DECLARED: &[(&str, &str)] = &[$((stringify!($cannot), $why)),*];

            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $fault() {
                    let ended = $crate::every_fault::$fault::<$server>().await;
                    tests::fault::judge(stringify!($fault), ended, DECLARED);
                }
            )*
        }
    };
}

/// A test for every fault and server. The faults in braces are those that the server cannot have, and
/// why: they are tried all the same, and one that can be done fails.
macro_rules! every_server {
    ($($name:ident: $server:ty, not $declared:tt;)*) => {
        $(tests::every_fault! { on_server! { $name: $server, not $declared } })*
    };
}
