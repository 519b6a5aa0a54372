//! `nats://` while NATS is away: down, stopped, cut off, restarted; and when it refuses.

use std::{fs, sync::Arc, time::Duration};

use micro::{
    registry::{self, Lease, Node, Registry, RenewError, WatchError},
    testing::registry::Watching,
};
use tempfile::TempDir;
use tests::{
    away::{TTL, fails_in_time, ids, node},
    nats::Nats,
};
use tokio::time::{Instant, sleep};

/// What is read once NATS answers again, as whoever looks for nodes does.
async fn ids_once_back(registry: &Arc<dyn Registry>) -> Vec<String> {
    let start = Instant::now();
    while let Err(error) = registry.read("greeter").await {
        assert!(start.elapsed() < Duration::from_secs(10), "{error:?}");
        sleep(Duration::from_millis(50)).await;
    }
    ids(registry).await
}

/// Renews once NATS answers again, as whoever keeps a node registered does.
async fn renewed(registry: &Arc<dyn Registry>, node: &Node, lease: Lease) {
    let start = Instant::now();
    loop {
        match registry.renew(node, lease).await {
            Ok(()) => return,
            Err(RenewError::Failed(error)) => {
                assert!(start.elapsed() < Duration::from_secs(10), "{error:?}");
            }
            Err(error) => panic!("{error:?}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn nats_may_start_after_us() {
    let mut nats = Nats::stopped();
    let registry = registry::open(&nats.url()).unwrap();
    let error = fails_in_time(registry.register(&node("a"), TTL)).await;
    let text = error.to_string();
    assert!(error.is_registry(), "{error:?}");
    assert!(text.contains(&nats.url()) && text.contains("register a of service greeter"), "{text}");
    assert!(text.to_lowercase().contains("connection refused"), "{text}");
    fails_in_time(registry.read("greeter")).await;
    fails_in_time(registry.list()).await;
    let mut watching = Watching::after_revision(&registry, "greeter", 0);
    let ended = watching.next_or_end().await;
    assert!(matches!(ended, Err(WatchError::Disconnected(_))), "{ended:?}");
    assert!(watching.has_ended().await, "the stream ends after its first error");

    nats.restart().await;
    let lease = registry.register(&node("a"), TTL).await.unwrap();
    registry.renew(&node("a"), lease).await.unwrap();
    assert_eq!(ids(&registry).await, ["a"]);
}

#[tokio::test]
async fn a_restart_ends_the_watch_and_loses_no_node() {
    let mut nats = Nats::start().await;
    // Two processes, as far as NATS can tell.
    let here = registry::open(&nats.url()).unwrap();
    let there = registry::open(&nats.url().replace("127.0.0.1", "localhost")).unwrap();
    let lease = there.register(&node("a"), TTL).await.unwrap();
    let mut watching = Watching::from_now(&here, "greeter").await;
    nats.kill();
    let ended = watching.next_or_end().await;
    assert!(matches!(ended, Err(WatchError::Disconnected(_))), "{ended:?}");
    let renewed_away = fails_in_time(there.renew(&node("a"), lease)).await;
    assert!(matches!(renewed_away, RenewError::Failed(_)), "{renewed_away:?}");
    let error = fails_in_time(here.read("greeter")).await;
    assert!(error.to_string().contains("read service greeter"), "not an empty list: {error}");

    nats.restart().await;
    assert_eq!(
        ids_once_back(&here).await,
        ["a"],
        "at the first read, though it has not been renewed yet"
    );
    let mut watching = Watching::from_now(&here, "greeter").await;
    renewed(&there, &node("a"), lease).await;
    there.deregister(&node("a"), lease).await.unwrap();
    assert_eq!(watching.events(1).await, ["-a"]);

    // Nobody noticed this one.
    let lease = there.register(&node("a"), TTL).await.unwrap();
    nats.restart().await;
    renewed(&there, &node("a"), lease).await;
    let fresh = registry::open(&nats.url()).unwrap();
    assert_eq!(ids(&fresh).await, ["a"]);
}

#[tokio::test]
async fn a_stopped_nats_fails_exchanges_in_time_and_nobody_is_forgotten() {
    let nats = Nats::start().await;
    let ttl = Duration::from_secs(3);
    let here = registry::open(&nats.url()).unwrap();
    let there = registry::open(&nats.url().replace("127.0.0.1", "localhost")).unwrap();
    let lease = there.register(&node("a"), ttl).await.unwrap();
    let mut watching = Watching::from_now(&here, "greeter").await;

    nats.pause();
    let stopped = Instant::now();
    for _ in 0..2 {
        let error = fails_in_time(there.register(&node("b"), ttl)).await;
        assert!(error.to_string().contains("no answer within 850ms"), "{error}");
        let renewed = fails_in_time(there.renew(&node("a"), lease)).await;
        assert!(matches!(renewed, RenewError::Failed(_)), "{renewed:?}");
    }
    // It asks after `a` itself, once that is due, and hears nothing of its question either.
    let ended = watching.next_or_end().await;
    assert!(matches!(&ended, Err(WatchError::Disconnected(_))), "{ended:?}");
    sleep((ttl * 3).saturating_sub(stopped.elapsed())).await;
    fails_in_time(here.read("greeter")).await;

    nats.resume();
    assert_eq!(
        ids_once_back(&here).await,
        ["a"],
        "it was cut off itself, and forgets nobody for it"
    );
    renewed(&there, &node("a"), lease).await;
    let mut watching = Watching::from_now(&here, "greeter").await;
    assert_eq!(watching.events(1).await, ["-a"], "what is not renewed any more goes");
}

#[tokio::test]
async fn a_silent_connection_is_found_out_though_nobody_uses_it() {
    let nats = Nats::start().await;
    let registry = registry::open(&nats.url()).unwrap();
    registry.register(&node("a"), TTL).await.unwrap();
    let mut watching = Watching::from_now(&registry, "greeter").await;
    nats.pause();
    let stopped = Instant::now();
    let ended = watching.next_or_end().await;
    assert!(matches!(ended, Err(WatchError::Disconnected(_))), "{ended:?}");
    // PINGs every 3 s, the third of which finds the first two unanswered.
    assert!(stopped.elapsed() < Duration::from_secs(14), "{:?}", stopped.elapsed());
}

#[tokio::test]
async fn servers_stand_in_for_one_another() {
    let (mut first, second) = (Nats::start().await, Nats::start().await);
    let hosts = |one: &Nats, other: &Nats| {
        format!("nats://127.0.0.1:{},127.0.0.1:{}", one.port(), other.port())
    };
    let registry = registry::open(&hosts(&first, &second)).unwrap();
    let lease = registry.register(&node("a"), TTL).await.unwrap();
    assert_eq!((first.connections(), second.connections()), (1, 0));
    first.kill();
    renewed(&registry, &node("a"), lease).await;
    assert_eq!(second.connections(), 1);

    // One that is silent takes an exchange's time, and the next begins at the other.
    let (silent, other) = (Nats::start().await, Nats::start().await);
    silent.pause();
    let registry = registry::open(&hosts(&silent, &other)).unwrap();
    fails_in_time(registry.register(&node("a"), TTL)).await;
    registry.register(&node("a"), TTL).await.unwrap();
}

#[tokio::test]
async fn credentials_are_asked_for_and_never_shown() {
    let nats = Nats::start_with(&["--user", "me", "--pass", "s3cret"]).await;
    let with = |user: &str| nats.url().replace("nats://", &format!("nats://{user}@"));
    let registry = registry::open(&with("me:s3cret")).unwrap();
    registry.register(&node("a"), TTL).await.unwrap();
    assert_eq!(ids(&registry).await, ["a"]);
    // Accounts do not hear each other.
    assert_eq!(registry.name(), with("me"));
    assert!(!format!("{registry:?}").contains("s3cret"));
    for url in [nats.url(), with("me:s3cret2")] {
        let error = fails_in_time(registry::open(&url).unwrap().read("greeter")).await;
        let text = format!("{error:?}");
        assert!(text.contains("authorization violation"), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
    }

    let nats = Nats::start_with(&["--auth", "t0ken"]).await;
    let url = nats.url().replace("nats://", "nats://t0ken@");
    let registry = registry::open(&url).unwrap();
    registry.register(&node("a"), TTL).await.unwrap();
    assert!(!format!("{registry:?}").contains("t0ken"));
}

#[tokio::test]
async fn a_right_that_is_missing_is_named() {
    let dir = TempDir::new().unwrap();
    let config = dir.path().join("nats.conf");
    let rules = r#"authorization { users = [ { user: "reader", password: "p", permissions: {
        publish: ["micro.nats.query", "_INBOX.>"], subscribe: ["micro.nats.*", "_INBOX.>"] } } ] }"#;
    fs::write(&config, rules).unwrap();
    let nats = Nats::start_with(&["-c", config.to_str().unwrap()]).await;
    let url = nats.url().replace("nats://", "nats://reader:p@");
    let registry = registry::open(&url).unwrap();
    assert!(ids(&registry).await.is_empty(), "reading takes no more");
    let error = fails_in_time(registry.register(&node("a"), TTL)).await;
    let text = error.to_string().to_lowercase();
    assert!(text.contains("permissions violation for publish to \"micro.nats.watch\""), "{text}");
}

#[tokio::test]
async fn a_right_to_listen_that_is_missing_is_named_at_once() {
    let dir = TempDir::new().unwrap();
    let config = dir.path().join("nats.conf");
    let subjects = ["micro.nats.watch", "micro.nats.query", "_INBOX.>"];
    let user = |index: usize, denied: &str| {
        format!(
            r#"{{ user: "u{index}", password: "p",
                permissions: {{ publish: ">", subscribe: {{ allow: ">", deny: "{denied}" }} }} }}"#
        )
    };
    let users: Vec<_> = subjects.iter().enumerate().map(|(i, denied)| user(i, denied)).collect();
    fs::write(&config, format!("authorization {{ users = [ {} ] }}", users.join(", "))).unwrap();
    let nats = Nats::start_with(&["-c", config.to_str().unwrap()]).await;
    for (index, subject) in subjects.iter().enumerate() {
        let url = nats.url().replace("nats://", &format!("nats://u{index}:p@"));
        let registry = registry::open(&url).unwrap();
        let read = fails_in_time(registry.read("greeter")).await;
        let text = read.to_string().to_lowercase();
        let subject = subject.trim_end_matches('>').to_lowercase();
        let said = format!("permissions violation for subscription to \"{subject}");
        assert!(text.contains("read service greeter") && text.contains(&said), "{text}");
        // As discovery is told.
        let mut watching = Watching::after_revision(&registry, "greeter", 0);
        let ended = format!("{:?}", watching.next_or_end().await.unwrap_err()).to_lowercase();
        assert!(ended.contains("permissions violation for subscription"), "{ended}");
    }
}

#[tokio::test]
async fn a_record_that_the_server_does_not_take_is_named() {
    let dir = TempDir::new().unwrap();
    let config = dir.path().join("nats.conf");
    fs::write(&config, "max_payload: 2048").unwrap();
    let nats = Nats::start_with(&["-c", config.to_str().unwrap()]).await;
    let registry = registry::open(&nats.url()).unwrap();
    let mut large = node("a");
    large.metadata.insert("notes".to_owned(), "x".repeat(4000));
    let error = registry.register(&large, TTL).await.unwrap_err();
    assert!(
        error.to_string().contains("max_payload") && error.to_string().contains("2048"),
        "{error}"
    );
    registry.register(&node("b"), TTL).await.expect("the connection is well");
}

#[tokio::test]
async fn tls_is_spoken_when_the_url_says_so() {
    let dir = TempDir::new().unwrap();
    let certified =
        rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])
            .expect("a certificate");
    let write = |name: &str, pem: String| {
        let file = dir.path().join(name);
        fs::write(&file, pem).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let cert = write("cert.pem", certified.cert.pem());
    let key = write("key.pem", certified.signing_key.serialize_pem());
    let nats = Nats::start_with(&["--tls", "--tlscert", &cert, "--tlskey", &key]).await;
    let registry = registry::open(&format!("{}?ca={cert}", nats.url())).unwrap();
    registry.register(&node("a"), TTL).await.unwrap();
    assert_eq!(ids(&registry).await, ["a"]);
    let error =
        fails_in_time(registry::open(&format!("{}?tls=true", nats.url())).unwrap().list()).await;
    assert!(error.to_string().to_lowercase().contains("certificate"), "{error}");
}
