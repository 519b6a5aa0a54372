//! Members that are neither listed nor connected, and what is remembered of them.

use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;

use super::{Action, Event, Key, Members, Phase, Standing};

/// How many are remembered: as many as a large service has nodes.
pub(super) const MOST: usize = 10_000;

impl<L: Clone> Members<L> {
    /// Gives every node up, and its connection: what is under way on it may finish.
    pub(super) fn give_up_all(&mut self, now: Instant) {
        self.listed.clear();
        for key in self.members.keys().cloned().collect::<Vec<_>>() {
            self.give_up(&key, now);
        }
        self.linger = false;
    }

    /// Gives a member up that is no longer listed, and its connection.
    pub(super) fn give_up(&mut self, key: &Key, now: Instant) {
        let member = self.members.get_mut(key).expect("its caller has found it");
        self.out.actions.extend(member.unpick());
        self.census.leave(member);
        if let Some(link) = member.link.take() {
            self.out.actions.push(Action::Close(link));
            member.state.note(Event::Closed, now);
        }
        if member.standing == Standing::Listed {
            (member.standing, member.changed) = (Standing::Lingering(now), now);
            member.is_listed.store(false, Relaxed);
        }
        self.census.enter(member);
        self.remember(key, now);
    }

    /// Keeps what is absent for as long as there is something to remember.
    pub(super) fn remember(&mut self, key: &Key, now: Instant) {
        let member = self.members.get_mut(key).expect("its caller has found it");
        let ejected_until = match member.ejection.phase() {
            Phase::Out(until, _) => Some(until),
            Phase::In | Phase::Probed(_) => None,
        };
        let until = member.standing.ends_at(self.ttl);
        let until = until.max(ejected_until).max(member.state.rests_until());
        if until.is_some_and(|until| now < until) && self.census.absent <= MOST {
            self.out.schedule(member, until);
        } else {
            self.census.leave(member);
            self.forget(key);
        }
    }

    fn forget(&mut self, key: &Key) {
        if let Some(mut member) = self.members.remove(key) {
            self.out.schedule(&mut member, None);
            if let Phase::Out(until, _) = member.ejection.phase() {
                self.ejected.remove(&(until, key.clone()));
            }
            self.probed.remove(key);
        }
    }
}
