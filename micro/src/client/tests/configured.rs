//! Calls as the service config has them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tokio_stream::StreamExt as _;
use tonic::Code;
use tracing::Level;

use super::raw::{self, DATA, HEAD, HEADERS, Raw};
use crate::{
    ChannelOptions, Client, ClientBuilder, Service,
    client::RetryPolicy,
    fixture::{Echo, Log, Stub, Word, register, registered, start},
};

/// A client with this methodConfig for all methods.
fn client(registry: &str, method: &Value) -> Client {
    builder(registry, method).build().expect("a client")
}

fn builder(registry: &str, method: &Value) -> ClientBuilder {
    let mut method = method.clone();
    method["name"] = json!([{}]);
    of_config(registry, &json!({ "methodConfig": [method] }))
}

fn of_config(registry: &str, config: &Value) -> ClientBuilder {
    let config = config.to_string().parse().expect("a config");
    let options = ChannelOptions::new().service_config(config);
    Client::builder().registry(registry).for_all(options)
}

fn retries(codes: &[&str]) -> Value {
    json!({"retryPolicy": {
        "maxAttempts": 3,
        "initialBackoff": "0.001s",
        "maxBackoff": "0.001s",
        "backoffMultiplier": 1,
        "retryableStatusCodes": codes,
    }})
}

#[tokio::test]
async fn a_method_is_retried_as_its_config_has_it_whatever_its_proto_says() {
    let registry = "memory://configured-retry";
    let echo = Echo::named("a");
    let calls = echo.calls.clone();
    let _a = start(registry, "a", echo).await;
    let stub = Stub::new("a", &client(registry, &retries(&["NOT_FOUND"])));
    let made = || calls.swap(0, Ordering::SeqCst);

    stub.say(Word::new("missing")).await.expect_err("for good");
    assert_eq!(made(), 3);
    stub.follow(Word::new("missing")).await.expect_err("for good");
    assert_eq!(made(), 3, "streams too");
    stub.read(Word::new("closed")).await.expect_err("for good");
    assert_eq!(made(), 1, "the config has no word of Unavailable");
    let policy = RetryPolicy::on([Code::NotFound]).max_attempts(2);
    stub.say(Word::new("missing")).retry(policy).await.expect_err("for good");
    assert_eq!(made(), 2, "the call's word goes before it");
}

#[tokio::test(start_paused = true)]
async fn retries_pause_as_their_config_has_it() {
    let registry = "memory://configured-backoff";
    let _a = start(registry, "a", Echo::named("a")).await;
    let mut config = retries(&["NOT_FOUND"]);
    config["retryPolicy"]["initialBackoff"] = json!("0.1s");
    config["retryPolicy"]["maxBackoff"] = json!("1s");
    config["retryPolicy"]["backoffMultiplier"] = json!(3);
    let stub = Stub::new("a", &client(registry, &config));
    stub.say(Word::new("who?")).await.expect("connected");
    let start = Instant::now();
    stub.say(Word::new("missing")).await.expect_err("for good");
    let took = start.elapsed();
    assert!((320..500).contains(&took.as_millis()), "100 and 300 ms, +-20%: {took:?}");
}

#[tokio::test]
async fn the_clients_own_bound_on_retries_holds() {
    let registry = "memory://configured-bound";
    let echo = Echo::named("a");
    let calls = echo.calls.clone();
    let _a = start(registry, "a", echo).await;
    let client = builder(registry, &retries(&["NOT_FOUND"])).retries(0).build();
    let stub = Stub::new("a", &client.expect("a client"));
    stub.say(Word::new("missing")).await.expect_err("for good");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn the_sooner_of_two_deadlines_holds() {
    let registry = "memory://configured-timeout";
    let _a = start(registry, "a", Echo::named("a")).await;
    let client = client(registry, &json!({ "timeout": "7s" }));
    let stub = Stub::new("a", &client);
    stub.say(Word::new("who?")).await.expect("connected");
    let word = || Word::new("sleep");
    for (asked, seconds) in [(None, 7), (Some(9), 7), (Some(3), 3)] {
        let start = Instant::now();
        let mut unary = stub.say(word());
        let mut stream = stub.follow(word());
        if let Some(asked) = asked.map(Duration::from_secs) {
            (unary, stream) = (unary.timeout(asked), stream.timeout(asked));
        }
        assert_eq!(unary.await.expect_err("it sleeps").code(), Code::DeadlineExceeded);
        assert_eq!(start.elapsed().as_secs(), seconds, "{asked:?}");
        assert_eq!(stream.await.expect_err("it sleeps").code(), Code::DeadlineExceeded);
        assert_eq!(start.elapsed().as_secs(), 2 * seconds, "{asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_method_that_is_not_to_wait_fails_at_once() {
    let registry = "memory://configured-wait";
    let client = client(registry, &json!({ "waitForReady": false }));
    let stub = Stub::new("nobody", &client);
    let start = Instant::now();
    assert_eq!(stub.say(Word::new("who?")).await.expect_err("none").code(), Code::Unavailable);
    assert_eq!(stub.down(Word::new("who?")).await.expect_err("none").code(), Code::Unavailable);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[tokio::test]
async fn messages_over_the_methods_limits_are_refused_with_the_remedy() {
    let registry = "memory://configured-size";
    let _a = start(registry, "a", Echo::named("a long name")).await;
    let bytes = |request: u32, response: u32| json!({ "maxRequestMessageBytes": request, "maxResponseMessageBytes": response });
    let remedy = "raise it in the service config's `methodConfig`";

    let stub = Stub::new("a", &client(registry, &bytes(6, 100)));
    stub.say(Word::new("who?")).await.expect("six bytes");
    let unary = stub.say(Word::new("who??")).await.expect_err("seven bytes");
    let stream = stub.follow(Word::new("who??")).await.expect_err("seven bytes");
    for status in [unary, stream] {
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        let text = "the request of 7 bytes is over the method's limit of 6 bytes";
        assert!(status.message().contains(text) && status.message().contains(remedy), "{status}");
    }

    let stub = Stub::new("a", &client(registry, &bytes(100, 12)));
    let unary = stub.say(Word::new("who?")).await.expect_err("13 bytes");
    let mut stream = stub.follow(Word::new("who?")).await.expect("a stream").into_inner();
    let stream = stream.next().await.expect("an error").expect_err("13 bytes");
    for status in [unary, stream] {
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        let text = "a message of 13 bytes is over the method's limit of 12 bytes";
        assert!(status.message().contains(text) && status.message().contains(remedy), "{status}");
    }
}

#[tokio::test]
async fn a_throttle_takes_the_budgets_place() {
    let registry = "memory://configured-throttle";
    let echo = Echo::named("a");
    let calls = echo.calls.clone();
    let _a = start(registry, "a", echo).await;
    let mut config = retries(&["NOT_FOUND"]);
    config["name"] = json!([{}]);
    let throttling = json!({ "maxTokens": 10, "tokenRatio": 0.1 });
    let config = json!({ "methodConfig": [config], "retryThrottling": throttling });
    let stub = Stub::new("a", &of_config(registry, &config).build().expect("a client"));
    let made = || calls.swap(0, Ordering::SeqCst);
    for expected in [3, 2, 1, 1] {
        stub.say(Word::new("missing")).await.expect_err("for good");
        assert_eq!(made(), expected, "five failures are half of ten tokens");
    }
    for _ in 0..40 {
        stub.say(Word::new("who?")).await.expect("a reply");
    }
    made();
    stub.say(Word::new("missing")).await.expect_err("for good");
    assert_eq!(made(), 2, "seven failures, and four tokens back");
}

#[tokio::test]
async fn a_throttle_counts_streams_by_their_ends() {
    let registry = "memory://configured-throttle-streams";
    let echo = Echo::named("a");
    let calls = echo.calls.clone();
    let _a = start(registry, "a", echo).await;
    let mut config = retries(&["ABORTED", "NOT_FOUND"]);
    config["name"] = json!([{}]);
    let throttling = json!({ "maxTokens": 10, "tokenRatio": 0.1 });
    let config = json!({ "methodConfig": [config], "retryThrottling": throttling });
    let stub = Stub::new("a", &of_config(registry, &config).build().expect("a client"));
    let attempts = async || {
        calls.store(0, Ordering::SeqCst);
        stub.say(Word::new("missing")).await.expect_err("for good");
        calls.load(Ordering::SeqCst)
    };
    for _ in 0..5 {
        let mut aborted = stub.down(Word::new("a b")).await.expect("it begins").into_inner();
        while aborted.next().await.is_some() {}
    }
    for _ in 0..40 {
        stub.follow(Word::new("who?")).await.expect("it begins, and is given up");
    }
    assert_eq!(attempts().await, 1, "five failures are half of ten tokens");
    for _ in 0..21 {
        let mut whole = stub.follow(Word::new("who?")).await.expect("it begins").into_inner();
        while whole.next().await.is_some() {}
    }
    assert_eq!(attempts().await, 2, "six failures, and 2.1 tokens back");
}

fn timeout_of(seconds: u32) -> String {
    json!({ "methodConfig": [{ "name": [{}], "timeout": format!("{seconds}s") }] }).to_string()
}

/// How many seconds a call without a deadline of its own has.
async fn seconds(stub: &Stub) -> u64 {
    let start = Instant::now();
    stub.say(Word::new("sleep")).await.expect_err("it sleeps");
    start.elapsed().as_secs()
}

/// The looks at the file take no time of a clock that is paused.
async fn until_it_has(stub: &Stub, expected: u64) {
    for _ in 0..20 {
        if seconds(stub).await == expected {
            return;
        }
    }
    panic!("still {} and not {expected}", seconds(stub).await);
}

#[tokio::test(start_paused = true)]
async fn a_file_is_followed_and_its_last_good_version_holds() {
    let log = Log::down_to(Level::WARN);
    let registry = "memory://configured-file";
    let _a = start(registry, "a", Echo::named("a")).await;
    let dir = tempfile::TempDir::new().expect("a folder");
    let path = dir.path().join("a.json");
    let write = |text: &str| std::fs::write(&path, text).expect("written");
    write(&timeout_of(7));
    let options = ChannelOptions::new()
        .service_config(timeout_of(1).parse().expect("a config"))
        .service_config_file(&path);
    let client = Client::builder().registry(registry).for_service("a", options).build();
    let stub = Stub::new("a", &client.expect("a client"));
    assert_eq!(seconds(&stub).await, 7, "from the first call on");
    write(&timeout_of(3));
    until_it_has(&stub, 3).await;
    write("{\"methodConfig\": 7}");
    let warnings = || log.lines_with("$.methodConfig: 7 is no list");
    while warnings().is_empty() {
        assert_eq!(seconds(&stub).await, 3);
    }
    assert!(warnings()[0].contains("a.json"), "{warnings:?}", warnings = warnings());
    std::fs::remove_file(&path).expect("removed");
    while log.lines_with("cannot read").is_empty() {
        assert_eq!(seconds(&stub).await, 3);
    }
    write("");
    while log.lines_with("is no JSON").is_empty() {
        assert_eq!(seconds(&stub).await, 3);
    }
    write(&timeout_of(4));
    until_it_has(&stub, 4).await;
    assert_eq!(log.lines_with("last good").len(), 3, "each fault once: {:?}", log.lines());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_says_nothing_of_its_health_is_called_as_before_until_it_is_connected_anew() {
    // Each hop over a socket may move a clock that is paused to the next timer: one that is near.
    tokio::spawn(async {
        loop {
            sleep(Duration::from_millis(10)).await;
        }
    });
    let registry = "memory://configured-health";
    let listener = raw::node(registry, "a").await;
    let (asked, says) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
    let (counts, told) = (asked.clone(), says.clone());
    tokio::spawn(async move {
        let mut raw = Raw::accept(&listener).await?;
        let call = raw.next(HEADERS).await?;
        raw.answer(call, "not asked").await?;
        raw.next(HEADERS).await?;
        counts.fetch_add(1, Ordering::SeqCst);
        for _ in 0..3 {
            let call = raw.next(HEADERS).await?;
            raw.next(DATA).await?;
            raw.answer(call, "asked").await?;
        }
        drop(raw);
        let mut raw = Raw::accept(&listener).await?;
        let watch = raw.next(HEADERS).await?;
        counts.fetch_add(1, Ordering::SeqCst);
        told.notified().await;
        raw.write(HEADERS, 4, watch, HEAD).await?;
        raw.write(DATA, 0, watch, &[0, 0, 0, 0, 2, 8, 1]).await?;
        let call = raw.next(HEADERS).await?;
        raw.answer(call, "well").await?;
        raw.next(HEADERS).await
    });
    let dir = tempfile::TempDir::new().expect("a folder");
    let path = dir.path().join("a.json");
    std::fs::write(&path, "{}").expect("written");
    let options = ChannelOptions::new().service_config_file(&path);
    let client = Client::builder().registry(registry).for_service("a", options).build();
    let stub = Stub::new("a", &client.expect("a client"));
    let say = async || stub.say(Word::new("who?")).timeout(Duration::from_millis(1_500)).await;
    let text = async || say().await.expect("a reply").into_inner().text;
    assert_eq!(text().await, "not asked");
    std::fs::write(&path, r#"{"healthCheckConfig": {"serviceName": ""}}"#).expect("written");
    let until_it_is_asked = async |times| {
        let asks = async {
            while asked.load(Ordering::SeqCst) < times {
                sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(Duration::from_secs(20), asks).await.expect("it is asked");
    };
    until_it_is_asked(1).await;
    for seconds in [0, 2, 30] {
        sleep(Duration::from_secs(seconds)).await;
        assert_eq!(text().await, "asked", "that it is asked makes it not unwell");
    }
    until_it_is_asked(2).await;
    let status = say().await.expect_err("a new connection begins without a word");
    assert_eq!(status.code(), Code::Unavailable);
    let why = "it has not said within 1s whether it is well";
    assert!(status.message().contains(why), "{status}");
    says.notify_one();
    assert_eq!(text().await, "well");
}

#[tokio::test(start_paused = true)]
async fn a_later_channel_goes_by_the_last_good_version_of_the_file() {
    let log = Log::down_to(Level::WARN);
    let registry = "memory://configured-file-later";
    let _a = start(registry, "a", Echo::named("a")).await;
    let _b = start(registry, "b", Echo::named("b")).await;
    let dir = tempfile::TempDir::new().expect("a folder");
    let path = dir.path().join("a.json");
    let write = |text: &str| std::fs::write(&path, text).expect("written");
    write(&timeout_of(7));
    let options = ChannelOptions::new().service_config_file(&path);
    let client = Client::builder().registry(registry).for_all(options).build().expect("a client");
    let early = Stub::new("a", &client);
    assert_eq!(seconds(&early).await, 7);
    write(&timeout_of(3));
    until_it_has(&early, 3).await;
    write("{\"methodConfig\": 7}");
    while log.lines_with("is no list").is_empty() {
        assert_eq!(seconds(&early).await, 3);
    }
    let late = Stub::new("b", &client);
    for _ in 0..3 {
        assert_eq!(seconds(&late).await, 3, "not what the file said when the client was built");
    }
}

#[tokio::test]
async fn a_client_whose_file_cannot_be_used_is_not_built() {
    let dir = tempfile::TempDir::new().expect("a folder");
    let path = dir.path().join("a.json");
    let build = || {
        let options = ChannelOptions::new().service_config_file(&path);
        let client = Client::builder().registry("memory://configured-no-file").for_all(options);
        client.build().expect_err("no config").to_string()
    };
    assert!(build().contains("cannot read"), "{}", build());
    assert!(build().contains("a.json"), "{}", build());
    std::fs::write(&path, timeout_of(1).replace("1s", "soon")).expect("written");
    let text = "a.json: $.methodConfig[0].timeout: \"soon\" is no duration";
    assert!(build().contains(text), "{}", build());
}

#[tokio::test(start_paused = true)]
async fn a_services_nodes_say_how_it_wants_to_be_called() {
    let registry = "memory://configured-by-nodes";
    let mut service = Service::builder("a")
        .registry(registry)
        .metadata("service_config", timeout_of(7))
        .build()
        .await
        .expect("a service");
    register(service.server(), Echo::named("a"));
    let handle = service.start().await.expect("a free port");
    registered(&handle).await;
    let client = of_config(registry, &json!({})).build().expect("a client");
    assert_eq!(seconds(&Stub::new("a", &client)).await, 7);
}

#[cfg(feature = "testing")]
#[tokio::test(start_paused = true)]
async fn the_wait_for_a_registry_that_never_answered_goes_by_the_config_that_is_known() {
    let fleet = crate::testing::Fleet::builder()
        .nodes("a", 1, |node| register(node.server(), Echo::named("a")))
        .start()
        .await
        .expect("a fleet");
    fleet.registry().fail();
    let config = json!({ "methodConfig": [{ "name": [{}], "timeout": "0.3s" }] });
    let config = config.to_string().parse().expect("a config");
    let options = ChannelOptions::new().service_config(config);
    let client = fleet.client_builder().for_all(options).build().expect("a client");
    let stub = Stub::new("a", &client);
    let start = Instant::now();
    let took = || start.elapsed().as_millis() / 100;
    stub.say(Word::new("who?")).await.expect_err("no node is known");
    assert_eq!(took(), 3);
    stub.down(Word::new("who?")).await.expect_err("no node is known");
    assert_eq!(took(), 6, "streams too");
}
