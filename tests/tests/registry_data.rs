//! Many records and odd ones, in every registry on its real server: what is followed is what there
//! is, through cuts of the connection; what cannot be read spoils nothing else.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use fastrand::Rng;
use micro::{
    discovery::{Discovery, Status, Subscription, Update},
    registry::{self, Node},
    testing::registry::Cannot,
};
use tests::{
    link::Link,
    log::Warnings,
    process,
    raw::{InConsul, InEtcd, InKubernetes, InNats, InZooKeeper, Raw},
};
use tokio::time::{sleep, timeout};
use tokio_stream::StreamExt;

type Done = Result<(), Cannot>;

/// Longer than anything takes here: what NATS does not hear of a node goes with its TTL.
const SOON: Duration = Duration::from_secs(20);

/// The nodes of one service as a subscriber has them.
struct Following {
    _discovery: Discovery,
    subscription: Subscription,
    nodes: BTreeMap<String, Arc<Node>>,
    /// `=COUNT`, `+ID` and `-ID`, in the order they came.
    told: Vec<String>,
}

impl Following {
    async fn of(url: &str, service: &str) -> Self {
        let discovery = Discovery::open(url).expect("the URL is well-formed");
        let subscription = discovery.subscribe(service);
        let (nodes, told) = Default::default();
        let mut following = Self { _discovery: discovery, subscription, nodes, told };
        following.next().await;
        following
    }

    async fn next(&mut self) -> Update {
        let next = timeout(SOON, self.subscription.next()).await;
        let update = next.unwrap_or_else(|_| panic!("nothing after {:?}", self.told));
        let update = update.expect("it is endless");
        self.told.push(match &update {
            Update::Reset(nodes) => {
                self.nodes = nodes.iter().map(|node| (node.id.clone(), node.clone())).collect();
                format!("={}", nodes.len())
            }
            Update::Insert(node) => {
                self.nodes.insert(node.id.clone(), node.clone());
                format!("+{}", node.id)
            }
            Update::Remove(id) => {
                assert!(self.nodes.remove(&**id).is_some(), "{id} was not there to go");
                format!("-{id}")
            }
            Update::Forget => panic!("there is no bound"),
        });
        update
    }

    /// What comes next, and no more than that for now.
    async fn tells(&mut self, updates: &[String]) {
        self.told.clear();
        while self.told.len() < updates.len() {
            self.next().await;
        }
        assert_eq!(self.told, updates);
    }

    async fn status(&self, is: impl Fn(&Status) -> bool) {
        let mut status = self.subscription.status();
        let waited = timeout(SOON, status.wait_for(|status| is(status))).await.is_ok();
        assert!(waited, "{:?}", self.subscription.status().borrow());
    }

    async fn malformed(&self, count: usize) {
        self.status(|status| status.malformed == count).await;
    }
}

fn node(service: &str, id: &str, port: u16) -> Node {
    Node::new(service, id, format!("10.1.0.1:{port}"))
}

fn is_there(node: &Node) -> String {
    format!("+{}", node.id)
}

fn is_gone(node: &Node) -> String {
    format!("-{}", node.id)
}

// ===== many =====

const SERVICES: [&str; 3] = ["data-a", "data-b", "data-c"];
const NODES: usize = 20;
const CUTS: usize = 50;
const WRITES_A_CUT: usize = 20;

/// What was done to one node, in order: the number that was written, or nothing for a removal. It was
/// not there at first.
type History = Vec<Option<usize>>;
type Histories = RefCell<BTreeMap<(usize, usize), History>>;

/// Whoever writes: in an order that a seed gives, and straight to the server.
struct Writer<'a, S> {
    server: &'a S,
    rng: Rng,
    histories: &'a Histories,
    writes: usize,
}

impl<S: Raw> Writer<'_, S> {
    async fn some(&mut self) {
        for _ in 0..WRITES_A_CUT {
            let which = (self.rng.usize(..SERVICES.len()), self.rng.usize(..NODES));
            let last = self.histories.borrow()[&which].last().copied().flatten();
            let is_removal = last.is_some() && self.rng.u8(..) < 80;
            self.writes += 1;
            let next = (!is_removal).then_some(self.writes);
            // Noted first: it may be seen before the server has answered.
            self.histories.borrow_mut().entry(which).or_default().push(next);
            match (next, last) {
                (Some(number), _) => self.server.put(&numbered(which, number)).await,
                (None, Some(last)) => self.server.take(&numbered(which, last)).await,
                (None, None) => {}
            }
            sleep(Duration::from_millis(self.rng.u64(..8))).await;
        }
    }
}

/// A node whose record says which write it is from; some of them at another address.
fn numbered((service, index): (usize, usize), number: usize) -> Node {
    let port = u16::try_from(1000 + index + 100 * (number % 3)).expect("a port");
    let mut node = node(SERVICES[service], &format!("{}-{index}", SERVICES[service]), port);
    node.version = number.to_string();
    node
}

/// Whoever follows: holds each update against what was done.
struct Judge<'a> {
    service: usize,
    histories: &'a Histories,
    /// How far in each node's history what was told has come.
    at: [usize; NODES],
    updates: usize,
}

impl Judge<'_> {
    /// A node's states are told in the order in which they were, each once, or left out for a later.
    fn told(&mut self, update: &Update) {
        self.updates += 1;
        match update {
            Update::Insert(node) => {
                let (index, number) = read(node);
                self.is(index, Some(number));
            }
            Update::Remove(id) => self.is(index_of(id), None),
            Update::Reset(nodes) => {
                let mut there: BTreeMap<_, _> = nodes.iter().map(|node| read(node)).collect();
                for index in 0..NODES {
                    let state = there.remove(&index);
                    if self.histories.borrow()[&(self.service, index)][self.at[index]] != state {
                        self.is(index, state);
                    }
                }
            }
            Update::Forget => panic!("there is no bound"),
        }
    }

    fn is(&mut self, index: usize, state: Option<usize>) {
        let history = &self.histories.borrow()[&(self.service, index)];
        let at = self.at[index];
        let step = history[at + 1..].iter().position(|it| *it == state);
        let Some(step) = step else {
            panic!("{index} of {}: {state:?} after {at} of {history:?}", SERVICES[self.service]);
        };
        self.at[index] = at + 1 + step;
    }

    /// Whether all that was done has been told.
    fn is_up_to_date(&self) -> bool {
        let histories = self.histories.borrow();
        (0..NODES).all(|index| {
            let history = &histories[&(self.service, index)];
            history.last() == Some(&history[self.at[index]])
        })
    }
}

fn read(node: &Node) -> (usize, usize) {
    (index_of(&node.id), node.version.parse().expect("the number of a write"))
}

fn index_of(id: &str) -> usize {
    id.rsplit('-').next().and_then(|index| index.parse().ok()).expect("a node's number")
}

/// Cuts the connection at a random moment while it is in use.
async fn cut(link: &Link, rng: &mut Rng) {
    let port = link.address.rsplit_once(':').and_then(|it| it.1.parse().ok()).expect("a port");
    let connected = async {
        while process::connections(port) == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, connected).await.expect("it connects again");
    sleep(Duration::from_millis(rng.u64(..200))).await;
    link.cut().await;
    sleep(Duration::from_millis(rng.u64(..60))).await;
    link.mend().await;
}

async fn a_watch_cut_50_times_neither_loses_nor_doubles<S: Raw>() -> Done {
    let server = S::serving().await;
    let link = Link::to(&server.address()).await;
    let all = (0..SERVICES.len()).flat_map(|service| (0..NODES).map(move |it| (service, it)));
    let histories: Histories = RefCell::new(all.map(|which| (which, vec![None])).collect());
    let discovery = Discovery::open(&server.url_at(&link.address)).expect("a URL");
    let mut subscriptions = SERVICES.map(|service| discovery.subscribe(service));
    let mut judges = [0, 1, 2].map(|service| Judge {
        service,
        histories: &histories,
        at: [0; NODES],
        updates: 0,
    });

    let mut writer =
        Writer { server: &server, rng: Rng::with_seed(50), histories: &histories, writes: 0 };
    let mut rng = Rng::with_seed(51);
    for round in 1..=CUTS {
        let [a, b, c] = &mut subscriptions;
        let follow = async {
            loop {
                let (service, update) = tokio::select! {
                    update = a.next() => (0, update),
                    update = b.next() => (1, update),
                    update = c.next() => (2, update),
                };
                judges[service].told(&update.expect("it is endless"));
            }
        };
        tokio::select! {
            () = follow => {}
            ((), ()) = async { tokio::join!(writer.some(), cut(&link, &mut rng)) } => {}
        }
        // Once in a while all is to be told before the next cut, since that brings it anyway.
        if round % (CUTS / 5) == 0 {
            for (subscription, judge) in subscriptions.iter_mut().zip(&mut judges) {
                while !judge.is_up_to_date() {
                    let next = timeout(SOON, subscription.next()).await;
                    let Ok(update) = next else {
                        panic!("round {round}: lost: {:?} of {:?}", judge.at, judge.histories);
                    };
                    judge.told(&update.expect("it is endless"));
                }
            }
        }
    }
    assert_eq!(writer.writes, 1000);

    let direct = registry::open(&server.url_at(&server.address())).expect("a URL");
    for ((subscription, judge), service) in subscriptions.iter_mut().zip(&mut judges).zip(SERVICES)
    {
        // What is told now would be told twice.
        let more = timeout(Duration::from_millis(500), subscription.next()).await;
        assert!(more.is_err(), "{more:?} after all was told");
        let expected: BTreeSet<_> = (0..NODES)
            .filter_map(|index| {
                let last = *histories.borrow()[&(judge.service, index)].last()?;
                Some(numbered((judge.service, index), last?).id)
            })
            .collect();
        let listing = direct.read(service).await.expect("the registry is read");
        let listed: BTreeSet<_> = listing.entries.iter().map(|it| it.node.id.clone()).collect();
        assert_eq!(listed, expected, "the registry's own");
        let status = subscription.status().borrow().clone();
        assert!(status.stale.is_none() && status.malformed == 0, "{status:?}");
        println!("{service}: {} updates", judge.updates);
    }
    Ok(())
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

/// A service with a node, into which something odd is written, and one more node.
async fn is_left_out<S: Raw>(odd: &[String]) -> Done {
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
    Ok(())
}

async fn an_empty_value_is_left_out<S: Raw>() -> Done {
    is_left_out::<S>(&[String::new()]).await
}

async fn broken_json_is_left_out<S: Raw>() -> Done {
    is_left_out::<S>(&[r#"{"name":"odd","nodes":[{"id":"odd-x0","#.to_owned()]).await
}

async fn json_of_a_wrong_type_is_left_out<S: Raw>() -> Done {
    let odd = [r#"{"name":"odd","nodes":[{"id":"odd-x0","address":3}]}"#, "[1]", r#""odd""#];
    is_left_out::<S>(&odd.map(str::to_owned)).await
}

async fn overlong_garbage_is_left_out<S: Raw>() -> Done {
    is_left_out::<S>(&["\u{1f4a9}\n".repeat(40_000)]).await
}

async fn a_record_of_100_kib_is_read<S: Raw>() -> Done {
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
    let plain = node(service, "plain", 2);
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

/// A cell that does not apply is declared, and one that is declared does not.
fn judge<S: Raw>(row: &str, done: Done) {
    let declared = S::CANNOT.iter().find(|(name, _)| *name == row).map(|(_, why)| why);
    match (done, declared) {
        (Ok(()), None) => {}
        (Err(Cannot), Some(why)) => println!("{row} does not apply: {why}"),
        (Ok(()), Some(why)) => panic!("it applies, against what is declared: {why}"),
        (Err(Cannot), None) => panic!("it does not apply, and nothing declares so"),
    }
}

macro_rules! every_row {
    ($name:ident: $server:ty: $($row:ident)*) => {
        mod $name {
            use super::*;
            $(
                // On this thread alone, whose log lines are its own.
                #[tokio::test]
                async fn $row() {
                    judge::<$server>(stringify!($row), super::$row::<$server>().await);
                }
            )*

            #[test]
            fn what_is_declared_is_a_row() {
                for (row, _) in <$server as Raw>::CANNOT {
                    assert!([$(stringify!($row)),*].contains(row), "there is no row {row}");
                }
            }
        }
    };
}

macro_rules! every_server {
    ($($name:ident: $server:ty),*) => {
        $(every_row! {
            $name: $server:
            a_watch_cut_50_times_neither_loses_nor_doubles
            batches_of_200_are_told_whole_and_in_order
            an_empty_value_is_left_out
            broken_json_is_left_out
            json_of_a_wrong_type_is_left_out
            overlong_garbage_is_left_out
            a_record_of_100_kib_is_read
            unicode_and_slashes_are_kept
            a_duplicate_id_is_one_node
            two_records_of_one_address_are_one_node
            a_record_written_again_as_it_was_is_told
        })*
    };
}

every_server! {
    consul: InConsul, etcd: InEtcd, kubernetes: InKubernetes, nats: InNats, zookeeper: InZooKeeper
}

// In a suite of its own, which has its server.
#[cfg(feature = "nacos")]
every_server! { nacos: tests::raw::InNacos }
