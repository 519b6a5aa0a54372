//! Many records and odd ones, in every registry on its real server: what is followed is what there
//! is, through cuts of the connection; what cannot be read spoils nothing else.

use std::{collections::BTreeSet, time::Duration};

use fastrand::Rng;
use micro::{
    discovery::Update,
    registry::{self, Node},
};
use tests::{
    log::Warnings,
    namespace,
    raw::{
        Cannot, Following, InConsul, InEtcd, InFile, InKubernetes, InMdns, InMemory, InNats,
        InZooKeeper, Odd, Raw, is_gone, is_there, judge,
    },
};
use tokio::{
    runtime,
    time::{sleep, timeout},
};

mod cut;

use cut::a_watch_cut_50_times_neither_loses_nor_doubles;

// Here, since what has a module is a registry's row of the table.
#[test]
#[should_panic(expected = "nothing between")]
fn a_state_that_is_left_out_is_found() {
    cut::leave_a_state_out();
}

type Done = Result<(), Cannot>;

fn node(service: &str, id: &str, port: u16) -> Node {
    Node::new(service, id, format!("10.1.0.1:{port}"))
}

async fn batches_of_200_are_told_whole_and_in_order<S: Raw>() -> Done {
    let server = S::serving().await;
    let mut following = Following::of(&server.url_at(&server.address()), "batch").await;
    let nodes = |subnet: u8| -> Vec<_> {
        let address = |index| format!("10.1.{subnet}.{}:9000", index + 1);
        (0..200).map(|it| Node::new("batch", format!("batch-{it:03}"), address(it))).collect()
    };
    let (first, second) = (nodes(0), nodes(1));
    for nodes in [&first, &second] {
        server.put_all(nodes).await;
        following.tells(&nodes.iter().map(is_there).collect::<Vec<_>>()).await;
        assert!(following.nodes.values().map(|node| &**node).eq(nodes), "each as it was written");
    }
    server.take_all(&second).await;
    following.tells(&second.iter().map(is_gone).collect::<Vec<_>>()).await;
    following.malformed(0).await;
    Ok(())
}

// ===== odd =====

async fn is_odd<S: Raw>(odd: &[String]) -> Done {
    match S::ODD {
        Odd::LeftOut => is_left_out::<S>(odd).await,
        Odd::HoldsUpAll => holds_up_all::<S>(odd).await,
        Odd::Impossible => return Err(Cannot),
    }
    Ok(())
}

/// A service with a node, into which something odd is written, and one more node.
async fn is_left_out<S: Raw>(odd: &[String]) {
    let warnings = Warnings::kept();
    let server = S::serving().await;
    let [first, second, third] = [1, 2, 3].map(|port| node("odd", &format!("odd-{port}"), port));
    server.put(&first).await;
    let mut following = Following::of(&server.url_at(&server.address()), "odd").await;
    while following.nodes.is_empty() {
        following.next().await;
    }
    let mut keys = BTreeSet::new();
    for (index, text) in odd.iter().enumerate() {
        let id = format!("odd-x{index}");
        match server.write_raw("odd", &id, text).await {
            Some(key) => {
                keys.insert((id, key));
                following.malformed(keys.len()).await;
            }
            // It stands nowhere, so that there is nothing to count.
            None => {
                while warnings.with("left out").is_empty() {
                    sleep(Duration::from_millis(5)).await;
                }
            }
        }
    }
    server.put(&second).await;
    following.tells(&[is_there(&second)]).await;
    for (index, text) in odd.iter().enumerate() {
        server.write_raw("odd", &format!("odd-x{index}"), text).await;
    }
    server.put(&third).await;
    following.tells(&[is_there(&third)]).await;
    for (_, key) in &keys {
        let lines = warnings.with(key);
        assert_eq!(lines.len(), 1, "told once: {lines:#?}");
        assert!(lines[0].len() < 2000, "{} bytes of log", lines[0].len());
    }
    let mut left = keys.len();
    following.malformed(left).await;
    for (id, _) in &keys {
        server.delete_raw("odd", id).await;
        left -= 1;
        following.malformed(left).await;
    }
    server.take(&third).await;
    following.tells(&[is_gone(&third)]).await;
    assert!(following.nodes.keys().eq(["odd-1", "odd-2"]), "the neighbours are untouched");
}

/// The same where one fault spoils all that is written with it: what was known stands until it is mended.
async fn holds_up_all<S: Raw>(odd: &[String]) {
    let warnings = Warnings::kept();
    let server = S::serving().await;
    let [first, second] = [1, 2].map(|port| node("odd", &format!("odd-{port}"), port));
    server.put(&first).await;
    let mut following = Following::of(&server.url_at(&server.address()), "odd").await;
    assert!(following.nodes.keys().eq(["odd-1"]));
    for (index, text) in odd.iter().enumerate() {
        let key = server.write_raw("odd", "odd-x", text).await.expect("it stands somewhere");
        let is_named = |error: &str| error.contains(&key) && error.len() < 2000;
        following.status(|it| it.error.as_deref().is_some_and(is_named)).await;
        server.put(&second).await;
        following.is_told_nothing().await;
        assert_eq!(warnings.with(&key).len(), index + 1, "told once: {:#?}", warnings.with(&key));
        server.delete_raw("odd", "odd-x").await;
        following.tells(&[is_there(&second)]).await;
        following.status(|it| it.error.is_none()).await;
        server.take(&second).await;
        following.tells(&[is_gone(&second)]).await;
    }
}

async fn an_empty_value_is_left_out<S: Raw>() -> Done {
    is_odd::<S>(&[String::new()]).await
}

async fn broken_json_is_left_out<S: Raw>() -> Done {
    is_odd::<S>(&[r#"{"name":"odd","nodes":[{"id":"odd-x0","#.to_owned()]).await
}

async fn json_of_a_wrong_type_is_left_out<S: Raw>() -> Done {
    let odd = [r#"{"name":"odd","nodes":[{"id":"odd-x0","address":3}]}"#, "[1]", r#""odd""#];
    is_odd::<S>(&odd.map(str::to_owned)).await
}

async fn overlong_garbage_is_left_out<S: Raw>() -> Done {
    is_odd::<S>(&["\u{1f4a9}\n".repeat(40_000)]).await
}

async fn a_record_of_100_kib_is_read<S: Raw>() -> Done {
    if S::LONGEST < 100 * 1024 {
        return Err(Cannot);
    }
    let server = S::serving().await;
    let mut following = Following::of(&server.url_at(&server.address()), "large").await;
    let mut large = node("large", "large-1", 1);
    let mut rng = Rng::with_seed(100);
    let text = std::iter::repeat_with(|| rng.alphanumeric()).take(100 * 1024).collect();
    large.metadata.insert("notes".to_owned(), text);
    let small = node("large", "large-2", 2);
    server.put(&large).await;
    server.put(&small).await;
    following.tells(&[is_there(&large), is_there(&small)]).await;
    assert!(*following.nodes["large-1"] == large, "it is told as it was written");
    server.take(&large).await;
    following.tells(&[is_gone(&large)]).await;
    following.malformed(0).await;
    Ok(())
}

async fn unicode_and_slashes_are_kept<S: Raw>() -> Done {
    let server = S::serving().await;
    let url = server.url_at(&server.address());
    let service = "team/p\u{e4}y.svc";
    // In keys this one looks much the same.
    let mut other = Following::of(&url, "team-p\u{e4}y.svc").await;
    let mut following = Following::of(&url, service).await;
    let mut odd = node(service, "team/p\u{e4}y.svc-\u{4e16}/1", 1);
    odd.version = "1.0/\u{3b2} \u{1f680}".to_owned();
    odd.metadata.insert("z/\u{f6}n\"e".to_owned(), "a/b\n\\<&> \u{1f680}\u{2028}".to_owned());
    let mut plain = node(service, "plain", 2);
    // A file has one for all of a service.
    plain.version.clone_from(&odd.version);
    server.put(&plain).await;
    server.put(&odd).await;
    following.tells(&[is_there(&plain), is_there(&odd)]).await;
    assert_eq!(*following.nodes[&odd.id], odd);
    let registry = registry::open(&url).expect("a URL");
    let services = registry.list().await.expect("the services are listed");
    assert_eq!(services.iter().filter(|it| *it == service).count(), 1, "{services:?}");
    server.take(&odd).await;
    following.tells(&[is_gone(&odd)]).await;
    following.malformed(0).await;
    let neighbour = node("team-p\u{e4}y.svc", "neighbour", 3);
    server.put(&neighbour).await;
    other.tells(&[is_there(&neighbour)]).await;
    other.malformed(0).await;
    Ok(())
}

async fn a_duplicate_id_is_one_node<S: Raw>() -> Done {
    let server = S::serving().await;
    let mut following = Following::of(&server.url_at(&server.address()), "twice").await;
    let first = node("twice", "twice-1", 1);
    let second = node("twice", "twice-1", 2);
    server.put(&first).await;
    following.tells(&[is_there(&first)]).await;
    server.put_in("another", &second).await?;
    following.tells(&[is_there(&second)]).await;
    assert_eq!(*following.nodes["twice-1"], second, "the last written is in force");
    server.take_from("another", &second).await?;
    following.tells(&[is_there(&first)]).await;
    assert_eq!(*following.nodes["twice-1"], first, "it was there all the time");
    server.take(&first).await;
    following.tells(&[is_gone(&first)]).await;
    following.malformed(0).await;
    Ok(())
}

async fn two_records_of_one_address_are_one_node<S: Raw>() -> Done {
    if S::ODD == Odd::HoldsUpAll {
        return Err(Cannot);
    }
    let server = S::serving().await;
    let mut following = Following::of(&server.url_at(&server.address()), "place").await;
    let [first, second] = ["place-1", "place-2"].map(|id| node("place", id, 1));
    server.put(&first).await;
    following.tells(&[is_there(&first)]).await;
    server.put_beside(&second).await?;
    following.tells(&[is_there(&second), is_gone(&first)]).await;
    server.take(&second).await;
    following.tells(&[is_there(&first), is_gone(&second)]).await;
    following.malformed(0).await;
    Ok(())
}

async fn a_record_written_again_as_it_was_is_told<S: Raw>() -> Done {
    let server = S::serving().await;
    let mut following = Following::of(&server.url_at(&server.address()), "again").await;
    let [node, last] = [1, 2].map(|port| node("again", &format!("again-{port}"), port));
    for _ in 0..3 {
        server.put(&node).await;
        match timeout(Duration::from_secs(5), following.next()).await {
            Ok(Update::Insert(told)) => assert_eq!(*told, node),
            Ok(update) => panic!("{update:?}"),
            Err(_) => return Err(Cannot),
        }
    }
    server.put(&last).await;
    following.tells(&[is_there(&last)]).await;
    Ok(())
}

// ===== the table =====

/// On this thread alone, whose log lines are its own.
fn here(_test: &str, body: impl Future<Output = ()>) {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(body);
}

macro_rules! on_server {
    ($name:ident: $server:ty, $run:path => $($row:ident)*) => {
        mod $name {
            use super::*;

            $(
                #[test]
                fn $row() {
                    let row = stringify!($row);
                    $run(concat!(stringify!($name), "::", stringify!($row)), async {
                        judge(row, super::$row::<$server>().await, <$server as Raw>::CANNOT);
                    });
                }
            )*
        }
    };
}

/// A test for every row and server, and where it is run.
macro_rules! every_server {
    ($($name:ident: $server:ty, $run:path;)*) => {
        $(tests::every_row! { on_server! { $name: $server, $run } })*
    };
}

every_server! {
    consul: InConsul, here;
    etcd: InEtcd, here;
    file: InFile, here;
    kubernetes: InKubernetes, here;
    mdns: InMdns, namespace::on_loopback;
    memory: InMemory, here;
    nats: InNats, here;
    zookeeper: InZooKeeper, here;
}

// In a suite of its own, which has its server.
#[cfg(feature = "nacos")]
every_server! { nacos: tests::raw::InNacos, here; }
