//! `kubernetes://` and its connections: HTTP/2 on a real API server, and what may happen to one.

use std::{sync::Arc, time::Duration};

use micro::{
    discovery::{Discovery, Update},
    registry::{self, Registry, WatchError},
    testing::registry::Watching,
};
use tests::{
    fault::Server as _,
    kubernetes::{Kubernetes, Namespace, Slice, Stage, endpoint},
    link::Link,
};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::StreamExt as _;

/// Longer than anything takes here.
const SOON: Duration = Duration::from_secs(20);

async fn put(namespace: &Namespace, service: &str, pod: &str) {
    let slice = Slice::of(&[endpoint(pod, "10.1.0.4", Stage::Ready)]);
    namespace.put_slice(service, &format!("{service}-a"), &slice).await;
}

/// Waits until this process has so many connections to the server, and no others.
async fn has_connections(server: &Kubernetes, count: usize) {
    let end = Instant::now() + SOON;
    while server.connections() != count {
        assert!(Instant::now() < end, "{} connections, not {count}", server.connections());
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn services_share_a_connection_as_far_as_the_server_allows() {
    // Fewer than a connection of ours would have.
    const SERVICES: usize = 50;
    let server = Kubernetes::start_with(&["--http2-max-streams-per-connection=20"]).await;
    let namespace = Namespace::open(&server.kubeconfig(), "default").await;
    let services: Vec<_> = (0..SERVICES).map(|index| format!("service-{index}")).collect();
    for service in &services {
        put(&namespace, service, &format!("{service}-0")).await;
    }
    let discovery = Discovery::open(&namespace.url()).unwrap();
    let mut followed: Vec<_> =
        services.iter().map(|service| discovery.subscribe(service)).collect();
    for (service, updates) in services.iter().zip(&mut followed) {
        let first = timeout(SOON, updates.next()).await.expect("soon").expect("it is endless");
        let Update::Reset(nodes) = first else { panic!("{first:?}") };
        assert_eq!(nodes[0].id, format!("{service}-0"));
    }
    has_connections(&server, 3).await;

    // All of them are watched.
    for (service, updates) in services.iter().zip(&mut followed) {
        put(&namespace, service, &format!("{service}-1")).await;
        let next = timeout(SOON, updates.next()).await.expect("soon").expect("it is endless");
        let Update::Insert(node) = next else { panic!("{next:?}") };
        assert_eq!(node.id, format!("{service}-1"));
    }
    has_connections(&server, 3).await;
}

#[tokio::test]
async fn a_connection_that_the_server_bids_farewell_fails_no_request_and_no_watch() {
    // A server behind a balancer does so to be left for others; this often at most.
    let server = Kubernetes::start_with(&["--goaway-chance=0.02"]).await;
    let namespace = Namespace::open(&server.kubeconfig(), "default").await;
    put(&namespace, "greeter", "greeter-0").await;
    let registry = registry::open(&namespace.url()).unwrap();
    let mut watching = Watching::from_now(&registry, "greeter").await;
    for _ in 0..50 {
        let reads = (0..8).map(|_| {
            let registry: Arc<dyn Registry> = registry.clone();
            tokio::spawn(async move { registry.read("greeter").await })
        });
        for read in reads.collect::<Vec<_>>() {
            let listing = read.await.unwrap().expect("a read that is repeated if need be");
            assert_eq!(listing.entries.len(), 1);
        }
    }
    put(&namespace, "greeter", "greeter-1").await;
    let events = watching.events(2).await;
    assert_eq!(events, ["+greeter-1@10.1.0.4:9000", "-greeter-0"]);
}

#[tokio::test]
async fn a_connection_that_carries_nothing_any_more_is_found_out() {
    let server = Kubernetes::start().await;
    let namespace = Namespace::open(&server.kubeconfig(), "default").await;
    let link = Link::to(&server.address()).await;
    let registry = registry::open(&server.url_at(&link.address)).unwrap();
    put(&namespace, "greeter", "greeter-0").await;
    let mut watching = Watching::from_now(&registry, "greeter").await;
    put(&namespace, "greeter", "greeter-1").await;
    assert_eq!(watching.events(2).await, ["+greeter-1@10.1.0.4:9000", "-greeter-0"]);
    link.silence().await;
    let silent = Instant::now();
    let ended = watching.next_or_end().await.unwrap_err();
    let after = silent.elapsed();
    assert!(matches!(&ended, WatchError::Disconnected(_)), "{ended:?}");
    assert!(after < Duration::from_secs(6), "it took {after:?}");

    let error = registry.read("greeter").await.unwrap_err();
    assert!(error.to_string().contains("no answer within 1s"), "{error}");
    link.mend().await;
    registry.read("greeter").await.expect("a new connection");
}
