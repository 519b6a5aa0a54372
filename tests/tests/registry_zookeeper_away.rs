//! `zookeeper://` while ZooKeeper is away: down, stopped, wiped, restored, or not to be reached.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use micro::{
    registry::{self, Lease, Node, Registry, RenewError, WatchError},
    testing::registry::Watching,
};
use tests::{
    away::{TTL, fails_in_time, ids, node, register},
    dead_link::DeadLink,
    zookeeper::ZooKeeper,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep},
};
use zookeeper_client::{Acls, CreateMode};

/// Renews until there is an answer.
async fn renew(registry: &Arc<dyn Registry>, node: &Node, lease: Lease) -> Result<(), RenewError> {
    let start = Instant::now();
    loop {
        match registry.renew(node, lease).await {
            Err(RenewError::Failed(error)) => {
                assert!(start.elapsed() < Duration::from_secs(10), "{error:?}");
            }
            answer => return answer,
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn ends_disconnected(watching: &mut Watching) {
    let ended = watching.next_or_end().await;
    assert!(matches!(ended, Err(WatchError::Disconnected(_))), "{ended:?}");
    assert!(watching.has_ended().await, "the stream ends after its first error");
}

#[tokio::test]
async fn zookeeper_may_start_after_us() {
    let mut zookeeper = ZooKeeper::stopped();
    let registry = registry::open(&zookeeper.url()).unwrap();
    let error = fails_in_time(registry.register(&node("a"), TTL)).await;
    let text = error.to_string();
    assert!(error.is_registry(), "{error:?}");
    assert!(
        text.contains(&zookeeper.url()) && text.contains("register a of service greeter"),
        "{text}"
    );
    assert!(text.to_lowercase().contains("connection refused"), "{text}");
    fails_in_time(registry.read("greeter")).await;
    fails_in_time(registry.list()).await;
    ends_disconnected(&mut Watching::after_revision(&registry, "greeter", 0)).await;

    zookeeper.restart().await;
    let lease = registry.register(&node("a"), TTL).await.unwrap();
    registry.renew(&node("a"), lease).await.unwrap();
    assert_eq!(ids(&registry).await, ["a"]);
}

#[tokio::test]
async fn a_killed_zookeeper_ends_the_watch_and_its_restart_loses_no_node() {
    let mut zookeeper = ZooKeeper::start().await;
    let registry = registry::open(&zookeeper.url()).unwrap();
    let lease = registry.register(&node("a"), TTL).await.unwrap();
    let mut watching = Watching::from_now(&registry, "greeter").await;
    registry.register(&node("b"), TTL).await.unwrap();
    assert_eq!(watching.events(1).await, ["+b@127.0.0.1:1"]);

    zookeeper.kill();
    ends_disconnected(&mut watching).await;
    let renewed = fails_in_time(registry.renew(&node("a"), lease)).await;
    assert!(matches!(renewed, RenewError::Failed(_)), "the record may well stand: {renewed:?}");

    zookeeper.restart().await;
    assert_eq!(ids(&registry).await, ["a", "b"], "sessions outlive a restart");
    // Its session is taken up again, or else it is registered anew: it is never away.
    match renew(&registry, &node("a"), lease).await {
        Ok(()) => {}
        Err(RenewError::Lost(_)) => drop(registry.register(&node("a"), TTL).await.unwrap()),
        Err(other) => panic!("{other:?}"),
    }
    assert_eq!(ids(&registry).await, ["a", "b"]);
}

#[tokio::test]
async fn an_exchange_after_a_restart_that_nobody_noticed_works() {
    let mut zookeeper = ZooKeeper::start().await;
    let registry = registry::open(&zookeeper.url()).unwrap();
    registry.register(&node("a"), TTL).await.unwrap();
    assert_eq!(ids(&registry).await, ["a"]);
    zookeeper.restart().await;
    assert_eq!(ids(&registry).await, ["a"]);
    zookeeper.restart().await;
    registry.register(&node("b"), TTL).await.unwrap();
}

#[tokio::test]
async fn a_stopped_zookeeper_fails_exchanges_in_time_and_ends_the_watch() {
    let zookeeper = ZooKeeper::start().await;
    let registry = registry::open(&zookeeper.url()).unwrap();
    let lease = registry.register(&node("a"), TTL).await.unwrap();
    let mut watching = Watching::from_now(&registry, "greeter").await;
    registry.register(&node("b"), TTL).await.unwrap();
    assert_eq!(watching.events(1).await, ["+b@127.0.0.1:1"]);

    zookeeper.pause();
    let stopped = Instant::now();
    for _ in 0..2 {
        let error = fails_in_time(registry.read("greeter")).await;
        assert!(error.to_string().contains("no answer within 1s"), "{error}");
        let renewed = fails_in_time(registry.renew(&node("a"), lease)).await;
        assert!(matches!(renewed, RenewError::Failed(_)), "{renewed:?}");
        fails_in_time(registry.register(&node("c"), TTL)).await;
    }
    ends_disconnected(&mut watching).await;
    assert!(stopped.elapsed() < Duration::from_secs(9), "{:?}", stopped.elapsed());

    zookeeper.resume();
    assert!(ids(&registry).await.starts_with(&["a".to_owned(), "b".to_owned()]));
    renew(&registry, &node("a"), lease).await.expect("its session lives");
}

/// ZooKeeper counts a session's time while it is stopped, too.
#[tokio::test]
async fn a_zookeeper_stopped_for_longer_than_the_ttl_has_lost_the_record() {
    let zookeeper = ZooKeeper::start().await;
    let registry = registry::open(&zookeeper.url()).unwrap();
    let ttl = Duration::from_secs(3);
    let lease = registry.register(&node("a"), ttl).await.unwrap();
    zookeeper.pause();
    let resume = Instant::now() + 3 * ttl;
    while Instant::now() < resume {
        sleep(ttl / 3).await;
        match fails_in_time(registry.renew(&node("a"), lease)).await {
            RenewError::Failed(_) | RenewError::Lost(_) => {}
            other @ RenewError::Taken(_) => panic!("{other:?}"),
        }
    }
    zookeeper.resume();
    let renewed = renew(&registry, &node("a"), lease).await;
    assert!(matches!(renewed, Err(RenewError::Lost(_))), "{renewed:?}");
    let lease = register(&registry, &node("a"), ttl).await;
    registry.renew(&node("a"), lease).await.unwrap();
    assert_eq!(ids(&registry).await, ["a"]);
}

#[tokio::test]
async fn an_exchange_that_its_caller_gave_up_leaves_no_dead_connection_behind() {
    let zookeeper = ZooKeeper::start().await;
    let registry = registry::open(&zookeeper.url()).unwrap();
    assert!(ids(&registry).await.is_empty());
    assert_eq!(zookeeper.connections(), 1);
    zookeeper.pause();
    let bound = Duration::from_millis(900);
    let given_up = tokio::time::timeout(bound, registry.read("greeter")).await;
    assert!(given_up.is_err(), "{given_up:?}");
    zookeeper.resume();
    // Closed in good order, now that ZooKeeper answers.
    let start = Instant::now();
    while zookeeper.connections() > 0 {
        assert!(start.elapsed() < Duration::from_secs(5), "the connection was discarded");
        sleep(Duration::from_millis(10)).await;
    }
    assert!(ids(&registry).await.is_empty());
}

#[tokio::test]
async fn a_wiped_zookeeper_has_lost_the_record_and_takes_it_again() {
    let mut zookeeper = ZooKeeper::start().await;
    let registry = registry::open(&zookeeper.url()).unwrap();
    for id in ["x", "y", "z"] {
        registry.register(&node(id), TTL).await.unwrap();
    }
    let lease = registry.register(&node("a"), TTL).await.unwrap();
    let seen = registry.read("greeter").await.unwrap().revision;
    zookeeper.wipe().await;
    let renewed = renew(&registry, &node("a"), lease).await;
    assert!(matches!(renewed, Err(RenewError::Lost(_))), "{renewed:?}");
    let mut watching = Watching::after_revision(&registry, "greeter", seen);
    let ended = watching.next_or_end().await;
    assert!(matches!(ended, Err(WatchError::Compacted)), "{ended:?}");
    let new = registry.register(&node("a"), TTL).await.unwrap();
    assert_eq!(ids(&registry).await, ["a"]);
    // Its session cannot be closed where there is none: that is no error for long.
    let _ = registry.deregister(&node("a"), lease).await;
    registry.renew(&node("a"), new).await.unwrap();
    assert_eq!(ids(&registry).await, ["a"]);
}

#[tokio::test]
async fn a_zookeeper_restored_from_an_older_state_takes_every_node_back() {
    let mut zookeeper = ZooKeeper::start().await;
    let registry = registry::open(&zookeeper.url()).unwrap();
    let old = registry.register(&node("old"), TTL).await.unwrap();
    let quiet = registry.register(&node("quiet"), TTL).await.unwrap();
    let snapshot = zookeeper.snapshot();
    let new = registry.register(&node("new"), TTL).await.unwrap();
    registry.renew(&node("old"), old).await.unwrap();
    let listing = registry.read("greeter").await.unwrap();
    assert_eq!(listing.entries.len(), 3);

    zookeeper.restore(&snapshot).await;
    let mut watching = Watching::after(&registry, "greeter", &listing);
    let ended = watching.next_or_end().await;
    assert!(matches!(ended, Err(WatchError::Compacted)), "{ended:?}");
    assert_eq!(ids(&registry).await, ["old", "quiet"]);
    // The first has seen more than this ZooKeeper has, which refuses it its session for that; the
    // last has none here. (The one between may take its session up again.)
    for (id, lease) in [("old", old), ("new", new)] {
        let renewed = renew(&registry, &node(id), lease).await;
        assert!(matches!(renewed, Err(RenewError::Lost(_))), "{id}: {renewed:?}");
        let lease = registry.register(&node(id), TTL).await.unwrap();
        registry.renew(&node(id), lease).await.unwrap();
    }
    let renewed = renew(&registry, &node("quiet"), quiet).await;
    assert!(matches!(renewed, Ok(()) | Err(RenewError::Lost(_))), "{renewed:?}");
    assert_eq!(ids(&registry).await, ["new", "old", "quiet"]);
}

#[tokio::test]
async fn a_zookeeper_that_answers_late_has_lost_nothing() {
    let zookeeper = ZooKeeper::start().await;
    let registry = registry::open(&zookeeper.url()).unwrap();
    let node = node("a");
    let lease = registry.register(&node, TTL).await.unwrap();
    for _ in 0..3 {
        zookeeper.pause();
        let resumed = async {
            sleep(Duration::from_millis(600)).await;
            zookeeper.resume();
        };
        let (renewed, ()) = tokio::join!(registry.renew(&node, lease), resumed);
        renewed.expect("it answers within a second");
    }
}

/// By itself the session's client finds that out after 2/5 of the TTL.
#[tokio::test]
async fn a_session_on_a_dead_connection_is_lost_once_zookeeper_answers_on_another() {
    let zookeeper = ZooKeeper::start().await;
    let link = DeadLink::to(&zookeeper.address()).await;
    let registry = registry::open(&format!("zookeeper://{}", link.address)).unwrap();
    let lease = registry.register(&node("a"), TTL).await.unwrap();
    registry.renew(&node("a"), lease).await.unwrap();
    link.silence();
    assert!(matches!(
        fails_in_time(registry.renew(&node("a"), lease)).await,
        RenewError::Failed(_)
    ));
    link.mend();
    let mended = Instant::now();
    let renewed = renew(&registry, &node("a"), lease).await;
    assert!(matches!(renewed, Err(RenewError::Lost(_))), "{renewed:?}");
    assert!(mended.elapsed() < Duration::from_secs(2), "{:?}", mended.elapsed());
    let lease = register(&registry, &node("a"), TTL).await;
    registry.renew(&node("a"), lease).await.unwrap();
}

#[tokio::test]
async fn a_refusing_or_silent_member_costs_no_more_than_the_first_exchange() {
    let zookeeper = ZooKeeper::start().await;
    let refusing = ZooKeeper::stopped().address();
    let url = format!("zookeeper://{refusing},{}", zookeeper.address());
    let registry = registry::open(&url).unwrap();
    registry.register(&node("a"), TTL).await.expect("a member that refuses costs nothing");
    assert_eq!(ids(&registry).await, ["a"]);

    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let url = format!("zookeeper://{address},{}", zookeeper.address());
    let registry = registry::open(&url).unwrap();
    fails_in_time(registry.read("greeter")).await;
    for _ in 0..5 {
        let start = Instant::now();
        assert_eq!(ids(&registry).await, ["a"]);
        assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    }
    for id in 0..8 {
        let register = registry.register(&node(&id.to_string()), TTL).await;
        register.expect("a session is asked for at a member that answers");
    }
}

/// The kinds of requests in what a client sends, in their order.
fn requests(mut sent: &[u8]) -> Vec<i32> {
    let mut kinds = Vec::new();
    let mut is_first = true;
    while let Some((length, rest)) = sent.split_first_chunk() {
        let length = usize::try_from(i32::from_be_bytes(*length)).unwrap();
        // The first asks for a session, and has no kind.
        if !std::mem::replace(&mut is_first, false) {
            kinds.push(i32::from_be_bytes(*rest[4..].first_chunk().unwrap()));
        }
        sent = &rest[length..];
    }
    kinds
}

#[tokio::test]
async fn a_member_catches_up_before_it_is_read() {
    const SYNC: i32 = 9;
    const PING: i32 = 11;
    const GET_CHILDREN: i32 = 12;
    let zookeeper = ZooKeeper::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let to = zookeeper.address();
    let sent = Arc::new(Mutex::new(Vec::new()));
    let heard = sent.clone();
    let between = tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let (mut client_reads, mut client_writes) = client.into_split();
        let server = TcpStream::connect(to).await.unwrap();
        let (mut server_reads, mut server_writes) = server.into_split();
        let back = async { tokio::io::copy(&mut server_reads, &mut client_writes).await };
        let forth = async {
            let mut bytes = [0; 4096];
            loop {
                let length = client_reads.read(&mut bytes).await.unwrap();
                heard.lock().unwrap().extend_from_slice(&bytes[..length]);
                server_writes.write_all(&bytes[..length]).await.unwrap();
            }
        };
        tokio::select! {
            _ = back => {}
            () = forth => {}
        }
    });
    let registry = registry::open(&format!("zookeeper://{address}")).unwrap();
    registry.read("greeter").await.unwrap();
    let mut requests = requests(&sent.lock().unwrap());
    requests.retain(|kind| *kind != PING);
    assert_eq!(requests[..2], [SYNC, GET_CHILDREN]);
    between.abort();
}

#[tokio::test]
async fn one_that_takes_no_more_connections_is_told_as_such() {
    let zookeeper = ZooKeeper::start_with("maxSessionTimeout=120000\nmaxClientCnxns=1").await;
    let _taken = zookeeper.client().await;
    let registry = registry::open(&zookeeper.url()).unwrap();
    let error = fails_in_time(registry.read("greeter")).await;
    assert!(error.to_string().contains("maxClientCnxns"), "{error}");
}

#[tokio::test]
async fn what_changed_while_the_connection_was_lost_is_read_again() {
    let mut zookeeper = ZooKeeper::start().await;
    let registry = registry::open(&zookeeper.url()).unwrap();
    registry.register(&node("a"), TTL).await.unwrap();
    let mut watching = Watching::from_now(&registry, "greeter").await;
    registry.register(&node("b"), TTL).await.unwrap();
    assert_eq!(watching.events(1).await, ["+b@127.0.0.1:1"]);
    let seen = registry.read("greeter").await.unwrap();
    zookeeper.restart().await;
    let client = zookeeper.client().await;
    client.delete("/micro-registry/greeter/a", None).await.unwrap();
    let value = br#"{"name":"greeter","nodes":[{"id":"c","address":"127.0.0.1:1"}]}"#;
    let ephemeral = CreateMode::Ephemeral.with_acls(Acls::anyone_all());
    client.create("/micro-registry/greeter/c", value, &ephemeral).await.unwrap();
    ends_disconnected(&mut watching).await;
    let mut watching = Watching::after(&registry, "greeter", &seen);
    assert_eq!(watching.events(2).await, ["-a", "+c@127.0.0.1:1"]);
}
