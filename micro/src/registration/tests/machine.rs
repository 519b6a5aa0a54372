//! The machine by tables: what follows from what, at which time.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    Error, ErrorKind,
    backoff::Backoff,
    registration::{
        Check, Options,
        state::{Event, Note, State, Work},
    },
    registry::{Lease, RenewError},
};

const LEASE: Lease = Lease(7);
const NEXT_LEASE: Lease = Lease(8);

/// What a step led to, in one line: the notes, then the work, with times in ms.
fn step(state: &mut State, start: Instant, at: u64, event: Event) -> String {
    let (notes, work) = state.handle(start + Duration::from_millis(at), event);
    let notes = notes.into_iter().map(|note| match note {
        Note::Entered(state, None) => format!("{state} > "),
        Note::Entered(state, Some(why)) => format!("{state} ({why}) > "),
        Note::Trouble(why) => format!("trouble ({why}) > "),
        Note::Recovered => "recovered > ".to_owned(),
    });
    let work = match work {
        Work::Wait(Some(until)) => format!("wait {}", (until - start).as_millis()),
        Work::Wait(None) => "wait".to_owned(),
        work => format!("{work:?}").to_lowercase(),
    };
    notes.collect::<String>() + &work
}

/// Runs a table of (ms, event, what it must lead to) with a TTL of 15 s and retries at once.
fn run(check: bool, table: Vec<(u64, Event, &str)>) {
    run_in_phase(1.0, check, table);
}

fn run_in_phase(phase: f64, check: bool, table: Vec<(u64, Event, &str)>) {
    let start = Instant::now();
    let check = check.then(|| -> Check { Arc::new(|| unreachable!("the machine asks nobody")) });
    let options = Options { check, ..Options::default() };
    let at_once = Backoff::full_jitter(Duration::ZERO, Duration::ZERO);
    let mut state = State::new(start, &options, at_once, contest(), phase);
    for (row, (at, event, expected)) in table.into_iter().enumerate() {
        let what = format!("row {row}, {at} ms: {event:?}");
        assert_eq!(step(&mut state, start, at, event), expected, "{what}");
    }
}

/// The very waits of each run: 500 ms or less, then up to 1 s, then up to 2 s.
fn contest() -> Backoff {
    let contest = Backoff::full_jitter(Duration::from_millis(500), Duration::from_secs(2));
    contest.with_rng(fastrand::Rng::with_seed(7))
}

fn down() -> Error {
    Error::registry("etcd is down")
}

fn lost(why: &str) -> Event {
    Event::Renewed(Err(RenewError::Lost(why.to_owned())))
}

#[test]
fn a_node_is_registered_at_once_and_renewed_at_every_interval() {
    run(
        false,
        vec![
            (0, Event::Elapsed, "registering > register"),
            (30, Event::Registered(Ok(LEASE)), "registered > wait 5000"),
            (5000, Event::Elapsed, "renew(lease(7))"),
            (5900, Event::Renewed(Ok(())), "wait 10000"),
            (10_001, Event::Elapsed, "renew(lease(7))"),
            (10_002, Event::Renewed(Ok(())), "wait 15001"),
        ],
    );
}

#[test]
fn the_first_renewal_after_a_registration_comes_at_the_nodes_own_moment() {
    run_in_phase(
        0.25,
        true,
        vec![
            (0, Event::Elapsed, "check"),
            (10, Event::Checked(Ok(())), "registering > register"),
            (30, Event::Registered(Ok(LEASE)), "registered > wait 1250"),
            (1250, Event::Elapsed, "check"),
            (1260, Event::Checked(Ok(())), "renew(lease(7))"),
            (1270, Event::Renewed(Ok(())), "wait 6250"),
            (6250, Event::Elapsed, "check"),
            (6260, Event::Checked(Ok(())), "renew(lease(7))"),
            (6270, lost("deleted"), "lost (deleted) > registering > register"),
            (6280, Event::Registered(Ok(NEXT_LEASE)), "registered > release(lease(7))"),
            (6290, Event::Released, "wait 7520"),
            (7520, Event::Elapsed, "check"),
        ],
    );
}

#[test]
fn a_failing_registration_is_tried_for_ever_and_noted_once() {
    let mut table = vec![
        (0, Event::Elapsed, "registering > register"),
        (10, Event::Registered(Err(down())), "trouble (etcd is down; trying on) > wait 10"),
    ];
    for round in 1..100 {
        let at = round * 100;
        table.push((at, Event::Elapsed, "register"));
        let wait = format!("wait {at}").leak();
        table.push((at, Event::Registered(Err(down())), wait));
    }
    table.push((20_000, Event::Elapsed, "register"));
    table.push((20_000, Event::Registered(Ok(LEASE)), "registered > wait 25000"));
    run(false, table);
}

#[test]
fn a_registry_away_keeps_the_node_registered_and_is_noted_once() {
    let failed = || Event::Renewed(Err(RenewError::Failed(down())));
    run(
        false,
        vec![
            (0, Event::Elapsed, "registering > register"),
            (0, Event::Registered(Ok(LEASE)), "registered > wait 5000"),
            (5000, Event::Elapsed, "renew(lease(7))"),
            (6000, failed(), "trouble (etcd is down; trying on) > wait 6000"),
            (6000, Event::Elapsed, "renew(lease(7))"),
            (7000, failed(), "wait 7000"),
            (7000, Event::Elapsed, "renew(lease(7))"),
            (7001, Event::Renewed(Ok(())), "recovered > wait 12000"),
            (12_000, Event::Elapsed, "renew(lease(7))"),
            (13_000, failed(), "trouble (etcd is down; trying on) > wait 13000"),
        ],
    );
}

#[test]
fn a_lost_record_is_written_anew_at_once() {
    run(
        false,
        vec![
            (0, Event::Elapsed, "registering > register"),
            (0, Event::Registered(Ok(LEASE)), "registered > wait 5000"),
            (5000, Event::Elapsed, "renew(lease(7))"),
            (5010, lost("deleted"), "lost (deleted) > registering > register"),
            (5020, Event::Registered(Ok(NEXT_LEASE)), "registered > release(lease(7))"),
            (5030, Event::Released, "wait 10010"),
            (10_010, Event::Elapsed, "renew(lease(8))"),
        ],
    );
}

#[test]
fn a_record_taken_over_is_taken_back_at_once_and_later_if_it_is_taken_again() {
    let taken = || Event::Renewed(Err(RenewError::Taken("by b".to_owned())));
    let mut waits = contest();
    let mut wait = |at: u64| at + u64::try_from(waits.next().as_millis()).unwrap();
    let (second, third) = (wait(10_000), wait(15_000));
    run(
        false,
        vec![
            (0, Event::Elapsed, "registering > register"),
            (0, Event::Registered(Ok(LEASE)), "registered > wait 5000"),
            (5000, Event::Elapsed, "renew(lease(7))"),
            (5000, taken(), "lost (by b) > registering > register"),
            (5000, Event::Registered(Ok(NEXT_LEASE)), "registered > release(lease(7))"),
            (5000, Event::Released, "wait 10000"),
            (10_000, Event::Elapsed, "renew(lease(8))"),
            (10_000, taken(), format!("lost (by b) > registering > wait {second}").leak()),
            (10_000, Event::Elapsed, "register"),
            (10_000, Event::Registered(Ok(LEASE)), "registered > release(lease(8))"),
            (10_000, Event::Released, "wait 15000"),
            (15_000, Event::Elapsed, "renew(lease(7))"),
            (15_000, taken(), format!("lost (by b) > registering > wait {third}").leak()),
            (15_000, Event::Elapsed, "register"),
            (15_000, Event::Registered(Ok(NEXT_LEASE)), "registered > release(lease(7))"),
            (15_000, Event::Released, "wait 20000"),
            (20_000, Event::Elapsed, "renew(lease(8))"),
            (20_000, Event::Renewed(Ok(())), "wait 25000"),
            (25_000, Event::Elapsed, "renew(lease(8))"),
            (25_000, taken(), "lost (by b) > registering > register"),
        ],
    );
}

#[test]
fn a_lost_lease_is_not_renewed_but_given_back() {
    run(
        false,
        vec![
            (0, Event::Elapsed, "registering > register"),
            (0, Event::Registered(Ok(LEASE)), "registered > wait 5000"),
            (5000, Event::Elapsed, "renew(lease(7))"),
            (5000, lost("expired"), "lost (expired) > registering > register"),
            (5000, Event::Registered(Err(down())), "trouble (etcd is down; trying on) > wait 5000"),
            (5000, Event::Elapsed, "register"),
            (5000, Event::Registered(Err(down())), "wait 5000"),
            (5000, Event::Leave, "leaving > deregister(lease(7))"),
            (5000, Event::Deregistered(Ok(())), "gone > done"),
        ],
    );
}

#[test]
fn a_check_comes_before_the_registration_and_at_each_interval_not_at_each_retry() {
    run(
        true,
        vec![
            (0, Event::Elapsed, "check"),
            (100, Event::Checked(Ok(())), "registering > register"),
            (200, Event::Registered(Err(down())), "trouble (etcd is down; trying on) > wait 200"),
            (300, Event::Elapsed, "register"),
            (400, Event::Registered(Ok(LEASE)), "registered > wait 5300"),
            (5300, Event::Elapsed, "check"),
            (5400, Event::Checked(Ok(())), "renew(lease(7))"),
            (5500, Event::Renewed(Ok(())), "wait 10300"),
        ],
    );
}

#[test]
fn a_failing_check_takes_the_node_out_until_it_passes() {
    let failing = || Event::Checked(Err("no database".to_owned()));
    run(
        true,
        vec![
            (0, Event::Elapsed, "check"),
            (0, failing(), "trouble (the register check failed: no database) > wait 5000"),
            (5000, Event::Elapsed, "check"),
            (5000, failing(), "wait 10000"),
            (10_000, Event::Elapsed, "check"),
            (10_000, Event::Checked(Ok(())), "registering > register"),
            (10_000, Event::Registered(Ok(LEASE)), "registered > wait 15000"),
            (15_000, Event::Elapsed, "check"),
            (
                15_000,
                failing(),
                "idle (the register check failed: no database) > deregister(lease(7))",
            ),
            (15_100, Event::Deregistered(Ok(())), "wait 20000"),
            (20_000, Event::Elapsed, "check"),
            (20_000, failing(), "wait 25000"),
            (25_000, Event::Elapsed, "check"),
            (25_000, Event::Checked(Ok(())), "registering > register"),
            (
                25_000,
                Event::Registered(Err(down())),
                "trouble (etcd is down; trying on) > wait 25000",
            ),
        ],
    );
}

#[test]
fn a_removal_that_failed_is_tried_again_while_the_check_fails() {
    let failing = || Event::Checked(Err("no database".to_owned()));
    run(
        true,
        vec![
            (0, Event::Elapsed, "check"),
            (0, Event::Checked(Ok(())), "registering > register"),
            (0, Event::Registered(Ok(LEASE)), "registered > wait 5000"),
            (5000, Event::Elapsed, "check"),
            (
                5000,
                failing(),
                "idle (the register check failed: no database) > deregister(lease(7))",
            ),
            (
                6000,
                Event::Deregistered(Err(down())),
                "trouble (the record goes with its TTL: etcd is down) > wait 10000",
            ),
            (10_000, Event::Elapsed, "check"),
            (10_000, failing(), "deregister(lease(7))"),
            (11_000, Event::Deregistered(Err(down())), "wait 15000"),
            (15_000, Event::Elapsed, "check"),
            (15_000, Event::Checked(Ok(())), "registering > register"),
            (15_000, Event::Registered(Ok(NEXT_LEASE)), "registered > release(lease(7))"),
            (15_000, Event::Leave, "leaving > deregister(lease(8))"),
        ],
    );
}

#[test]
fn a_registry_that_only_reads_is_asked_once() {
    let unsupported = || {
        let error = Error::new(ErrorKind::Unsupported, "static:// only reads");
        Event::Registered(Err(error))
    };
    run(
        false,
        vec![
            (0, Event::Elapsed, "registering > register"),
            (0, unsupported(), "read-only (static:// only reads) > wait"),
            (9000, Event::Leave, "leaving > gone > done"),
        ],
    );
    run(
        true,
        vec![
            (0, Event::Elapsed, "check"),
            (0, Event::Checked(Ok(())), "registering > register"),
            (0, unsupported(), "read-only (static:// only reads) > wait 5000"),
            (5000, Event::Elapsed, "check"),
            (
                5000,
                Event::Checked(Err("no database".to_owned())),
                "idle (the register check failed: no database) > wait 10000",
            ),
            (10_000, Event::Elapsed, "check"),
            (10_000, Event::Checked(Ok(())), "read-only > wait 15000"),
        ],
    );
}

#[test]
fn a_leaving_node_gives_its_record_back() {
    run(
        false,
        vec![
            (0, Event::Elapsed, "registering > register"),
            (0, Event::Registered(Ok(LEASE)), "registered > wait 5000"),
            (100, Event::Leave, "leaving > deregister(lease(7))"),
            (200, Event::Deregistered(Ok(())), "gone > done"),
        ],
    );
    run(
        false,
        vec![
            (0, Event::Elapsed, "registering > register"),
            (0, Event::Registered(Ok(LEASE)), "registered > wait 5000"),
            (100, Event::Leave, "leaving > deregister(lease(7))"),
            (
                1100,
                Event::Deregistered(Err(down())),
                "trouble (the record goes with its TTL: etcd is down) > gone > done",
            ),
        ],
    );
}
