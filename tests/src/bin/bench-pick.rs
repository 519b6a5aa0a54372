//! What choosing a node costs a call, by policy and by the number of nodes, beside tower's p2c; what
//! it costs that one of 10 000 nodes changes, goes or comes, beside one of 100: what calls pick from, and
//! all the way from the list; what a subset spares and costs, beside parts drawn at random; and what a node
//! takes that is known and cannot be connected to.

use std::{
    alloc::System,
    convert::Infallible,
    future::{Ready, ready},
    hint::black_box,
    process::ExitCode,
    task::{Context, Poll, Waker},
    time::Duration,
};

use micro::{
    Client, Request,
    balance::{
        Balancing, ConsistentHash,
        bench::{Followed, Set, busiest_over_mean, moves},
    },
};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tests::{
    bench::{
        measure::{Spread, cpu},
        table::{Better, Row, report},
    },
    proto::echo::{EchoClient, SayRequest},
};
use tokio::{task::yield_now, time::sleep};
use tower::{
    Service,
    balance::p2c::Balance,
    discover::ServiceList,
    load::{CompleteOnResponse, PeakEwma},
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const SIZES: [u64; 3] = [3, 100, 10_000];
const ROUNDS: usize = 5;
const PICKS: u64 = 100_000;
const UPDATES: u64 = 1_000;

/// So many go in a row, and as many come: the set stays about as large as it is.
const HANDFUL: u64 = 10;

/// A change of one in 10 000 may cost so many times one of a hundred: it copies a chunk of 128 either
/// way, one or two more where a node comes or goes, and the list of 79 chunks besides.
const GROWTH: f64 = 4.0;

/// So many clients, of which each has connected to so many nodes of 10 000.
const CLIENTS: usize = 1_000;
const PART: usize = 32;

/// In bytes a node that is not connected.
const MEMORY: f64 = 4096.0;

fn policies() -> [(&'static str, Balancing); 8] {
    [
        ("p2c", Balancing::p2c()),
        ("round_robin", Balancing::round_robin()),
        ("random", Balancing::random()),
        ("least_request", Balancing::least_request()),
        ("weighted", Balancing::weighted()),
        ("consistent_hash", ConsistentHash::by_key().into()),
        ("pick_first", Balancing::pick_first()),
        ("zone_first", Balancing::zone_first("a")),
    ]
}

/// Nanoseconds of CPU time that each of so many takes, round by round.
fn nanos(times: u64, mut run: impl FnMut(u64)) -> Spread {
    let rounds = (0..=ROUNDS as u64).map(|round| {
        let begin = cpu();
        (0..times).for_each(|number| run(round * times + number));
        (cpu() - begin).as_nanos() as f64 / times as f64
    });
    // The first fills the caches.
    Spread::of(rounds.skip(1))
}

/// What happens to a node.
enum Change {
    Goes(u64),
    Comes(u64),
}

/// Nanoseconds of CPU time a node that goes, and a node that comes, round by round. The one that has been
/// there for longest goes; the one that comes is new.
async fn come_and_go(nodes: u64, mut change: impl AsyncFnMut(Change)) -> [Spread; 2] {
    let (mut goes, mut comes) = (Vec::new(), Vec::new());
    let mut oldest = 0;
    for _ in 0..=ROUNDS {
        let mut took = [Duration::ZERO; 2];
        for _ in 0..UPDATES / HANDFUL {
            let begin = cpu();
            for number in oldest..oldest + HANDFUL {
                change(Change::Goes(number)).await;
            }
            let gone = cpu();
            for number in oldest..oldest + HANDFUL {
                change(Change::Comes(nodes + number)).await;
            }
            took = [took[0] + (gone - begin), took[1] + (cpu() - gone)];
            oldest += HANDFUL;
        }
        let [gone, come] = took.map(|took| took.as_nanos() as f64 / UPDATES as f64);
        goes.push(gone);
        comes.push(come);
    }
    // The first fills the caches.
    [goes, comes].map(|rounds| Spread::of(rounds.into_iter().skip(1)))
}

async fn come_and_go_in_set(balancing: &Balancing, nodes: u64) -> [Spread; 2] {
    let mut set = Set::new(balancing, nodes);
    let change = async |change| match change {
        Change::Goes(number) => set.remove(number),
        Change::Comes(number) => set.insert(number),
    };
    come_and_go(nodes, change).await
}

async fn come_and_go_in_list(balancing: &Balancing, nodes: u64) -> [Spread; 2] {
    let followed = Followed::new(balancing, nodes).await;
    let change = async |change| match change {
        Change::Goes(number) => followed.remove(number).await,
        Change::Comes(number) => followed.insert(number).await,
    };
    let spreads = come_and_go(nodes, change).await;
    // Its task ends with it: what that holds is not to be counted as given back later.
    drop(followed);
    yield_now().await;
    spreads
}

/// What something takes where there are 10 000 nodes, and beside a hundred.
fn growth(what: &str, of: &str, few: Spread, many: Spread) -> [Row; 2] {
    let ratio = Spread {
        median: many.median / few.median,
        low: many.low / few.high,
        high: many.high / few.low,
    };
    let name = format!("{what} of one in 10 000 to one in 100: {of}");
    [
        Row::told(format!("10 000 nodes, ns {what}: {of}"), many),
        Row::new(name, ratio, GROWTH, Better::Lower),
    ]
}

/// Answers at once.
struct Node;

impl Service<()> for Node {
    type Response = ();
    type Error = Infallible;
    type Future = Ready<Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(()))
    }
}

fn tower(nodes: u64) -> Spread {
    let (rtt, decay) = (Duration::from_millis(30), 1e10);
    let node = |_| PeakEwma::new(Node, rtt, decay, CompleteOnResponse::default());
    let mut balance = Balance::new(ServiceList::new((0..nodes).map(node).collect::<Vec<_>>()));
    let mut context = Context::from_waker(Waker::noop());
    nanos(PICKS, |_| {
        assert!(balance.poll_ready(&mut context).is_ready(), "its nodes always are");
        let mut call = Box::pin(balance.call(()));
        assert!(call.as_mut().poll(&mut context).is_ready(), "they answer at once");
    })
}

/// What changes of a node move, and how busy the busiest is: where each client has its subset.
fn subsets() -> [Row; 3] {
    let nodes = SIZES[2] as usize;
    let moved = moves(PART, nodes, UPDATES as usize).map(|moved| moved as f64);
    let busiest: Vec<_> =
        (0..ROUNDS as u64).map(|seed| busiest_over_mean(CLIENTS, PART, nodes, seed)).collect();
    let [ours, random] = [
        Spread::of(busiest.iter().map(|(ours, _)| *ours)),
        Spread::of(busiest.iter().map(|(_, random)| *random)),
    ];
    let name = |of| format!("busiest over mean, {CLIENTS} clients, {PART} of {nodes}: {of}");
    [
        Row::told(
            format!("connections that a change of one moves, {PART} of {nodes}"),
            Spread::of(moved),
        ),
        Row::told(name("subset"), ours),
        Row::told(name("drawn at random"), random),
    ]
}

/// What a client takes a node of 10 000 that refuse connections, once it has tried each.
async fn memory() -> Spread {
    let in_use = || {
        let stats = ALLOCATOR.stats();
        stats.bytes_allocated as f64 - stats.bytes_deallocated as f64
    };
    let nodes = SIZES[2];
    // Nobody listens on port 1 of all the loopback network.
    let address = |number: u64| format!("127.9.{}.{}:1", number / 250, number % 250 + 1);
    let addresses = (0..nodes).map(address).collect::<Vec<_>>().join(",");
    let before = in_use();
    let client = Client::builder().without_env().registry(format!("static://echo={addresses}"));
    drop(addresses);
    let client = client.build().expect("a client");
    let echo = EchoClient::new("echo", &client);
    let call = echo.say(Request::new(SayRequest::default()));
    call.timeout(Duration::from_secs(120)).fail_fast().await.expect_err("nobody is there");
    // At any time some are dialled again: what that takes is given back.
    let mut samples = Vec::new();
    for _ in 0..40 {
        sleep(Duration::from_millis(250)).await;
        samples.push((in_use() - before) / nodes as f64);
    }
    black_box(echo);
    Spread::of(samples)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut rows = Vec::new();
    for nodes in SIZES {
        for (name, balancing) in policies() {
            let set = Set::new(&balancing, nodes);
            let spread = nanos(PICKS, |key| set.call(key));
            rows.push(Row::told(format!("{nodes} nodes, ns a pick: {name}"), spread));
        }
        rows.push(Row::told(format!("{nodes} nodes, ns a pick: tower's p2c"), tower(nodes)));
    }
    let [few, many] = [SIZES[1], SIZES[2]];
    for (name, balancing) in policies() {
        let update = |nodes| {
            let mut set = Set::new(&balancing, nodes);
            nanos(UPDATES, |number| set.insert(number % nodes))
        };
        rows.extend(growth("a change", name, update(few), update(many)));
        let of_few = come_and_go_in_set(&balancing, few).await;
        let of_many = come_and_go_in_set(&balancing, many).await;
        for (what, place) in [("a leave", 0), ("a join", 1)] {
            rows.extend(growth(what, name, of_few[place], of_many[place]));
        }
    }
    // The policies differ in what calls pick from, and in nothing before that.
    let balancing = Balancing::p2c();
    let of_few = come_and_go_in_list(&balancing, few).await;
    let of_many = come_and_go_in_list(&balancing, many).await;
    for (what, place) in [("a leave", 0), ("a join", 1)] {
        rows.extend(growth(what, "p2c, from the list on", of_few[place], of_many[place]));
    }
    rows.extend(subsets());
    rows.push(Row::new(
        "bytes a node that is not connected",
        memory().await,
        MEMORY,
        Better::Lower,
    ));
    report("pick", &rows)
}
