//! Whose turn it is: calls on any thread take the next.

use std::sync::Arc;

use loom::thread;

use crate::turn::Turn;

/// Of three threads, two of which take two turns, each has its own, and none is left out.
pub fn no_turn_is_taken_twice() {
    loom::model(|| {
        let turn = Arc::new(Turn::new(u64::MAX - 1));
        let others = [(); 2].map(|()| {
            let turn = turn.clone();
            thread::spawn(move || [turn.take(), turn.take()])
        });
        let mut taken = vec![turn.take()];
        for other in others {
            taken.extend(other.join().expect("no panic"));
        }
        taken.push(turn.take());
        taken.sort_unstable();
        assert_eq!(taken, [0, 1, 2, 3, u64::MAX - 1, u64::MAX], "also around the end");
    });
}
