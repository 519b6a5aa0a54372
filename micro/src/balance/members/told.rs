//! Members as they are told to whoever asks.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use tokio::time::Instant;

use super::{Attempt, Key, Member, Members, Phase};
use crate::{
    balance::{
        EndpointId, endpoint,
        explain::{Ejection, NodeReport, NodeState},
        standing::Standing,
        tally::Tally,
        under_way::UnderWay,
    },
    registry::Node,
};

/// What is known of whether a listed node takes calls.
#[derive(Debug)]
pub(in super::super) enum Verdict {
    Called,
    /// It is ejected, or says that it is not well.
    Failing,
    /// It has no connection, or has not said whether it is well.
    Open,
}

impl<L: Clone> Members<L> {
    /// Each member that is listed or connected, and its link.
    pub(in super::super) fn reports(
        &self,
        now: Instant,
    ) -> impl Iterator<Item = (NodeReport, Option<&L>)> {
        let told = |it: &&Member<L>| it.standing == Standing::Listed || it.link.is_some();
        self.members
            .values()
            .filter(told)
            .map(move |member| (report(member, now), member.link.as_ref()))
    }

    /// How many are listed, and calls go to.
    pub(in super::super) fn called(&self) -> usize {
        self.census.called
    }

    /// How many are listed and connected, and not well, or have not said so yet.
    pub(in super::super) fn unwell(&self) -> usize {
        self.census.unwell
    }

    /// Of the node of this id, where the registry lists it.
    pub(in super::super) fn verdict(&self, id: &str) -> Verdict {
        let Some(key) = self.listed.get(id) else {
            return Verdict::Open;
        };
        let member = &self.members[key];
        if !member.ejection.is_in() {
            return Verdict::Failing;
        }
        match &member.link {
            Some(_) if member.is_well => Verdict::Called,
            Some(_) if member.error.is_some() => Verdict::Failing,
            _ => Verdict::Open,
        }
    }

    /// Whether calls would go to the node of this id, were it not ejected.
    pub(in super::super) fn is_ejected(&self, id: &str) -> bool {
        // At whatever address.
        let from = Key { id: id.into(), address: "".into() };
        let known = self.members.range(from..).take_while(|(key, _)| *key.id == *id);
        known.into_iter().any(|(_, member)| member.is_pickable() && !member.ejection.is_in())
    }

    /// Such a node that calls would go to, were it not ejected: of several the one that is let in next.
    pub(in super::super) fn first_ejected(
        &self,
        is_it: impl Fn(&Node) -> bool,
    ) -> Option<(EndpointId, Arc<Node>, L, Arc<Tally>)> {
        let out = self.probed.iter().chain(self.ejected.iter().map(|(_, key)| key));
        let mut out = out.map(|key| &self.members[key]);
        let member = out.find(|member| member.is_pickable() && is_it(&member.node))?;
        let (node, link, tally) = (&member.node, member.link.as_ref()?, &member.tally);
        Some((member.endpoint, node.clone(), link.clone(), tally.clone()))
    }

    /// Whether it has said nothing of its health over the connection that it has.
    pub(in super::super) fn is_silent(&self, attempt: &Attempt) -> bool {
        let member = self.members.get(&attempt.key).filter(|it| it.attempt == attempt.number);
        member.is_some_and(|it| it.link.is_some() && !it.is_well && it.error.is_none())
    }

    /// The calls of the node that an attempt is of: none, if it no longer counts.
    pub(in super::super) fn under_way(&self, attempt: &Attempt) -> Arc<UnderWay> {
        let member = self.members.get(&attempt.key).filter(|it| it.attempt == attempt.number);
        member.map(|it| it.under_way.clone()).unwrap_or_default()
    }

    /// The connections that stand, and whose they are.
    pub(in super::super) fn connections(&self) -> Vec<(Attempt, Arc<Node>, L)> {
        let connection = |member: &Member<L>| {
            let attempt = Attempt { key: member.key.clone(), number: member.attempt };
            Some((attempt, member.node.clone(), member.link.clone()?))
        };
        self.members.values().filter_map(connection).collect()
    }
}

fn report<L>(member: &Member<L>, now: Instant) -> NodeReport {
    NodeReport {
        node: member.node.clone(),
        state: state(member, now),
        error: member.error.as_deref().map(str::to_owned),
        since: now.saturating_duration_since(member.changed),
        ejection: ejection(member, now),
        in_flight: member.under_way.all.load(Relaxed),
        latency: None,
        health: None,
    }
}

fn ejection<L>(member: &Member<L>, now: Instant) -> Option<Ejection> {
    let (reason, left) = match member.ejection.phase() {
        Phase::In => return None,
        Phase::Out(until, reason) => (reason, Some(until.saturating_duration_since(now))),
        Phase::Probed(reason) => (reason, None),
    };
    Some(Ejection { reason: reason.to_string(), left })
}

fn state<L>(member: &Member<L>, now: Instant) -> NodeState {
    let left = |at: Instant| at.saturating_duration_since(now);
    match (member.state.phase(), member.standing, member.ejection.phase()) {
        (_, Standing::Lingering(_), _) => NodeState::Removed,
        (endpoint::Phase::Ready, _, Phase::Out(until, reason)) => {
            NodeState::Ejected { reason: reason.to_string(), left: left(until) }
        }
        (endpoint::Phase::Ready, _, Phase::Probed(reason)) => {
            NodeState::Probed { reason: reason.to_string() }
        }
        (endpoint::Phase::Ready, ..) if !member.is_well => NodeState::Unwell,
        (endpoint::Phase::Ready, Standing::Retained(_), _) => NodeState::Retained,
        (endpoint::Phase::Ready, ..) => NodeState::Ready,
        (endpoint::Phase::Idle, ..) => NodeState::Idle,
        (endpoint::Phase::Connecting, ..) => NodeState::Connecting,
        (endpoint::Phase::Draining(at), ..) => NodeState::Draining { next_attempt: left(at) },
        (endpoint::Phase::Backoff(at), ..) => NodeState::Backoff { next_attempt: left(at) },
    }
}
