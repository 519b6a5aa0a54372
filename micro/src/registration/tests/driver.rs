//! The driver under paused time, against a registry that fails on command.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, advance, sleep, timeout};

use super::scripted::{Mode, Scripted};
use crate::{
    registration::{Check, Options, Registration, RegistrationState},
    registry::{Node, Registry, memory::Memory},
};

const TTL: Duration = Duration::from_secs(15);
const SECOND: Duration = Duration::from_secs(1);

fn start(registry: &Arc<Scripted>, options: Options) -> Registration {
    fastrand::seed(7);
    Registration::start(registry.clone(), Node::new("greeter", "greeter-1", "127.0.0.1:1"), options)
}

fn state(registration: &Registration) -> RegistrationState {
    *registration.state().borrow()
}

/// Lets the driver do what is due now.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_stays_registered_by_renewing_at_every_third_of_the_ttl() {
    let registry = Scripted::new();
    let begin = Instant::now();
    let registration = start(&registry, Options::new(TTL));
    settle().await;
    assert_eq!(state(&registration), RegistrationState::Registered);
    for _ in 0..100 {
        sleep(TTL / 10).await;
        assert!(registry.has_record(), "the record stands at every moment");
    }
    let calls = registry.lock().calls.clone();
    assert_eq!(calls[0], (begin, "register"));
    let (first, call) = calls[1];
    assert!(call == "renew" && first <= begin + TTL / 3 + SECOND, "{:?}", first - begin);
    for (nth, (at, call)) in calls[1..].iter().enumerate() {
        assert_eq!(*call, "renew");
        let due = first + TTL / 3 * u32::try_from(nth).unwrap();
        assert!(*at >= due && *at < due + SECOND, "renewal {nth}: {:?}", *at - begin);
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_hangs_is_given_up_after_a_second_and_tried_again() {
    let registry = Scripted::new();
    registry.set(Mode::Silent);
    let registration = start(&registry, Options::new(TTL));
    sleep(60 * SECOND).await;
    assert_eq!(state(&registration), RegistrationState::Registering);
    let calls = registry.lock().calls.clone();
    assert!(calls.len() >= 60 / 4, "it never gives up: {} attempts in a minute", calls.len());
    for pair in calls.windows(2) {
        let gap = pair[1].0 - pair[0].0;
        assert!(gap >= SECOND && gap <= SECOND + TTL / 5 + SECOND / 100, "a gap of {gap:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_is_back_within_a_third_of_the_ttl_and_a_second_of_the_registrys_return() {
    let wiped_or_not = [false, true];
    let modes = [Mode::Down, Mode::Silent];
    let outages = [100, 1700, 4900, 5100, 14_000, 16_000, 45_000, 600_000, 601_234];
    for (mode, wiped, outage) in modes
        .into_iter()
        .flat_map(|mode| wiped_or_not.map(|wiped| (mode, wiped)))
        .flat_map(|(mode, wiped)| outages.map(|outage| (mode, wiped, outage)))
    {
        for ttl in [SECOND, TTL] {
            let registry = Scripted::new();
            let registration = start(&registry, Options::new(ttl));
            sleep(ttl / 2).await;
            registry.set(mode);
            sleep(Duration::from_millis(outage)).await;
            if wiped {
                registry.wipe();
            }
            registry.set(Mode::Up(Duration::from_millis(20)));
            let back = Instant::now();
            let case = format!("{mode:?} for {outage} ms, wiped: {wiped}, TTL {ttl:?}");
            while !registry.has_record() {
                assert!(back.elapsed() <= ttl / 3 + SECOND, "{case}");
                sleep(Duration::from_millis(1)).await;
            }
            settle().await;
            // It may be that the record was there all along.
            sleep(ttl).await;
            assert_eq!(state(&registration), RegistrationState::Registered, "{case}");
            assert!(registry.has_record(), "{case}: and it stays");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_deleted_record_is_back_within_a_third_of_the_ttl_and_a_second() {
    let registry = Scripted::new();
    let registration = start(&registry, Options::new(TTL));
    let mut states = registration.state();
    states.wait_for(|state| *state == RegistrationState::Registered).await.unwrap();
    sleep(3 * SECOND).await;
    registry.wipe();
    sleep(TTL / 3 + SECOND).await;
    assert!(registry.has_record());
    assert_eq!(state(&registration), RegistrationState::Registered);
    let calls = registry.calls();
    let calls: Vec<_> = calls.iter().filter(|call| **call != "renew").collect();
    assert_eq!(calls, [&"register", &"register", &"deregister"], "the old lease is given back");
}

#[tokio::test(start_paused = true)]
async fn two_processes_with_one_id_do_not_write_over_each_other_without_end() {
    let registry = Arc::new(Memory::new());
    let node = |port| Node::new("greeter", "greeter-1", format!("127.0.0.1:{port}"));
    fastrand::seed(7);
    let [first, second] =
        [1, 2].map(|port| Registration::start(registry.clone(), node(port), Options::new(TTL)));
    sleep(4 * TTL).await;
    let read = async || registry.read("greeter").await.expect("memory answers");
    let before = read().await.revision;
    sleep(3600 * SECOND).await;
    let written = read().await.revision - before;
    assert!(written < 300, "{written} in an hour, and not one at each of 1440 renewals");

    first.leave().await;
    sleep(4 * TTL + SECOND).await;
    assert_eq!(read().await.entries[0].node.address, "127.0.0.1:2", "what is left has the id");
    second.leave().await;
}

/// A check whose behaviour the test turns: passing, failing, panicking, hanging.
fn turnable() -> (Arc<AtomicU8>, Check) {
    let turned = Arc::new(AtomicU8::new(0));
    let check: Check = {
        let turned = turned.clone();
        Arc::new(move || {
            let turned = turned.clone();
            Box::pin(async move {
                match turned.load(Ordering::Relaxed) {
                    0 => Ok(()),
                    1 => Err("no database".into()),
                    2 => panic!("a user's fault"),
                    _ => pending().await,
                }
            })
        })
    };
    (turned, check)
}

#[tokio::test(start_paused = true)]
async fn a_check_that_fails_panics_or_hangs_keeps_the_node_out_until_it_passes() {
    for fault in [1, 2, 3] {
        let registry = Scripted::new();
        let (turned, check) = turnable();
        turned.store(fault, Ordering::Relaxed);
        let registration = start(&registry, Options { check: Some(check), ..Options::new(TTL) });
        sleep(TTL).await;
        assert_eq!(registry.calls(), [""; 0], "fault {fault}: not registered before it passes");
        assert_eq!(state(&registration), RegistrationState::Idle);

        turned.store(0, Ordering::Relaxed);
        sleep(TTL / 3 + SECOND).await;
        assert_eq!(state(&registration), RegistrationState::Registered);

        turned.store(fault, Ordering::Relaxed);
        sleep(TTL / 3 + 2 * SECOND).await;
        assert_eq!(state(&registration), RegistrationState::Idle, "fault {fault}");
        assert!(!registry.has_record(), "fault {fault}: taken out");

        sleep(4 * TTL).await;
        assert!(!registry.has_record(), "fault {fault}: kept out");
        turned.store(0, Ordering::Relaxed);
        sleep(TTL / 3 + SECOND).await;
        assert!(registry.has_record(), "fault {fault}: back");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_check_does_not_cost_the_record_its_renewal() {
    let registry = Scripted::new();
    let check: Check = Arc::new(|| {
        Box::pin(async {
            sleep(Duration::from_millis(300)).await;
            Ok(())
        })
    });
    let registration = start(&registry, Options { check: Some(check), ..Options::new(SECOND) });
    let mut states = registration.state();
    states.wait_for(|state| *state == RegistrationState::Registered).await.unwrap();
    for _ in 0..1000 {
        sleep(Duration::from_millis(10)).await;
        assert!(registry.has_record());
    }
}

#[tokio::test(start_paused = true)]
async fn the_longest_of_ttls_is_kept_like_any_other() {
    let registry = Arc::new(Memory::new());
    let node = Node::new("greeter", "greeter-1", "127.0.0.1:1");
    let registration = Registration::start(registry.clone(), node, Options::new(Duration::MAX));
    sleep(100 * 86_400 * SECOND).await;
    assert_eq!(state(&registration), RegistrationState::Registered);
    registration.leave().await;
    assert!(registry.read("greeter").await.expect("memory answers").entries.is_empty());
}

#[tokio::test(start_paused = true)]
async fn leaving_removes_the_record_and_ends_in_gone() {
    let registry = Scripted::new();
    let registration = start(&registry, Options::new(TTL));
    settle().await;
    let states = registration.state();
    assert!(registration.leave().await, "callers may know it");
    assert!(!registry.has_record());
    assert_eq!(*states.borrow(), RegistrationState::Gone);
    assert_eq!(registry.calls(), ["register", "deregister"]);
    sleep(4 * TTL).await;
    assert_eq!(registry.calls().len(), 2, "nothing is written after that");
}

#[tokio::test(start_paused = true)]
async fn leaving_a_registry_that_does_not_answer_takes_a_second() {
    for mode in [Mode::Silent, Mode::Mute, Mode::Down] {
        let registry = Scripted::new();
        let registration = start(&registry, Options::new(TTL));
        settle().await;
        registry.set(mode);
        // A renewal is under way, which leaving does not wait for.
        sleep(TTL / 3 + SECOND / 10).await;
        let (begin, states) = (Instant::now(), registration.state());
        registration.leave().await;
        assert!(begin.elapsed() <= SECOND + SECOND / 100, "{mode:?}: {:?}", begin.elapsed());
        assert_eq!(*states.borrow(), RegistrationState::Gone);
    }
}

#[tokio::test(start_paused = true)]
async fn leaving_while_the_record_is_being_written_removes_it() {
    let registry = Scripted::new();
    registry.set(Mode::Up(SECOND / 2));
    let registration = start(&registry, Options::new(TTL));
    settle().await;
    assert!(registration.leave().await, "it stood for a moment");
    assert_eq!(registry.calls(), ["register", "deregister"]);
    assert!(!registry.has_record());
}

#[tokio::test(start_paused = true)]
async fn leaving_does_not_await_a_registration_that_undoes_itself() {
    let registry = Scripted::new();
    registry.set(Mode::Undoing);
    let registration = start(&registry, Options::new(TTL));
    let states = registration.state();
    settle().await;
    let begin = Instant::now();
    assert!(!registration.leave().await, "nobody has seen it");
    assert_eq!(begin.elapsed(), Duration::ZERO);
    assert_eq!(registry.calls(), ["register"], "no lease is there to give back");
    assert_eq!(*states.borrow(), RegistrationState::Gone);
}

#[tokio::test(start_paused = true)]
async fn leaving_before_anything_was_written_asks_nothing_of_the_registry() {
    let registry = Scripted::new();
    let (turned, check) = turnable();
    turned.store(3, Ordering::Relaxed);
    let registration = start(&registry, Options { check: Some(check), ..Options::new(TTL) });
    settle().await;
    let left = timeout(SECOND / 10, registration.leave()).await;
    assert!(!left.expect("a hanging check is not waited for"), "nobody has seen it");
    assert_eq!(registry.calls(), [""; 0]);
}

/// On the real clock: a thread that is blocked stops a paused one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaving_does_not_wait_for_a_check_that_blocks_its_thread() {
    let (begun, mut has_begun) = tokio::sync::mpsc::unbounded_channel();
    let (go_on, blocked) = std::sync::mpsc::channel::<()>();
    let blocked = std::sync::Mutex::new(blocked);
    let check: Check = Arc::new(move || {
        begun.send(()).unwrap();
        let _ = blocked.lock().unwrap().recv();
        Box::pin(async { Ok(()) })
    });
    let options = Options { check: Some(check), ..Options::new(TTL) };
    let registration = start(&Scripted::new(), options);
    has_begun.recv().await.unwrap();
    let left = timeout(10 * SECOND, registration.leave()).await;
    assert!(left.expect("it has a bound of its own"), "of what is not known it may have been seen");
    drop(go_on);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_registration_leaves_its_record_to_the_ttl() {
    let registry = Scripted::new();
    let registration = start(&registry, Options::new(TTL));
    settle().await;
    drop(registration);
    advance(TTL - SECOND).await;
    assert!(registry.has_record());
    advance(2 * SECOND).await;
    assert!(!registry.has_record());
    assert_eq!(registry.calls(), ["register"]);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_only_reads_is_asked_once() {
    let registry = Scripted::new();
    registry.set(Mode::ReadOnly);
    let registration = start(&registry, Options::new(TTL));
    sleep(100 * TTL).await;
    assert_eq!(state(&registration), RegistrationState::ReadOnly);
    assert_eq!(registry.calls(), ["register"]);
    assert!(registration.leave().await, "it is found by other means");
    assert_eq!(registry.calls(), ["register"]);
}

#[tokio::test(start_paused = true)]
async fn of_several_registries_one_that_fails_does_not_disturb_the_others() {
    let registries = [Scripted::new(), Scripted::new()];
    registries[0].set(Mode::Silent);
    let all = registries.iter().map(|registry| registry.clone() as Arc<dyn Registry>).collect();
    let node = Node::new("greeter", "greeter-1", "127.0.0.1:1");
    let registration = Registration::start_in(all, node, Options::new(TTL));
    settle().await;
    assert_eq!(state(&registration), RegistrationState::Registered, "one has it");
    for _ in 0..100 {
        sleep(TTL / 10).await;
        assert!(registries[1].has_record(), "its record stands at every moment");
    }
    registries[0].set(Mode::Up(Duration::ZERO));
    sleep(TTL / 3 + SECOND).await;
    assert!(registries.iter().all(|registry| registry.has_record()));

    registries[1].set(Mode::Silent);
    let begin = Instant::now();
    registration.leave().await;
    assert!(!registries[0].has_record(), "it leaves where it can");
    assert!(begin.elapsed() <= 3 * SECOND, "{:?}", begin.elapsed());
}
