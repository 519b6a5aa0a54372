//! How many nodes of its zone a call takes for listed.

use std::sync::{
    Arc,
    atomic::Ordering::{Acquire, Release},
};

use loom::{sync::atomic::AtomicBool, thread};

use crate::listed::Listed;

fn reset(listed: &mut Listed, ids: &[&str]) {
    listed.update(|known| {
        known.clear();
        known.extend(ids.iter().map(|id| Box::from(*id)));
    });
}

/// Who picks while the list is read anew is told of the one before or of this one.
pub fn a_list_is_read_as_a_whole() {
    loom::model(|| {
        let mut listed = Listed::default();
        reset(&mut listed, &["1", "2", "3"]);
        let call = listed.clone();
        let call = thread::spawn(move || [call.len(), call.len()]);
        reset(&mut listed, &["3", "4"]);
        let told = call.join().expect("no panic");
        assert!([[3, 3], [3, 2], [2, 2]].contains(&told), "{told:?}");
    });
}

/// Who picks from a set is told of no list that is older: one that grew, with a node that is ready, is not
/// taken for one of which all are.
pub fn a_list_is_no_older_than_the_set() {
    loom::model(|| {
        let mut listed = Listed::default();
        reset(&mut listed, &["1"]);
        let (call, is_published) = (listed.clone(), Arc::new(AtomicBool::new(false)));
        let published = is_published.clone();
        let call = thread::spawn(move || (published.load(Acquire), call.len()));
        reset(&mut listed, &["1", "2"]);
        is_published.store(true, Release);
        let (is_published, told) = call.join().expect("no panic");
        assert!(told == 2 || !is_published, "{told}");
    });
}
