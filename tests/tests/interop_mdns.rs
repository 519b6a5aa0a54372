//! A real go-micro node and a real go-micro client over mDNS, each test in a network of its own.

use std::{future::pending, time::Duration};

use micro::{
    Client, Code, Service,
    registration::RegistrationState,
    registry::{self, Registry},
};
use tests::{
    echo::Echo,
    gomicro::{self, GoMicro, SERVICE},
    interop::{self, Exchange},
    namespace::{Network, inside},
    proto::echo::{EchoClient, SayRequest, register_echo_handler},
};
use tokio::time::{Instant, sleep, timeout};

/// go-micro takes up to 750 ms to probe, and both sides are debug builds.
const SOON: Duration = Duration::from_secs(10);

fn exchange(direction: &str, kind: &str) -> Exchange {
    let [peer, version, registry, direction, kind] =
        ["go-micro", "5.30.0", "mdns", direction, kind].map(str::to_owned);
    Exchange { peer, version, registry, direction, kind }
}

/// The ids of the nodes that a registry knows, once they are so many.
async fn nodes(registry: &dyn Registry, count: usize) -> Vec<String> {
    let end = Instant::now() + SOON;
    loop {
        let listing = registry.read(SERVICE).await.expect("mdns:// works in here");
        if listing.entries.len() == count {
            return listing.entries.iter().map(|entry| entry.node.id.clone()).collect();
        }
        assert!(Instant::now() < end, "not {count} nodes: {listing:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn our_node() -> micro::Handle {
    let mut service = Service::builder(SERVICE).registry("mdns://").build().await.unwrap();
    register_echo_handler(service.server(), Echo);
    let handle = service.start().await.expect("it serves");
    let mut state = handle.registration();
    let registered = state.wait_for(|state| *state == RegistrationState::Registered);
    timeout(SOON, registered).await.expect("it registers").expect("it runs");
    handle
}

#[test]
fn our_client_calls_a_go_micro_node_and_sees_it_leave() {
    inside("our_client_calls_a_go_micro_node_and_sees_it_leave", Network::Loopback, async {
        let (mut node, id) = GoMicro::node(&[]).await;
        let registry = registry::open("mdns://").unwrap();
        let client = Client::builder().registry("mdns://").build().unwrap();
        let echo = EchoClient::new(SERVICE, &client);
        interop::record(exchange("to peer", "unary"), async {
            let request = SayRequest { payload: b"hello".into() };
            let reply = echo.say(request).timeout(SOON).await.expect("it answers").into_inner();
            assert_eq!(reply.payload, b"hello");
            let listing = registry.read(SERVICE).await.unwrap();
            let found = &listing.entries[0].node;
            assert_eq!((&found.id, found.address.as_str()), (&id, gomicro::ADDRESS));
            assert_eq!(found.endpoints[0].name, "Echo.Say");
        })
        .await;
        interop::record(exchange("to peer", "list"), async {
            let listing = async { while registry.list().await.unwrap() != [SERVICE] {} };
            timeout(SOON, listing).await.expect("it is listed");
        })
        .await;
        interop::record(exchange("to peer", "leave"), async {
            node.leave().await;
            nodes(&*registry, 0).await;
        })
        .await;
    });
}

#[test]
fn a_go_micro_client_calls_our_node_and_sees_it_leave() {
    inside("a_go_micro_client_calls_our_node_and_sees_it_leave", Network::Loopback, async {
        let handle = our_node().await;
        let mut client = GoMicro::client(&[]);
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
    });
}

#[test]
fn go_micros_nodes_and_ours_are_one_fleet() {
    inside("go_micros_nodes_and_ours_are_one_fleet", Network::Loopback, async {
        let (mut node, id) = GoMicro::node(&[]).await;
        let handle = our_node().await;
        let mut client = GoMicro::client(&[]);
        let mut ids = [id.clone(), handle.id().to_owned()];
        ids.sort();
        client.ask_until("nodes", &format!("nodes {}", ids.join(" "))).await;
        let registry = registry::open("mdns://").unwrap();
        assert_eq!(nodes(&*registry, 2).await, ids);
        node.leave().await;
        assert_eq!(nodes(&*registry, 1).await, [handle.id()]);
        client.ask_until("nodes", &format!("nodes {}", handle.id())).await;
        handle.stop().await.unwrap();
    });
}

#[test]
fn an_id_that_a_go_micro_node_has_is_refused() {
    inside("an_id_that_a_go_micro_node_has_is_refused", Network::Loopback, async {
        let (_node, id) = GoMicro::node(&[]).await;
        let registry = registry::open("mdns://").unwrap();
        nodes(&*registry, 1).await;
        interop::record(exchange("to peer", "id taken"), async {
            let twin = registry::Node::new(SERVICE, &id, "127.0.0.1:1");
            let error = registry.register(&twin, Duration::from_secs(15)).await.unwrap_err();
            // go-micro answers while it still probes for its id: either may be heard first.
            let text = error.to_string();
            assert!(
                text.contains("a node at 127.0.0.1:7950") && text.contains("has this id"),
                "{text}"
            );
        })
        .await;
    });
}

#[test]
fn without_multicast_the_error_comes_within_a_second_and_names_the_alternatives() {
    let name = "without_multicast_the_error_comes_within_a_second_and_names_the_alternatives";
    inside(name, Network::Nothing, async {
        let check = |text: &str| {
            for part in ["mdns://", "multicast", "memory://", "static://", "etcd://"] {
                assert!(text.contains(part), "{text} lacks {part}");
            }
        };
        let begin = Instant::now();
        let client = Client::builder().build().expect("mdns:// is the default");
        let echo = EchoClient::new(SERVICE, &client);
        let status = echo.say(SayRequest::default()).await.expect_err("there is no network");
        assert_eq!(status.code(), Code::Internal, "it is no use to try again");
        check(status.message());
        assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());

        let begin = Instant::now();
        let service = Service::builder(SERVICE).address("0.0.0.0:0").shutdown(pending());
        let error = service.build().await.unwrap().run().await.expect_err("it cannot register");
        assert!(error.is_config());
        check(&error.to_string());
        assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    });
}
