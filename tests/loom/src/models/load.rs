//! What a node costs: its calls in flight, and what those say of it.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use loom::{sync::atomic::AtomicU32, thread};
use tokio::time::Instant;

use super::both;
use crate::ewma::Load;

const PENALTY: Duration = Duration::from_secs(5);

fn load(born: Instant, latency: Duration) -> Arc<Load> {
    Arc::new(Load::new(Some(latency), PENALTY, born))
}

/// A limit of one is one, and each place is given back.
pub fn no_more_calls_are_in_flight_than_the_limit() {
    let born = Instant::now();
    loom::model(move || {
        let load = load(born, Duration::from_millis(1));
        let inside = Arc::new(AtomicU32::new(0));
        let calls = [(); 2].map(|()| {
            let (load, inside) = (load.clone(), inside.clone());
            thread::spawn(move || {
                for _ in 0..2 {
                    if load.begin_within(1) {
                        assert_eq!(inside.fetch_add(1, Relaxed), 0, "another is in flight");
                        inside.fetch_sub(1, Relaxed);
                        load.end();
                    }
                }
            })
        });
        assert!(load.in_flight() <= 1);
        for call in calls {
            call.join().expect("no panic");
        }
        assert_eq!(load.in_flight(), 0);
        assert!(load.begin_within(1), "there is room again");
    });
}

/// Where there is a place for each, none is turned away.
pub fn who_has_room_is_let_in() {
    let born = Instant::now();
    loom::model(move || {
        let load = load(born, Duration::from_millis(1));
        load.begin();
        let (one, other) = both(
            &load,
            |load| load.begin_within(3),
            |load| {
                load.end();
                load.begin_within(3)
            },
        );
        assert!(one && other);
        assert_eq!(load.in_flight(), 2);
    });
}

/// The calls that a node hung with raise its latency once, also when they end at once.
pub fn the_calls_of_one_stall_raise_the_estimate_once() {
    let born = Instant::now();
    loom::model(move || {
        let load = load(born, Duration::from_millis(1));
        let now = born + Duration::from_secs(2);
        let end = move |load: &Load| load.succeeded(Duration::from_secs(1), now);
        both(&load, end, end);
        assert_eq!(load.latency(now), Some(Duration::from_millis(2)), "at most doubled, once");
    });
}

/// The loss of a connection counts once, however many calls it takes with it.
pub fn a_loss_is_told_once() {
    let born = Instant::now();
    loom::model(move || {
        let (one, other) = both(&load(born, Duration::ZERO), Load::lose, Load::lose);
        assert!(one ^ other);
    });
}

/// Two failures at once are two.
pub fn no_failure_is_lost() {
    let born = Instant::now();
    loom::model(move || {
        let load = load(born, Duration::from_millis(1));
        let fail = move |load: &Load| load.failed(born);
        both(&load, fail, fail);
        assert_eq!(load.health(born), 0.25);
        assert_eq!(load.latency(born), Some(Duration::from_millis(1)));
    });
}
