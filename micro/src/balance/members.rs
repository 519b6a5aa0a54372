//! All nodes of a service and their connections, without IO: updates and connection events go in,
//! actions come out.
//!
//! A member is a node at an address. One whose address changes is another member, and the one before
//! is as good as removed: if no listed node has a connection, calls go on over its own until the node is
//! ready where it is now, for three TTLs at most.
//!
//! One that is neither listed nor connected is *absent*: not dialled, and remembered with its backoff
//! and its ejection for a TTL, or until those end. A record that flaps clears neither.
//!
//! An event costs what it changes: O(log n) for the timers. A `Reset` reads every node, and so does
//! the loss of the last connected one if others linger.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use fastrand::Rng;
use tokio::time::Instant;

use super::{
    EndpointId,
    ejection::{EjectionState, Phase, Reason, Rules},
    endpoint::{EndpointState, Event},
    lines::Wanted,
    standing::Standing,
    tally::Tally,
    under_way::UnderWay,
};
use crate::registry::Node;

mod absent;
mod census;
mod ejecting;
mod listing;
mod told;
mod wanted;

use census::Census;
pub(super) use told::Verdict;

/// What the driver has to do. `L` is a connection and what is kept with it: opaque here.
#[derive(Debug)]
pub(super) enum Action<L> {
    /// Connect, and report the result under this attempt.
    Dial {
        attempt: Attempt,
        node: Arc<Node>,
        /// The one before, to the same address.
        previous: Option<L>,
        /// Whether that address was silent the last time.
        was_silent: bool,
        /// Whether the node is still listed when the attempt is made.
        is_listed: Arc<AtomicBool>,
    },
    /// Let calls pick this node, or go on under its new record.
    Pick(EndpointId, Arc<Node>, L, Arc<Tally>),
    /// Let no further call pick this node.
    Unpick(EndpointId, Arc<Node>),
    /// As before, since the node is ejected: for this reason, until then.
    Eject(EndpointId, Arc<Node>, Reason, Instant),
    /// Let one call try this node, which is ejected, and report what came of it.
    Probe(EndpointId, Arc<Node>, L, Arc<Tally>),
    /// Calls that may go nowhere else can go to this node, though it is ejected.
    Found(Arc<Node>),
    /// Let none do so after all.
    Unprobe(EndpointId),
    /// Give the connection up; its streams may finish.
    Close(L),
}

/// One attempt to connect, and the connection that came of it: what happens to an earlier one of
/// the same node no longer matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attempt {
    key: Key,
    number: u64,
}

/// A node at an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) id: Arc<str>,
    pub(super) address: Arc<str>,
}

#[derive(Debug)]
struct Member<L> {
    key: Key,
    endpoint: EndpointId,
    node: Arc<Node>,
    standing: Standing,
    /// The same for who dials it.
    is_listed: Arc<AtomicBool>,
    state: EndpointState,
    ejection: EjectionState,
    tally: Arc<Tally>,
    under_way: Arc<UnderWay>,
    /// The number of the attempt whose news counts; zero is none's.
    attempt: u64,
    link: Option<L>,
    previous: Option<L>,
    timer: Option<Instant>,
    /// Whether it says that it is well, or is not asked.
    is_well: bool,
    /// Whether it is known that it cannot say.
    is_mute: bool,
    /// When it last changed: it had a connection or none, it was listed, removed, well or ejected.
    changed: Instant,
    /// Why it last failed to connect, or lost its connection.
    error: Option<Arc<str>>,
    /// Whether an attempt to connect to its address has succeeded or failed, since it last asked a
    /// connection to leave.
    is_tried: bool,
    /// Whether the last one failed since nothing came from there.
    was_silent: bool,
}

impl<L: Clone> Member<L> {
    fn pick(&self) -> Option<Action<L>> {
        let link = self.link.as_ref().filter(|_| self.is_pickable())?;
        let (node, link, tally) = (self.node.clone(), link.clone(), self.tally.clone());
        match self.ejection.phase() {
            Phase::In => Some(Action::Pick(self.endpoint, node, link, tally)),
            Phase::Out(..) => None,
            Phase::Probed(_) => Some(Action::Probe(self.endpoint, node, link, tally)),
        }
    }

    fn unpick(&self) -> Option<Action<L>> {
        Some(match self.pick()? {
            Action::Probe(..) => Action::Unprobe(self.endpoint),
            _ => Action::Unpick(self.endpoint, self.node.clone()),
        })
    }

    fn is_ready(&self) -> bool {
        self.standing == Standing::Listed && self.is_pickable()
    }

    /// Whether calls would go to it, were it not ejected.
    fn is_pickable(&self) -> bool {
        self.standing.is_picked() && self.link.is_some() && self.is_well
    }
}

/// The nodes of one service.
#[derive(Debug)]
pub(super) struct Members<L> {
    ttl: Duration,
    rng: Rng,
    /// In an order: a run is to be told by its seed.
    members: BTreeMap<Key, Member<L>>,
    /// Where the registry lists each node, by its id.
    listed: BTreeMap<Arc<str>, Key>,
    census: Census,
    rules: Rules,
    /// When outliers are looked for next: from the first connection on, as long as there is a member.
    sweeps_at: Option<Instant>,
    /// Those that are out, by the end of that.
    ejected: BTreeSet<(Instant, Key)>,
    /// Those that a probe decides on.
    probed: BTreeSet<Key>,
    /// Whether one may linger.
    linger: bool,
    /// Which nodes calls wait for.
    wanted: Wanted,
    endpoints: u64,
    out: Out<L>,
}

/// What leaves: apart from the members, so that both can be borrowed at once.
#[derive(Debug)]
struct Out<L> {
    attempts: u64,
    timers: BTreeSet<(Instant, Key)>,
    actions: Vec<Action<L>>,
}

impl<L: Clone> Members<L> {
    /// No nodes yet; those removed linger for `ttl`, and are ejected by the rules.
    pub(super) fn new(ttl: Duration, rules: Rules, rng: Rng) -> Self {
        let out = Out { attempts: 0, timers: BTreeSet::new(), actions: Vec::new() };
        Self {
            ttl,
            rng,
            members: BTreeMap::new(),
            listed: BTreeMap::new(),
            census: Census::default(),
            rules,
            sweeps_at: None,
            ejected: BTreeSet::new(),
            probed: BTreeSet::new(),
            linger: false,
            wanted: Wanted::default(),
            endpoints: 0,
            out,
        }
    }

    /// How many nodes the registry lists.
    pub(super) fn listed(&self) -> usize {
        self.listed.len()
    }

    /// How many calls would go to, were they not ejected.
    pub(super) fn ejected(&self) -> usize {
        self.census.out
    }

    /// The nodes that the registry lists.
    pub(super) fn nodes(&self) -> Vec<Arc<Node>> {
        self.listed.values().map(|key| self.members[key].node.clone()).collect()
    }

    /// Ejects by other rules from now on.
    pub(super) fn set_rules(&mut self, rules: Rules, now: Instant) {
        // Who sets the rules often, and the same, is not to put the next look off each time.
        if rules.interval != self.rules.interval {
            self.sweeps_at = self.sweeps_at.map(|_| now + rules.interval);
        }
        self.rules = rules;
        self.spare(now);
    }

    /// How many of those have neither been connected to nor failed to be, at the address they have.
    pub(super) fn untried(&self) -> usize {
        self.census.untried
    }

    /// What is to be done since the last time, in order.
    pub(super) fn actions(&mut self) -> Vec<Action<L>> {
        std::mem::take(&mut self.out.actions)
    }

    /// The connections that stand, to be closed.
    pub(super) fn into_links(self) -> impl Iterator<Item = L> {
        self.members.into_values().filter_map(|member| member.link)
    }

    /// When to [`tick`](Self::tick) next.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        let first = |timers: &BTreeSet<(Instant, Key)>| timers.first().map(|(at, _)| *at);
        [first(&self.out.timers), first(&self.ejected)].into_iter().flatten().min()
    }

    /// When to do so for outliers.
    pub(super) fn sweeps_at(&self) -> Option<Instant> {
        self.sweeps_at
    }

    /// Takes a new connection, of a node that is well or has not said so yet. One that nobody waits
    /// for any more is closed again.
    pub(super) fn connected(&mut self, attempt: &Attempt, link: L, is_well: bool, now: Instant) {
        let Some(member) = current(&mut self.members, attempt) else {
            return self.out.actions.push(Action::Close(link));
        };
        if member.standing != Standing::Listed {
            member.state.note(Event::Connected, now);
            member.state.note(Event::Closed, now);
            return self.out.actions.push(Action::Close(link));
        }
        self.census.leave(member);
        member.is_tried |= is_well;
        (member.link, member.is_well) = (Some(link), is_well);
        self.census.enter(member);
        (member.previous, member.error, member.was_silent) = (None, None, false);
        self.out.drive(member, Event::Connected, now);
        self.out.actions.extend(member.pick());
        self.leave_behind(&attempt.key, now);
        self.sweeps_at.get_or_insert(now + self.rules.interval);
        self.spare(now);
    }

    /// Takes what a node says of its health: that it is well, or why not.
    pub(super) fn told(&mut self, attempt: &Attempt, health: Result<(), Arc<str>>, now: Instant) {
        let Some(member) = current(&mut self.members, attempt).filter(|it| it.link.is_some())
        else {
            return;
        };
        self.census.leave(member);
        member.is_tried = true;
        self.census.enter(member);
        if member.is_well != health.is_ok() {
            self.out.actions.extend(member.unpick());
            self.census.leave(member);
            (member.is_well, member.changed) = (health.is_ok(), now);
            self.census.enter(member);
            self.out.actions.extend(member.pick());
        }
        member.error = health.err();
        self.leave_behind(&attempt.key, now);
        self.retain(now);
        self.spare(now);
    }

    /// Takes it that a node cannot say how it is; whether that is new.
    pub(super) fn is_newly_mute(&mut self, attempt: &Attempt) -> bool {
        current(&mut self.members, attempt)
            .is_some_and(|member| !std::mem::replace(&mut member.is_mute, true))
    }

    /// Takes the failure of an attempt, and whether that was for silence, unless it says nothing of the
    /// node; whether it says something of the node where it is listed now.
    pub(super) fn failed(
        &mut self,
        attempt: &Attempt,
        why: &Arc<str>,
        is_silent: Option<bool>,
        now: Instant,
    ) -> bool {
        let Some(member) = current(&mut self.members, attempt) else {
            return false;
        };
        self.census.leave(member);
        (member.is_tried, member.was_silent) = (true, is_silent.unwrap_or(member.was_silent));
        self.census.enter(member);
        member.error = Some(why.clone());
        if member.standing != Standing::Listed {
            member.state.note(Event::Failed, now);
            return false;
        }
        self.out.drive(member, Event::Failed, now);
        if self.wanted.has(&member.node) {
            self.out.drive(member, Event::Wanted, now);
        }
        is_silent.is_some()
    }

    /// Takes it that an attempt was not made, since the node was gone when its turn came.
    pub(super) fn not_made(&mut self, attempt: &Attempt, now: Instant) {
        let Some(member) = current(&mut self.members, attempt) else {
            return;
        };
        member.state.note(Event::NotMade, now);
        if member.standing == Standing::Listed {
            // It is back since.
            self.out.drive(member, Event::Wanted, now);
        }
    }

    /// Takes a GOAWAY: the connection finishes its streams and gets no more.
    pub(super) fn draining(&mut self, attempt: &Attempt, now: Instant) {
        self.disconnected(attempt, Event::GoAway, None, now);
    }

    /// Takes the loss of a connection.
    pub(super) fn closed(&mut self, attempt: &Attempt, why: &Arc<str>, now: Instant) {
        self.disconnected(attempt, Event::Closed, Some(why), now);
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Instant) {
        while let Some((_, key)) = self.out.timers.first().filter(|(at, _)| *at <= now).cloned() {
            let member = self.members.get_mut(&key).expect("timers are dropped with their member");
            if member.standing == Standing::Listed {
                self.out.drive(member, Event::Tick, now);
            } else {
                self.give_up(&key, now);
            }
        }
        self.expire(now);
        self.sweep(now);
        self.spare(now);
    }

    fn disconnected(
        &mut self,
        attempt: &Attempt,
        event: Event,
        why: Option<&Arc<str>>,
        now: Instant,
    ) {
        let Some(member) = current(&mut self.members, attempt) else {
            return;
        };
        self.out.actions.extend(member.unpick());
        self.census.leave(member);
        member.previous = member.link.take();
        member.error = why.cloned();
        match event {
            Event::Closed => member.under_way = Arc::default(),
            // It has not failed: its next connection is waited for as its first was.
            _ => member.is_tried = false,
        }
        self.census.enter(member);
        if member.standing == Standing::Listed {
            self.out.drive(member, event, now);
        } else {
            member.state.note(event, now);
            self.remember(&attempt.key, now);
        }
        self.retain(now);
        self.spare(now);
    }
}

impl<L: Clone> Out<L> {
    fn drive(&mut self, member: &mut Member<L>, event: Event, now: Instant) {
        let was_connected = member.state.is_connected();
        let dials = member.state.handle(event, now);
        if member.state.is_connected() != was_connected {
            member.changed = now;
        }
        if dials {
            self.attempts += 1;
            member.attempt = self.attempts;
            let attempt = Attempt { key: member.key.clone(), number: self.attempts };
            self.actions.push(Action::Dial {
                attempt,
                node: member.node.clone(),
                previous: member.previous.clone(),
                was_silent: member.was_silent,
                is_listed: member.is_listed.clone(),
            });
        }
        self.schedule(member, member.state.wakes_at());
    }

    fn schedule(&mut self, member: &mut Member<L>, at: Option<Instant>) {
        if member.timer == at {
            return;
        }
        if let Some(old) = std::mem::replace(&mut member.timer, at) {
            self.timers.remove(&(old, member.key.clone()));
        }
        self.timers.extend(at.map(|at| (at, member.key.clone())));
    }
}

fn current<'a, L>(
    members: &'a mut BTreeMap<Key, Member<L>>,
    attempt: &Attempt,
) -> Option<&'a mut Member<L>> {
    members.get_mut(&attempt.key).filter(|member| member.attempt == attempt.number)
}

#[cfg(test)]
mod tests;
