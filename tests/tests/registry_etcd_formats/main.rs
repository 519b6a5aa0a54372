//! `etcd://..?format=..` on a real etcd: the keys and bytes of go-zero, Kratos, Kitex and etcd's own
//! naming library, beside go-micro's.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use etcd_client::{EventType, GetOptions, KeyValue, PutOptions, WatchOptions};
use micro::{
    Client, Service,
    discovery::{Discovery, Subscription, Update},
    registration::{self, Registration, RegistrationState},
    registry::{self, Event, Node, Registry, RenewError},
    testing::registry::Watching,
};
use tests::{
    echo::Echo,
    etcd::{self, Etcd},
    proto::echo::{EchoClient, SayRequest, register_echo_handler},
};
use tokio::time::timeout;
use tokio_stream::StreamExt as _;

mod conformance;

const TTL: Duration = Duration::from_secs(60);

const ALL: &str = "micro,go-zero,kratos,kitex,etcd";

fn url(etcd: &Etcd, formats: &str) -> String {
    format!("{}?format={formats}", etcd.url())
}

fn open(etcd: &Etcd, formats: &str) -> Arc<dyn Registry> {
    registry::open(&url(etcd, formats)).expect("the URL is well-formed")
}

/// All keys of etcd, in their order.
async fn everything(etcd: &Etcd) -> Vec<KeyValue> {
    let all = GetOptions::new().with_all_keys();
    etcd.client().await.get("", Some(all)).await.expect("etcd answers").kvs().to_vec()
}

async fn put(etcd: &Etcd, key: &str, value: &str) {
    etcd.client().await.put(key, value, None).await.expect("etcd answers");
}

/// Key and value of every record that a real peer wrote.
fn vectors() -> Vec<(&'static str, &'static str)> {
    let mut key = "";
    let mut records = Vec::new();
    for line in include_str!("../../vectors/etcd-records.txt").lines() {
        if let Some(rest) = line.strip_prefix("KEY ") {
            key = rest;
        } else if let Some(rest) = line.strip_prefix("VALUE ") {
            records.push((key, rest.split_once(' ').expect("a length goes before").1));
        }
    }
    records
}

async fn next(subscription: &mut Subscription) -> Update {
    let next = timeout(Duration::from_secs(20), subscription.next()).await;
    next.expect("there is news").expect("a subscription does not end")
}

fn ids(update: &Update) -> Vec<&str> {
    match update {
        Update::Reset(nodes) => nodes.iter().map(|node| node.id.as_str()).collect(),
        update => panic!("the first update is a reset: {update:?}"),
    }
}

/// So many events, never seen in part. Debian's etcd 3.4.23 alone says at times that all watchers have come
/// to a revision of which it has something left to send (etcd-io/etcd#15220, mended in 3.4.25 and 3.5.8).
async fn assert_one_batch(watching: &mut Watching, events: usize) {
    let mut batch = watching.next().await;
    while etcd::version() == "3.4" && batch.events.len() < events {
        let rest = watching.next().await;
        assert_eq!(rest.revision, batch.revision, "{batch:?} {rest:?}");
        batch.events.extend(rest.events);
    }
    assert_eq!(batch.events.len(), events, "{batch:?}");
}

#[tokio::test]
async fn a_node_is_written_as_each_peer_writes_it_and_goes_from_everywhere_at_once() {
    let etcd = Etcd::start().await;
    let registry = open(&etcd, ALL);
    let mut node = Node::new("greeter", "greeter-1", "10.0.3.7:9000");
    node.version = "v1.0.0".to_owned();
    node.metadata.insert("zone".to_owned(), "a".to_owned());
    let lease = registry.register(&node, TTL).await.unwrap();
    let found = everything(&etcd).await;
    let go_zero = format!("greeter/{}", lease.0);
    let mut expected = BTreeMap::from([
        (
            "/micro/registry/greeter/greeter-1",
            concat!(
                r#"{"name":"greeter","version":"v1.0.0","metadata":null,"endpoints":[],"nodes":["#,
                r#"{"metadata":{"protocol":"grpc","server":"grpc","transport":"grpc","zone":"a"},"#,
                r#""id":"greeter-1","address":"10.0.3.7:9000"}]}"#
            ),
        ),
        (go_zero.as_str(), "10.0.3.7:9000"),
        (
            "/microservices/greeter/greeter-1",
            concat!(
                r#"{"id":"greeter-1","name":"greeter","version":"v1.0.0","#,
                r#""metadata":{"zone":"a"},"endpoints":["grpc://10.0.3.7:9000"]}"#
            ),
        ),
        (
            "kitex/registry-etcd/greeter/10.0.3.7:9000",
            r#"{"network":"tcp","address":"10.0.3.7:9000","weight":10,"tags":{"zone":"a"}}"#,
        ),
        ("greeter/greeter-1", r#"{"Op":0,"Addr":"10.0.3.7:9000","Metadata":{"zone":"a"}}"#),
    ]);
    let revision = found[0].mod_revision();
    for kv in &found {
        let key = kv.key_str().unwrap();
        assert_eq!(expected.remove(key), Some(kv.value_str().unwrap()), "{key}");
        assert_eq!(kv.lease(), lease.0, "{key} must not outlive its node");
        assert_eq!(kv.mod_revision(), revision, "{key}: never seen in part");
    }
    assert!(expected.is_empty(), "{expected:?}");

    registry.renew(&node, lease).await.expect("all of it stands");
    let mut watching = Watching::from_now(&registry, "greeter").await;
    registry.deregister(&node, lease).await.unwrap();
    assert!(everything(&etcd).await.is_empty());
    assert_one_batch(&mut watching, 5).await;
}

#[tokio::test]
async fn what_real_peers_wrote_is_found_and_called() {
    let etcd = Etcd::start().await;
    let mut service = Service::builder("echo").registry("memory://formats").build().await.unwrap();
    register_echo_handler(service.server(), Echo);
    let server = service.start().await.unwrap();
    for (format, root, service, addresses) in [
        ("go-zero", "echo.rpc/", "echo.rpc", &["127.0.0.1:7811"][..]),
        (
            "kratos",
            "/microservices/helloworld/",
            "helloworld",
            &["127.0.0.1:7821", "127.0.0.1:7822"],
        ),
        ("kratos", "/microservices/team/pay/", "team/pay", &["192.0.2.2:7823"]),
        ("kitex", "kitex/registry-etcd/echo/", "echo", &["127.0.0.1:7831", "127.0.0.1:7832"]),
        ("etcd", "grpcgo/echo/", "grpcgo/echo", &["127.0.0.1:7801", "127.0.0.1:7802"]),
    ] {
        let records: Vec<_> =
            vectors().into_iter().filter(|(key, _)| key.starts_with(root)).collect();
        assert_eq!(records.len(), addresses.len(), "{root}");
        for (key, value) in &records {
            put(&etcd, key, value).await;
        }
        let registry = open(&etcd, format);
        let listing = registry.read(service).await.unwrap();
        let mut found: Vec<_> =
            listing.entries.iter().map(|entry| entry.node.address.as_str()).collect();
        found.sort_unstable();
        assert_eq!((found.as_slice(), listing.malformed.as_slice()), (addresses, &[][..]));
        assert!(listing.entries.iter().all(|entry| entry.node.is_grpc()));

        // The same with a server behind every address.
        let mut client = etcd.client().await;
        for (key, value) in records {
            client.delete(key, None).await.unwrap();
            let there = |text: &str| {
                let replace = |text: String, from: &&str| text.replace(from, server.address());
                addresses.iter().fold(text.to_owned(), replace)
            };
            put(&etcd, &there(key), &there(value)).await;
        }
        let client = Client::builder().registry(url(&etcd, format)).build().unwrap();
        let call = EchoClient::new(service, &client).say(SayRequest { payload: "a".into() });
        let reply = call.await.unwrap_or_else(|status| panic!("{format}: {status}"));
        assert_eq!(&reply.get_ref().payload[..], b"a");
    }
    server.stop().await.unwrap();
}

/// What `NewEtcdRegistryWithAuth` of Kitex writes: it leaves the prefix out.
#[tokio::test]
async fn kitex_nodes_with_a_password_are_found_beside_those_without() {
    let etcd = Etcd::start().await;
    put(&etcd, "/echo/127.0.0.1:7833", &kitex_record("127.0.0.1:7833")).await;
    put(&etcd, "kitex/registry-etcd/echo/127.0.0.1:7834", &kitex_record("127.0.0.1:7834")).await;
    put(&etcd, "/echo/deeper/127.0.0.1:7835", "malformed, and of no service of Kitex's").await;
    put(&etcd, "/echo/127.0.0.1:7836", "malformed").await;
    let registry = open(&etcd, "kitex");
    let listing = registry.read("echo").await.unwrap();
    let mut found: Vec<_> = listing.entries.iter().map(|it| it.node.address.as_str()).collect();
    found.sort_unstable();
    assert_eq!(found, ["127.0.0.1:7833", "127.0.0.1:7834"]);
    let malformed: Vec<_> = listing.malformed.iter().map(|it| it.key.as_str()).collect();
    assert_eq!(malformed, ["/echo/127.0.0.1:7836"]);

    let mut watching = Watching::from_now(&registry, "echo").await;
    put(&etcd, "/echo/127.0.0.1:7837", &kitex_record("127.0.0.1:7837")).await;
    assert_eq!(watching.events(1).await, ["+127.0.0.1:7837@127.0.0.1:7837"]);
    etcd.client().await.delete("/echo/127.0.0.1:7837", None).await.unwrap();
    assert_eq!(watching.next().await.events.len(), 1);

    // Where others have all of their keys, no service of that name is looked for.
    let node = Node::new("micro", "micro-1", "127.0.0.1:1");
    let registry = open(&etcd, "kitex,micro");
    let mut watching = Watching::from_now(&registry, "micro").await;
    registry.register(&node, TTL).await.unwrap();
    assert_one_batch(&mut watching, 2).await;
    assert_eq!(registry.read("micro").await.unwrap().entries.len(), 2);
}

fn kitex_record(address: &str) -> String {
    format!(r#"{{"network":"tcp","address":"{address}","weight":10,"tags":{{"zone":"a"}}}}"#)
}

#[tokio::test]
async fn a_node_in_several_formats_is_one_node_to_a_client() {
    let etcd = Etcd::start().await;
    let builder = Service::builder("echo").registry(url(&etcd, ALL)).metadata("weight", "7");
    let mut service = builder.build().await.unwrap();
    register_echo_handler(service.server(), Echo);
    let node = service.start().await.unwrap();
    let mut registration = node.registration();
    registration.wait_for(|state| *state == RegistrationState::Registered).await.unwrap();
    assert_eq!(everything(&etcd).await.len(), 5);
    let escaped = node.id().replace('/', "-");
    for (formats, id, has_endpoints) in [
        (ALL, node.id(), true),
        ("kratos,micro", node.id(), false),
        ("kitex,micro,go-zero", node.address(), false),
        ("etcd,go-zero", escaped.as_str(), false),
        ("micro", node.id(), true),
        ("kratos", node.id(), false),
        ("kitex", node.address(), false),
        ("etcd", escaped.as_str(), false),
    ] {
        let client = Client::builder().registry(url(&etcd, formats)).build().unwrap();
        let mut subscription = client.discovery().subscribe("echo");
        let Update::Reset(nodes) = next(&mut subscription).await else { panic!("a reset") };
        let [found] = &nodes[..] else { panic!("{formats}: one node, not {nodes:?}") };
        assert_eq!((found.id.as_str(), found.address.as_str()), (id, node.address()), "{formats}");
        assert_eq!(!found.endpoints.is_empty(), has_endpoints, "{formats}");
        assert_eq!(found.metadata["weight"], "7", "{formats}");
        // go-zero's and etcd's records share their keys: each is the other's trouble if read alone.
        let malformed = subscription.status().borrow().malformed;
        let is_alone = formats.contains("go-zero") != formats.contains("etcd");
        assert_eq!(malformed, usize::from(is_alone), "{formats}");
        let echo = EchoClient::new("echo", &client);
        echo.say(SayRequest::default()).await.unwrap_or_else(|error| panic!("{formats}: {error}"));
    }
    node.stop().await.unwrap();
    assert!(everything(&etcd).await.is_empty());
}

#[tokio::test]
async fn a_key_deleted_in_any_format_is_back_at_the_next_renewal_and_no_client_loses_the_node() {
    let etcd = Etcd::start().await;
    let registry = open(&etcd, ALL);
    let node = Node::new("greeter", "greeter-1", "127.0.0.1:1");
    let mut subscription = Discovery::new(registry.clone()).subscribe("greeter");
    assert_eq!(next(&mut subscription).await, Update::Reset(vec![]));
    let options = registration::Options { interval: TTL / 300, ..registration::Options::new(TTL) };
    let registration = Registration::start(registry.clone(), node.clone(), options);
    assert_eq!(next(&mut subscription).await, Update::Insert(Arc::new(node.clone())));
    for root in ["/microservices/", "kitex/", "greeter/greeter-1", "greeter/", "/micro/"] {
        // Five keys of one lease: those of the former one are given back.
        let keys = async {
            loop {
                let keys = everything(&etcd).await;
                let is_whole = keys.iter().all(|kv| kv.lease() == keys[0].lease());
                if keys.len() == 5 && is_whole {
                    break keys;
                }
                tokio::task::yield_now().await;
            }
        };
        let keys = timeout(Duration::from_secs(20), keys).await.expect("it is in every format");
        let key = keys.iter().map(|kv| kv.key_str().unwrap()).find(|key| key.starts_with(root));
        etcd.client().await.delete(key.expect("it is there"), None).await.unwrap();
        // Written anew in all formats, which is told once, and never as gone.
        let again = Update::Insert(Arc::new(node.clone()));
        if root == "/micro/" {
            // Meanwhile it is known as the next format has it.
            let next_id = keys[0].lease().to_string();
            let update = next(&mut subscription).await;
            assert!(matches!(&update, Update::Insert(it) if it.id == next_id), "{update:?}");
            assert_eq!(next(&mut subscription).await, Update::Remove("greeter-1".into()));
            assert_eq!(next(&mut subscription).await, again);
            assert_eq!(next(&mut subscription).await, Update::Remove(next_id.into()));
        } else {
            assert_eq!(next(&mut subscription).await, again, "{root}");
        }
    }
    registration.leave().await;
    assert_eq!(next(&mut subscription).await, Update::Remove("greeter-1".into()));
    assert!(everything(&etcd).await.is_empty());
}

#[tokio::test]
async fn a_record_overwritten_in_any_format_is_taken() {
    let etcd = Etcd::start().await;
    let registry = open(&etcd, ALL);
    let node = Node::new("greeter", "greeter-1", "127.0.0.1:1");
    for (root, value, named) in [
        (
            "/microservices/",
            r#"{"id":"greeter-1","name":"greeter","endpoints":["grpc://h:2"]}"#,
            "by a node at h:2",
        ),
        ("kitex/", "{}", "kitex/registry-etcd/greeter/127.0.0.1:1 was overwritten with what is no"),
        ("greeter/greeter-1", r#"{"Op":0,"Addr":"h:3"}"#, "by a node at h:3"),
    ] {
        let lease = registry.register(&node, TTL).await.unwrap();
        let keys = everything(&etcd).await;
        let key = keys.iter().map(|kv| kv.key_str().unwrap()).find(|key| key.starts_with(root));
        put(&etcd, key.unwrap(), value).await;
        let renewed = registry.renew(&node, lease).await;
        assert!(
            matches!(&renewed, Err(RenewError::Taken(why)) if why.contains(named)),
            "{renewed:?}"
        );
        // The other's record stays when ours go.
        registry.deregister(&node, lease).await.unwrap();
        let left = everything(&etcd).await;
        assert_eq!(left.len(), 1, "{left:?}");
        assert_eq!(left[0].value_str().unwrap(), value);
        etcd.client().await.delete(left[0].key(), None).await.unwrap();
    }
}

#[tokio::test]
async fn a_node_started_again_on_its_port_takes_the_place_of_what_it_left() {
    let etcd = Etcd::start().await;
    let registry = open(&etcd, ALL);
    let killed = Node::new("greeter", "greeter-old", "127.0.0.1:1");
    let lease = registry.register(&killed, TTL).await.unwrap();
    let mut subscription = Discovery::new(registry.clone()).subscribe("greeter");
    assert_eq!(ids(&next(&mut subscription).await), ["greeter-old"]);
    let node = Node::new("greeter", "greeter-new", "127.0.0.1:1");
    registry.register(&node, TTL).await.unwrap();
    assert_eq!(next(&mut subscription).await, Update::Insert(Arc::new(node.clone())));
    assert_eq!(next(&mut subscription).await, Update::Remove("greeter-old".into()));
    // What was left goes with its lease, and is no news; the next is.
    etcd.client().await.lease_client().revoke(lease.0).await.unwrap();
    let other = Node::new("greeter", "greeter-other", "127.0.0.1:2");
    registry.register(&other, TTL).await.unwrap();
    assert_eq!(next(&mut subscription).await, Update::Insert(Arc::new(other)));
}

#[tokio::test]
async fn records_that_share_a_prefix_are_told_apart_by_what_they_are() {
    let etcd = Etcd::start().await;
    put(&etcd, "user.rpc/7587870460981677828", "10.0.3.7:8080").await;
    put(&etcd, "user.rpc/my-service-1", r#"  {"Op":0,"Addr":"10.0.3.8:9000"}"#).await;
    put(&etcd, "user.rpc/neither", "10.0.3.8").await;
    put(&etcd, "user.rpc/", "10.0.3.9:1").await;
    put(&etcd, "user.rpc/deeper/7587870460981677829", "10.0.3.10:1").await;
    for (formats, nodes, malformed) in [
        ("go-zero,etcd", vec![("7587870460981677828", 0), ("my-service-1", 1)], 2),
        ("etcd,kitex,go-zero", vec![("7587870460981677828", 2), ("my-service-1", 0)], 2),
        ("go-zero", vec![("7587870460981677828", 0)], 3),
        ("etcd", vec![("my-service-1", 0)], 3),
    ] {
        let listing = open(&etcd, formats).read("user.rpc").await.unwrap();
        let found: Vec<_> =
            listing.entries.iter().map(|entry| (entry.node.id.as_str(), entry.rank)).collect();
        assert_eq!(found, nodes, "{formats}");
        assert_eq!(listing.malformed.len(), malformed, "{formats}: {listing:?}");
    }
}

#[tokio::test]
async fn names_with_a_slash_are_apart_and_kitex_refuses_them() {
    let etcd = Etcd::start().await;
    let without = open(&etcd, "micro,go-zero,kratos,etcd");
    for (service, port) in [("team", 1), ("team/pay", 2), ("team/pay/now", 3)] {
        let node = Node::new(service, format!("{service}-1"), format!("127.0.0.1:{port}"));
        without.register(&node, TTL).await.unwrap();
    }
    put(&etcd, "/microservices/team/pay/later/1", "malformed, and of no service above").await;
    for registry in [without, open(&etcd, ALL)] {
        for (service, port) in [("team", 1), ("team/pay", 2), ("team/pay/now", 3)] {
            let listing = registry.read(service).await.unwrap();
            let address = format!("127.0.0.1:{port}");
            assert_eq!(listing.entries.len(), 4, "{service}: {listing:?}");
            assert!(listing.entries.iter().all(|entry| entry.node.address == address));
            assert!(listing.malformed.is_empty(), "{service}: {listing:?}");
        }
    }
    let service = Service::builder("team/pay").registry(url(&etcd, ALL)).build().await.unwrap();
    let error = service.start().await.unwrap_err();
    assert!(error.is_config() && error.to_string().contains("leave `kitex` out"), "{error:?}");
    let error = open(&etcd, "kitex").read("team/pay").await.unwrap_err();
    assert!(error.is_config(), "{error:?}");
}

#[tokio::test]
async fn services_are_listed_over_all_formats_that_have_a_root() {
    let etcd = Etcd::start().await;
    for (key, value) in vectors() {
        put(&etcd, key, value).await;
    }
    put(&etcd, "/microservices/x/1", "malformed").await;
    put(&etcd, "kitex/registry-etcd/x", "{}").await;
    for (formats, services) in [
        ("kratos", &["helloworld", "team/pay"][..]),
        ("kitex", &["echo"]),
        ("kitex,go-zero,etcd,kratos", &["echo", "helloworld", "team/pay"]),
        ("go-zero,etcd", &[]),
    ] {
        assert_eq!(open(&etcd, formats).list().await.unwrap(), services, "{formats}");
    }
    let all = open(&etcd, ALL).list().await.unwrap();
    assert!(all.is_sorted() && all.contains(&"echo.v1.Echo".to_owned()), "{all:?}");
    assert_eq!(all.len(), 10);
}

#[tokio::test]
async fn a_kratos_node_without_grpc_is_none_of_ours_and_not_malformed() {
    let etcd = Etcd::start().await;
    let key = "/microservices/web/1";
    put(&etcd, key, r#"{"id":"1","name":"web","endpoints":["http://127.0.0.1:1"]}"#).await;
    let mut subscription = Discovery::new(open(&etcd, "kratos")).subscribe("web");
    assert_eq!(next(&mut subscription).await, Update::Reset(vec![]));
    let status = subscription.status().borrow().clone();
    assert_eq!((status.not_grpc, status.malformed), (1, 0));
}

/// While a watch catches up with what was written before it, and others write on.
#[tokio::test]
async fn what_is_written_in_several_formats_is_told_in_the_order_of_its_revisions() {
    const WRITES: usize = 3000;
    let etcd = Etcd::start().await;
    let registry = open(&etcd, ALL);
    let mut client = etcd.client().await;
    let begin = client.get("x", None).await.unwrap().header().unwrap().revision();
    let writer = tokio::spawn(async move {
        for n in 0..WRITES {
            let address = format!("127.0.0.1:{}", 1 + n % 7);
            let (key, value) = match n % 11 {
                0..2 => (format!("busy/{n}"), address),
                2 => (format!("busy/a-{n}"), format!(r#"{{"Op":0,"Addr":"{address}"}}"#)),
                // Runs of one format, between which the others fall behind.
                3..9 => (
                    format!("kitex/registry-etcd/busy/{address}"),
                    format!(r#"{{"address":"{address}"}}"#),
                ),
                _ => (
                    format!("/microservices/busy/{n}"),
                    format!(r#"{{"id":"{n}","name":"busy","endpoints":["grpc://{address}"]}}"#),
                ),
            };
            client.put(key, value, None).await.expect("etcd answers");
        }
    });
    for start in 0..4 {
        // The first is there before the first write, the others come in the midst of them.
        let first = u64::try_from(begin).unwrap();
        let mut watching = Watching::after_revision(&registry, "busy", first);
        let mut told = 0;
        while told < WRITES * (start + 1) / 4 {
            let batch = watching.next().await;
            let [Event::Put(entry)] = &batch.events[..] else { panic!("one write: {batch:?}") };
            told += 1;
            assert_eq!(
                (entry.revision, batch.revision),
                (first + told as u64, first + told as u64)
            );
        }
    }
    writer.await.unwrap();
}

#[tokio::test]
async fn a_watch_in_all_formats_is_five_watches_on_the_one_connection() {
    let etcd = Etcd::start().await;
    let mut kept = Vec::new();
    for n in 1..=5 {
        let registry = open(&etcd, ALL);
        let node = Node::new("shared", format!("shared-{n}"), format!("127.0.0.1:{n}"));
        let lease = registry.register(&node, TTL).await.unwrap();
        registry.renew(&node, lease).await.unwrap();
        let mut subscription = Discovery::new(registry).subscribe("shared");
        next(&mut subscription).await;
        kept.push(subscription);
    }
    // A change that has been told has come by the watch.
    open(&etcd, ALL).register(&Node::new("shared", "last", "127.0.0.1:9"), TTL).await.unwrap();
    while next(&mut kept[0]).await
        != Update::Insert(Arc::new(Node::new("shared", "last", "127.0.0.1:9")))
    {}
    assert_eq!((etcd.connections(), etcd.watches().await), (1, 5));
}

/// A change told by etcd itself is told by a watch of ours within moments, though it waits for what
/// etcd says of the watchers beside.
#[tokio::test]
async fn a_change_waits_no_longer_for_the_formats_without_one() {
    let etcd = Etcd::start().await;
    let registry = open(&etcd, ALL);
    let mut watching = Watching::from_now(&registry, "prompt").await;
    let mut bare = etcd.client().await;
    let prefix = WatchOptions::new().with_prefix();
    let mut stream = bare.watch("kitex/", Some(prefix)).await.unwrap();
    assert!(stream.message().await.unwrap().unwrap().created());
    let mut late = Duration::ZERO;
    for n in 1..=20 {
        let address = format!("127.0.0.1:{n}");
        let value = format!(r#"{{"address":"{address}"}}"#);
        put(&etcd, &format!("kitex/registry-etcd/prompt/{address}"), &value).await;
        let response = stream.message().await.unwrap().unwrap();
        assert_eq!(response.events()[0].event_type(), EventType::Put);
        let told = tokio::time::Instant::now();
        assert_eq!(watching.events(1).await, [format!("+{address}@{address}")]);
        late += told.elapsed();
    }
    // A tenth of a second each is what asking a second time would take.
    assert!(late / 20 < Duration::from_millis(50), "{:?} each", late / 20);
}

#[tokio::test]
async fn a_lease_that_another_holds_on_a_key_of_ours_is_not_ours() {
    let etcd = Etcd::start().await;
    let registry = open(&etcd, "go-zero,kratos");
    let node = Node::new("greeter", "greeter-1", "127.0.0.1:1");
    let lease = registry.register(&node, TTL).await.unwrap();
    let mut client = etcd.client().await;
    let other = client.lease_client().grant(60, None).await.unwrap().id();
    let key = "/microservices/greeter/greeter-1";
    let value = client.get(key, None).await.unwrap().kvs()[0].value().to_vec();
    client.put(key, value, Some(PutOptions::new().with_lease(other))).await.unwrap();
    let renewed = registry.renew(&node, lease).await;
    assert!(matches!(&renewed, Err(RenewError::Taken(_))), "{renewed:?}");
    registry.deregister(&node, lease).await.unwrap();
    let left = everything(&etcd).await;
    assert_eq!((left.len(), left[0].lease()), (1, other), "the other's is left alone");
}
