//! A watch whose connection is cut again and again.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use fastrand::Rng;
use micro::{
    discovery::{Discovery, Update},
    registry::{self, Event, Listing, Node, Registry, WatchError},
};
use tests::{
    link::Link,
    process,
    raw::{Cannot, InEtcd, Raw, SOON},
};
use tokio::time::{sleep, timeout};
use tokio_stream::StreamExt;

use super::{Done, node};

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

/// How far in each node's history what was told of a service has come.
struct Judge<'a> {
    service: usize,
    histories: &'a Histories,
    at: [usize; NODES],
    /// How far each had come when all was read last.
    read: [usize; NODES],
}

impl<'a> Judge<'a> {
    fn new(service: usize, histories: &'a Histories) -> Self {
        Self { service, histories, at: [0; NODES], read: [0; NODES] }
    }

    /// Whoever is told that a node is in this state has missed nothing since all was read. What was read
    /// may have been a later state than is known here, if it is the same once more; and where a read
    /// does not tell all, any.
    fn is_next<S: Raw>(&mut self, index: usize, state: Option<usize>) {
        let known = self.at[index];
        self.is_later(index, state);
        let last = self.at[index] - 1;
        let history = &self.histories.borrow()[&(self.service, index)];
        let is_read =
            last < self.read[index] && (!S::KEEPS_RECORDS || history[last] == history[known]);
        assert!(
            last == known || is_read,
            "{index} of {}: {state:?} after {known}, and nothing between, of {history:?}",
            SERVICES[self.service]
        );
    }

    /// Whoever is told so has come from an earlier one, perhaps over some that it was not told of.
    fn is_later(&mut self, index: usize, state: Option<usize>) {
        let history = &self.histories.borrow()[&(self.service, index)];
        let at = self.at[index];
        let step = history[at + 1..].iter().position(|it| *it == state);
        let Some(step) = step else {
            panic!("{index} of {}: {state:?} after {at} of {history:?}", SERVICES[self.service]);
        };
        self.at[index] = at + 1 + step;
    }

    /// Whoever is told that these are all has come from an earlier state of each.
    fn are_all<'n>(&mut self, nodes: impl IntoIterator<Item = &'n Arc<Node>>) {
        let mut there: BTreeMap<_, _> = nodes.into_iter().map(|node| read(node)).collect();
        for index in 0..NODES {
            let state = there.remove(&index);
            if self.histories.borrow()[&(self.service, index)][self.at[index]] != state {
                self.is_later(index, state);
            }
        }
        assert!(there.is_empty(), "{there:?}");
    }

    fn is_read(&mut self, listing: &Listing) {
        self.are_all(listing.entries.iter().map(|it| &it.node));
        let histories = self.histories.borrow();
        self.read = std::array::from_fn(|index| histories[&(self.service, index)].len());
    }

    /// What a subscriber is told, who is not told when all was read anew: states in the order in which
    /// they were, each once, or left out for a later.
    fn subscribed(&mut self, update: &Update) {
        match update {
            Update::Insert(node) => {
                let (index, number) = read(node);
                self.is_later(index, Some(number));
            }
            Update::Remove(id) => self.is_later(index_of(id), None),
            Update::Reset(nodes) => self.are_all(nodes),
            Update::Forget => panic!("there is no bound"),
        }
    }

    /// What a watch tells.
    fn watched<S: Raw>(&mut self, event: &Event) {
        let mut is = |index, state| match S::TELLS_EVERY_CHANGE {
            true => self.is_next::<S>(index, state),
            false => self.is_later(index, state),
        };
        match event {
            Event::Put(entry) => {
                let (index, number) = read(&entry.node);
                is(index, Some(number));
            }
            Event::Delete(key) => is(index_of(key), None),
            Event::Reset(listing) => {
                let before = self.at;
                self.are_all(listing.entries.iter().map(|it| &it.node));
                // As a watch on Kubernetes begins with all that was read before.
                assert!(
                    !S::TELLS_EVERY_CHANGE || self.at == before,
                    "a reset with something new in it"
                );
            }
            Event::Malformed(malformed) => panic!("{malformed:?}"),
        }
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

/// Follows a service without a subscription, which shows where the registry is read anew: there alone may
/// a state be left out.
async fn watch<S: Raw>(registry: &dyn Registry, judge: &RefCell<Judge<'_>>, seen: &Cell<usize>) {
    let service = SERVICES[judge.borrow().service];
    loop {
        let Ok(listing) = registry.read(service).await else {
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        judge.borrow_mut().is_read(&listing);
        let mut revision = listing.revision;
        loop {
            let mut watch = registry.watch(service, revision);
            let ended = loop {
                match watch.next().await {
                    Some(Ok(batch)) => {
                        revision = batch.revision;
                        for event in &batch.events {
                            judge.borrow_mut().watched::<S>(event);
                            seen.set(seen.get() + 1);
                        }
                    }
                    Some(Err(error)) => break error,
                    None => panic!("a watch ends with an error"),
                }
            };
            // One that ended in good order goes on where it was, and has missed nothing.
            if !matches!(ended, WatchError::Ended) {
                break;
            }
        }
    }
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

pub(super) async fn a_watch_cut_50_times_neither_loses_nor_doubles<S: Raw>() -> Done {
    if !S::IS_CONNECTED {
        return Err(Cannot);
    }
    let server = S::serving().await;
    let link = Link::to(&server.address()).await;
    let all = (0..SERVICES.len()).flat_map(|service| (0..NODES).map(move |it| (service, it)));
    let histories: Histories = RefCell::new(all.map(|which| (which, vec![None])).collect());
    let url = server.url_at(&link.address);
    let discovery = Discovery::open(&url).expect("a URL");
    let mut subscriptions = SERVICES.map(|service| discovery.subscribe(service));
    let mut judges = [0, 1, 2].map(|service| Judge::new(service, &histories));
    let registry = registry::open(&url).expect("a URL");
    let watched = [0, 1, 2].map(|service| RefCell::new(Judge::new(service, &histories)));
    let seen = Cell::new(0);
    let [a, b, c] = watched.each_ref().map(|judge| watch::<S>(&*registry, judge, &seen));
    let mut watching = std::pin::pin!(async { tokio::join!(a, b, c) });

    let mut writer =
        Writer { server: &server, rng: Rng::with_seed(50), histories: &histories, writes: 0 };
    let mut rng = Rng::with_seed(51);
    let mut updates = 0;
    for round in 1..=CUTS {
        let [a, b, c] = &mut subscriptions;
        let follow = async {
            loop {
                let (service, update) = tokio::select! {
                    update = a.next() => (0, update),
                    update = b.next() => (1, update),
                    update = c.next() => (2, update),
                };
                judges[service].subscribed(&update.expect("it is endless"));
                updates += 1;
            }
        };
        tokio::select! {
            () = follow => {}
            _ = &mut watching => {}
            ((), ()) = async { tokio::join!(writer.some(), cut(&link, &mut rng)) } => {}
        }
        // Once in a while all is to be told before the next cut, since that brings it anyway.
        if round % (CUTS / 5) == 0 {
            let told = async {
                for (subscription, judge) in subscriptions.iter_mut().zip(&mut judges) {
                    while !judge.is_up_to_date() {
                        let update = subscription.next().await;
                        judge.subscribed(&update.expect("it is endless"));
                        updates += 1;
                    }
                }
                while !watched.iter().all(|judge| judge.borrow().is_up_to_date()) {
                    sleep(Duration::from_millis(5)).await;
                }
            };
            let told = async {
                tokio::select! {
                    () = told => {}
                    _ = &mut watching => {}
                }
            };
            if timeout(SOON, told).await.is_err() {
                let at = judges.each_ref().map(|it| it.at);
                let watched = watched.each_ref().map(|it| it.borrow().at);
                panic!("round {round}: lost: {at:?}, {watched:?} of {histories:?}");
            }
        }
    }
    assert_eq!(writer.writes, 1000);

    let direct = registry::open(&server.url_at(&server.address())).expect("a URL");
    for ((subscription, judge), service) in subscriptions.iter_mut().zip(&judges).zip(SERVICES) {
        // What is told now would be told twice.
        let more = async {
            tokio::select! {
                update = subscription.next() => update,
                _ = &mut watching => None,
            }
        };
        let more = timeout(Duration::from_millis(500), more).await;
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
    }
    println!("{updates} updates, and {} events by themselves", seen.get());
    // A watch that lived from one cut to the next has told most of what was written meanwhile.
    assert!(!S::TELLS_EVERY_CHANGE || seen.get() > 100, "{} events", seen.get());
    Ok(())
}

/// What the judge is to find: a watch that leaves a state out.
pub(super) fn leave_a_state_out() {
    let history = vec![None, Some(1), None, Some(2)];
    let histories: Histories =
        RefCell::new((0..NODES).map(|it| ((0, it), history.clone())).collect());
    let mut judge = Judge::new(0, &histories);
    judge.is_next::<InEtcd>(0, Some(1));
    judge.is_next::<InEtcd>(0, Some(2));
}
