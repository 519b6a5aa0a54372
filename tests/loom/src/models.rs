//! The models, by what they are of. Each is a function that panics where its rule does not hold.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Waker},
};

use loom::thread;

pub mod budget;
pub mod held;
pub mod in_flight;
pub mod lines;
pub mod listed;
pub mod load;
pub mod p95;
pub mod probes;
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

/// Checks a model of which all orders are too many: those with more interruptions are left out.
fn interrupted(at_most: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(at_most);
    builder.check(model);
}

/// Whether it is over, with a look.
fn is_over<F: Future + ?Sized>(future: Pin<&mut F>) -> bool {
    future.poll(&mut Context::from_waker(Waker::noop())).is_ready()
}
