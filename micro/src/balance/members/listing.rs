//! What the registry lists, and what becomes of members that it no longer does.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use tokio::time::Instant;

use super::{
    Action, EjectionState, EndpointId, EndpointState, Event, Key, Member, Members, Standing, Tally,
};
use crate::{backoff::Backoff, discovery::Update, registry::Node};

impl<L: Clone> Members<L> {
    /// Takes an update of the registry's set.
    pub(in super::super) fn update(&mut self, update: Update, now: Instant) {
        match update {
            Update::Insert(node) => self.insert(node, now),
            Update::Remove(id) => self.remove(&id, now),
            Update::Forget => self.give_up_all(now),
            Update::Reset(nodes) => {
                let kept: HashSet<&str> = nodes.iter().map(|node| node.id.as_str()).collect();
                let gone = self.listed.keys().filter(|id| !kept.contains(&***id));
                for id in gone.cloned().collect::<Vec<_>>() {
                    self.remove(&id, now);
                }
                for node in nodes {
                    self.insert(node, now);
                }
            }
        }
        self.retain(now);
        self.spare(now);
    }

    /// Gives up those of these nodes that are known: they are what no call asks for any more, also when
    /// there is no other.
    pub(in super::super) fn exclude(&mut self, ids: &[Arc<str>], now: Instant) {
        if ids.is_empty() {
            return;
        }
        let ids: HashSet<_> = ids.iter().collect();
        self.listed.retain(|id, _| !ids.contains(id));
        // At whatever address: one that it had before may still be connected.
        let known = self.members.keys().filter(|key| ids.contains(&key.id)).cloned();
        let known = known.collect::<Vec<_>>();
        for key in &known {
            self.give_up(key, now);
        }
        self.retain(now);
        self.spare(now);
    }

    fn insert(&mut self, node: Arc<Node>, now: Instant) {
        let key = Key { id: node.id.as_str().into(), address: node.address.as_str().into() };
        if self.listed.get(&key.id).is_some_and(|listed| *listed != key) {
            self.remove(&key.id, now);
        }
        self.listed.insert(key.id.clone(), key.clone());
        let member = self.members.entry(key.clone()).or_insert_with(|| {
            self.endpoints += 1;
            let member = Member {
                tally: Arc::new(Tally::new(key.clone())),
                key: key.clone(),
                endpoint: EndpointId(self.endpoints),
                node: node.clone(),
                // As good as never listed: what follows lists it.
                standing: Standing::Lingering(now),
                is_listed: Arc::default(),
                state: EndpointState::new(Backoff::connect().with_rng(self.rng.fork())),
                ejection: EjectionState::default(),
                under_way: Arc::default(),
                attempt: 0,
                link: None,
                previous: None,
                timer: None,
                is_well: false,
                is_mute: false,
                changed: now,
                error: None,
                is_tried: false,
                was_silent: false,
            };
            self.census.enter(&member);
            member
        });
        let is_same = member.standing.is_picked() && member.node == node;
        self.census.leave(member);
        if member.standing != Standing::Listed {
            member.changed = now;
        }
        member.standing = Standing::Listed;
        member.is_listed.store(true, Relaxed);
        self.census.enter(member);
        member.node = node;
        self.out.drive(member, Event::Wanted, now);
        if !is_same {
            self.out.actions.extend(member.pick());
        }
        self.leave_behind(&key, now);
    }

    fn remove(&mut self, id: &str, now: Instant) {
        let Some(key) = self.listed.remove(id) else {
            return;
        };
        let member = self.members.get_mut(&key).expect("what is listed is a member");
        if member.link.is_none() {
            return self.give_up(&key, now);
        }
        self.out.actions.extend(member.unpick());
        self.census.leave(member);
        (member.standing, member.changed) = (Standing::Lingering(now), now);
        member.is_listed.store(false, Relaxed);
        self.census.enter(member);
        self.linger = true;
        self.out.schedule(member, member.standing.ends_at(self.ttl));
    }

    /// Has no further calls go to a node where it was before, if it is ready where it is listed. Those under
    /// way may finish, and others begin should it be lost before the TTL is over.
    pub(super) fn leave_behind(&mut self, key: &Key, now: Instant) {
        if !self.members.get(key).is_some_and(Member::is_ready) {
            return;
        }
        let from = Key { id: key.id.clone(), address: "".into() };
        let known = self.members.range_mut(from..).take_while(|(it, _)| it.id == key.id);
        for (_, member) in known.filter(|(_, member)| member.link.is_some()) {
            let Standing::Retained(removed) = member.standing else {
                continue;
            };
            self.out.actions.extend(member.unpick());
            self.census.leave(member);
            (member.standing, member.changed) = (Standing::Lingering(removed), now);
            self.census.enter(member);
            self.linger = true;
            self.out.schedule(member, member.standing.ends_at(self.ttl));
        }
    }

    /// Picks those that linger, if there are no others to pick.
    pub(super) fn retain(&mut self, now: Instant) {
        if self.census.ready > 0 || !std::mem::take(&mut self.linger) {
            return;
        }
        for member in self.members.values_mut() {
            let Standing::Lingering(removed) = member.standing else {
                continue;
            };
            if member.link.is_some() && now < removed + self.ttl {
                self.census.leave(member);
                (member.standing, member.changed) = (Standing::Retained(removed), now);
                self.census.enter(member);
                self.out.schedule(member, member.standing.ends_at(self.ttl));
                let found = || Action::Found(member.node.clone());
                let picked = member.pick().unwrap_or_else(found);
                self.out.actions.push(picked);
            }
        }
    }
}
