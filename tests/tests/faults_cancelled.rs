//! Calls that are given up midway leave nothing behind: neither here nor on the nodes. In a process of
//! its own, since all that it has is counted.

use std::{alloc::System, fs, time::Duration};

use micro::{Channel, Client};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tests::{
    etcd::Etcd,
    fault::{Audit, Fleet, GIVEN_UP, SERVICE, Who, give_up, give_up_beside_callers, slow_fleet},
    proto::ledger::{FollowerClient, LedgerClient},
};
use tokio::{
    runtime::Handle,
    time::{Instant, sleep},
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// In how many rounds they are made while a connection's own is counted.
const ROUNDS: usize = 5;

/// The first of their ids while there are no callers beside them.
const FIRST_ID: u64 = 1 << 32;

/// What there is of what could be left behind.
#[derive(Debug, Clone, Copy)]
struct Count {
    tasks: usize,
    /// Bytes of this process's heap.
    heap: isize,
    /// Files and sockets, here and on the nodes.
    open: usize,
    /// Bytes that the nodes' processes have in memory.
    nodes: usize,
}

/// Bytes of this process's heap.
fn heap() -> isize {
    let heap = ALLOCATOR.stats();
    heap.bytes_allocated as isize - heap.bytes_deallocated as isize
}

impl Count {
    fn of(fleet: &Fleet) -> Self {
        let open = |process: &str| {
            let files = fs::read_dir(format!("/proc/{process}/fd"));
            files.expect("Linux tells what is open").count()
        };
        let processes: Vec<_> = fleet.processes().iter().map(u32::to_string).collect();
        let resident = |process: &String| {
            let pages = fs::read_to_string(format!("/proc/{process}/statm"));
            let pages = pages.expect("Linux tells of its memory");
            pages.split(' ').nth(1).and_then(|it| it.parse::<usize>().ok()).expect("pages") * 4096
        };
        Self {
            tasks: Handle::current().metrics().num_alive_tasks(),
            heap: heap(),
            open: open("self") + processes.iter().map(|it| open(it)).sum::<usize>(),
            nodes: processes.iter().map(resident).sum(),
        }
    }

    /// Whether nothing is left, but for what a heap keeps for later.
    fn is_as(&self, before: &Self) -> bool {
        self.tasks <= before.tasks
            && self.open <= before.open
            && self.heap <= before.heap + 64 * 1024
            && self.nodes <= before.nodes + before.nodes / 20
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_given_up_midway_leave_nothing_behind_and_fail_no_other() {
    let etcd = Etcd::start().await;
    let fleet = slow_fleet(&etcd.url()).await;
    let client = Client::builder().registry(&fleet.url).build().unwrap();
    // The stubs' own: they leave their connections to it.
    let channel = client.channel(SERVICE);
    a_connection_keeps_nothing(&client, &channel).await;
    // What is kept for reuse is there after as many calls at once as there will be.
    drop(channel);
    let before = settled(&fleet, None).await;

    let channel = client.channel(SERVICE);
    let audit = give_up_beside_callers(&fleet, &client, Who::Micro).await;
    assert_eq!(audit.failed().len(), 0, "of the calls beside: {:?}", audit.failed().first());
    assert!(audit.broken_rules().is_empty(), "{:?}", audit.broken_rules());
    drop(audit);

    none_is_under_way(&channel).await;
    drop(channel);
    let after = settled(&fleet, Some(before)).await;
    println!("before: {before:?}\nafter:  {after:?}");
}

/// Gives calls up in rounds. Connections have room for as many streams as there ever were at once, which
/// grows in some rounds; what is kept of each call would be kept in all.
async fn a_connection_keeps_nothing(client: &Client, channel: &Channel) {
    let (ledger, follower) =
        (LedgerClient::new(SERVICE, client), FollowerClient::new(SERVICE, client));
    let (mut before, mut grown) = (heap(), Vec::new());
    for round in 0..ROUNDS {
        let first = FIRST_ID + (round * GIVEN_UP) as u64;
        give_up(&ledger, &follower, first, GIVEN_UP / ROUNDS).await;
        none_is_under_way(channel).await;
        grown.push(heap() - before);
        before = heap();
    }
    println!("bytes more after each round: {grown:?}");
    let least = grown.iter().min().expect("there are some");
    assert!(*least < 4096, "each round leaves something behind: {grown:?}");
}

/// Waits until the client counts no call as in flight.
async fn none_is_under_way(channel: &Channel) {
    let limit = Instant::now() + Duration::from_secs(10);
    loop {
        let explained = channel.explain().await.expect("the runtime is ours");
        if explained.nodes.iter().all(|node| node.in_flight == 0) {
            return;
        }
        assert!(Instant::now() < limit, "calls are under way 10 s later: {explained}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until no handler has a call any more, and here it is as it was before.
async fn settled(fleet: &Fleet, before: Option<Count>) -> Count {
    let limit = Instant::now() + Duration::from_secs(10);
    loop {
        let open = Audit::new(Vec::new(), fleet.visits()).open();
        let count = Count::of(fleet);
        if open == 0 && before.is_none_or(|before| count.is_as(&before)) {
            return count;
        }
        assert!(
            Instant::now() < limit,
            "10 s later handlers have {open} calls; before: {before:?}, now: {count:?}"
        );
        sleep(Duration::from_millis(100)).await;
    }
}
