//! `etcd://` while etcd is away: down, stopped, wiped, restored, or a member of three.

use std::{fs, time::Duration};

use micro::{
    Client, Service,
    registration::RegistrationState,
    registry::{self, RenewError, WatchError},
    testing::registry::Watching,
};
use tests::{
    away::{TTL, fails_in_time, ids, node, register},
    echo::Echo,
    etcd::Etcd,
    proto::echo::{EchoClient, SayRequest, register_echo_handler},
};
use tokio::time::{Instant, sleep};

#[tokio::test]
async fn etcd_may_start_after_us() {
    let mut etcd = Etcd::stopped();
    let registry = registry::open(&etcd.url()).unwrap();
    let error = fails_in_time(registry.register(&node("a"), TTL)).await;
    let text = error.to_string();
    assert!(error.is_registry(), "{error:?}");
    assert!(text.contains(&etcd.url()) && text.contains("register a of service greeter"), "{text}");
    assert!(text.to_lowercase().contains("connection refused"), "{text}");
    fails_in_time(registry.read("greeter")).await;
    fails_in_time(registry.list()).await;
    let mut watching = Watching::after_revision(&registry, "greeter", 0);
    let ended = watching.next_or_end().await;
    assert!(matches!(ended, Err(WatchError::Disconnected(_))), "{ended:?}");
    assert!(watching.has_ended().await, "the stream ends after its first error");

    etcd.restart().await;
    let lease = registry.register(&node("a"), TTL).await.unwrap();
    registry.renew(&node("a"), lease).await.unwrap();
    assert_eq!(ids(&registry).await, ["a"]);
}

#[tokio::test]
async fn a_killed_etcd_ends_the_watch_and_keeps_the_lease_over_its_restart() {
    let mut etcd = Etcd::start().await;
    let registry = registry::open(&etcd.url()).unwrap();
    let lease = registry.register(&node("a"), TTL).await.unwrap();
    registry.renew(&node("a"), lease).await.unwrap();
    let mut watching = Watching::from_now(&registry, "greeter").await;
    registry.register(&node("b"), TTL).await.unwrap();
    assert_eq!(watching.events(1).await, ["+b@127.0.0.1:1"]);

    etcd.kill();
    let ended = watching.next_or_end().await;
    assert!(matches!(ended, Err(WatchError::Disconnected(_))), "{ended:?}");
    let renewed = fails_in_time(registry.renew(&node("a"), lease)).await;
    assert!(matches!(renewed, RenewError::Failed(_)), "the record may well stand: {renewed:?}");

    etcd.restart().await;
    registry.renew(&node("a"), lease).await.expect("the first exchange after the restart works");
    assert_eq!(ids(&registry).await, ["a", "b"]);
}

#[tokio::test]
async fn an_exchange_after_a_restart_that_nobody_noticed_works() {
    let mut etcd = Etcd::start().await;
    let registry = registry::open(&etcd.url()).unwrap();
    let lease = registry.register(&node("a"), TTL).await.unwrap();
    registry.renew(&node("a"), lease).await.unwrap();
    etcd.restart().await;
    registry.renew(&node("a"), lease).await.unwrap();
    etcd.restart().await;
    assert_eq!(ids(&registry).await, ["a"]);
    etcd.restart().await;
    registry.register(&node("b"), TTL).await.unwrap();
}

#[tokio::test]
async fn a_stopped_etcd_fails_exchanges_in_time_and_ends_the_watch() {
    let etcd = Etcd::start().await;
    let registry = registry::open(&etcd.url()).unwrap();
    let lease = registry.register(&node("a"), TTL).await.unwrap();
    registry.renew(&node("a"), lease).await.unwrap();
    let mut watching = Watching::from_now(&registry, "greeter").await;
    registry.register(&node("b"), TTL).await.unwrap();
    assert_eq!(watching.events(1).await, ["+b@127.0.0.1:1"]);

    etcd.pause();
    let stopped = Instant::now();
    for _ in 0..2 {
        let error = fails_in_time(registry.read("greeter")).await;
        assert!(error.to_string().contains("no answer within 1s"), "{error}");
        let renewed = fails_in_time(registry.renew(&node("a"), lease)).await;
        assert!(matches!(renewed, RenewError::Failed(_)), "{renewed:?}");
        fails_in_time(registry.register(&node("c"), TTL)).await;
    }
    let ended = watching.next_or_end().await;
    assert!(matches!(ended, Err(WatchError::Disconnected(_))), "{ended:?}");
    // A PING every 10 s, its answer within 3 s.
    assert!(stopped.elapsed() < Duration::from_secs(15), "{:?}", stopped.elapsed());

    etcd.resume();
    registry.renew(&node("a"), lease).await.unwrap();
    let ids = ids(&registry).await;
    assert!(ids.starts_with(&["a".to_owned(), "b".to_owned()]), "{ids:?}");
}

#[tokio::test]
async fn an_exchange_that_its_caller_gave_up_leaves_no_dead_connection_behind() {
    let etcd = Etcd::start().await;
    let registry = registry::open(&etcd.url()).unwrap();
    registry.register(&node("a"), TTL).await.unwrap();
    assert_eq!(etcd.connections(), 1);
    etcd.pause();
    let bound = Duration::from_millis(900);
    let given_up = tokio::time::timeout(bound, registry.read("greeter")).await;
    assert!(given_up.is_err(), "{given_up:?}");
    etcd.resume();
    sleep(Duration::from_millis(100)).await;
    assert_eq!(etcd.connections(), 0, "the connection was discarded");
    assert_eq!(ids(&registry).await, ["a"]);
}

#[tokio::test]
async fn a_wiped_etcd_has_lost_the_record_and_takes_it_again() {
    let mut etcd = Etcd::start().await;
    let registry = registry::open(&etcd.url()).unwrap();
    for id in ["x", "y", "z"] {
        registry.register(&node(id), TTL).await.unwrap();
    }
    let lease = registry.register(&node("a"), TTL).await.unwrap();
    registry.renew(&node("a"), lease).await.unwrap();
    let seen = registry.read("greeter").await.unwrap().revision;
    etcd.wipe().await;
    let renewed = registry.renew(&node("a"), lease).await;
    assert!(matches!(renewed, Err(RenewError::Lost(_))), "{renewed:?}");
    let mut watching = Watching::after_revision(&registry, "greeter", seen);
    let ended = watching.next_or_end().await;
    assert!(matches!(ended, Err(WatchError::Compacted)), "{ended:?}");
    registry.register(&node("a"), TTL).await.unwrap();
    assert_eq!(ids(&registry).await, ["a"]);
    registry.deregister(&node("a"), lease).await.expect("an unknown lease is no error");
    assert_eq!(ids(&registry).await, ["a"]);
}

#[tokio::test]
async fn an_etcd_restored_from_an_older_snapshot_is_behind_what_was_seen() {
    let mut etcd = Etcd::start().await;
    let registry = registry::open(&etcd.url()).unwrap();
    let old = registry.register(&node("old"), TTL).await.unwrap();
    let snapshot = etcd.snapshot().await;
    let new = registry.register(&node("new"), TTL).await.unwrap();
    let listing = registry.read("greeter").await.unwrap();
    assert_eq!(listing.entries.len(), 2);

    etcd.restore(&snapshot).await;
    let mut watching = Watching::after(&registry, "greeter", &listing);
    let ended = watching.next_or_end().await;
    assert!(matches!(ended, Err(WatchError::Compacted)), "{ended:?}");
    assert!(registry.read("greeter").await.unwrap().revision < listing.revision);
    assert_eq!(ids(&registry).await, ["old"]);
    registry.renew(&node("old"), old).await.expect("it was in the snapshot, lease and all");
    let renewed = registry.renew(&node("new"), new).await;
    assert!(matches!(renewed, Err(RenewError::Lost(_))), "{renewed:?}");
}

#[tokio::test]
async fn members_stand_in_for_one_another() {
    let mut members = Etcd::cluster().await;
    let addresses = members.each_ref().map(Etcd::address).join(",");
    let registry = registry::open(&format!("etcd://{addresses}")).unwrap();
    let lease = registry.register(&node("a"), TTL).await.unwrap();
    registry.renew(&node("a"), lease).await.unwrap();

    // Killed: at most the leader's election is noticed.
    for (index, member) in members.iter_mut().enumerate() {
        member.kill();
        let start = Instant::now();
        while let Err(error) = registry.renew(&node("a"), lease).await {
            assert!(matches!(error, RenewError::Failed(_)), "{error:?}");
            assert!(start.elapsed() < Duration::from_secs(10), "{error:?}");
            sleep(Duration::from_millis(50)).await;
        }
        let mut watching = Watching::from_now(&registry, "greeter").await;
        let other = node(&format!("killed-{index}"));
        register(&registry, &other, TTL).await;
        assert!(watching.events(1).await[0].starts_with("+killed-"));
        member.restart().await;
    }

    // Stopped: the exchange that finds it out fails, the next begins elsewhere.
    for member in &members {
        member.pause();
        let start = Instant::now();
        while let Err(error) = registry.renew(&node("a"), lease).await {
            assert!(matches!(error, RenewError::Failed(_)), "{error:?}");
            assert!(start.elapsed() < Duration::from_secs(10), "{error:?}");
            sleep(Duration::from_millis(50)).await;
        }
        assert!(ids(&registry).await.contains(&"a".to_owned()));
        member.resume();
    }
}

#[tokio::test]
async fn a_refusing_or_silent_member_costs_no_more_than_the_first_exchange() {
    let etcd = Etcd::start().await;
    let refusing = Etcd::stopped().address();
    let registry = registry::open(&format!("etcd://{refusing},{}", etcd.address())).unwrap();
    registry.register(&node("a"), TTL).await.expect("a member that refuses costs nothing");

    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().map(|address| (address, silent)).unwrap();
    let registry = registry::open(&format!("etcd://{},{}", silent.0, etcd.address())).unwrap();
    fails_in_time(registry.read("greeter")).await;
    for _ in 0..5 {
        let start = Instant::now();
        assert_eq!(ids(&registry).await, ["a"]);
        assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn members_without_a_majority_refuse_in_time_and_name_each() {
    let mut members = Etcd::cluster().await;
    let addresses = members.each_ref().map(Etcd::address);
    let registry = registry::open(&format!("etcd://{}", addresses.join(","))).unwrap();
    registry.register(&node("a"), TTL).await.unwrap();
    let mut watching = Watching::from_now(&registry, "greeter").await;
    let [first, second, third] = &mut members;
    // The watch is on the first: alone, it must not pass for a quiet registry.
    second.kill();
    third.kill();
    let ended = watching.next_or_end().await;
    assert!(matches!(ended, Err(WatchError::Disconnected(_))), "{ended:?}");
    let text = fails_in_time(registry.read("greeter")).await.to_string();
    assert!(text.contains(&first.address()), "{text}");
    second.restart_without_waiting();
    third.restart_without_waiting();
    let start = Instant::now();
    while registry.read("greeter").await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(10));
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_client_with_a_cache_starts_and_calls_while_etcd_is_down() {
    let mut etcd = Etcd::start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("nodes.json");
    let mut service = Service::builder("echo").registry(etcd.url()).build().await.unwrap();
    register_echo_handler(service.server(), Echo);
    let service = service.start().await.unwrap();
    let mut registered = service.registration();
    registered.wait_for(|state| *state == RegistrationState::Registered).await.unwrap();

    let url = format!("{}?cache={}", etcd.url(), file.display());
    let call = async || {
        let client = Client::builder().registry(&url).build().unwrap();
        let echo = EchoClient::new("echo", &client);
        (echo.say(SayRequest { payload: "hi".into() }).await, client)
    };
    let (reply, client) = call().await;
    reply.expect("etcd knows the node");
    while !fs::read_to_string(&file).is_ok_and(|text| text.contains(service.address())) {
        sleep(Duration::from_millis(50)).await;
    }
    drop(client);

    etcd.kill();
    let (reply, client) = call().await;
    reply.expect("the cache knows the node");
    let status = client.discovery().subscribe("echo").status();
    assert!(status.borrow().stale.is_some(), "{status:?}");
    let without = Client::builder().registry(etcd.url()).build().unwrap();
    let unknown = EchoClient::new("echo", &without).say(SayRequest { payload: "hi".into() });
    unknown.timeout(Duration::from_secs(1)).await.expect_err("nobody else knows it");
}
