//! The lines of calls that wait: who looks as something changes finds it, or is woken.
//!
//! What they do here is what the balancer's calls and its driver do.

use std::{
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::Ordering::{Acquire, Release},
    },
    time::Duration,
};

use loom::{sync::atomic::AtomicBool, thread};
use tokio::time::Instant;

use super::{interrupted, is_over};
use crate::{ewma::Load, lines::Lines, registry::Node, request::Request, sync::Notify};

const METHOD: &str = "/greeter.v1.Greeter/Hello";

const ANY: Request<'_> = Request { tried: &[], method: METHOD, node: None, can_move: false };

/// One that is pinned.
const ONE: Request<'_> = Request { node: Some("1"), ..ANY };

/// Whether there is a node.
type IsReady = Arc<AtomicBool>;

/// It comes.
fn comes(lines: &Lines, is_ready: &IsReady) {
    is_ready.store(true, Release);
    lines.wake_any();
    lines.wake_for(&Node { id: "1".to_owned(), method: METHOD.to_owned() });
}

/// A call looks while something else is done, and is woken then, or finds the node.
fn looks(lines: &Lines, is_ready: &IsReady, request: &Request<'_>, meanwhile: impl FnOnce()) {
    let seat = lines.seat(request);
    let mut changed = pin!(seat.changed());
    changed.as_mut().enable();
    let is_found = is_ready.load(Acquire);
    meanwhile();
    assert!(is_found || is_over(changed), "{request:?}");
}

/// A call that looks as a node comes is not left waiting, whichever line it is in.
pub fn who_looks_as_a_node_comes_is_woken() {
    for (serving, request) in [(false, ANY), (false, ONE), (true, ANY)] {
        loom::model(move || {
            let (lines, is_ready) = (Lines::new(serving, false), IsReady::default());
            let driver = {
                let (lines, is_ready) = (lines.clone(), is_ready.clone());
                thread::spawn(move || comes(&lines, &is_ready))
            };
            looks(&lines, &is_ready, &request, || driver.join().expect("no panic"));
        });
    }
}

/// Nor is one whose line is left by another, the last in it till then.
pub fn who_comes_as_another_leaves_is_woken() {
    interrupted(3, || {
        let (lines, is_ready) = (Lines::new(false, false), IsReady::default());
        let other = {
            let lines = lines.clone();
            thread::spawn(move || drop(lines.seat(&ONE)))
        };
        let driver = {
            let (lines, is_ready) = (lines.clone(), is_ready.clone());
            thread::spawn(move || comes(&lines, &is_ready))
        };
        looks(&lines, &is_ready, &ONE, || {
            other.join().expect("no panic");
            driver.join().expect("no panic");
        });
    });
}

/// The driver, told that a call waits, sees which node it waits for.
pub fn who_is_told_that_a_call_waits_sees_it() {
    loom::model(|| {
        let (lines, told) = (Lines::new(false, false), Arc::new(Notify::new()));
        let call = {
            let (lines, told) = (lines.clone(), told.clone());
            thread::spawn(move || std::mem::forget(lines.seat(&ANY).wait(&told)))
        };
        let sees = || {
            let is_told = is_over(pin!(told.notified()));
            assert!(!is_told || (lines.changes() > 0 && lines.wanted().any));
            is_told
        };
        let is_told = sees();
        call.join().expect("no panic");
        assert!(is_told || sees());
    });
}

/// What it has seen of who waits while calls came and went, it sees anew where that was not all.
pub fn no_change_of_who_waits_is_missed() {
    for one_stays in [true, false] {
        loom::model(move || {
            let (lines, told) = (Lines::new(false, false), Arc::new(Notify::new()));
            let calls = [one_stays, false].map(|stays| {
                let (lines, told) = (lines.clone(), told.clone());
                thread::spawn(move || {
                    let seat = lines.seat(&ANY);
                    let waiting = seat.wait(&told);
                    if stays {
                        std::mem::forget(waiting);
                    }
                })
            });
            let (mut seen, mut is_wanted) = (0, false);
            let mut look = || {
                let changes = lines.changes();
                if std::mem::replace(&mut seen, changes) != changes {
                    is_wanted = lines.wanted().any;
                }
                is_wanted
            };
            look();
            calls.into_iter().for_each(|call| call.join().expect("no panic"));
            assert_eq!(look(), one_stays, "whether one waits");
        });
    }
}

/// A call that waits for room on the node, which has it for one.
type Waits = Pin<Box<dyn Future<Output = ()>>>;

fn waits(lines: &Arc<Lines>, node: &Arc<Load>, request: Request<'static>) -> Waits {
    let (lines, node) = (lines.clone(), node.clone());
    Box::pin(async move {
        let seat = lines.seat(&request);
        let mut turn = None;
        loop {
            let mut freed = pin!(seat.freed());
            freed.as_mut().enable();
            let is_behind = turn.is_none() && seat.is_behind();
            if !is_behind && node.begin_within(1) {
                return;
            }
            if turn.is_none() {
                turn = Some(seat.turn().await);
            } else {
                freed.await;
            }
        }
    })
}

fn ends(lines: &Lines, node: &Load) {
    node.end();
    lines.freed();
}

/// A node with a call.
fn full(now: Instant) -> (Arc<Lines>, Arc<Load>) {
    let node = Load::new(None, Duration::from_secs(5), now);
    node.begin();
    (Lines::new(false, true), Arc::new(node))
}

/// Leaves those that go on waiting.
fn settle(waiting: &mut Vec<Waits>) {
    let mut before = usize::MAX;
    while waiting.len() < before {
        before = waiting.len();
        waiting.retain_mut(|call| !is_over(call.as_mut()));
    }
}

/// Of two that come for the place of a call that ends, one gets it, and the other the next: also where
/// each is the first in its line.
pub fn two_get_one_place_one_after_the_other() {
    let now = Instant::now();
    for other in [ANY, ONE] {
        interrupted(2, move || {
            let (lines, node) = full(now);
            let calls = [ANY, other].map(|request| {
                let (lines, node) = (lines.clone(), node.clone());
                thread::spawn(move || {
                    let mut call = waits(&lines, &node, request);
                    (!is_over(call.as_mut())).then_some(call)
                })
            });
            ends(&lines, &node);
            let calls = calls.map(|call| call.join().expect("no panic"));
            let mut waiting: Vec<_> = calls.into_iter().flatten().collect();
            settle(&mut waiting);
            assert_eq!(waiting.len(), 1, "there is one place");
            ends(&lines, &node);
            settle(&mut waiting);
            assert!(waiting.is_empty(), "and then another");
        });
    }
}

/// The first in line, who gives up as it is woken, leaves the place to the next.
pub fn who_gives_up_leaves_the_place_to_the_next() {
    let now = Instant::now();
    loom::model(move || {
        let (lines, node) = full(now);
        let [mut first, mut second] = [(); 2].map(|()| waits(&lines, &node, ANY));
        assert!(!is_over(first.as_mut()) && !is_over(second.as_mut()), "the node is full");
        let gives_up = thread::spawn(move || drop(first));
        let next = thread::spawn(move || (!is_over(second.as_mut())).then_some(second));
        ends(&lines, &node);
        gives_up.join().expect("no panic");
        let mut waiting: Vec<_> = next.join().expect("no panic").into_iter().collect();
        settle(&mut waiting);
        assert!(waiting.is_empty(), "the place is free");
    });
}
