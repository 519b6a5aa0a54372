//! The models, by what they are of. Each is a function that panics where its rule does not hold.

use std::sync::Arc;

use loom::thread;

pub mod budget;
pub mod held;
pub mod in_flight;
pub mod listed;
pub mod load;
pub mod p95;
pub mod slots;
pub mod stamped;
pub mod tally;
pub mod throttle;
pub mod turn;

/// What two threads come to, each of which does one thing with the same counter.
fn both<T, A, B>(
    counter: &Arc<T>,
    one: impl FnOnce(&T) -> A + 'static,
    other: impl FnOnce(&T) -> B + 'static,
) -> (A, B)
where
    T: 'static,
    A: 'static,
    B: 'static,
{
    let (first, second) = (counter.clone(), counter.clone());
    let (first, second) =
        (thread::spawn(move || one(&first)), thread::spawn(move || other(&second)));
    (first.join().expect("no panic"), second.join().expect("no panic"))
}
