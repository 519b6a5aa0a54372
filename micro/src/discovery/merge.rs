//! The nodes of a service in several registries as one set, without IO.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Status, Update};
use crate::registry::Node;

/// What each registry has. A node that several have is the one that the first of them has.
#[derive(Debug)]
pub(super) struct Merge {
    sets: Vec<BTreeMap<Arc<str>, Arc<Node>>>,
    statuses: Vec<Status>,
    /// Whether subscribers have been told a set at all.
    is_told: bool,
}

impl Merge {
    pub(super) fn new(registries: usize) -> Self {
        Self {
            sets: vec![BTreeMap::new(); registries],
            statuses: vec![Status::default(); registries],
            is_told: false,
        }
    }

    /// Takes what a registry tells, and returns what follows for the whole.
    pub(super) fn update(&mut self, registry: usize, update: Update) -> Vec<Update> {
        if self.sets.len() == 1 {
            return vec![update];
        }
        match update {
            Update::Insert(node) => {
                let id: Arc<str> = node.id.as_str().into();
                let before = self.sets[registry].insert(id.clone(), node);
                self.follows(registry, id, before).into_iter().collect()
            }
            Update::Remove(id) => {
                let before = self.sets[registry].remove(&id);
                self.follows(registry, id, before).into_iter().collect()
            }
            Update::Reset(nodes) => {
                let nodes = nodes.into_iter().map(|node| (node.id.as_str().into(), node));
                let mut before = std::mem::replace(&mut self.sets[registry], nodes.collect());
                if !std::mem::replace(&mut self.is_told, true) {
                    return vec![Update::Reset(self.sets[registry].values().cloned().collect())];
                }
                let ids: BTreeSet<_> = before.keys().chain(self.sets[registry].keys()).collect();
                let ids: Vec<_> = ids.into_iter().cloned().collect();
                let follows = ids.into_iter().filter_map(|id| {
                    let before = before.remove(&id);
                    let is_same = before.as_ref() == self.sets[registry].get(&id);
                    (!is_same).then(|| self.follows(registry, id, before)).flatten()
                });
                follows.collect()
            }
        }
    }

    /// Takes how a registry fares, and returns how the whole does.
    pub(super) fn status(&mut self, registry: usize, status: Status) -> Status {
        self.statuses[registry] = status;
        let all = &self.statuses;
        // One that does not answer holds nobody up.
        let is_over = |status: &Status| status.synced || status.error.is_some();
        Status {
            synced: all.iter().any(|it| it.synced) && all.iter().all(is_over),
            error: all.iter().find_map(|it| it.error.clone()),
            refused: all.iter().all(|it| it.refused),
            malformed: all.iter().map(|it| it.malformed).sum(),
            not_grpc: all.iter().map(|it| it.not_grpc).sum(),
        }
    }

    /// What follows from a change of this id's node in a registry, which had it as `before`.
    fn follows(&self, registry: usize, id: Arc<str>, before: Option<Arc<Node>>) -> Option<Update> {
        let (earlier, rest) = self.sets.split_at(registry);
        if earlier.iter().any(|set| set.contains_key(&id)) {
            return None;
        }
        let (own, later) = (rest[0].get(&id), rest[1..].iter().find_map(|set| set.get(&id)));
        match (own, before, later) {
            (Some(node), _, _) | (None, Some(_), Some(node)) => Some(Update::Insert(node.clone())),
            (None, Some(_), None) => Some(Update::Remove(id)),
            (None, None, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::short, *};

    struct World(Merge);

    impl World {
        fn tell(&mut self, registry: usize, update: Update) -> String {
            let updates = self.0.update(registry, update);
            updates.iter().map(short).collect::<Vec<_>>().join(" ")
        }

        fn reset(&mut self, registry: usize, nodes: &[&str]) -> String {
            self.tell(registry, Update::Reset(nodes.iter().map(|it| node(it)).collect()))
        }

        fn insert(&mut self, registry: usize, it: &str) -> String {
            self.tell(registry, Update::Insert(node(it)))
        }

        fn remove(&mut self, registry: usize, id: &str) -> String {
            self.tell(registry, Update::Remove(id.into()))
        }
    }

    fn node(short: &str) -> Arc<Node> {
        let (id, address) = short.split_once('@').unwrap();
        Arc::new(Node::new("greeter", id, address))
    }

    #[test]
    fn a_node_is_there_while_one_registry_has_it() {
        let mut world = World(Merge::new(2));
        assert_eq!(world.reset(1, &["a@x", "b@y"]), "=[a@x b@y]", "one is enough to begin with");
        assert_eq!(world.reset(0, &["b@y", "c@z"]), "+b@y +c@z");
        assert_eq!(world.remove(1, "b"), "");
        assert_eq!(world.remove(1, "a"), "-a");
        assert_eq!(world.insert(1, "c@z"), "", "the first registry has it");
        assert_eq!(world.remove(0, "c"), "+c@z", "the record of the second is in force");
        assert_eq!(world.reset(1, &[]), "-c");
        assert_eq!(world.reset(0, &["b@y", "d@w"]), "+d@w", "b is as it was");
        assert_eq!(world.remove(1, "b"), "", "it has not had it");
    }

    #[test]
    fn the_record_of_the_registry_named_first_is_in_force() {
        let mut world = World(Merge::new(3));
        world.reset(2, &["a@x"]);
        assert_eq!(world.insert(1, "a@y"), "+a@y");
        assert_eq!(world.insert(2, "a@z"), "");
        assert_eq!(world.insert(0, "a@w"), "+a@w");
        assert_eq!(world.remove(1, "a"), "");
        assert_eq!(world.remove(0, "a"), "+a@z");
        assert_eq!(world.remove(2, "a"), "-a");
    }

    #[test]
    fn one_that_does_not_answer_holds_nobody_up() {
        let mut merge = Merge::new(2);
        let synced = Status { synced: true, ..Status::default() };
        let failing = Status { error: Some("down".into()), ..Status::default() };
        assert!(!merge.status(0, synced.clone()).synced, "the other may well have the nodes");
        let status = merge.status(1, failing.clone());
        assert_eq!((status.synced, status.error.as_deref()), (true, Some("down")));
        let status = merge.status(0, failing);
        assert!(!status.synced, "none has answered");
        let refused = Status { refused: true, ..synced.clone() };
        assert!(!merge.status(0, refused.clone()).refused);
        assert!(merge.status(1, refused).refused);
    }
}
