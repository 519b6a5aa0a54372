//! What is told of the connections to a service's nodes. In real time: they are of real sockets.

use std::time::Duration;

use micro::{ChannelOptions, Client, client::ServiceConfig, registry::Node};
use tokio::net::{TcpListener, TcpStream};

use crate::{
    collected::Collected,
    echo::{Answers, EchoClient, SayRequest, client, echo, node},
};

const DISCONNECTIONS: &str = "grpc.subchannel.disconnections";
const SUCCEEDED: &str = "grpc.subchannel.connection_attempts_succeeded";
const FAILED: &str = "grpc.subchannel.connection_attempts_failed";
const OPEN: &str = "grpc.subchannel.open_connections";
const BUDGET: &str = "micro.client.retry_budget";

fn get(target: &str, name: &str, attributes: &[(&str, &str)]) -> Option<f64> {
    Collected::with("grpc.target", target).get(name, attributes)
}

fn disconnections(target: &str, why: &str) -> Option<f64> {
    get(target, DISCONNECTIONS, &[("grpc.disconnect_error", why)])
}

/// What others have to do first is theirs.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn connections_are_told_with_why_they_end() {
    const NAME: &str = "connections";
    Collected::now();
    let (node, _, echo) = echo(NAME).await;
    assert_eq!(get(NAME, SUCCEEDED, &[]), None, "none was made yet");
    echo.say(SayRequest::default()).await.unwrap();
    assert_eq!((get(NAME, SUCCEEDED, &[]), get(NAME, OPEN, &[])), (Some(1.0), Some(1.0)));
    assert_eq!((get(NAME, FAILED, &[]), get(NAME, DISCONNECTIONS, &[])), (None, None));
    let kind = Collected::with("grpc.target", NAME).0;
    let kind = kind.iter().find(|series| series.name == OPEN).expect("it is there");
    assert_eq!((kind.kind, &*kind.unit), ("up-down counter", "{connection}"));

    node.stop().await.unwrap();
    until("a node that leaves says so", || disconnections(NAME, "GOAWAY NO_ERROR") == Some(1.0))
        .await;
    until("it has no other connection", || get(NAME, OPEN, &[]) == Some(0.0)).await;
}

#[tokio::test]
async fn connections_that_a_client_gives_up_are_told() {
    const NAME: &str = "given-up";
    Collected::now();
    let (_node, _, echo) = echo(NAME).await;
    echo.say(SayRequest::default()).await.unwrap();
    drop(echo);
    until("the channel is gone, and its connection", || {
        disconnections(NAME, "subchannel shutdown") == Some(1.0)
    })
    .await;
    assert_eq!(get(NAME, OPEN, &[]), None, "there is no channel");
}

/// Takes a connection, sends its SETTINGS on it, and acknowledges the other's.
async fn accept(listener: &TcpListener) -> TcpStream {
    use tokio::io::AsyncWriteExt as _;
    let (mut stream, _) = listener.accept().await.unwrap();
    let settings = [[0, 0, 0, 4, 0, 0, 0, 0, 0], [0, 0, 0, 4, 1, 0, 0, 0, 0]];
    stream.write_all(settings.as_flattened()).await.unwrap();
    stream
}

#[tokio::test]
async fn nodes_that_hang_up_and_that_cannot_be_connected_to_are_told() {
    const NAME: &str = "hangs-up";
    Collected::now();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let registry = format!("static://{NAME}={address}");
    let client = Client::builder().without_env().registry(registry).build().unwrap();
    let _channel = client.channel(NAME);
    let stream = accept(&listener).await;
    until("it is connected", || get(NAME, OPEN, &[]) == Some(1.0)).await;
    stream.set_zero_linger().unwrap();
    drop(stream);
    until("a reset is one", || disconnections(NAME, "connection reset") == Some(1.0)).await;
    assert_eq!(get(NAME, OPEN, &[]), Some(0.0));

    drop(listener);
    until("it is dialled in vain", || get(NAME, FAILED, &[]) >= Some(1.0)).await;
    assert_eq!(get(NAME, SUCCEEDED, &[]), Some(1.0));
}

#[tokio::test]
async fn nodes_that_are_called_for_want_of_others_are_not_told_as_listed_ones() {
    const NAME: &str = "retained";
    Collected::now();
    // One that no registration of its own brings back.
    let node = node("retained-elsewhere", &Answers::default()).await;
    let registry = micro::registry::open(&format!("memory://{NAME}")).unwrap();
    let record = Node::new(NAME, "1", node.address());
    let lease = registry.register(&record, Duration::from_secs(60)).await.unwrap();
    let echo = EchoClient::new(NAME, &client(NAME).build().unwrap());
    echo.say(SayRequest::default()).await.unwrap();
    let nodes = |state| get(NAME, "micro.client.nodes", &[("micro.node.state", state)]);
    assert_eq!((nodes("listed"), nodes("ready")), (Some(1.0), Some(1.0)));
    registry.deregister(&record, lease).await.unwrap();
    until("the registry has removed it", || nodes("listed") == Some(0.0)).await;
    assert_eq!(nodes("ready"), Some(0.0), "of those that are listed");
    assert_eq!(nodes("retained"), Some(1.0));
    echo.say(SayRequest::default()).await.unwrap();
}

#[tokio::test]
async fn what_is_left_for_retries_is_told() {
    const NAME: &str = "budget";
    Collected::now();
    let (_node, answers, echo) = echo(NAME).await;
    let left = || get(NAME, BUDGET, &[]).expect("it is there");
    assert!((99.0..=100.0).contains(&left()), "it starts full: {}", left());
    for _ in 0..10 {
        answers.next([micro::Code::Unavailable; 2]);
        let _ = echo.say(SayRequest::default()).idempotent().await;
    }
    // Ten a second come in meanwhile.
    assert!(left() < 99.0, "twenty were spent: {}", left());
    drop(echo);
    until("it ends with its channel", || get(NAME, BUDGET, &[]).is_none()).await;
}

#[tokio::test]
async fn what_a_throttle_bears_is_told_in_the_budgets_place() {
    const NAME: &str = "throttle";
    Collected::now();
    let answers = Answers::default();
    let _node = node(NAME, &answers).await;
    let config: ServiceConfig =
        r#"{"retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1}}"#.parse().unwrap();
    let options = ChannelOptions::new().service_config(config);
    let client = client(NAME).for_all(options).build().unwrap();
    let echo = EchoClient::new(NAME, &client);
    assert_eq!(get(NAME, BUDGET, &[]), Some(5.0), "half of its tokens");
    answers.next([micro::Code::Unavailable; 2]);
    echo.say(SayRequest::default()).idempotent().await.unwrap();
    assert_eq!(get(NAME, BUDGET, &[]), Some(3.1), "two have failed, and one went well");
}
