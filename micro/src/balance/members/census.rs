//! How many members there are of each kind: kept by the change, for a count costs O(n).

use super::{Member, Standing};

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Census {
    /// Listed, connected and well.
    pub(super) ready: usize,
    /// Of those, the ones that are not ejected.
    pub(super) called: usize,
    /// Listed and connected, and not well.
    pub(super) unwell: usize,
    /// Connected, and those that calls would go to were none ejected.
    pub(super) pickable: usize,
    /// Of those, the ejected ones.
    pub(super) out: usize,
    /// Listed, and neither connected to nor failed to be, at the address that they have.
    pub(super) untried: usize,
    /// Neither listed nor connected: remembered.
    pub(super) absent: usize,
}

impl Census {
    /// Counts a member, as it is now.
    pub(super) fn enter<L: Clone>(&mut self, member: &Member<L>) {
        let [ready, called, unwell, pickable, out, untried, absent] = counts(member);
        self.ready += ready;
        self.called += called;
        self.unwell += unwell;
        self.pickable += pickable;
        self.out += out;
        self.untried += untried;
        self.absent += absent;
    }

    /// Counts a member no more: before it changes.
    pub(super) fn leave<L: Clone>(&mut self, member: &Member<L>) {
        let [ready, called, unwell, pickable, out, untried, absent] = counts(member);
        self.ready -= ready;
        self.called -= called;
        self.unwell -= unwell;
        self.pickable -= pickable;
        self.out -= out;
        self.untried -= untried;
        self.absent -= absent;
    }
}

fn counts<L: Clone>(member: &Member<L>) -> [usize; 7] {
    let is_listed = member.standing == Standing::Listed;
    let is_in = member.ejection.is_in();
    [
        member.is_ready(),
        member.is_ready() && is_in,
        is_listed && member.link.is_some() && !member.is_well,
        member.is_pickable(),
        member.is_pickable() && !is_in,
        is_listed && !member.is_tried,
        !is_listed && member.link.is_none(),
    ]
    .map(usize::from)
}
