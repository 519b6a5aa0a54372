//! The one node that `pick_first` sends all calls to.

use std::sync::Arc;

use super::both;
use crate::held::Held;

/// A call that finds what is held on to among these, or else draws the last of them, as a policy does:
/// which one it goes to.
fn pick(held: &Held, ids: &[u64]) -> u64 {
    let known = held.id();
    if find(held, ids, known) {
        return known;
    }
    let drawn = *ids.last().expect("there are nodes");
    let now = held.replace(known, drawn);
    if find(held, ids, now) { now } else { drawn }
}

/// Whether that one is among these; its place then is where it is.
fn find(held: &Held, ids: &[u64], id: u64) -> bool {
    let is_at = |place| ids.get(place) == Some(&id);
    let place = held.place(is_at, || ids.iter().position(|it| *it == id));
    assert!(place.is_none_or(is_at), "{place:?} is not where {id} is");
    place.is_some()
}

/// Calls that come at once, and draw different nodes, go to one.
pub fn all_hold_on_to_one() {
    loom::model(|| {
        let held = Arc::new(Held::default());
        let (one, other) = both(&held, |held| pick(held, &[1, 2]), |held| pick(held, &[2, 1]));
        assert_eq!(one, other);
        assert_eq!(held.id(), one);
        assert_eq!(pick(&held, &[3, 2, 1]), one, "and so do those after them");
    });
}

/// The same where they find that the one that was held on to is gone.
pub fn one_that_is_gone_is_replaced_once() {
    loom::model(|| {
        let held = Arc::new(Held::default());
        assert_eq!(pick(&held, &[1]), 1);
        let calls = |ids: &'static [u64]| move |held: &Held| [pick(held, ids), pick(held, ids)];
        let (one, other) = both(&held, calls(&[3, 2]), calls(&[2, 3]));
        assert!(one.iter().chain(&other).all(|id| *id == held.id()), "{one:?} {other:?}");
    });
}

/// Calls that see the set as it was and as it is, where the one has moved, find it in both.
pub fn one_is_found_wherever_it_is() {
    loom::model(|| {
        let held = Arc::new(Held::default());
        assert_eq!(pick(&held, &[5, 1]), 1);
        let calls = |ids: &'static [u64]| move |held: &Held| [pick(held, ids), pick(held, ids)];
        let (before, after) = both(&held, calls(&[5, 1]), calls(&[1, 6, 7]));
        assert_eq!((before, after), ([1, 1], [1, 1]));
    });
}
