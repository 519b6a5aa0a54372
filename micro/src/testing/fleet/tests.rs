use std::{collections::BTreeSet, sync::Mutex, time::Duration};

use futures_util::FutureExt as _;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};
use tonic::Code;

use super::*;
use crate::{
    ChannelOptions,
    balance::Filter,
    client::Served,
    fixture::{Echo, Stub, Word, register},
    registry::Registry as _,
};

mod calls;

const MILLI: Duration = Duration::from_millis(1);

const SECOND: Duration = Duration::from_secs(1);

/// As the registration's default has it.
const TTL: Duration = Duration::from_secs(15);

fn echo(node: &mut Service) {
    let echo = Echo::named(node.id());
    register(node.server(), echo);
}

/// `echo-1` to `echo-3`, and a stub that is connected to all of them.
async fn fleet() -> (Fleet, Stub) {
    let fleet = Fleet::builder().nodes("echo", 3, echo).start().await.expect("a fleet");
    let stub = Stub::new("echo", fleet.client());
    for node in fleet.nodes() {
        stub.say(Word::new("who?")).node(node.id()).await.expect("it is there");
    }
    (fleet, stub)
}

async fn registered(fleet: &Fleet) -> Vec<String> {
    let listing = fleet.registry().read("echo").await.expect("it is there");
    listing.entries.iter().map(|entry| entry.node.id.clone()).collect()
}

/// Which of the nodes answer, of so many calls that any that can be picked would be among them. Every
/// call must be answered.
async fn answering(stub: &Stub) -> Vec<String> {
    let mut nodes = Vec::new();
    for _ in 0..60 {
        nodes.push(stub.read(Word::new("who?")).await.expect("a reply").into_inner().text);
    }
    nodes.sort();
    nodes.dedup();
    nodes
}

#[tokio::test(start_paused = true)]
async fn a_killed_node_is_gone_at_once_and_from_the_registry_with_its_ttl() {
    let (fleet, stub) = fleet().await;
    let under_way = stub.say(Word::new("sleep")).node("echo-1").into_future();
    let mut under_way = std::pin::pin!(under_way);
    assert!(under_way.as_mut().now_or_never().is_none());
    sleep(MILLI).await;
    fleet.node("echo-1").kill();
    let status = under_way.await.expect_err("its node was killed");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert_eq!(answering(&stub).await, ["echo-2", "echo-3"]);
    let pinned = stub.say(Word::new("who?")).node("echo-1").timeout(SECOND).await;
    let status = pinned.expect_err("it is dead");
    assert!(status.message().contains("refused"), "{status}");

    assert_eq!(registered(&fleet).await.len(), 3, "nobody told the registry");
    sleep(TTL).await;
    assert_eq!(registered(&fleet).await, ["echo-2", "echo-3"]);

    fleet.node("echo-1").restart().await.expect("it starts");
    stub.say(Word::new("who?")).node("echo-1").await.expect("it is back");
    assert_eq!(answering(&stub).await, ["echo-1", "echo-2", "echo-3"]);
}

#[tokio::test(start_paused = true)]
async fn a_handler_of_a_killed_node_is_dropped() {
    let running = Arc::new(AtomicU32::new(0));
    let counted = running.clone();
    let fleet = Fleet::builder().nodes("echo", 1, move |node| {
        let echo = Echo { running: counted.clone(), ..Echo::named(node.id()) };
        register(node.server(), echo);
    });
    let fleet = fleet.start().await.expect("a fleet");
    let stub = Stub::new("echo", fleet.client());
    let call = tokio::spawn(stub.say(Word::new("sleep")).into_future());
    sleep(MILLI).await;
    assert_eq!(running.load(Relaxed), 1);
    fleet.node("echo-1").kill();
    sleep(MILLI).await;
    assert_eq!(running.load(Relaxed), 0);
    call.abort();
}

#[tokio::test(start_paused = true)]
async fn a_hung_node_takes_calls_in_silence_and_answers_once_it_heals() {
    let (fleet, stub) = fleet().await;
    fleet.node("echo-1").hang();
    let asked = Instant::now();
    let call = stub.say(Word::new("who?")).node("echo-1").into_future();
    let heal = async {
        sleep(SECOND).await;
        fleet.node("echo-1").heal();
    };
    let (reply, ()) = tokio::join!(call, heal);
    assert_eq!(reply.expect("it heals in time").into_inner().text, "echo-1");
    assert_eq!(asked.elapsed(), SECOND);

    fleet.node("echo-1").hang();
    let call = stub.say(Word::new("who?")).node("echo-1").timeout(SECOND * 4);
    let status = call.await.expect_err("it hangs");
    assert!(!status.message().contains("refused"), "it hangs, and is there: {status}");
    assert_eq!(answering(&stub).await, ["echo-2", "echo-3"]);
    sleep(TTL).await;
    assert_eq!(registered(&fleet).await, ["echo-2", "echo-3"], "it does not renew");

    fleet.node("echo-1").heal();
    let reply = stub.say(Word::new("who?")).node("echo-1").timeout(TTL).await;
    reply.expect("it registers anew");
}

#[tokio::test(start_paused = true)]
async fn not_even_the_end_of_a_connection_comes_from_a_hung_node() {
    let (fleet, stub) = fleet().await;
    // Else it is out of the registry.
    fleet.registry().fail();
    fleet.node("echo-1").hang();
    // Its server has given the connection up, for want of an answer to its own PING.
    sleep(SECOND * 120).await;
    let line = |explained: String| {
        explained.lines().find(|line| line.contains("echo-1 at")).expect("it is listed").to_owned()
    };
    let before = line(stub.explain().await);
    assert!(before.contains("ready for 120.0s"), "{before}");
    fleet.node("echo-1").heal();
    sleep(MILLI).await;
    let after = line(stub.explain().await);
    assert!(!after.contains("ready for 120.0s"), "it is connected to anew: {after}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_refuses_is_registered_and_not_connected_to() {
    let (fleet, stub) = fleet().await;
    fleet.node("echo-2").refuse();
    assert_eq!(answering(&stub).await, ["echo-1", "echo-3"]);
    sleep(TTL * 2).await;
    assert_eq!(registered(&fleet).await.len(), 3, "it runs, and renews");
    let pinned = stub.say(Word::new("who?")).node("echo-2").fail_fast().await;
    let status = pinned.expect_err("it refuses");
    assert!(status.message().contains("connection refused"), "{status}");
    fleet.node("echo-2").heal();
    stub.say(Word::new("who?")).node("echo-2").timeout(TTL).await.expect("it is tried again");
}

#[tokio::test(start_paused = true)]
async fn a_slow_node_answers_so_much_later_and_stays_connected() {
    let (fleet, stub) = fleet().await;
    // Longer than callers wait for an answer to their PING.
    for latency in [SECOND / 10, SECOND * 4, Duration::ZERO] {
        fleet.node("echo-3").slow(latency);
        let asked = Instant::now();
        let call = stub.say(Word::new("who?")).node("echo-3");
        call.timeout(SECOND * 5).await.expect("in time");
        assert_eq!(asked.elapsed(), latency);
    }
    fleet.node("echo-3").slow(SECOND * 4);
    let call = stub.say(Word::new("who?")).node("echo-3").timeout(SECOND);
    assert_eq!(call.await.expect_err("too slow").code(), Code::DeadlineExceeded);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_finishes_its_calls_and_costs_none() {
    let (fleet, stub) = fleet().await;
    fleet.node("echo-1").slow(SECOND);
    let call = tokio::spawn(stub.say(Word::new("who?")).node("echo-1").into_future());
    sleep(MILLI).await;
    let left = Instant::now();
    fleet.node("echo-1").leave().await.expect("it leaves");
    assert_eq!(left.elapsed().as_millis(), 999, "when the call under way is over");
    assert_eq!(call.await.expect("a task").expect("a reply").into_inner().text, "echo-1");
    assert_eq!(registered(&fleet).await, ["echo-2", "echo-3"]);
    assert_eq!(answering(&stub).await, ["echo-2", "echo-3"]);
    fleet.node("echo-1").leave().await.expect("it has left");
    fleet.node("echo-1").kill();
    fleet.node("echo-1").restart().await.expect("it starts");
    stub.say(Word::new("who?")).node("echo-1").await.expect("it is back");
}

#[tokio::test(start_paused = true)]
async fn a_restart_needs_no_kill_before() {
    let (fleet, stub) = fleet().await;
    fleet.node("echo-1").refuse();
    fleet.node("echo-1").restart().await.expect("it starts");
    stub.say(Word::new("who?")).node("echo-1").timeout(TTL).await.expect("it is back, and well");
    assert_eq!(answering(&stub).await, ["echo-1", "echo-2", "echo-3"]);
}

#[tokio::test(start_paused = true)]
async fn calls_do_without_the_registry_and_new_clients_wait_for_it() {
    let (fleet, stub) = fleet().await;
    fleet.registry().fail();
    sleep(TTL * 4).await;
    assert_eq!(answering(&stub).await, ["echo-1", "echo-2", "echo-3"]);
    let error = fleet.registry().read("echo").await.expect_err("it is away");
    assert!(error.is_registry(), "{error}");
    // Of a client of its own, since the other has the watch open.
    let other = fleet.client_builder().registry(fleet.node("echo-1").registry_url());
    let other = Stub::new("echo", &other.build().expect("a client"));
    let status = other.read(Word::new("who?")).await.expect_err("it knows no node");
    assert!(status.message().contains("away, as the test has told it"), "{status}");

    fleet.registry().heal();
    other.read(Word::new("who?")).timeout(TTL).await.expect("it is asked again");
    sleep(TTL).await;
    assert_eq!(registered(&fleet).await.len(), 3, "their records expired: they register anew");
}

#[tokio::test(start_paused = true)]
async fn a_wiped_registry_gets_its_nodes_back_and_no_call_fails() {
    let (fleet, stub) = fleet().await;
    fleet.registry().wipe();
    assert!(registered(&fleet).await.is_empty());
    assert_eq!(answering(&stub).await, ["echo-1", "echo-2", "echo-3"]);
    sleep(TTL / 3).await;
    assert_eq!(registered(&fleet).await.len(), 3, "at their next renewal");
    assert_eq!(answering(&stub).await, ["echo-1", "echo-2", "echo-3"]);
}

#[tokio::test(start_paused = true)]
async fn services_of_a_fleet_call_each_other() {
    let fleet = Fleet::builder().nodes("front", 1, |node| {
        let echo = Echo { client: Some(node.client()), ..Echo::named(node.id()) };
        register(node.server(), echo);
    });
    let fleet = fleet.nodes("back", 2, echo).start().await.expect("a fleet");
    let back = fleet.nodes().iter().filter(|node| node.id().starts_with("back"));
    back.for_each(|node| node.slow(SECOND));
    let stub = Stub::new("front", fleet.client());
    let call = stub.say(Word::new("peer back")).timeout(SECOND * 3);
    let status = call.await.expect_err("whoever is behind sleeps");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
}

#[tokio::test(start_paused = true)]
async fn fleets_do_not_meet_and_end_when_they_are_dropped() {
    let ((one, _), (other, stub)) = (fleet().await, fleet().await);
    assert_ne!(one.node("echo-1").address(), other.node("echo-1").address());
    let url = other.registry_url().to_owned();
    drop(other);
    let call = stub.say(Word::new("who?")).timeout(SECOND);
    let status = call.await.expect_err("its fleet is gone");
    assert!(status.message().contains("connection reset"), "{status}");
    drop(stub);
    let error = Client::builder().registry(url.replace("fleet://", "fleet://0")).build();
    let error = error.expect_err("there is no such fleet").to_string();
    assert!(error.contains("no such fleet runs in this process"), "{error}");
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "the fleet has no node echo-4, but echo-1, echo-2, echo-3")]
async fn a_node_that_is_not_there_is_a_slip_of_the_test() {
    fleet().await.0.node("echo-4").kill();
}

#[tokio::test(start_paused = true)]
async fn a_fleet_that_cannot_be_says_why() {
    for (first, second, why) in [
        ("echo", "echo", "a node of id 'echo-1' of service 'echo' runs in this process already"),
        ("echo", "two words", "the service's name \"two words\" has white space"),
    ] {
        let fleet = Fleet::builder().nodes(first, 1, echo).nodes(second, 1, echo).start().await;
        let error = fleet.expect_err("it cannot be");
        assert!(error.is_config() && error.to_string().contains(why), "{error}");
    }
}

#[cfg(feature = "tls")]
#[tokio::test(start_paused = true)]
async fn tls_is_spoken_over_pipes_as_over_sockets() {
    let authority = crate::fixture::Authority::new();
    let (cert, key) = authority.issue("echo.internal");
    let fleet = Fleet::builder().nodes("echo", 1, move |node| {
        echo(node);
        node.server().tls(crate::tls::ServerTls::from_pem(cert.clone(), key.clone()));
    });
    let fleet = fleet.start().await.expect("a fleet");
    let tls = authority.client().server_name("echo.internal");
    let client = fleet.client_builder().for_all(crate::ChannelOptions::new().tls(tls));
    let stub = Stub::new("echo", &client.build().expect("a client"));
    stub.say(Word::new("who?")).await.expect("a reply");

    let stub = Stub::new("echo", fleet.client());
    let status = stub.say(Word::new("who?")).fail_fast().await.expect_err("it wants TLS");
    assert!(status.message().contains("TLS"), "{status}");
}

#[tokio::test]
async fn a_fleet_runs_in_real_time_too() {
    let (_fleet, stub) = fleet().await;
    let mut nodes = BTreeSet::new();
    // One that this machine holds up for a moment has few calls for the next seconds.
    while nodes.len() < 3 {
        nodes.insert(stub.read(Word::new("who?")).await.expect("a reply").into_inner().text);
    }
    assert!(nodes.iter().eq(["echo-1", "echo-2", "echo-3"]));
}

/// Which nodes answer four callers, call by call, while all kinds of faults come and go.
async fn story(seed: u64) -> Vec<String> {
    let fleet = Fleet::builder().seed(seed).nodes("echo", 5, echo).start().await.expect("a fleet");
    // Calls that take no time would leave none to the rest of the story.
    for (place, node) in (1..).zip(fleet.nodes()) {
        node.slow(20 * MILLI * place);
    }
    let told = Arc::new(Mutex::new(Vec::new()));
    let calling = (0..4).map(|_| {
        let (stub, told) = (Stub::new("echo", fleet.client()), told.clone());
        tokio::spawn(async move {
            loop {
                let call = stub.read(Word::new("who?")).await;
                let call = match &call {
                    Ok(reply) => {
                        let Served { node, attempts, .. } = reply.extensions().get().expect("told");
                        format!("{} {attempts}", node.id)
                    }
                    Err(status) => format!("{status}"),
                };
                told.lock().expect("nobody panics").push(call);
            }
        })
    });
    let calling: Vec<_> = calling.collect();
    for chapter in 0..9 {
        sleep(SECOND).await;
        match chapter {
            0 => fleet.node("echo-1").kill(),
            1 => fleet.node("echo-2").hang(),
            2 => fleet.registry().fail(),
            3 => {
                fleet.node("echo-1").restart().await.expect("it starts");
                fleet.node("echo-1").slow(20 * MILLI);
            }
            4 => fleet.registry().heal(),
            5 => fleet.node("echo-3").refuse(),
            6 => fleet.node("echo-5").leave().await.expect("it leaves"),
            7 => fleet.registry().wipe(),
            _ => {
                fleet.node("echo-2").heal();
                fleet.node("echo-2").slow(20 * MILLI);
            }
        }
    }
    calling.iter().for_each(JoinHandle::abort);
    let told = told.lock().expect("nobody panics");
    told.clone()
}

#[test]
fn a_seed_tells_the_same_story_each_time_and_another_seed_another() {
    let told = |seed| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().start_paused(true).build().expect("a runtime").block_on(story(seed))
    };
    let first = told(7);
    for run in 0..2 {
        let next = told(7);
        let differs = first.iter().zip(&next).position(|(a, b)| a != b);
        assert_eq!(differs, None, "run {run}: {:?}", differs.map(|at| (&first[at], &next[at])));
    }
    assert_ne!(told(8), first);
}

#[tokio::test(start_paused = true)]
async fn a_node_is_configured_by_its_id_and_anew_when_it_is_restarted() {
    let zone = Arc::new(Mutex::new("b"));
    let now = zone.clone();
    let fleet = Fleet::builder()
        .nodes("echo", 3, echo)
        .configure("echo-2", |node| node.version("2.1.0").id("mine").registry("memory://mine"))
        .configure("echo-3", move |node| node.metadata("zone", *now.lock().unwrap()));
    let fleet = fleet.start().await.expect("a fleet");
    let to = |options| {
        let client = fleet.client_builder().for_all(options).build().expect("a client");
        Stub::new("echo", &client)
    };
    let second = to(ChannelOptions::new().filter(Filter::new().version_range("^2")));
    assert_eq!(answering(&second).await, ["echo-2"]);
    let in_zone = |zone| to(ChannelOptions::new().filter(Filter::new().label("zone", zone)));
    assert_eq!(answering(&in_zone("b")).await, ["echo-3"]);
    *zone.lock().unwrap() = "c";
    fleet.node("echo-3").restart().await.expect("it listens");
    assert_eq!(answering(&in_zone("c")).await, ["echo-3"]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_configured_and_not_there_is_an_error() {
    let fleet = Fleet::builder().nodes("echo", 2, echo).configure("echo-3", |node| node);
    let error = fleet.start().await.expect_err("there are two");
    assert!(error.is_config());
    assert!(
        error.to_string().contains("the fleet has no node echo-3 to configure, but echo-1, echo-2"),
        "{error}"
    );
}

/// It answers at once, and would draw all calls, were that a merit.
#[tokio::test(start_paused = true)]
async fn a_node_that_lacks_the_method_gets_next_to_no_calls() {
    let serve = |node: &mut Service| {
        if node.id() != "echo-1" {
            echo(node);
        }
    };
    let fleet = Fleet::builder().nodes("echo", 3, serve).start().await.expect("a fleet");
    fleet.node("echo-2").slow(10 * MILLI);
    fleet.node("echo-3").slow(10 * MILLI);
    let callers: Vec<_> = (0..16)
        .map(|_| {
            let stub = Stub::new("echo", fleet.client());
            tokio::spawn(async move {
                let mut failed = 0;
                for _ in 0..100 {
                    failed += u32::from(stub.read(Word::new("who?")).await.is_err());
                    sleep(20 * MILLI).await;
                }
                failed
            })
        })
        .collect();
    let mut failed = 0;
    for caller in callers {
        failed += caller.await.expect("a caller");
    }
    assert!((1..50).contains(&failed), "{failed} of 1600 calls");
}
