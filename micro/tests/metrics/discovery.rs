use std::{sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use micro::{
    discovery::{Discovery, Subscription, Update},
    registry::{Node, Registry as _},
};
use tokio::time::sleep;

use crate::{
    SECOND,
    collected::Collected,
    faulty::{Faulty, Mode},
    settle,
};

fn faulty(name: &str) -> Arc<Faulty> {
    Collected::now();
    Faulty::named(name)
}

async fn put(registry: &Faulty, id: &str) -> micro::registry::Lease {
    let node = Node::new("greeter", id, format!("{id}:1"));
    registry.memory.register(&node, Duration::from_secs(100_000)).await.unwrap()
}

async fn followed(registry: &Arc<Faulty>) -> Subscription {
    let mut nodes = Discovery::new(registry.clone()).subscribe("greeter");
    assert!(matches!(nodes.next().await, Some(Update::Reset(_))));
    nodes
}

fn gauge(now: &Collected, name: &str) -> Option<f64> {
    now.get(&format!("micro.discovery.{name}"), &[])
}

fn skipped(now: &Collected, fault: &str) -> Option<f64> {
    now.get("micro.discovery.skipped_records", &[("micro.record.fault", fault)])
}

fn reads(now: &Collected, outcome: &str) -> Option<f64> {
    now.get("micro.discovery.reads", &[("micro.read.outcome", outcome)])
}

#[tokio::test(start_paused = true)]
async fn nodes_that_come_and_go_are_told() {
    let registry = faulty("faulty://nodes");
    for id in ["a", "b"] {
        put(&registry, id).await;
    }
    let _nodes = followed(&registry).await;
    let now = Collected::of("faulty://nodes");
    assert_eq!(gauge(&now, "nodes"), Some(2.0));
    assert_eq!(gauge(&now, "revision"), Some(2.0));
    assert_eq!(gauge(&now, "synced"), Some(1.0));
    assert_eq!(gauge(&now, "staleness"), Some(0.0));
    assert_eq!(gauge(&now, "updates"), Some(1.0), "the first has all nodes");
    assert_eq!((reads(&now, "ok"), reads(&now, "failed")), (Some(1.0), None));
    for series in &now.0 {
        assert_eq!(series.attributes["micro.service"], "greeter");
    }

    let lease = put(&registry, "c").await;
    settle().await;
    let now = Collected::of("faulty://nodes");
    assert_eq!(gauge(&now, "nodes"), Some(3.0));
    registry.memory.deregister(&Node::new("greeter", "c", "c:1"), lease).await.unwrap();
    settle().await;
    let now = Collected::of("faulty://nodes");
    assert_eq!(gauge(&now, "nodes"), Some(2.0));
    assert_eq!(gauge(&now, "revision"), Some(4.0));
    assert_eq!(gauge(&now, "updates"), Some(3.0));
    assert_eq!(reads(&now, "ok"), Some(1.0), "the watch told of it");

    registry.set(Mode::Down);
    settle().await;
    for id in ["d", "e"] {
        put(&registry, id).await;
    }
    registry.set(Mode::Up);
    sleep(10 * SECOND).await;
    let now = Collected::of("faulty://nodes");
    assert_eq!((gauge(&now, "nodes"), reads(&now, "ok")), (Some(4.0), Some(2.0)));
    assert_eq!(gauge(&now, "updates"), Some(5.0), "each of those that one read brings");
}

#[tokio::test(start_paused = true)]
async fn staleness_grows_while_the_registry_does_not_answer_and_is_over_when_it_does() {
    for mode in [Mode::Down, Mode::Silent] {
        let name = &format!("faulty://stale-{mode:?}");
        let registry = faulty(name);
        put(&registry, "a").await;
        let _nodes = followed(&registry).await;
        sleep(SECOND).await;
        assert_eq!(gauge(&Collected::of(name), "staleness"), Some(0.0));

        // Watches are cut by it, and the reads that follow refused or unanswered.
        registry.set(Mode::Down);
        settle().await;
        registry.set(mode);
        for seconds in [10, 60, 600] {
            let before = gauge(&Collected::of(name), "staleness").unwrap();
            sleep(seconds * SECOND).await;
            let now = Collected::of(name);
            let grown = gauge(&now, "staleness").unwrap() - before;
            assert!((grown - f64::from(seconds)).abs() < 0.01, "{grown} in {seconds} s");
            assert_eq!(gauge(&now, "nodes"), Some(1.0), "the nodes are kept");
            assert_eq!(gauge(&now, "synced"), Some(1.0));
        }
        assert!(reads(&Collected::of(name), "failed").unwrap() > 5.0);

        registry.set(Mode::Up);
        sleep(40 * SECOND).await; // a read that hangs is given up after 30 s
        let now = Collected::of(name);
        assert_eq!(gauge(&now, "staleness"), Some(0.0));
        assert_eq!(reads(&now, "ok"), Some(2.0));
    }
}

#[tokio::test(start_paused = true)]
async fn before_the_first_read_nothing_is_synced() {
    let registry = faulty("faulty://unsynced");
    registry.set(Mode::Silent);
    let _nodes = Discovery::new(registry).subscribe("greeter");
    settle().await;
    let now = Collected::of("faulty://unsynced");
    assert_eq!(gauge(&now, "synced"), Some(0.0));
    assert_eq!(gauge(&now, "nodes"), Some(0.0));
    assert_eq!(gauge(&now, "staleness"), Some(0.0), "not before it is known");
    sleep(60 * SECOND).await;
    let now = Collected::of("faulty://unsynced");
    assert_eq!(gauge(&now, "synced"), Some(0.0));
    assert!(gauge(&now, "staleness") > Some(29.0), "{now:?}");
}

#[tokio::test(start_paused = true)]
async fn records_that_are_left_out_are_counted_by_their_fault() {
    let registry = faulty("faulty://skipped");
    registry.malform("greeter/x");
    let mut mucp = Node::new("greeter", "m", "m:1");
    mucp.metadata.clear();
    let lease = registry.memory.register(&mucp, Duration::from_secs(100_000)).await.unwrap();
    put(&registry, "a").await;
    let _nodes = followed(&registry).await;
    let now = Collected::of("faulty://skipped");
    assert_eq!((skipped(&now, "malformed"), skipped(&now, "not_grpc")), (Some(1.0), Some(1.0)));
    assert_eq!(gauge(&now, "nodes"), Some(1.0));

    registry.memory.deregister(&mucp, lease).await.unwrap();
    settle().await;
    let now = Collected::of("faulty://skipped");
    assert_eq!((skipped(&now, "malformed"), skipped(&now, "not_grpc")), (Some(1.0), Some(0.0)));
}

#[tokio::test(start_paused = true)]
async fn of_several_registries_each_has_its_own_series() {
    let (one, two) = (faulty("faulty://merged-1"), faulty("faulty://merged-2"));
    put(&one, "a").await;
    two.set(Mode::Down);
    let _nodes = Discovery::merged(vec![one, two]).subscribe("greeter");
    sleep(10 * SECOND).await;
    let [one, two] = [1, 2].map(|it| Collected::of(&format!("faulty://merged-{it}")));
    assert_eq!((gauge(&one, "nodes"), gauge(&two, "nodes")), (Some(1.0), Some(0.0)));
    assert_eq!((gauge(&one, "synced"), gauge(&two, "synced")), (Some(1.0), Some(0.0)));
    assert_eq!(gauge(&one, "staleness"), Some(0.0));
    assert!(gauge(&two, "staleness") > Some(9.0));
}

#[tokio::test(start_paused = true)]
async fn services_that_nobody_follows_any_more_end_their_gauges() {
    let registry = faulty("faulty://many");
    let discovery = Discovery::new(registry);
    let many: Vec<_> = (0..300).map(|it| discovery.subscribe(&format!("s{it}"))).collect();
    settle().await;
    let nodes =
        |now: &Collected| now.0.iter().filter(|it| it.name == "micro.discovery.nodes").count();
    assert_eq!(nodes(&Collected::of("faulty://many")), 300);
    drop(many);
    // Some are followed for another minute.
    sleep(Duration::from_secs(61)).await;
    assert!(Collected::of("faulty://many").0.iter().all(|it| it.kind == "counter"));
    let _again = discovery.subscribe("s7");
    settle().await;
    assert_eq!(nodes(&Collected::of("faulty://many")), 1);
}
