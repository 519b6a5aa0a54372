//! Ejected nodes, each for one call to try.

use std::{marker::PhantomData, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::both;
use crate::{
    probes::Probes,
    request::Request,
    snapshot::{Endpoint, EndpointId, Snapshot},
    sync::ArcSwap,
};

/// How long a call is waited for that tries a node.
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// How long nodes are passed by that the policy has for no call.
const PASSED_BY_FOR: Duration = Duration::from_secs(1);

fn of_one(now: Instant) -> Probes<()> {
    let probes = Probes::new(now);
    insert(&probes, 1, now);
    probes
}

fn insert(probes: &Probes<()>, id: u64, now: Instant) {
    let endpoint = Endpoint { id: EndpointId(id), connection: () };
    probes.insert(Arc::new(endpoint), now);
}

/// The node that a call is to try.
fn take(probes: &Probes<()>, policy: Option<&ArcSwap<Snapshot<()>>>, now: Instant) -> Option<u64> {
    let call = Request { can_move: true, ..Request::default() };
    probes.take(&call, false, policy, now).map(|endpoint| endpoint.id.0)
}

/// Of two calls one tries the node. One of which nothing is heard is followed by one other, after its
/// time.
pub fn one_call_at_a_time_tries_a_node() {
    let now = Instant::now();
    loom::model(move || {
        let probes = Arc::new(of_one(now));
        let both_at = |at| {
            let call = move |probes: &Probes<()>| take(probes, None, at);
            let (one, other) = both(&probes, call, call);
            assert_eq!(one.xor(other), Some(1), "{one:?} {other:?}");
            assert_eq!(take(&probes, None, at + ASKED_AGAIN_AFTER / 2), None);
        };
        both_at(now);
        both_at(now + ASKED_AGAIN_AFTER);
    });
}

/// A node that comes while a call takes another is tried as soon.
pub fn one_that_comes_beside_a_call_is_tried_at_once() {
    let now = Instant::now();
    loom::model(move || {
        let probes = Arc::new(of_one(now));
        let call = move |probes: &Probes<()>| take(probes, None, now);
        let (taken, ()) = both(&probes, call, move |probes| insert(probes, 2, now));
        let next = || take(&probes, None, now);
        let taken: Vec<_> = taken.into_iter().chain(std::iter::from_fn(next)).collect();
        assert_eq!(taken, [1, 2]);
    });
}

/// A node whose fate is known is tried no more, though a call takes it meanwhile.
pub fn one_whose_fate_is_known_is_not_tried_again() {
    let now = Instant::now();
    loom::model(move || {
        let probes = Arc::new(of_one(now));
        let call = move |probes: &Probes<()>| take(probes, None, now);
        both(&probes, call, |probes| probes.remove(EndpointId(1)));
        assert_eq!(take(&probes, None, now + ASKED_AGAIN_AFTER), None);
    });
}

/// A node that the policy had for no call is seen a second later, when it has it for one, though that
/// changed as a call looked.
pub fn one_that_was_passed_by_is_seen() {
    let now = Instant::now();
    loom::model(move || {
        let snapshot = |calls| Snapshot { calls, of: PhantomData };
        let world = Arc::new((of_one(now), ArcSwap::from_pointee(snapshot(false))));
        let look = |at| move |(probes, policy): &(_, _)| take(probes, Some(policy), at);
        let (seen, ()) = both(&world, look(now), move |(probes, policy)| {
            policy.store(Arc::new(snapshot(true)));
            probes.look_again();
        });
        let (at_once, after) = (look(now)(&world), look(now + PASSED_BY_FOR)(&world));
        assert_eq!(seen.or(at_once).or(after), Some(1));
    });
}
