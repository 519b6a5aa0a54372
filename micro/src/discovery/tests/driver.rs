//! Driver, fan-out and `Discover` under paused time.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::{Instant, sleep, timeout};
use tower::discover::{Change, Discover as _};

use super::{scripted::Scripted, short};
use crate::{
    discovery::{Discover, Discovery, MOST_KEPT, Subscription, fanout::KEPT},
    registry::Follow,
};

const SECOND: Duration = Duration::from_secs(1);

async fn next(updates: &mut Subscription) -> String {
    let update = timeout(Duration::from_secs(600), updates.next()).await.expect("an update");
    short(&update.expect("updates never end"))
}

/// Lets the driver do what is due now.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

fn discovery(registry: &Arc<Scripted>) -> Discovery {
    fastrand::seed(7);
    Discovery::new(registry.clone())
}

#[tokio::test(start_paused = true)]
async fn subscribers_share_one_watch_which_ends_a_while_after_the_last_of_them() {
    let registry = Scripted::new(&["a@x"]);
    let discovery = discovery(&registry);
    assert_eq!(registry.reads(), 0, "nothing is asked before the first subscription");
    let mut first = discovery.subscribe("greeter");
    let mut second = discovery.clone().subscribe("greeter");
    assert_eq!(next(&mut first).await, "=[a@x]");
    assert_eq!(next(&mut second).await, "=[a@x]");
    assert_eq!((registry.reads(), registry.watchers()), (1, 1));

    drop(first);
    registry.write(&["b@y"]);
    assert_eq!(next(&mut second).await, "+b@y");
    drop(second);
    sleep(KEPT / 2).await;
    assert_eq!(registry.watchers(), 1, "somebody may come back");
    sleep(KEPT).await;
    assert_eq!(registry.watchers(), 0);

    let mut third = discovery.subscribe("greeter");
    assert_eq!(next(&mut third).await, "=[a@x b@y]");
    assert_eq!(registry.reads(), 2, "a new watch reads anew");
}

#[tokio::test(start_paused = true)]
async fn all_discoveries_of_one_registry_share_one_watch_a_service() {
    let registry = Scripted::new(&["a@x"]);
    let made: Vec<_> = (0..3).map(|_| discovery(&registry)).collect();
    let mut subscriptions: Vec<_> = made.iter().map(|it| it.subscribe("greeter")).collect();
    for updates in &mut subscriptions {
        assert_eq!(next(updates).await, "=[a@x]");
    }
    assert_eq!((registry.reads(), registry.watchers()), (1, 1));
    drop(made);
    let _other = discovery(&Scripted::new(&[])).subscribe("greeter");
    let mut late = discovery(&registry).subscribe("greeter");
    assert_eq!(next(&mut late).await, "=[a@x]");
    assert_eq!(registry.watchers(), 1, "a subscription outlives the discovery it came from");
    drop((subscriptions, late));
    sleep(2 * KEPT).await;
    assert_eq!(registry.watchers(), 0, "the last subscriber is gone");
}

#[tokio::test(start_paused = true)]
async fn who_subscribes_anew_for_each_call_has_the_nodes_while_the_registry_is_down() {
    let registry = Scripted::new(&["a@x"]);
    assert_eq!(next(&mut discovery(&registry).subscribe("greeter")).await, "=[a@x]");
    registry.lock().down = true;
    registry.cut();
    for _ in 0..10 {
        sleep(KEPT * 3 / 4).await;
        let mut updates = discovery(&registry).subscribe("greeter");
        assert_eq!(next(&mut updates).now_or_never().as_deref(), Some("=[a@x]"));
        assert!(updates.status().borrow().stale.is_some());
    }
    sleep(2 * KEPT).await;
    let mut updates = discovery(&registry).subscribe("greeter");
    assert!(timeout(SECOND, updates.next()).await.is_err(), "nobody has asked for too long");
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_while_nobody_was_there_is_asked_for_again() {
    let registry = Scripted::new(&["a@x"]);
    registry.lock().denies = true;
    drop(discovery(&registry).subscribe("greeter"));
    settle().await;
    registry.lock().denies = false;
    assert_eq!(next(&mut discovery(&registry).subscribe("greeter")).await, "=[a@x]");
    assert_eq!(registry.reads(), 2);
}

#[tokio::test(start_paused = true)]
async fn services_without_a_subscriber_are_followed_in_no_great_number() {
    let registry = Scripted::new(&["a@x"]);
    let discovery = discovery(&registry);
    let follow = async |numbers: std::ops::Range<usize>| {
        for number in numbers {
            next(&mut discovery.subscribe(&format!("greeter-{number}"))).await;
        }
        settle().await;
        registry.watchers()
    };
    assert_eq!(follow(0..200).await, MOST_KEPT);
    sleep(2 * KEPT).await;
    assert_eq!(follow(200..203).await, 3, "there is place again");
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_does_not_list_its_services_is_named_beside_one_that_does() {
    let (one, other) = (Scripted::new(&[]), Scripted::new(&[]));
    let merged = Discovery::merged(vec![one.clone(), other.clone()]);
    let ask = async || merged.subscribe("users").neighbours().ask().await;
    let told = "registered there: 'gretel'; is 'users' running, and on the same registry?";
    assert_eq!(ask().await.as_deref(), Some(told));
    other.lock().down = true;
    let told = "registered there: 'gretel'; not known is what else there is: scripted://: cannot \
                list services: refused; is 'users' running, and on the same registry?";
    assert_eq!(ask().await.as_deref(), Some(told));
    one.lock().silent = true;
    assert_eq!(ask().await, None, "neither says");
    other.lock().down = false;
    let told = ask().await.expect("one says");
    assert!(told.contains("there is: scripted://: no answer within 2s; is"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_late_subscriber_gets_all_nodes_and_then_the_same_updates() {
    let registry = Scripted::new(&["a@x"]);
    let discovery = discovery(&registry);
    let mut early = discovery.subscribe("greeter");
    next(&mut early).await;
    registry.write(&["b@y"]);
    settle().await;
    let mut late = discovery.subscribe("greeter");
    for change in ["c@z", "-a", "a@w", "-b"] {
        registry.write(&[change]);
    }
    settle().await;
    assert_eq!(next(&mut early).await, "+b@y");
    let late_first = next(&mut late).now_or_never();
    assert_eq!(late_first.as_deref(), Some("=[a@w c@z]"), "looked up when asked for");
    for expected in ["+c@z", "-a", "+a@w", "-b"] {
        assert_eq!(next(&mut early).await, expected);
    }
    registry.write(&["d@v"]);
    assert_eq!([next(&mut early).await, next(&mut late).await], ["+d@v", "+d@v"]);
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_far_behind_gets_all_nodes_instead() {
    let registry = Scripted::new(&["a@x"]);
    let mut updates = discovery(&registry).subscribe("greeter");
    assert_eq!(next(&mut updates).await, "=[a@x]");
    for _ in 0..600 {
        registry.write(&["b@y"]);
        registry.write(&["-b"]);
    }
    registry.write(&["c@z"]);
    settle().await;
    assert_eq!(next(&mut updates).await, "=[a@x c@z]");
    assert!(updates.next().now_or_never().is_none(), "and nothing of what led there");
    registry.write(&["-a"]);
    assert_eq!(next(&mut updates).await, "-a");
}

#[tokio::test(start_paused = true)]
async fn an_event_reaches_subscribers_without_a_wait() {
    let registry = Scripted::new(&["a@x"]);
    let mut updates = discovery(&registry).subscribe("greeter");
    next(&mut updates).await;
    let begin = Instant::now();
    registry.write(&["b@y"]);
    next(&mut updates).await;
    assert_eq!(begin.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_does_not_answer_is_tried_until_it_does() {
    let registry = Scripted::new(&["a@x"]);
    registry.lock().silent = true;
    let mut updates = discovery(&registry).subscribe("greeter");
    let status = updates.status();
    sleep(1200 * SECOND).await;
    assert!(updates.next().now_or_never().is_none(), "no set is better than a wrong one");
    assert!(!status.borrow().synced);
    let error = status.borrow().error.clone().expect("an error");
    assert_eq!(&*error, "scripted://: no list of greeter's nodes within 30s");
    let reads = registry.reads();
    assert!((30..=40).contains(&reads), "each of {reads} reads in 20 minutes takes 30 s");

    registry.lock().silent = false;
    let back = Instant::now();
    assert_eq!(next(&mut updates).await, "=[a@x]");
    assert!(back.elapsed() <= 33 * SECOND, "within one read and one wait: {:?}", back.elapsed());
    settle().await;
    let status = status.borrow().clone();
    assert!(status.synced && status.error.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_list_that_takes_many_exchanges_is_waited_for() {
    let registry = Scripted::new(&["a@x"]);
    registry.lock().read_takes = 20 * SECOND;
    let mut updates = discovery(&registry).subscribe("greeter");
    assert_eq!(next(&mut updates).await, "=[a@x]");
    assert_eq!(registry.reads(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_bridged_with_what_was_known() {
    let registry = Scripted::new(&["a@x", "b@y"]);
    let mut updates = discovery(&registry).subscribe("greeter");
    let mut status = updates.status();
    next(&mut updates).await;
    registry.lock().down = true;
    registry.cut();
    status.wait_for(|status| status.error.is_some()).await.unwrap();
    sleep(600 * SECOND).await;
    assert!(updates.next().now_or_never().is_none(), "an error removes no node");

    registry.write(&["-b"]);
    registry.write(&["c@z"]);
    registry.lock().down = false;
    let back = Instant::now();
    assert_eq!([next(&mut updates).await, next(&mut updates).await], ["+c@z", "-b"]);
    assert!(back.elapsed() <= 4 * SECOND);
    status.wait_for(|status| status.error.is_none()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_died_without_a_word_is_found_out_within_six_minutes() {
    let registry = Scripted::new(&["a@x"]);
    let mut updates = discovery(&registry).subscribe("greeter");
    next(&mut updates).await;
    registry.lock().mute = true;
    registry.write(&["b@y"]);
    sleep(360 * SECOND).await;
    assert_eq!(next(&mut updates).now_or_never().as_deref(), Some("+b@y"));
    registry.lock().mute = false;
    registry.write(&["-a"]);
    assert_eq!(next(&mut updates).await, "-a", "the new watch is well");
    assert_eq!((registry.watchers(), registry.lock().watches.clone()), (1, vec![1, 2]));
}

#[test]
fn a_watch_outlives_no_runtime_and_begins_anew_in_the_next() {
    let registry = Scripted::new(&["a@x"]);
    let discovery = discovery(&registry);
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut orphan = runtime().block_on(async {
        let mut updates = discovery.subscribe("greeter");
        next(&mut updates).await;
        updates
    });
    runtime().block_on(async {
        assert!(orphan.next().now_or_never().is_none());
        assert_eq!(next(&mut discovery.subscribe("greeter")).await, "=[a@x]");
    });
}

#[test]
fn a_subscription_does_not_end_with_the_runtime_of_another() {
    let registry = Scripted::new(&["a@x"]);
    let discovery = discovery(&registry);
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (first, second) = (runtime(), runtime());
    let subscribe = async || {
        let mut updates = discovery.subscribe("greeter");
        assert_eq!(next(&mut updates).await, "=[a@x]");
        updates
    };
    let _orphan = first.block_on(subscribe());
    let mut updates = second.block_on(subscribe());
    drop(first);
    registry.write(&["b@y"]);
    assert_eq!(second.block_on(next(&mut updates)), "+b@y");
}

async fn change(nodes: &mut Discover) -> String {
    let change = std::future::poll_fn(|cx| Pin::new(&mut *nodes).poll_discover(cx)).await;
    match change.expect("changes never end").expect("changes never fail") {
        Change::Insert(id, node) => format!("+{id}@{}", node.address),
        Change::Remove(id) => format!("-{id}"),
    }
}

#[tokio::test(start_paused = true)]
async fn towers_discover_tells_of_what_has_changed_and_no_more() {
    let registry = Scripted::new(&["a@x", "b@y"]);
    let mut nodes = discovery(&registry).subscribe("greeter").into_discover();
    assert_eq!([change(&mut nodes).await, change(&mut nodes).await], ["+a@x", "+b@y"]);
    // Written anew as it was, and then with another address.
    registry.write(&["a@x"]);
    registry.write(&["b@z"]);
    assert_eq!(change(&mut nodes).await, "+b@z");
    registry.write(&["-b"]);
    assert_eq!(change(&mut nodes).await, "-b");

    // More than a queue holds: a `Reset`, of which only the differences are told.
    for _ in 0..600 {
        registry.write(&["c@w"]);
        registry.write(&["-c"]);
    }
    registry.write(&["d@v", "-a"]);
    settle().await;
    assert_eq!([change(&mut nodes).await, change(&mut nodes).await], ["+d@v", "-a"]);
    assert!(nodes.next().now_or_never().is_none());
}

/// With a cache, and with a bound.
fn following(registry: &Arc<Scripted>, cache: &std::path::Path) -> Discovery {
    fastrand::seed(7);
    let follow = Follow { max_stale: Some(60 * SECOND), cache: Some(cache.to_owned()) };
    Discovery::following(vec![registry.clone()], vec![follow])
}

#[tokio::test(start_paused = true)]
async fn a_client_starts_with_what_was_known_last_while_its_registry_is_down() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache.json");
    let registry = Scripted::new(&["a@x:1"]);
    let mut updates = following(&registry, &cache).subscribe("greeter");
    assert_eq!(next(&mut updates).await, "=[a@x:1]");
    registry.write(&["b@y:2"]);
    assert_eq!(next(&mut updates).await, "+b@y:2");
    drop(updates);
    while !std::fs::read_to_string(&cache).is_ok_and(|text| text.contains("\"b\"")) {
        sleep(SECOND).await;
    }

    sleep(2 * KEPT).await;
    registry.lock().down = true;
    let mut updates = following(&registry, &cache).subscribe("greeter");
    assert_eq!(next(&mut updates).await, "=[a@x:1 b@y:2]");
    let status = updates.status();
    assert!(status.borrow().stale.is_some() && !status.borrow().synced);
    assert_eq!(next(&mut updates).await, "forget", "a minute is as long as it may last");
    let error = status.borrow().error.clone().expect("it says why");
    assert!(error.contains("max_stale"), "{error}");

    registry.lock().down = false;
    assert_eq!(next(&mut updates).await, "=[a@x:1 b@y:2]");
    assert!(status.borrow().synced && status.borrow().stale.is_none());
}
