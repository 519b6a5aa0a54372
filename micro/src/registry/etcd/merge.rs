//! One order out of several watchers, without IO.
//!
//! Every format has its keys elsewhere, so a service is watched by several watchers, of one stream.
//! etcd keeps each in the order of revisions, but not the one beside the other: while a watcher
//! catches up, or etcd could not get rid of what it had for it, the others run ahead. Whoever resumed
//! from what those brought would skip what the slow one had yet to bring. So what a watcher brings
//! is held until all others are known to have come as far.

use std::collections::BTreeMap;

use super::super::{Batch, Event};

#[derive(Debug)]
pub(super) struct Merge {
    /// The revision up to which each watcher has brought everything.
    reached: Vec<u64>,
    held: BTreeMap<u64, Vec<Event>>,
    /// The revision of the last batch.
    seen: u64,
}

impl Merge {
    /// For so many watchers, each from the revision after this on.
    pub(super) fn new(watchers: usize, after: u64) -> Self {
        Self { reached: vec![after; watchers], held: BTreeMap::new(), seen: after }
    }

    /// A watcher has brought these changes of a revision, all that it has of it.
    pub(super) fn changed(&mut self, watcher: usize, revision: u64, events: Vec<Event>) {
        self.held.entry(revision).or_default().extend(events);
        self.progressed(watcher, revision);
    }

    /// A watcher has nothing more to bring up to this revision.
    pub(super) fn progressed(&mut self, watcher: usize, revision: u64) {
        if let Some(reached) = self.reached.get_mut(watcher) {
            *reached = revision.max(*reached);
        }
    }

    /// No watcher has.
    pub(super) fn all_progressed(&mut self, revision: u64) {
        (0..self.reached.len()).for_each(|watcher| self.progressed(watcher, revision));
    }

    /// The next revision of which nothing is missing, and before which nothing can come.
    pub(super) fn next(&mut self) -> Option<Batch> {
        let reached = self.reached.iter().copied().min()?;
        let batch = match self.held.first_entry() {
            Some(first) if *first.key() <= reached => {
                let (revision, events) = first.remove_entry();
                Batch { revision, events }
            }
            _ if reached > self.seen => Batch { revision: reached, events: Vec::new() },
            _ => return None,
        };
        // One that came after all, against etcd's word, is for the reader of batches to judge.
        self.seen = self.seen.max(batch.revision);
        Some(batch)
    }

    /// Whether it holds what other watchers have not reached.
    pub(super) fn is_waiting(&self) -> bool {
        !self.held.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    fn gone(key: &str) -> Event {
        Event::Delete(key.to_owned())
    }

    /// `5:a,b` for what went at revision 5.
    fn all(merge: &mut Merge) -> String {
        let batches = std::iter::from_fn(|| merge.next());
        let short = |Batch { revision, events }: Batch| {
            let keys = events.iter().map(|event| match event {
                Event::Delete(key) => key.as_str(),
                event => panic!("{event:?}"),
            });
            format!("{revision}:{}", keys.collect::<Vec<_>>().join(","))
        };
        batches.map(short).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn one_watcher_waits_for_nobody() {
        let mut merge = Merge::new(1, 4);
        assert_eq!(all(&mut merge), "");
        merge.changed(0, 5, vec![gone("a"), gone("b")]);
        merge.changed(0, 7, vec![gone("c")]);
        assert_eq!(all(&mut merge), "5:a,b 7:c");
        merge.progressed(0, 9);
        merge.progressed(0, 8);
        assert_eq!(all(&mut merge), "9:");
        assert!(!merge.is_waiting());
    }

    #[test]
    fn what_runs_ahead_waits_for_the_slower() {
        let mut merge = Merge::new(2, 4);
        merge.changed(0, 9, vec![gone("fast")]);
        assert_eq!(all(&mut merge), "", "a resume after 9 would skip the slow one's 6");
        assert!(merge.is_waiting());
        merge.changed(1, 6, vec![gone("slow")]);
        assert_eq!(all(&mut merge), "6:slow");
        merge.changed(1, 8, vec![gone("slow too")]);
        assert_eq!(all(&mut merge), "8:slow too", "there may be more of the slow one's at 9");
        merge.all_progressed(12);
        assert_eq!(all(&mut merge), "9:fast 12:");
        assert!(!merge.is_waiting());
    }

    #[test]
    fn what_goes_at_one_revision_goes_in_one_batch() {
        let mut merge = Merge::new(3, 4);
        merge.changed(2, 5, vec![gone("c")]);
        merge.changed(0, 5, vec![gone("a")]);
        merge.progressed(1, 4);
        assert_eq!(all(&mut merge), "");
        merge.changed(1, 5, vec![gone("b")]);
        assert_eq!(all(&mut merge), "5:c,a,b");
    }

    #[test]
    fn what_comes_too_late_after_all_is_told_as_a_step_back() {
        let mut merge = Merge::new(2, 4);
        merge.all_progressed(9);
        assert_eq!(all(&mut merge), "9:");
        merge.changed(0, 7, vec![gone("late")]);
        assert_eq!(all(&mut merge), "7:late");
    }

    /// However the watchers are run, their batches are in order, and one that has come is preceded
    /// by all that there is up to it.
    #[test]
    fn no_order_of_arrival_skips_a_change() {
        for seed in 0..2000 {
            let mut rng = Rng::with_seed(seed);
            let watchers = rng.usize(1..5);
            // What each is to bring, in order: a revision may be in several.
            let mut due: Vec<Vec<u64>> = (0..watchers)
                .map(|_| (1..40).filter(|_| rng.u8(..) < 60).collect::<Vec<u64>>())
                .collect();
            let mut expected: Vec<_> = due
                .iter()
                .enumerate()
                .flat_map(|(watcher, due)| due.iter().map(move |at| (*at, watcher)))
                .collect();
            expected.sort_unstable();
            due.iter_mut().for_each(|due| due.reverse());
            let (mut merge, mut told, mut last) = (Merge::new(watchers, 0), Vec::new(), 0);
            let mut steps = 0;
            while told.len() < expected.len() {
                steps += 1;
                assert!(steps < 10_000, "seed {seed}: it comes to an end");
                let watcher = rng.usize(0..watchers);
                match due[watcher].pop() {
                    Some(at) => merge.changed(watcher, at, vec![gone(&watcher.to_string())]),
                    // etcd says how far all have come when all have.
                    None if due.iter().all(Vec::is_empty) => merge.all_progressed(40),
                    None => merge.progressed(watcher, 40),
                }
                while let Some(batch) = merge.next() {
                    assert!(batch.revision > last, "seed {seed}: {batch:?} after {last}");
                    last = batch.revision;
                    told.extend(batch.events.iter().map(|event| match event {
                        Event::Delete(key) => (batch.revision, key.parse::<usize>().unwrap()),
                        event => panic!("{event:?}"),
                    }));
                    let mut so_far = told.clone();
                    so_far.sort_unstable();
                    let due = expected.iter().filter(|(at, _)| *at <= last);
                    assert!(due.eq(&so_far), "seed {seed}: all up to {last}");
                }
            }
            assert!(!merge.is_waiting());
        }
    }
}
