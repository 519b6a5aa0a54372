//! Keeps the guide's table of metrics true.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures_util::StreamExt as _;
use micro::{
    ChannelOptions, Code,
    client::{Hedge, Served},
    discovery::Discovery,
    registration::{Options, Registration, RegistrationState},
    registry::Node,
};
use tokio::time::sleep;

use crate::{
    SECOND,
    calls::refusing,
    collected::Collected,
    echo::{Answers, EchoClient, SayRequest, client, node},
    faulty::Faulty,
};

const CHAPTER: &str = include_str!("../../src/guide/metrics.md");

/// By name: kind, unit and attributes.
type Table = BTreeMap<String, (String, String, BTreeSet<String>)>;

/// The names in backquotes.
fn quoted(cell: &str) -> impl Iterator<Item = String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned)
}

fn documented() -> Table {
    // Those that every metric of a table has stand above it.
    let mut common = BTreeSet::new();
    let mut table = Table::new();
    for line in CHAPTER.lines() {
        let is_of_ours = |it: &String| it.starts_with("micro.") || it.starts_with("grpc.");
        if line.contains("All have ") {
            common = quoted(line).filter(is_of_ours).collect();
        }
        if !line.starts_with("| `micro.") && !line.starts_with("| `grpc.") {
            continue;
        }
        let cells: Vec<_> = line.split(" | ").collect();
        let [name, kind, unit, attributes, ..] = cells[..] else { panic!("a row: {line}") };
        let name = quoted(name).next().expect("a name");
        let unit = quoted(unit).next().expect("a unit");
        let attributes = quoted(attributes).filter(is_of_ours);
        let attributes = common.iter().cloned().chain(attributes).collect();
        assert!(table.insert(name, (kind.to_owned(), unit, attributes)).is_none(), "{line}");
    }
    table
}

#[tokio::test(start_paused = true)]
async fn the_guides_table_has_every_metric_as_it_is() {
    Collected::now();
    let registry = Faulty::named("faulty://guide");
    let node = Node::new("greeter", "greeter-1", "127.0.0.1:1");
    let registration = Registration::start(registry.clone(), node, Options::default());
    let mut state = registration.state();
    state.wait_for(|state| *state == RegistrationState::Registered).await.unwrap();
    let mut nodes = Discovery::new(registry).subscribe("greeter");
    nodes.next().await;
    sleep(10 * SECOND).await;
    let mut documented = documented();
    documented.retain(|_, (_, _, attributes)| attributes.contains("micro.registry"));
    assert_eq!(told(Collected::of("faulty://guide")), documented);
}

fn told(collected: Collected) -> Table {
    let mut told = Table::new();
    for series in collected.0 {
        let attributes = series.attributes.into_keys().collect();
        told.insert(series.name, (series.kind.to_owned(), series.unit, attributes));
    }
    told
}

/// In real time: they are of real sockets.
#[tokio::test]
async fn the_guides_table_has_every_metric_of_calls_as_it_is() {
    const NAME: &str = "guide-calls";
    Collected::now();
    let answers = Answers::default();
    let _nodes = [node(NAME, &answers).await, node(NAME, &answers).await];
    let one = SayRequest::default;
    let echo = EchoClient::new(NAME, &client(NAME).build().unwrap());
    let served = || async {
        let reply = echo.say(one()).await.unwrap();
        reply.extensions().get::<Served>().unwrap().node.id.clone()
    };
    // One that advertises nonsense; nobody listens there.
    let mut odd = Node::new(NAME, "odd", "127.0.0.1:1");
    odd.metadata.insert("service_config".to_owned(), "nonsense".to_owned());
    let registry = micro::registry::open(&format!("memory://{NAME}")).unwrap();
    registry.register(&odd, 60 * SECOND).await.unwrap();
    let victim = served().await;
    // A node is ejected for its answers only where others answer otherwise.
    while served().await == victim {}
    answers.next([Code::Unavailable]);
    let call = echo.say(one()).node(&*victim).idempotent();
    call.await.unwrap();
    answers.next([Code::Ok]);
    echo.say(one()).hedge(Hedge::after(Duration::ZERO)).await.unwrap();
    let refusing = format!("static://{NAME}={}", refusing().await);
    let refused = client(NAME).registry(refusing).build().unwrap();
    EchoClient::new(NAME, &refused).say(one()).await.unwrap_err();
    let none_left = r#"{"retryThrottling": {"maxTokens": 1, "tokenRatio": 0.1}}"#.parse().unwrap();
    let options = ChannelOptions::new().service_config(none_left);
    let thrifty = client(NAME).for_all(options).build().unwrap();
    answers.next([Code::Unavailable]);
    EchoClient::new(NAME, &thrifty).say(one()).idempotent().await.unwrap_err();

    let mut documented = documented();
    documented.retain(|_, (_, _, attributes)| attributes.contains("grpc.target"));
    let has_all = async {
        while told(Collected::with("grpc.target", NAME)).len() < documented.len() {
            answers.next([Code::Unavailable]);
            let _ = echo.say(one()).node(&*victim).await;
        }
    };
    let _ = tokio::time::timeout(5 * SECOND, has_all).await; // five failures in a row eject it
    assert_eq!(told(Collected::with("grpc.target", NAME)), documented);

    let mut documented = self::documented();
    documented.retain(|name, _| name.starts_with("grpc.server."));
    let mut handled = told(Collected::with("grpc.method", "echo.v1.Echo/Say"));
    handled.retain(|name, _| name.starts_with("grpc.server."));
    assert_eq!(handled, documented);
}
