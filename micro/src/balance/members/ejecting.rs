//! Members ejected, probed and let in again.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Action, Key, Members, Phase, Reason, Tally};
use crate::balance::tally::Calls;

/// How many others are looked at before a node is ejected for its answers.
const ASKED: usize = 32;

impl<L: Clone> Members<L> {
    /// Takes that a node's calls have failed too often in a row: by its transport, or by what it
    /// answered. The latter says something of the node only where the others answer otherwise: when
    /// what all of them need is down, half of them must not be out for longer than that is.
    pub(in super::super) fn failing(
        &mut self,
        tally: &Arc<Tally>,
        is_transport: bool,
        now: Instant,
    ) {
        if !self.is_current(tally) {
            return;
        }
        if is_transport {
            self.eject(tally.key(), Reason::TransportFailures, now);
        } else if self.fails_alone(tally) {
            self.eject(tally.key(), Reason::Failures, now);
        }
    }

    /// Whether most of some other nodes, of those that had calls of late, have answered their last, and
    /// its calls fail clearly more than theirs.
    fn fails_alone(&self, tally: &Arc<Tally>) -> bool {
        let others = self.members.values().filter(|it| it.is_pickable() && it.ejection.is_in());
        let others = others.filter(|it| it.key != *tally.key());
        let (mut all, mut even, mut calls) = (0, 0, Calls::default());
        let called = others.map(|it| (it.tally.of_late(), it.tally.is_even()));
        for (of_late, is_even) in called.filter(|(of_late, _)| of_late.all() > 0).take(ASKED) {
            all += 1;
            even += usize::from(is_even);
            calls = calls + of_late;
        }
        even * 2 >= all && tally.owing().fail_clearly_more_than(calls)
    }

    /// Takes what came of a probe that began then. One of an earlier ejection comes too late.
    pub(in super::super) fn probed(
        &mut self,
        tally: &Arc<Tally>,
        began: Instant,
        is_well: bool,
        now: Instant,
    ) {
        if !self.is_current(tally) || !self.probed.contains(tally.key()) {
            return;
        }
        if !self.members[tally.key()].ejection.is_of_now(began) {
            return;
        }
        if is_well {
            self.admit(tally.key(), now);
        } else {
            self.probed.remove(tally.key());
            self.put_out(tally.key(), Reason::Probe, now);
        }
    }

    /// Looks for outliers, if it is time.
    pub(super) fn sweep(&mut self, now: Instant) {
        if self.sweeps_at.is_none_or(|at| now < at) {
            return;
        }
        // Also while none of them is well: they may be again, and no connection tells of that.
        self.sweeps_at = (!self.members.is_empty()).then(|| now + self.rules.interval);
        let mut keys = Vec::with_capacity(self.census.pickable);
        let mut calls = Vec::with_capacity(self.census.pickable);
        for member in self.members.values_mut().filter(|member| member.ejection.is_in()) {
            member.ejection.forgive();
            calls.push(member.tally.take());
            keys.push(member.key.clone());
        }
        for (place, reason) in self.rules.outliers(&calls, &mut self.rng) {
            self.eject(&keys[place], reason, now);
        }
    }

    /// Has those probed whose time is over.
    pub(super) fn expire(&mut self, now: Instant) {
        while self.ejected.first().is_some_and(|(until, _)| *until <= now) {
            let (_, key) = self.ejected.pop_first().expect("there is a first");
            let member = self.members.get_mut(&key).expect("who is forgotten is not out");
            member.ejection.expire();
            self.out.actions.extend(member.pick());
            self.probed.insert(key);
        }
    }

    /// Lets in again those that are too many to be out, the nearest to its end first: others were
    /// lost.
    pub(super) fn spare(&mut self, now: Instant) {
        while self.census.out > self.rules.most(self.census.pickable) {
            let out = self.probed.iter().chain(self.ejected.iter().map(|(_, key)| key));
            let mut counted = out.filter(|key| self.members[*key].is_pickable());
            let key = counted.next().expect("what is counted is there").clone();
            self.admit(&key, now);
        }
    }

    fn is_current(&self, tally: &Arc<Tally>) -> bool {
        self.members.get(tally.key()).is_some_and(|member| Arc::ptr_eq(&member.tally, tally))
    }

    /// Ejects a member, if one more may be out. One that has just lost its connection is out when it
    /// has the next.
    fn eject(&mut self, key: &Key, reason: Reason, now: Instant) {
        let member = &self.members[key];
        let is_spared =
            member.is_pickable() && self.census.out >= self.rules.most(self.census.pickable);
        if member.ejection.is_in() && !is_spared {
            self.put_out(key, reason, now);
        }
    }

    fn put_out(&mut self, key: &Key, reason: Reason, now: Instant) {
        let member = self.members.get_mut(key).expect("its caller has found it");
        self.census.leave(member);
        let until = member.ejection.eject(reason, &self.rules, now);
        member.changed = now;
        self.census.enter(member);
        self.ejected.insert((until, key.clone()));
        let node = member.node.clone();
        self.out.actions.push(Action::Eject(member.endpoint, node, reason, until));
    }

    fn admit(&mut self, key: &Key, now: Instant) {
        let member = self.members.get_mut(key).expect("its caller has found it");
        if let Phase::Out(until, _) = member.ejection.phase() {
            self.ejected.remove(&(until, key.clone()));
        } else if self.probed.remove(key) {
            self.out.actions.push(Action::Unprobe(member.endpoint));
        }
        self.census.leave(member);
        member.ejection.admit();
        member.changed = now;
        self.census.enter(member);
        member.tally.clear();
        self.out.actions.extend(member.pick());
    }
}
