//! `dns://` against a real DNS server.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use micro::{
    Client,
    discovery::{Discovery, Subscription, Update},
    registry::{self, Lease, Listing, Node, Registry, RenewError, WatchError},
    registry_conformance,
    testing::registry::{Backend, Cannot, Watching},
};
use tests::{
    dns::Dns,
    namespace::{self, Network},
    ports,
    proto::echo::{EchoClient, SayRequest},
    unregistered::{Callers, node},
};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::StreamExt as _;

const SECOND: Duration = Duration::from_secs(1);

/// A name, and the server that knows it.
struct Asked(Dns);

impl Backend for Asked {
    fn registry(&self) -> Arc<dyn Registry> {
        open(&self.0, "{service}.test")
    }

    async fn read_empty(&self, service: &str) -> Result<Listing, Cannot> {
        fails(&self.registry(), service).await;
        Err(Cannot)
    }

    fn tells_every_change(&self) -> bool {
        false
    }

    fn not_applicable(&self) -> &'static [(&'static str, &'static [&'static str])] {
        &[
            (
                "registering is refused: its nodes are those in the zone",
                &[
                    "a_registered_node_is_read_and_listed",
                    "a_service_without_nodes_has_a_revision_to_watch_from",
                    "a_renewed_record_outlives_its_ttl_and_then_expires",
                    "a_ttl_under_the_least_is_refused",
                    "a_deregistered_node_is_gone_at_once",
                    "an_overwritten_record_is_lost_to_its_first_owner",
                    "a_record_that_another_deleted_is_lost_and_can_come_back",
                    "a_late_subscriber_sees_what_it_missed",
                    "updates_come_in_order_each_with_a_revision_of_its_own",
                    "a_record_written_again_is_told_as_it_is_now",
                    "deletions_of_one_moment_are_all_told",
                    "services_whose_names_begin_alike_are_apart",
                    "a_malformed_neighbour_spoils_nothing",
                    "a_revision_yet_to_come_is_told_as_a_gap",
                    "of_two_records_with_one_address_subscribers_see_the_newest_alone",
                ],
            ),
            (
                "no process owns a record in a zone, and none expires",
                &["a_killed_owners_record_expires_and_not_before_its_ttl"],
            ),
            (
                "it has no history that could be forgotten: a watch tells how all stands",
                &["a_gap_in_the_watch_is_told"],
            ),
            (
                "a name without records is an error, which keeps the last good set",
                &["a_service_without_nodes_is_empty"],
            ),
        ]
    }
}

registry_conformance!((flavor = "current_thread") Asked(Dns::start().await));

fn open(dns: &Dns, target: &str) -> Arc<dyn Registry> {
    registry::open(&dns.url(target)).expect("the URL is well-formed")
}

fn subscribe(dns: &Dns, target: &str) -> Subscription {
    Discovery::new(open(dns, target)).subscribe("greeter")
}

async fn addresses(registry: &Arc<dyn Registry>, service: &str) -> Vec<String> {
    let listing = registry.read(service).await.expect("it is resolved");
    listing.entries.iter().map(|entry| entry.node.address.clone()).collect()
}

async fn fails(registry: &Arc<dyn Registry>, service: &str) -> String {
    let error = registry.read(service).await.expect_err("it is not resolved");
    assert!(error.is_registry(), "{error:?}");
    error.to_string()
}

/// The next update in short.
async fn next(updates: &mut Subscription) -> String {
    let update = timeout(SECOND * 20, updates.next()).await.expect("an update comes");
    match update.expect("a subscription is endless") {
        Update::Reset(nodes) => {
            let ids: Vec<_> = nodes.iter().map(|node| node.id.as_str()).collect();
            format!("={}", ids.join(" "))
        }
        Update::Insert(node) => format!("+{}", node.id),
        Update::Remove(id) => format!("-{id}"),
        Update::Forget => "forget".to_owned(),
    }
}

async fn error(updates: &Subscription) -> String {
    let mut status = updates.status();
    let status = timeout(SECOND * 20, status.wait_for(|it| it.error.is_some())).await;
    let status = status.expect("an error comes").expect("the watch goes on");
    status.error.as_deref().expect("there is one").to_owned()
}

#[tokio::test]
async fn the_addresses_of_a_name_are_nodes_of_whatever_service_is_called() {
    let mut dns = Dns::start().await;
    let greeter = ["greeter 60 A 127.0.0.2", "greeter 60 A 127.0.0.3", "greeter 60 AAAA ::1"];
    dns.set(&[&greeter[..], &["alias 60 CNAME greeter"]].concat()).await;
    let registry = open(&dns, "greeter.test:50051");
    let expected = ["127.0.0.2:50051", "127.0.0.3:50051", "[::1]:50051"];
    assert_eq!(addresses(&registry, "greeter").await, expected);
    let listing = registry.read("other").await.unwrap();
    let node = Node::new("other", "127.0.0.2:50051", "127.0.0.2:50051");
    assert_eq!(*listing.entries[0].node, node, "the id is the address");
    let alias = open(&dns, "alias.test:1");
    assert_eq!(addresses(&alias, "greeter").await, ["127.0.0.2:1", "127.0.0.3:1", "[::1]:1"]);
}

#[tokio::test]
async fn with_a_place_for_the_service_there_are_many() {
    let mut dns = Dns::start().await;
    dns.set(&["greeter.ns 60 A 127.0.0.2", "pay.ns 60 A 127.0.0.3"]).await;
    let registry = open(&dns, "{service}.ns.test:1");
    assert_eq!(addresses(&registry, "greeter").await, ["127.0.0.2:1"]);
    assert_eq!(addresses(&registry, "pay").await, ["127.0.0.3:1"]);
    let error = registry.read("team/pay").await.unwrap_err();
    assert!(error.is_config(), "{error:?}");
}

#[tokio::test]
async fn without_a_port_srv_records_have_it() {
    let mut dns = Dns::start().await;
    dns.set(&[
        "_grpc._tcp.greeter 60 SRV 1 10 4001 a",
        "_grpc._tcp.greeter 60 SRV 1 90 4002 a",
        "_grpc._tcp.greeter 60 SRV 1 5 4003 b",
        "_grpc._tcp.greeter 60 SRV 1 5 4004 gone",
        "_grpc._tcp.greeter 60 SRV 2 5 4005 b",
        "_x._tcp.greeter 60 SRV 0 0 4006 b",
        "_grpc._tcp.none 60 SRV 0 0 0 .",
        "a 60 A 127.0.0.2",
        "b 60 A 127.0.0.3",
        "b 60 AAAA ::1",
    ])
    .await;
    let registry = open(&dns, "{service}.test");
    let listing = registry.read("greeter").await.unwrap();
    let nodes =
        listing.entries.iter().map(|it| (it.node.id.as_str(), &*it.node.metadata["weight"]));
    let expected = [
        ("127.0.0.2:4001", "10"),
        ("127.0.0.2:4002", "90"),
        ("127.0.0.3:4003", "5"),
        ("[::1]:4003", "5"),
    ];
    assert_eq!(nodes.collect::<Vec<_>>(), expected, "the lowest priority alone");
    assert_eq!(listing.malformed.len(), 1, "{listing:?}");
    assert_eq!(listing.malformed[0].key, "gone.test.");
    let other = open(&dns, "_x._tcp.{service}.test");
    assert_eq!(addresses(&other, "greeter").await, ["127.0.0.3:4006", "[::1]:4006"]);
    let none = fails(&registry, "none").await;
    assert!(none.ends_with("has no SRV record with a target"), "{none}");
}

#[tokio::test]
async fn two_hundred_addresses_come_over_tcp() {
    let mut dns = Dns::start().await;
    let records: Vec<_> = (1..=200).map(|n| format!("greeter 60 A 127.0.1.{n}")).collect();
    dns.set(&records.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let found = addresses(&open(&dns, "greeter.test:1"), "greeter").await;
    let found: BTreeSet<_> = found.into_iter().collect();
    assert_eq!(found, (1..=200).map(|n| format!("127.0.1.{n}:1")).collect());
    let (_, tcp) = dns.asked().await;
    assert_eq!(tcp, 1, "the answer over UDP was truncated");
}

#[tokio::test]
async fn an_answer_holds_for_its_ttl_and_no_longer() {
    let mut dns = Dns::start().await;
    dns.set(&["greeter 3 A 127.0.0.2"]).await;
    let mut updates = subscribe(&dns, "greeter.test:1");
    assert_eq!(next(&mut updates).await, "=127.0.0.2:1");
    let read = Instant::now();
    let asked = dns.asked().await;
    dns.set(&["greeter 3 A 127.0.0.2", "greeter 3 A 127.0.0.3"]).await;
    assert_eq!(next(&mut updates).await, "+127.0.0.3:1");
    let took = read.elapsed();
    assert!(took >= SECOND * 3 - Duration::from_millis(100), "{took:?}");
    assert!(took <= Duration::from_millis(3300 + 500), "{took:?}");
    assert_eq!(dns.asked().await.0 - asked.0, 2, "A and AAAA once more");
    dns.set(&["greeter 3 A 127.0.0.3"]).await;
    assert_eq!(next(&mut updates).await, "-127.0.0.2:1");
}

#[tokio::test]
async fn whatever_the_ttl_nobody_is_asked_twice_within_a_second() {
    let mut dns = Dns::start().await;
    dns.set(&["greeter 0 A 127.0.0.2"]).await;
    let registry = open(&dns, "greeter.test:1");
    let _updates = subscribe(&dns, "greeter.test:1");
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(3500) {
        addresses(&registry, "greeter").await;
        sleep(Duration::from_millis(20)).await;
    }
    let (asked, most) = (dns.asked().await.0, 2 * (start.elapsed().as_secs() + 1));
    assert!((4..=most).contains(&asked), "{asked} questions");
}

#[tokio::test]
async fn no_negative_answer_and_no_failure_clears_the_set() {
    let mut dns = Dns::start().await;
    let records = ["greeter 1 A 127.0.0.2"];
    dns.set(&records).await;
    let mut updates = subscribe(&dns, "greeter.test:1");
    assert_eq!(next(&mut updates).await, "=127.0.0.2:1");
    for (fault, named) in [
        ("NXDOMAIN", "the name greeter.test does not exist"),
        ("NODATA", "greeter.test has no A record"),
        ("SERVFAIL", "the DNS server answers Server Failure"),
        ("silence", "no answer in time"),
        ("refused", ""),
    ] {
        match fault {
            "NXDOMAIN" => dns.wipe().await,
            "NODATA" => dns.set(&["greeter 1 TXT x"]).await,
            "SERVFAIL" => dns.break_zone().await,
            "silence" => dns.pause(),
            _ => dns.kill(),
        }
        let text = error(&updates).await;
        assert!(text.contains(named), "{fault}: {text}");
        assert!(text.contains("cannot resolve service greeter"), "{fault}: {text}");
        let update = timeout(SECOND * 2, updates.next()).await;
        assert!(update.is_err(), "{fault}: {update:?}");
        dns.set_and_restart(&records).await;
        let mut status = updates.status();
        let healed = status.wait_for(|status| status.error.is_none());
        timeout(SECOND * 10, healed).await.expect("it heals").expect("the watch goes on");
    }
    dns.set(&["greeter 1 A 127.0.0.3"]).await;
    assert_eq!(next(&mut updates).await, "+127.0.0.3:1");
    assert_eq!(next(&mut updates).await, "-127.0.0.2:1");
}

#[tokio::test]
async fn a_server_may_start_after_us() {
    let mut dns = Dns::stopped();
    let registry = open(&dns, "greeter.test:1");
    let mut updates = subscribe(&dns, "greeter.test:1");
    let start = Instant::now();
    fails(&registry, "greeter").await;
    assert!(start.elapsed() < SECOND * 5, "{:?}", start.elapsed());
    dns.set_and_restart(&["greeter 60 A 127.0.0.2"]).await;
    assert_eq!(next(&mut updates).await, "=127.0.0.2:1");
}

#[tokio::test]
async fn a_silent_server_is_given_up_in_time_and_the_next_one_asked() {
    let mut silent = Dns::start().await;
    let mut dns = Dns::start().await;
    for server in [&mut silent, &mut dns] {
        server.set(&["greeter 60 A 127.0.0.2"]).await;
    }
    silent.pause();
    let start = Instant::now();
    let text = fails(&open(&silent, "greeter.test:1"), "greeter").await;
    assert!(start.elapsed() < Duration::from_millis(5500), "{:?}: {text}", start.elapsed());
    let (first, second) = (silent.port(), dns.port());
    let url = format!("dns://127.0.0.1:{first},127.0.0.1:{second}/greeter.test:1");
    let registry = registry::open(&url).unwrap();
    assert_eq!(addresses(&registry, "greeter").await, ["127.0.0.2:1"]);
}

#[tokio::test]
async fn a_watch_ends_with_its_first_error() {
    let mut dns = Dns::start().await;
    dns.set(&["greeter 1 A 127.0.0.2"]).await;
    let mut watching = Watching::from_now(&open(&dns, "greeter.test:1"), "greeter").await;
    dns.wipe().await;
    let ended = watching.next_or_end().await;
    assert!(matches!(ended, Err(WatchError::Disconnected(_))), "{ended:?}");
    assert!(watching.has_ended().await);
}

#[tokio::test]
async fn it_only_reads() {
    let registry = registry::open("dns://greeter.test:1").unwrap();
    let node = Node::new("greeter", "a", "127.0.0.1:1");
    let error = registry.register(&node, SECOND * 15).await.unwrap_err();
    assert!(error.is_unsupported() && error.to_string().contains("dns:// only reads"), "{error}");
    let renewed = registry.renew(&node, Lease(1)).await;
    assert!(matches!(renewed, Err(RenewError::Failed(error)) if error.is_unsupported()));
    assert!(registry.deregister(&node, Lease(1)).await.unwrap_err().is_unsupported());
    assert!(registry.list().await.unwrap_err().is_unsupported());
}

#[tokio::test]
async fn a_lost_connection_asks_again_though_the_ttl_is_long_and_once_a_second_at_most() {
    let mut dns = Dns::start().await;
    let port = ports::free();
    let (first, second) = (format!("127.0.0.2:{port}"), format!("127.0.0.3:{port}"));
    let mut nodes = vec![node(&first).await, node(&second).await];
    dns.set(&["echo 3600 A 127.0.0.2"]).await;
    let url = dns.url(&format!("echo.test:{port}"));
    let client = Client::builder().without_env().registry(&url).build().expect("a client");
    let echo = EchoClient::new("echo", &client);
    let say = async || echo.say(SayRequest { payload: "hi".into() }).await;
    say().await.expect("the first node answers");
    let asked = dns.asked().await.0;

    dns.set(&["echo 3600 A 127.0.0.3"]).await;
    let leaving = nodes.remove(0);
    let start = Instant::now();
    leaving.stop().await.expect("it leaves");
    say().await.expect("the second node is found within the call's deadline");
    let took = start.elapsed();
    assert!(took < SECOND * 4, "{took:?}");
    let asked = dns.asked().await.0 - asked;
    assert!((2..=2 * (took.as_secs() + 2)).contains(&asked), "{asked} questions in {took:?}");
}

#[tokio::test]
async fn no_call_fails_whatever_becomes_of_the_server() {
    let mut dns = Dns::start().await;
    let port = ports::free();
    let records = ["echo 1 A 127.0.0.2", "echo 1 A 127.0.0.3", "echo 1 A 127.0.0.4"];
    let mut nodes = Vec::new();
    for host in 2..=4 {
        nodes.push(node(&format!("127.0.0.{host}:{port}")).await);
    }
    dns.set(&records).await;
    let callers = Callers::start(&dns.url(&format!("echo.test:{port}"))).await;
    sleep(SECOND).await;
    dns.wipe().await;
    sleep(SECOND * 3).await;
    dns.break_zone().await;
    sleep(SECOND * 3).await;
    dns.set_and_restart(&records).await;
    dns.pause();
    sleep(SECOND * 6).await;
    dns.resume();
    dns.kill();
    sleep(SECOND * 3).await;
    // A node leaves while nobody can say so.
    nodes.remove(0).stop().await.expect("it leaves");
    sleep(SECOND).await;
    dns.set_and_restart(&records[1..]).await;
    sleep(SECOND * 4).await;
    nodes.remove(0).stop().await.expect("it leaves");
    dns.set(&records[2..]).await;
    sleep(SECOND * 2).await;
    callers.finish().await;
}

#[test]
fn without_a_server_the_systems_is_asked() {
    let test = "without_a_server_the_systems_is_asked";
    namespace::inside(test, Network::Resolver, async {
        let mut dns = Dns::stopped_on(53);
        dns.set_and_restart(&["greeter 60 A 127.0.0.2"]).await;
        for url in ["dns://greeter.test:1", "dns:///greeter.test:1", "dns://greeter:1"] {
            let registry = registry::open(url).unwrap();
            assert_eq!(addresses(&registry, "greeter").await, ["127.0.0.2:1"], "{url}");
        }
    });
}
