//! Members that calls wait for: they are dialled as soon as may be.

use tokio::time::Instant;

use super::{Event, Members, Standing, Wanted};

impl<L: Clone> Members<L> {
    /// Says which nodes calls wait for from now on.
    pub(in super::super) fn set_wanted(&mut self, wanted: Wanted, now: Instant) {
        let before = std::mem::replace(&mut self.wanted, wanted);
        let wanted = &self.wanted;
        let new = wanted.nodes.difference(&before.nodes).filter_map(|id| self.listed.get(id));
        let mut keys: Vec<_> = new.cloned().collect();
        if wanted.any && !before.any || !wanted.methods.is_subset(&before.methods) {
            // What has no timer is connected, or is being dialled.
            let timers = self.out.timers.iter().map(|(_, key)| key);
            keys.extend(timers.filter(|key| wanted.has(&self.members[*key].node)).cloned());
        }
        for key in keys {
            let member = self.members.get_mut(&key).expect("listed, or with a timer");
            // Of the others, the timer is for when they are given up.
            if member.standing == Standing::Listed {
                self.out.drive(member, Event::Wanted, now);
            }
        }
    }

    /// Whether a call waits for a node.
    pub(in super::super) fn is_wanted(&self) -> bool {
        !self.wanted.is_none()
    }
}
