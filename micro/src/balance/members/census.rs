//! How many members there are of each kind: kept by the change, for a count costs O(n).

use super::Member;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Census {
    /// Listed and connected.
    pub(super) ready: usize,
    /// Connected, and those that calls would go to were none ejected.
    pub(super) pickable: usize,
    /// Of those, the ejected ones.
    pub(super) out: usize,
}

impl Census {
    /// Counts a member, as it is now.
    pub(super) fn enter<L: Clone>(&mut self, member: &Member<L>) {
        let [ready, pickable, out] = counts(member);
        self.ready += ready;
        self.pickable += pickable;
        self.out += out;
    }

    /// Counts a member no more: before it changes.
    pub(super) fn leave<L: Clone>(&mut self, member: &Member<L>) {
        let [ready, pickable, out] = counts(member);
        self.ready -= ready;
        self.pickable -= pickable;
        self.out -= out;
    }
}

fn counts<L: Clone>(member: &Member<L>) -> [usize; 3] {
    let is_out = member.is_pickable() && !member.ejection.is_in();
    [member.is_ready(), member.is_pickable(), is_out].map(usize::from)
}
