//! The cases.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use tokio::time::{Instant, sleep, timeout};

use super::{Backend, Cannot, Watching};
use crate::{
    discovery::{Discovery, Subscription, Update},
    registry::{Endpoint, Listing, Node, Registry, RenewError, Value, WatchError},
};

type Done = Result<(), Cannot>;

/// Long enough that no record expires in the midst of a case.
const LONG: Duration = Duration::from_secs(60);

/// Short enough to wait for, and no less than a real etcd grants (its election timeout of 1 s,
/// half again, in whole seconds).
const SHORT: Duration = Duration::from_secs(2);

fn node(service: &str, id: &str, port: u16) -> Node {
    Node::new(service, id, format!("127.0.0.1:{port}"))
}

async fn read(registry: &Arc<dyn Registry>, service: &str) -> Listing {
    registry.read(service).await.unwrap_or_else(|error| panic!("read {service}: {error:?}"))
}

fn ids(listing: &Listing) -> Vec<&str> {
    let mut ids: Vec<_> = listing.entries.iter().map(|entry| entry.node.id.as_str()).collect();
    ids.sort_unstable();
    ids
}

fn is_lost(renewed: &Result<(), RenewError>) -> bool {
    matches!(renewed, Err(RenewError::Lost(_)))
}

/// Whether it says who has written over it.
fn is_taken(renewed: &Result<(), RenewError>, by: &str) -> bool {
    matches!(renewed, Err(RenewError::Taken(why)) if why.contains(by))
}

/// The changes as they were told; in an order of ours where the backend tells several at once, as
/// one state.
fn ordered(backend: &impl Backend, mut told: Vec<String>) -> Vec<String> {
    if !backend.tells_every_change() {
        told.sort();
    }
    told
}

/// Everything in a record comes back as it was written.
pub async fn a_registered_node_is_read_and_listed(backend: &impl Backend) -> Done {
    let registry = backend.registry();
    let message = |name: &str| {
        let field = |name: &str| Value { name: name.into(), kind: "string".into(), values: vec![] };
        Some(Value { name: name.into(), kind: name.into(), values: vec![field("a"), field("b")] })
    };
    let mut first = node("conf.read", "conf.read-1", 1);
    first.version = "1.2.3".to_owned();
    first.metadata.insert("zone".to_owned(), "<a> & \"b\" \u{e9}".to_owned());
    first.endpoints = vec![
        Endpoint {
            name: "Greeter.Hello".to_owned(),
            request: message("HelloRequest"),
            response: message("HelloReply"),
            metadata: [("path".to_owned(), "/v1/hello".to_owned())].into(),
        },
        Endpoint { name: "Greeter.Bye".to_owned(), ..Endpoint::default() },
    ];
    let second = node("conf.read", "conf.read-2", 2);
    backend.register(&first, LONG).await?;
    backend.register(&second, LONG).await?;
    backend.register(&node("conf.other", "conf.other-1", 3), LONG).await?;

    let listing = read(&registry, "conf.read").await;
    assert_eq!(ids(&listing), ["conf.read-1", "conf.read-2"]);
    assert!(listing.malformed.is_empty(), "{listing:?}");
    for (entry, written) in listing.entries.iter().zip([&first, &second]) {
        assert_eq!(*entry.node, *written);
        assert!(entry.revision > 0 && entry.revision <= listing.revision, "{entry:?}");
    }
    assert_ne!(listing.entries[0].key, listing.entries[1].key);
    let services = registry.list().await.expect("the services are listed");
    assert!(services.is_sorted(), "{services:?}");
    for name in ["conf.read", "conf.other"] {
        assert_eq!(services.iter().filter(|service| *service == name).count(), 1, "{services:?}");
    }
    Ok(())
}

/// It is no error.
pub async fn a_service_without_nodes_is_empty(backend: &impl Backend) -> Done {
    let listing = backend.read_empty("conf.empty").await?;
    assert!(listing.entries.is_empty() && listing.malformed.is_empty(), "{listing:?}");
    Ok(())
}

/// From there its first node is seen.
pub async fn a_service_without_nodes_has_a_revision_to_watch_from(backend: &impl Backend) -> Done {
    let registry = backend.registry();
    let listing = backend.read_empty("conf.nobody").await?;
    let mut watching = Watching::after(&registry, "conf.nobody", &listing);
    backend.register(&node("conf.nobody", "conf.nobody-1", 1), LONG).await?;
    assert_eq!(watching.events(1).await, ["+conf.nobody-1@127.0.0.1:1"]);
    Ok(())
}

/// The TTL counts from the last renewal; what nobody renews goes, and is told as gone.
pub async fn a_renewed_record_outlives_its_ttl_and_then_expires(backend: &impl Backend) -> Done {
    let registry = backend.registry();
    let node = node("conf.expiry", "conf.expiry-1", 1);
    let lease = backend.register(&node, SHORT).await?;
    let mut watching = Watching::from_now(&registry, "conf.expiry").await;
    for _ in 0..8 {
        sleep(SHORT / 4).await;
        registry.renew(&node, lease).await.expect("the record stands");
    }
    assert_eq!(ids(&read(&registry, "conf.expiry").await), ["conf.expiry-1"]);
    assert_eq!(watching.events(1).await, ["-conf.expiry-1"]);
    assert!(read(&registry, "conf.expiry").await.entries.is_empty());
    let renewed = registry.renew(&node, lease).await;
    assert!(is_lost(&renewed), "{renewed:?}");
    Ok(())
}

/// It is there while its owner renews it, and told as gone once the TTL is over.
pub async fn a_killed_owners_record_expires_and_not_before_its_ttl(backend: &impl Backend) -> Done {
    let registry = backend.registry();
    let ttl = Duration::from_secs(3);
    let owner = backend.own(&node("conf.owned", "conf.owned-1", 1), ttl).await?;
    let mut watching = Watching::from_now(&registry, "conf.owned").await;
    sleep(ttl * 2).await;
    assert_eq!(ids(&read(&registry, "conf.owned").await), ["conf.owned-1"], "its owner renews it");
    owner.kill();
    let killed = Instant::now();
    assert_eq!(watching.events(1).await, ["-conf.owned-1"]);
    let took = killed.elapsed();
    // Renewed up to a third of the TTL earlier; etcd looks for expired leases every half second.
    assert!(took >= ttl * 2 / 3 - Duration::from_millis(200), "{took:?}");
    assert!(took <= ttl + Duration::from_secs(2), "{took:?}");
    assert!(read(&registry, "conf.owned").await.entries.is_empty());
    Ok(())
}

/// With a word that says what is the least.
pub async fn a_ttl_under_the_least_is_refused(backend: &impl Backend) -> Done {
    let registry = backend.registry();
    backend.register(&node("conf.ttl", "conf.ttl-1", 1), LONG).await?;
    let ttl = registry.min_ttl() - Duration::from_nanos(1);
    let error = registry.register(&node("conf.ttl", "conf.ttl-2", 2), ttl).await;
    let error = error.expect_err("a TTL under the least is refused");
    assert!(error.is_config() && error.to_string().contains("under"), "{error:?}");
    assert_eq!(ids(&read(&registry, "conf.ttl").await), ["conf.ttl-1"]);
    Ok(())
}

/// And a second time is no error.
pub async fn a_deregistered_node_is_gone_at_once(backend: &impl Backend) -> Done {
    let registry = backend.registry();
    let node = node("conf.leave", "conf.leave-1", 1);
    let lease = backend.register(&node, LONG).await?;
    let mut watching = Watching::from_now(&registry, "conf.leave").await;
    registry.deregister(&node, lease).await.expect("the node leaves");
    assert!(read(&registry, "conf.leave").await.entries.is_empty());
    assert_eq!(watching.events(1).await, ["-conf.leave-1"]);
    assert!(is_lost(&registry.renew(&node, lease).await));
    registry.deregister(&node, lease).await.expect("a node that is gone may leave again");
    Ok(())
}

/// Neither its leaving nor its expiry touches what another wrote over it.
pub async fn an_overwritten_record_is_lost_to_its_first_owner(backend: &impl Backend) -> Done {
    let registry = backend.registry();
    let first = node("conf.twice", "conf.twice-1", 1);
    let second = node("conf.twice", "conf.twice-1", 2);
    let first_lease = backend.register(&first, SHORT).await?;
    let second_lease = backend.register(&second, LONG).await?;
    let renewed = registry.renew(&first, first_lease).await;
    assert!(is_taken(&renewed, &second.address), "{renewed:?}");
    let renewed = registry.renew(&first, second_lease).await;
    assert!(
        is_taken(&renewed, &second.address),
        "another's lease does not make the record ours: {renewed:?}"
    );
    registry.deregister(&first, first_lease).await.expect("the first owner leaves");
    sleep(SHORT * 2).await;
    let listing = read(&registry, "conf.twice").await;
    assert_eq!(listing.entries.len(), 1);
    assert_eq!(*listing.entries[0].node, second);
    registry.renew(&second, second_lease).await.expect("the record stands");
    Ok(())
}

/// A renewal finds it out, although the lease lives.
pub async fn a_record_that_another_deleted_is_lost_and_can_come_back(
    backend: &impl Backend,
) -> Done {
    let registry = backend.registry();
    let node = node("conf.deleted", "conf.deleted-1", 1);
    let lease = backend.register(&node, LONG).await?;
    registry.renew(&node, lease).await.expect("the record stands");
    backend.delete(std::slice::from_ref(&node)).await?;
    let renewed = registry.renew(&node, lease).await;
    assert!(is_lost(&renewed), "{renewed:?}");
    let lease = backend.register(&node, LONG).await?;
    registry.renew(&node, lease).await.expect("the record stands again");
    assert_eq!(ids(&read(&registry, "conf.deleted").await), ["conf.deleted-1"]);
    Ok(())
}

/// However late it comes, and however many come.
pub async fn a_late_subscriber_sees_what_it_missed(backend: &impl Backend) -> Done {
    let registry = backend.registry();
    let first = backend.register(&node("conf.late", "conf.late-1", 1), LONG).await?;
    let then = read(&registry, "conf.late").await;
    assert_eq!(ids(&then), ["conf.late-1"]);
    backend.register(&node("conf.late", "conf.late-2", 2), LONG).await?;
    registry.deregister(&node("conf.late", "conf.late-1", 1), first).await.expect("it leaves");
    let missed = ["+conf.late-2@127.0.0.1:2", "-conf.late-1"].map(str::to_owned);
    for _ in 0..2 {
        let mut watching = Watching::after(&registry, "conf.late", &then);
        assert_eq!(ordered(backend, watching.events(2).await), ordered(backend, missed.to_vec()));
    }
    let mut watching = Watching::from_now(&registry, "conf.late").await;
    backend.register(&node("conf.late", "conf.late-3", 3), LONG).await?;
    assert_eq!(watching.events(1).await, ["+conf.late-3@127.0.0.1:3"], "and nothing earlier");
    Ok(())
}

/// go-micro's watchers take the first change of a revision and no other. Where a watch does not tell
/// every change, each is made once the one before was told.
pub async fn updates_come_in_order_each_with_a_revision_of_its_own(backend: &impl Backend) -> Done {
    let registry = backend.registry();
    let before = backend.read_empty("conf.order").await?;
    let mut watching = Watching::after(&registry, "conf.order", &before);
    let mut expected = Vec::new();
    let mut seen = Vec::new();
    let mut revision = 0;
    let mut see = async |expected: &[String]| {
        while seen.len() < expected.len() {
            let batch = watching.next().await;
            assert_eq!(batch.events.len(), 1, "{batch:?}");
            assert!(batch.revision > revision, "{batch:?} after {revision}");
            revision = batch.revision;
            seen.push(super::told(&batch.events[0]));
        }
        assert_eq!(seen, expected);
    };
    for port in 1..=20 {
        let node = node("conf.order", &format!("conf.order-{}", port % 7), port);
        let lease = backend.register(&node, LONG).await?;
        expected.push(format!("+{}@{}", node.id, node.address));
        if !backend.tells_every_change() {
            see(&expected).await;
        }
        if port % 3 == 0 {
            registry.deregister(&node, lease).await.expect("the node leaves");
            expected.push(format!("-{}", node.id));
            if !backend.tells_every_change() {
                see(&expected).await;
            }
        }
    }
    see(&expected).await;
    Ok(())
}

/// One change, with the same key and a higher revision.
pub async fn a_record_written_again_is_told_as_it_is_now(backend: &impl Backend) -> Done {
    let registry = backend.registry();
    backend.register(&node("conf.again", "conf.again-1", 1), LONG).await?;
    let before = read(&registry, "conf.again").await;
    let mut watching = Watching::after(&registry, "conf.again", &before);
    backend.register(&node("conf.again", "conf.again-1", 2), LONG).await?;
    assert_eq!(watching.events(1).await, ["+conf.again-1@127.0.0.1:2"]);
    let after = read(&registry, "conf.again").await;
    assert_eq!(after.entries.len(), 1);
    assert_eq!(after.entries[0].key, before.entries[0].key);
    assert!(after.entries[0].revision > before.entries[0].revision);
    Ok(())
}

/// Whether in one revision or in several.
pub async fn deletions_of_one_moment_are_all_told(backend: &impl Backend) -> Done {
    let registry = backend.registry();
    let nodes: Vec<_> =
        (1..=5).map(|port| node("conf.batch", &format!("conf.batch-{port}"), port)).collect();
    for node in &nodes {
        backend.register(node, LONG).await?;
    }
    let mut watching = Watching::from_now(&registry, "conf.batch").await;
    backend.delete(&nodes[..4]).await?;
    let mut gone = watching.events(4).await;
    gone.sort();
    assert_eq!(gone, ["-conf.batch-1", "-conf.batch-2", "-conf.batch-3", "-conf.batch-4"]);
    assert_eq!(ids(&read(&registry, "conf.batch").await), ["conf.batch-5"]);
    Ok(())
}

/// It is told by its key, and the others are there.
pub async fn a_malformed_neighbour_spoils_nothing(backend: &impl Backend) -> Done {
    let registry = backend.registry();
    backend.register(&node("conf.malformed", "conf.malformed-1", 1), LONG).await?;
    let mut watching = Watching::from_now(&registry, "conf.malformed").await;
    let key = backend.write_malformed("conf.malformed").await?;
    backend.register(&node("conf.malformed", "conf.malformed-2", 2), LONG).await?;
    let last = key.rsplit('/').next().unwrap_or_default();
    let told = vec![format!("?{last}"), "+conf.malformed-2@127.0.0.1:2".to_owned()];
    assert_eq!(ordered(backend, watching.events(2).await), ordered(backend, told));
    let listing = read(&registry, "conf.malformed").await;
    assert_eq!(ids(&listing), ["conf.malformed-1", "conf.malformed-2"]);
    assert_eq!(listing.malformed.len(), 1);
    assert_eq!(listing.malformed[0].key, key);
    assert!(!listing.malformed[0].reason.is_empty());
    let services = registry.list().await.expect("the services are listed");
    assert!(services.contains(&"conf.malformed".to_owned()), "{services:?}");
    backend.delete_key(&key).await?;
    assert_eq!(watching.events(1).await, [format!("-{last}")]);
    Ok(())
}

/// A watch from before the gap says so and ends; one from a new reading goes on.
pub async fn a_gap_in_the_watch_is_told(backend: &impl Backend) -> Done {
    let registry = backend.registry();
    let then = backend.read_empty("conf.gap").await?;
    backend.register(&node("conf.gap", "conf.gap-1", 1), LONG).await?;
    backend.register(&node("conf.gap", "conf.gap-2", 2), LONG).await?;
    backend.forget().await?;
    let mut watching = Watching::after(&registry, "conf.gap", &then);
    let ended = watching.next_or_end().await;
    assert!(matches!(ended, Err(WatchError::Compacted)), "{ended:?}");
    assert!(watching.has_ended().await, "the stream ends after its first error");
    let mut watching = Watching::from_now(&registry, "conf.gap").await;
    backend.register(&node("conf.gap", "conf.gap-3", 3), LONG).await?;
    assert_eq!(watching.events(1).await, ["+conf.gap-3@127.0.0.1:3"]);
    Ok(())
}

/// A registry that is behind what was seen of it is another, or was restored from an older state.
pub async fn a_revision_yet_to_come_is_told_as_a_gap(backend: &impl Backend) -> Done {
    let registry = backend.registry();
    backend.register(&node("conf.future", "conf.future-1", 1), LONG).await?;
    let mut then = read(&registry, "conf.future").await;
    then.revision += 1000;
    let mut watching = Watching::after(&registry, "conf.future", &then);
    let ended = watching.next_or_end().await;
    assert!(matches!(ended, Err(WatchError::Compacted)), "{ended:?}");
    assert!(watching.has_ended().await, "the stream ends after its first error");
    Ok(())
}

/// No node gets two shares of the calls since it was killed and started again on its port. Both
/// records are told, and the revision says which is in force; when the newest goes before the older
/// has expired, the older is all there is.
pub async fn of_two_records_with_one_address_subscribers_see_the_newest_alone(
    backend: &impl Backend,
) -> Done {
    let registry = backend.registry();
    let (older, newer) = (node("conf.address", "conf.b", 1), node("conf.address", "conf.a", 1));
    backend.register(&older, LONG).await?;
    let mut early = Discovery::new(registry.clone()).subscribe("conf.address");
    assert_eq!(next(&mut early).await, Update::Reset(vec![older.clone().into()]));

    let lease = backend.register(&newer, LONG).await?;
    assert_eq!(next(&mut early).await, Update::Insert(newer.clone().into()));
    assert_eq!(next(&mut early).await, Update::Remove("conf.b".into()));
    let mut late = Discovery::new(registry.clone()).subscribe("conf.address");
    assert_eq!(next(&mut late).await, Update::Reset(vec![newer.clone().into()]));
    let listing = read(&registry, "conf.address").await;
    assert_eq!(ids(&listing), ["conf.a", "conf.b"], "the registry tells of both");
    let newest = listing.entries.iter().max_by_key(|entry| entry.revision).expect("two entries");
    assert_eq!(*newest.node, newer);

    registry.deregister(&newer, lease).await.expect("it leaves");
    for subscription in [&mut early, &mut late] {
        assert_eq!(next(subscription).await, Update::Insert(older.clone().into()));
        assert_eq!(next(subscription).await, Update::Remove("conf.a".into()));
    }
    Ok(())
}

async fn next(subscription: &mut Subscription) -> Update {
    let next = timeout(Duration::from_secs(10), subscription.next()).await;
    next.expect("an update comes").expect("a subscription is endless")
}

/// Also when they look the same in the registry's keys.
pub async fn services_whose_names_begin_alike_are_apart(backend: &impl Backend) -> Done {
    let registry = backend.registry();
    let names = ["conf.like", "conf.like2", "conf.like/2", "conf.like-2", "conf.lik"];
    let mut watching = Vec::new();
    for name in names {
        let before = backend.read_empty(name).await?;
        watching.push(Watching::after(&registry, name, &before));
    }
    for ((port, name), watching) in (1..).zip(names).zip(&mut watching) {
        backend.register(&node(name, &format!("{name}-id"), port), LONG).await?;
        // In a key, one of two names that look the same there may have had what is now the other's.
        let put = loop {
            let mut events = watching.events(1).await;
            if events[0].starts_with('+') {
                break events.remove(0);
            }
        };
        assert_eq!(put, format!("+{name}-id@127.0.0.1:{port}"));
    }
    for name in names {
        let listing = read(&registry, name).await;
        assert!(listing.malformed.is_empty(), "{listing:?}");
        if !["conf.like/2", "conf.like-2"].contains(&name) {
            assert_eq!(ids(&listing), [format!("{name}-id")]);
        } else {
            assert!(listing.entries.iter().all(|entry| entry.node.service == name), "{listing:?}");
        }
    }
    Ok(())
}
