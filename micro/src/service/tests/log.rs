use std::time::Duration;

use futures_util::StreamExt as _;
use tracing::Level;

use crate::{
    Handle, Service, discovery,
    fixture::{Echo, Log, Stub, Word, client, register, registered},
    registration::RegistrationState,
    registry,
};

const REGISTRY: &str = "memory://service-log";
const TTL: Duration = Duration::from_secs(5);

async fn start(id: &str) -> Handle {
    let builder = Service::builder("greeter").registry(REGISTRY).id(id).register_ttl(TTL);
    let builder = builder.register_interval(Duration::from_millis(10));
    let mut service = builder.build().await.expect("a service");
    register(service.server(), Echo::named("greeter"));
    let handle = service.start().await.expect("a free port");
    registered(&handle).await;
    handle
}

/// The lines with this in them, each up to its fields.
fn lines(log: &Log, with: &str) -> Vec<String> {
    let lines = log.lines().into_iter().filter(|line| line.contains(with));
    lines.map(|line| line.split(" service=").next().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn a_life_is_a_line_a_change() {
    let log = Log::down_to(Level::INFO);
    let client = client(REGISTRY);
    let mut nodes = client.discovery().subscribe("greeter");
    let mut update = async || nodes.next().await.expect("updates never end");
    assert_eq!(update().await, discovery::Update::Reset(Vec::new()), "nothing yet");

    let first = start("first").await;
    update().await;
    let stub = Stub::new("greeter", &client);
    for _ in 0..100 {
        stub.say(Word::new("who?")).await.expect("it serves");
    }
    let second = start("second").await;
    update().await;
    second.stop().await.expect("a clean exit");
    update().await;

    // Another process writes the same record under a lease of its own: it is taken back.
    let mut state = first.registration();
    state.mark_unchanged();
    let registry = registry::open(REGISTRY).expect("a registry");
    let node = registry.read("greeter").await.expect("memory answers").entries[0].node.clone();
    registry.register(&node, TTL).await.expect("memory answers");
    state.changed().await.expect("the service runs");
    state.wait_for(|it| *it == RegistrationState::Registered).await.expect("the service runs");
    for _ in 0..100 {
        stub.say(Word::new("who?")).await.expect("it serves");
    }
    first.stop().await.expect("a clean exit");
    while update().await != discovery::Update::Remove("first".into()) {}

    let expected = [
        "INFO serving",
        "INFO registration: registering",
        "INFO registration: registered",
        "WARN registration: lost: ",
        "INFO registration: registering",
        "INFO registration: registered",
        "INFO registration: leaving",
        "INFO registration: gone",
    ];
    let of_first = lines(&log, r#"node="first""#);
    assert_eq!(of_first.len(), expected.len(), "{of_first:?}");
    for (line, expected) in of_first.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line} should be {expected}");
    }
    assert_eq!(lines(&log, "stopped"), ["INFO stopped", "INFO stopped"]);
    let expected = [
        "INFO discovery: nodes added 1 (first), now 1",
        "INFO discovery: nodes added 1 (second), now 2",
        "INFO discovery: nodes removed 1 (second), now 1",
        "INFO discovery: nodes removed 1 (first), now 0",
    ];
    assert_eq!(lines(&log, "discovery: "), expected);
    let of_second = lines(&log, r#"node="second""#).len();
    let all = of_first.len() + of_second + expected.len() + 2;
    assert_eq!(log.lines().len(), all, "and no other: {:?}", log.lines());
}
