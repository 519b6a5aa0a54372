//! `consul://` while Consul is away: down, stopped, wiped, without a leader, or slow.

use std::time::Duration;

use micro::{
    registry::{self, Lease, RenewError, WatchError},
    testing::registry::Watching,
};
use tests::{
    away::{TTL, fails_in_time, ids, node, register},
    consul::{Consul, Options},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::{Instant, sleep},
};

#[tokio::test]
async fn consul_may_start_after_us() {
    let mut consul = Consul::stopped();
    let registry = registry::open(&consul.url()).unwrap();
    let error = fails_in_time(registry.register(&node("a"), TTL)).await;
    let text = error.to_string();
    assert!(error.is_registry(), "{error:?}");
    assert!(
        text.contains(&consul.url()) && text.contains("register a of service greeter"),
        "{text}"
    );
    assert!(text.to_lowercase().contains("connection refused"), "{text}");
    fails_in_time(registry.read("greeter")).await;
    fails_in_time(registry.list()).await;
    let mut watching = Watching::after_revision(&registry, "greeter", 0);
    let ended = watching.next_or_end().await;
    assert!(matches!(ended, Err(WatchError::Disconnected(_))), "{ended:?}");
    assert!(watching.has_ended().await, "the stream ends after its first error");

    consul.restart().await;
    let lease = registry.register(&node("a"), TTL).await.unwrap();
    registry.renew(&node("a"), lease).await.unwrap();
    assert_eq!(ids(&registry).await, ["a"]);
}

#[tokio::test]
async fn an_agent_with_its_data_keeps_the_lease_over_a_restart() {
    let mut consul = Consul::start().await;
    let registry = registry::open(&consul.url()).unwrap();
    let lease = registry.register(&node("a"), TTL).await.unwrap();
    registry.renew(&node("a"), lease).await.unwrap();
    let mut watching = Watching::from_now(&registry, "greeter").await;
    registry.register(&node("b"), TTL).await.unwrap();
    assert_eq!(watching.events(1).await, ["+b@127.0.0.1:1"]);

    consul.kill();
    let ended = watching.next_or_end().await;
    assert!(matches!(ended, Err(WatchError::Disconnected(_))), "{ended:?}");
    let renewed = fails_in_time(registry.renew(&node("a"), lease)).await;
    assert!(matches!(renewed, RenewError::Failed(_)), "the record may well stand: {renewed:?}");

    consul.restart().await;
    let start = Instant::now();
    while let Err(error) = registry.renew(&node("a"), lease).await {
        // The agent has it at once, the new catalog as soon as the agent has passed it on.
        assert!(start.elapsed() < Duration::from_secs(10), "{error:?}");
        sleep(Duration::from_millis(50)).await;
    }
    assert!(ids(&registry).await.contains(&"a".to_owned()));
}

#[tokio::test]
async fn an_exchange_after_a_restart_that_nobody_noticed_works() {
    let mut consul = Consul::start().await;
    let registry = registry::open(&consul.url()).unwrap();
    let lease = registry.register(&node("a"), TTL).await.unwrap();
    registry.renew(&node("a"), lease).await.unwrap();
    consul.restart().await;
    registry.list().await.unwrap();
    consul.restart().await;
    registry.register(&node("b"), TTL).await.unwrap();
}

#[tokio::test]
async fn a_stopped_agent_fails_exchanges_in_time_and_ends_the_watch() {
    let consul = Consul::start().await;
    let registry = registry::open(&consul.url()).unwrap();
    let lease = registry.register(&node("a"), TTL).await.unwrap();
    registry.renew(&node("a"), lease).await.unwrap();
    let mut watching = Watching::from_now(&registry, "greeter").await;
    registry.register(&node("b"), TTL).await.unwrap();
    assert_eq!(watching.events(1).await, ["+b@127.0.0.1:1"]);

    consul.pause();
    let stopped = Instant::now();
    for _ in 0..2 {
        let error = fails_in_time(registry.read("greeter")).await;
        assert!(error.to_string().contains("no answer in time"), "{error}");
        let renewed = fails_in_time(registry.renew(&node("a"), lease)).await;
        assert!(matches!(renewed, RenewError::Failed(_)), "{renewed:?}");
        fails_in_time(registry.register(&node("c"), TTL)).await;
    }
    let ended = watching.next_or_end().await;
    assert!(matches!(ended, Err(WatchError::Disconnected(_))), "{ended:?}");
    // Asked every 5 s, and a second for the answer; from when the watch is awaited.
    assert!(stopped.elapsed() < Duration::from_secs(15), "{:?}", stopped.elapsed());

    consul.resume();
    registry.renew(&node("a"), lease).await.unwrap();
    assert!(ids(&registry).await.contains(&"a".to_owned()));
}

#[tokio::test]
async fn a_wiped_consul_has_lost_the_record_and_takes_it_again() {
    let mut consul = Consul::start().await;
    let registry = registry::open(&consul.url()).unwrap();
    for id in ["x", "y", "z"] {
        registry.register(&node(id), TTL).await.unwrap();
    }
    let lease = registry.register(&node("a"), TTL).await.unwrap();
    registry.renew(&node("a"), lease).await.unwrap();
    let seen = registry.read("greeter").await.unwrap().revision;
    consul.wipe().await;
    let renewed = registry.renew(&node("a"), lease).await;
    assert!(matches!(renewed, Err(RenewError::Lost(_))), "{renewed:?}");
    let mut watching = Watching::after_revision(&registry, "greeter", seen + 20);
    let ended = watching.next_or_end().await;
    assert!(matches!(ended, Err(WatchError::Compacted)), "{ended:?}");
    registry.register(&node("a"), TTL).await.unwrap();
    assert_eq!(ids(&registry).await, ["a"]);
    registry.deregister(&node("a"), lease).await.expect("an unknown lease is no error");
    assert_eq!(ids(&registry).await, ["a"]);
}

#[tokio::test]
async fn a_cluster_outlives_its_leader_and_a_server_alone_is_not_trusted() {
    let mut members = Consul::cluster().await;
    let leader = members[0].get("/v1/status/leader").await;
    let is_leader = |member: &Consul| leader == member.server_address();
    // Our agent is not the one that goes.
    let ours = members.iter().position(|member| !is_leader(member)).unwrap();
    let lost = members.iter().position(is_leader).expect("one of the three leads");
    let registry = registry::open(&members[ours].url()).unwrap();
    let lease = register(&registry, &node("a"), TTL).await;
    let mut watching = Watching::from_now(&registry, "greeter").await;

    members[lost].kill();
    let start = Instant::now();
    loop {
        // Nothing is ever lost of it: it may only be asked for in vain.
        match registry.renew(&node("a"), lease).await {
            Ok(()) => break,
            Err(RenewError::Failed(_)) => {}
            Err(error) => panic!("{error:?}"),
        }
        assert!(start.elapsed() < Duration::from_secs(15), "no new leader");
        sleep(Duration::from_millis(50)).await;
    }
    register(&registry, &node("b"), TTL).await;
    let told = watching.next_or_end().await;
    assert!(matches!(told, Ok(_) | Err(WatchError::Disconnected(_))), "{told:?}");
    assert_eq!(ids(&registry).await, ["a", "b"]);

    // Without a majority nothing is told, and nobody is told to be gone.
    let mut watching = Watching::from_now(&registry, "greeter").await;
    let third = 3 - ours - lost;
    members[third].kill();
    let ended = watching.next_or_end().await;
    assert!(matches!(ended, Err(WatchError::Disconnected(_))), "{ended:?}");
    fails_in_time(registry.read("greeter")).await;
    let renewed = fails_in_time(registry.renew(&node("a"), lease)).await;
    assert!(matches!(renewed, RenewError::Failed(_)), "{renewed:?}");
}

#[tokio::test]
async fn a_watch_hears_at_once_of_a_leader_that_nobody_has() {
    // An agent that cannot find its servers: it answers, and knows nothing.
    let consul = Consul::start_with(Options::default()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let behind = consul.port();
    // In front of it, one that says so of `/v1/status/leader`.
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = vec![0; 4096];
                let length = stream.read(&mut head).await.unwrap_or(0);
                if head.starts_with(b"GET /v1/status/leader") {
                    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\"\"";
                    let _ = stream.write_all(answer.as_bytes()).await;
                    return;
                }
                let Ok(mut consul) = tokio::net::TcpStream::connect(("127.0.0.1", behind)).await
                else {
                    return;
                };
                // Every request comes on a connection of its own, to be looked at.
                let head = String::from_utf8_lossy(&head[..length]);
                let head = head.replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1);
                let _ = consul.write_all(head.as_bytes()).await;
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut consul).await;
            });
        }
    });
    let registry = registry::open(&format!("consul://127.0.0.1:{port}")).unwrap();
    let mut watching = Watching::from_now(&registry, "greeter").await;
    let start = Instant::now();
    let ended = watching.next_or_end().await.unwrap_err();
    assert!(format!("{ended:?}").contains("no leader"), "{ended:?}");
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}

/// One connection after another is answered in this way, whatever is asked.
async fn answering(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("consul://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(answer).await;
            });
        }
    });
    url
}

#[tokio::test]
async fn what_refuses_for_a_while_is_a_failure_and_no_loss() {
    for (answer, said) in [
        (
            &b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 19\r\n\r\nrate limit exceeded"[..],
            "429: rate limit exceeded",
        ),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy", "503: busy"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 17\r\n\r\nNo cluster leader", "No cluster leader"),
        (b"HTTP/1.1 301 Moved\r\nLocation: http://a/\r\nContent-Length: 0\r\n\r\n", "301"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "not Consul's"),
        (b"SSH-2.0-OpenSSH\r\n", "greeter"),
        (b"", "greeter"),
    ] {
        let registry = registry::open(&answering(answer).await).unwrap();
        let renewed = fails_in_time(registry.renew(&node("a"), Lease(1))).await;
        assert!(matches!(renewed, RenewError::Failed(_)), "{renewed:?}");
        fails_in_time(registry.register(&node("a"), TTL)).await;
        let error = fails_in_time(registry.read("greeter")).await;
        assert!(error.is_registry() && error.to_string().contains(said), "{said}: {error}");
        let ended = Watching::after_revision(&registry, "greeter", 1).next_or_end().await;
        assert!(matches!(ended, Err(WatchError::Disconnected(_))), "{ended:?}");
    }
}

/// Answers each request with what is made of its first line, on a connection of its own.
async fn scripted<F, Fut>(answer: F) -> String
where
    F: Fn(String) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = String> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("consul://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut head = vec![0; 4096];
                let length = stream.read(&mut head).await.unwrap_or(0);
                let head = String::from_utf8_lossy(&head[..length]).into_owned();
                let answer = answer(head.lines().next().unwrap_or_default().to_owned()).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                // What is shorter than it says is to be continued.
                let _ = stream.read(&mut [0]).await;
            });
        }
    });
    url
}

fn http(status: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nX-Consul-Index: 7\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn an_empty_list_of_which_nobody_knows_whether_it_is_whole_is_none() {
    for (status, is_believed) in [
        ("401 Unauthorized", true),
        ("404 Not Found", true),
        ("500 Internal Server Error", false),
        ("429 Too Many Requests", false),
        ("403 Forbidden", false),
    ] {
        let url = scripted(async move |line: String| match line.contains("/acl/authorize") {
            true => http(status, "so it is"),
            false => http("200 OK", "[]"),
        });
        let registry = registry::open(&url.await).unwrap();
        let read = registry.read("greeter").await;
        assert_eq!(read.is_ok(), is_believed, "{status}: {read:?}");
    }
}

#[tokio::test]
async fn a_renewal_waits_for_no_long_read() {
    let url = scripted(async |line: String| match line.contains("/v1/health/service/greeter ") {
        // The list begins to come, and goes on for long.
        true => "HTTP/1.1 200 OK\r\nX-Consul-Index: 7\r\nContent-Length: 999\r\n\r\n[".to_owned(),
        false => http("404 Not Found", r#"{"Service":null,"Checks":[]}"#),
    });
    let registry = registry::open(&url.await).unwrap();
    let read = |_| {
        let registry = registry.clone();
        tokio::spawn(async move { registry.read("greeter").await.map(drop) })
    };
    let reads: Vec<_> = (0..40).map(read).collect();
    sleep(Duration::from_millis(200)).await;
    let renewed = registry.renew(&node("a"), Lease(1)).await;
    assert!(matches!(renewed, Err(RenewError::Lost(_))), "the agent says so: {renewed:?}");
    reads.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn many_watches_on_an_agent_that_falls_silent_end_together() {
    let url = scripted(async |line: String| {
        if line.contains("/v1/status/leader") || line.contains("index=") {
            std::future::pending::<()>().await;
        }
        let found = r#"{"Node":{"Node":"n","Address":"127.0.0.1"},"Checks":[],"Service":{"ID":"a","Service":"greeter","Port":1}}"#;
        http("200 OK", &format!("[{found}]"))
    });
    let registry = registry::open(&url.await).unwrap();
    let watch = |_| {
        let registry = registry.clone();
        tokio::spawn(async move {
            let mut watching = Watching::after_revision(&registry, "greeter", 1);
            while watching.next_or_end().await.is_ok() {}
        })
    };
    let watches: Vec<_> = (0..12).map(watch).collect();
    let start = Instant::now();
    for watch in watches {
        watch.await.unwrap();
    }
    // Asked for after 5 s, and found in one.
    assert!(start.elapsed() > Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}
