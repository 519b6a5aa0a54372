//! A real go-micro node and a real go-micro client over NATS. In no network namespace: unlike mDNS,
//! NATS is on loopback alone.

use std::time::Duration;

use micro::{
    Client, Service,
    registration::RegistrationState,
    registry::{self, Registry},
    testing::registry::Watching,
};
use tests::{
    echo::Echo,
    gomicro::{self, GoMicro, SERVICE},
    interop::{self, Exchange},
    nats::Nats,
    proto::echo::{EchoClient, SayRequest, register_echo_handler},
};
use tokio::time::{Instant, sleep, timeout};

/// Longer than anything but an expiry takes.
const SOON: Duration = Duration::from_secs(10);

/// How long a go-micro node is believed in.
const TTL: Duration = Duration::from_secs(90);

fn exchange(direction: &str, kind: &str) -> Exchange {
    let [peer, version, registry, direction, kind] =
        ["go-micro", "5.30.0", "nats", direction, kind].map(str::to_owned);
    Exchange { peer, version, registry, direction, kind }
}

async fn our_node(nats: &Nats) -> micro::Handle {
    let mut service = Service::builder(SERVICE).registry(nats.url()).build().await.unwrap();
    register_echo_handler(service.server(), Echo);
    let handle = service.start().await.expect("it serves");
    let mut state = handle.registration();
    let registered = state.wait_for(|state| *state == RegistrationState::Registered);
    timeout(SOON, registered).await.expect("it registers").expect("it runs");
    handle
}

async fn ids(registry: &dyn Registry) -> Vec<String> {
    let listing = registry.read(SERVICE).await.expect("NATS is there");
    assert!(listing.malformed.is_empty(), "{listing:?}");
    listing.entries.iter().map(|entry| entry.node.id.clone()).collect()
}

/// Its own word that it leaves arrives now and then: go-micro does not flush it.
#[tokio::test]
async fn our_client_calls_a_go_micro_node_and_forgets_it() {
    let nats = Nats::start().await;
    let address = nats.url().replace("nats://", "");
    let registry = registry::open(&nats.url()).unwrap();
    let mut watching = Watching::from_now(&registry, SERVICE).await;
    let (mut node, id) = GoMicro::node(&["-nats", &address]).await;
    assert_eq!(watching.events(1).await, [format!("+{id}@{}", gomicro::ADDRESS)]);
    let client = Client::builder().registry(nats.url()).build().unwrap();
    let echo = EchoClient::new(SERVICE, &client);
    interop::record(exchange("to peer", "unary"), async {
        let request = SayRequest { payload: b"hello".into() };
        let reply = echo.say(request).timeout(SOON).await.expect("it answers").into_inner();
        assert_eq!(reply.payload, b"hello");
        let listing = registry.read(SERVICE).await.unwrap();
        assert_eq!(listing.entries[0].node.endpoints[0].name, "Echo.Say");
    })
    .await;
    interop::record(exchange("to peer", "list"), async {
        assert_eq!(registry.list().await.unwrap(), [SERVICE]);
    })
    .await;
    interop::record(exchange("to peer", "leave"), async {
        let left = Instant::now();
        node.leave().await;
        while !ids(&*registry).await.is_empty() {
            assert!(left.elapsed() < TTL + SOON, "it is believed in for ever");
            sleep(Duration::from_millis(200)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_go_micro_client_calls_our_node_and_sees_it_leave() {
    let nats = Nats::start().await;
    let address = nats.url().replace("nats://", "");
    let handle = our_node(&nats).await;
    let mut client = GoMicro::client(&["-nats", &address]);
    interop::record(exchange("from peer", "unary"), async {
        client.ask_until("call hello", "reply hello").await;
        client.ask_until("nodes", &format!("nodes {}", handle.id())).await;
    })
    .await;
    interop::record(exchange("from peer", "list"), async {
        client.ask_until("services", &format!("services {SERVICE}")).await;
    })
    .await;
    interop::record(exchange("from peer", "leave"), async {
        handle.stop().await.unwrap();
        client.ask_until("nodes", "nodes").await;
    })
    .await;
}

#[tokio::test]
async fn go_micros_nodes_and_ours_are_one_fleet() {
    let nats = Nats::start().await;
    let address = nats.url().replace("nats://", "");
    let (_node, id) = GoMicro::node(&["-nats", &address]).await;
    let handle = our_node(&nats).await;
    let mut client = GoMicro::client(&["-nats", &address]);
    let mut all = [id, handle.id().to_owned()];
    all.sort();
    client.ask_until("nodes", &format!("nodes {}", all.join(" "))).await;
    assert_eq!(ids(&*registry::open(&nats.url()).unwrap()).await, all);
}
