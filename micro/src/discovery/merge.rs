//! The nodes of a service in several registries as one set, without IO.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use super::{Status, Update};
use crate::registry::Node;

type Nodes = BTreeMap<Arc<str>, Arc<Node>>;

/// What each registry has. A node that several have is the one that the first of them has, but for
/// those that fail: what they had last may be long untrue, and comes after what the others have.
#[derive(Debug)]
pub(super) struct Merge {
    /// None of a registry that has not told of its nodes yet.
    sets: Vec<Option<Nodes>>,
    statuses: Vec<Status>,
    /// What subscribers have been told, if that is anything.
    told: Option<Nodes>,
}

impl Merge {
    pub(super) fn new(registries: usize) -> Self {
        Self {
            sets: vec![None; registries],
            statuses: vec![Status::default(); registries],
            told: None,
        }
    }

    /// Takes what a registry tells and how it fares, and returns what follows for the whole.
    pub(super) fn take(
        &mut self,
        registry: usize,
        updates: Vec<Update>,
        status: Status,
    ) -> (Vec<Update>, Status) {
        if self.sets.len() == 1 {
            return (updates, status);
        }
        let had_failed = self.fails(registry);
        self.statuses[registry] = status;
        let is_forgotten = updates.contains(&Update::Forget);
        let mut touched = self.apply(registry, updates);
        if had_failed != self.fails(registry) {
            let ids = self.sets[registry].iter().flat_map(BTreeMap::keys);
            for id in ids {
                touched.entry(id.clone()).or_default();
            }
        }
        (self.settle(registry, touched, is_forgotten), self.status())
    }

    /// Keeps what the registry tells. Returns the ids that it is about, and whether the record of
    /// each was written.
    fn apply(&mut self, registry: usize, updates: Vec<Update>) -> BTreeMap<Arc<str>, bool> {
        let mut touched = BTreeMap::new();
        for update in updates {
            let set = &mut self.sets[registry];
            match update {
                Update::Insert(node) => {
                    let id: Arc<str> = node.id.as_str().into();
                    set.get_or_insert_default().insert(id.clone(), node);
                    touched.insert(id, true);
                }
                Update::Remove(id) => {
                    set.get_or_insert_default().remove(&id);
                    touched.entry(id).or_default();
                }
                Update::Reset(nodes) => {
                    let nodes = nodes.into_iter().map(|node| (node.id.as_str().into(), node));
                    let before = set.replace(nodes.collect()).unwrap_or_default();
                    let now = set.iter().flat_map(BTreeMap::keys).cloned();
                    touched.extend(before.into_keys().chain(now).map(|id| (id, false)));
                }
                Update::Forget => {
                    let before = set.replace(Nodes::new()).unwrap_or_default();
                    touched.extend(before.into_keys().map(|id| (id, false)));
                }
            }
        }
        touched
    }

    fn settle(
        &mut self,
        registry: usize,
        touched: BTreeMap<Arc<str>, bool>,
        is_forgotten: bool,
    ) -> Vec<Update> {
        let Some(mut told) = self.told.take() else {
            return self.first();
        };
        let (mut inserts, mut removes) = (Vec::new(), Vec::new());
        for (id, is_written) in touched {
            let now = self.in_force(&id);
            match (now, told.entry(id)) {
                (Some((from, node)), Entry::Occupied(mut old)) => {
                    if old.get() != node || is_written && from == registry {
                        old.insert(node.clone());
                        inserts.push(Update::Insert(node.clone()));
                    }
                }
                (Some((_, node)), Entry::Vacant(new)) => {
                    new.insert(node.clone());
                    inserts.push(Update::Insert(node.clone()));
                }
                (None, Entry::Occupied(old)) => removes.push(Update::Remove(old.remove_entry().0)),
                (None, Entry::Vacant(_)) => {}
            }
        }
        let is_empty = told.is_empty();
        self.told = Some(told);
        if is_forgotten && is_empty {
            return vec![Update::Forget];
        }
        inserts.append(&mut removes);
        inserts
    }

    /// The first set of all: as soon as there is a node, or nobody is left who may have one.
    fn first(&mut self) -> Vec<Update> {
        let has_node = self.sets.iter().flatten().any(|set| !set.is_empty());
        let is_known = self.sets.iter().any(Option::is_some) && self.statuses.iter().all(is_over);
        if !has_node && !is_known {
            return Vec::new();
        }
        // Of one id the first in order stays.
        let mut told = Nodes::new();
        for (_, set) in self.in_order() {
            for (id, node) in set {
                told.entry(id.clone()).or_insert_with(|| node.clone());
            }
        }
        let nodes = told.values().cloned().collect();
        self.told = Some(told);
        vec![Update::Reset(nodes)]
    }

    fn status(&self) -> Status {
        let all = &self.statuses;
        // One that does not answer holds nobody up, and one that fails is no reason to give up while
        // another has not spoken.
        let is_known = all.iter().all(is_over);
        Status {
            synced: is_known && all.iter().any(|it| it.synced),
            error: all.iter().find_map(|it| it.error.clone()).filter(|_| is_known),
            refused: all.iter().all(|it| it.refused),
            stale: all.iter().filter_map(|it| it.stale).min(),
            revision: all.iter().map(|it| it.revision).min().unwrap_or_default(),
            malformed: all.iter().map(|it| it.malformed).sum(),
            not_grpc: all.iter().map(|it| it.not_grpc).sum(),
        }
    }

    fn fails(&self, registry: usize) -> bool {
        self.statuses[registry].error.is_some()
    }

    /// The registries' sets, those that count most first.
    fn in_order(&self) -> impl Iterator<Item = (usize, &Nodes)> {
        let all = self.sets.iter().enumerate();
        let sets = move |fails| {
            let all = all.clone().filter(move |(registry, _)| self.fails(*registry) == fails);
            all.filter_map(|(registry, set)| Some((registry, set.as_ref()?)))
        };
        sets(false).chain(sets(true))
    }

    /// Whose record of this id is believed, and what it says.
    fn in_force(&self, id: &str) -> Option<(usize, &Arc<Node>)> {
        self.in_order().find_map(|(registry, set)| Some((registry, set.get(id)?)))
    }
}

/// Whether the registry has said what it has, or that it cannot.
fn is_over(status: &Status) -> bool {
    status.synced || status.error.is_some()
}

#[cfg(test)]
mod tests {
    use super::{super::tests::short, *};

    struct World(Merge);

    impl World {
        /// Two or more registries that have answered.
        fn new(registries: usize) -> Self {
            let mut merge = Merge::new(registries);
            merge.statuses = vec![synced(); registries];
            Self(merge)
        }

        fn tell(&mut self, registry: usize, updates: Vec<Update>, status: Status) -> String {
            let (updates, _) = self.0.take(registry, updates, status);
            updates.iter().map(short).collect::<Vec<_>>().join(" ")
        }

        fn reset(&mut self, registry: usize, nodes: &[&str]) -> String {
            let nodes = nodes.iter().map(|it| node(it)).collect();
            self.tell(registry, vec![Update::Reset(nodes)], synced())
        }

        fn insert(&mut self, registry: usize, it: &str) -> String {
            self.tell(registry, vec![Update::Insert(node(it))], synced())
        }

        fn remove(&mut self, registry: usize, id: &str) -> String {
            self.tell(registry, vec![Update::Remove(id.into())], synced())
        }

        fn fail(&mut self, registry: usize) -> String {
            self.tell(registry, Vec::new(), failing())
        }
    }

    fn synced() -> Status {
        Status { synced: true, ..Status::default() }
    }

    fn failing() -> Status {
        Status { error: Some("down".into()), ..synced() }
    }

    fn node(short: &str) -> Arc<Node> {
        let (id, address) = short.split_once('@').unwrap();
        Arc::new(Node::new("greeter", id, address))
    }

    #[test]
    fn a_node_is_there_while_one_registry_has_it() {
        let mut world = World::new(2);
        assert_eq!(world.reset(1, &["a@x", "b@y"]), "=[a@x b@y]", "one is enough to begin with");
        assert_eq!(world.reset(0, &["b@y", "c@z"]), "+c@z", "b is as it was");
        assert_eq!(world.remove(1, "b"), "");
        assert_eq!(world.remove(1, "a"), "-a");
        assert_eq!(world.insert(1, "c@z"), "", "the first registry has it");
        assert_eq!(world.insert(0, "c@z"), "+c@z", "written anew");
        assert_eq!(world.remove(0, "c"), "", "the second has the same");
        assert_eq!(world.reset(1, &[]), "-c");
        assert_eq!(world.reset(0, &["b@y", "d@w"]), "+d@w", "b is as it was");
        assert_eq!(world.remove(1, "b"), "", "it has not had it");
    }

    #[test]
    fn the_record_of_the_registry_named_first_is_in_force() {
        let mut world = World::new(3);
        world.reset(2, &["a@x"]);
        assert_eq!(world.insert(1, "a@y"), "+a@y");
        assert_eq!(world.insert(2, "a@z"), "");
        assert_eq!(world.insert(0, "a@w"), "+a@w");
        assert_eq!(world.remove(1, "a"), "");
        assert_eq!(world.remove(0, "a"), "+a@z");
        assert_eq!(world.remove(2, "a"), "-a");
    }

    #[test]
    fn what_a_failing_registry_had_last_comes_after_what_the_others_have() {
        let mut world = World::new(2);
        world.reset(0, &["a@x", "b@y"]);
        assert_eq!(world.reset(1, &["a@x"]), "");
        assert_eq!(world.fail(0), "", "nothing is known better");
        assert_eq!(world.insert(1, "a@z"), "+a@z", "it was started again elsewhere");
        assert_eq!(world.tell(0, Vec::new(), synced()), "+a@x", "it answers, and stands by it");
        assert_eq!(world.fail(0), "+a@z");
        assert_eq!(world.remove(1, "a"), "+a@x", "an error removes nobody");
        assert_eq!(world.fail(1), "", "of two that fail the first counts");
        assert_eq!(world.insert(0, "b@y"), "+b@y");
    }

    #[test]
    fn an_empty_set_is_told_when_nobody_is_left_who_may_have_a_node() {
        let mut world = World(Merge::new(2));
        assert_eq!(world.reset(0, &[]), "", "the other may well have the nodes");
        assert_eq!(world.reset(1, &["a@x"]), "=[a@x]");
        let mut world = World(Merge::new(2));
        assert_eq!(
            world.tell(1, Vec::new(), Status { error: Some("down".into()), ..Status::default() }),
            ""
        );
        assert_eq!(world.reset(0, &[]), "=[]");
        assert_eq!(world.reset(1, &["a@x"]), "+a@x");
    }

    #[test]
    fn all_is_forgotten_when_nobody_has_a_word_that_counts() {
        let mut world = World::new(2);
        world.reset(0, &["a@x", "b@y"]);
        world.reset(1, &["a@x"]);
        assert_eq!(world.tell(0, vec![Update::Forget], failing()), "-b");
        assert_eq!(world.tell(1, vec![Update::Forget], failing()), "forget");
        assert_eq!(world.reset(1, &["a@x"]), "+a@x");
    }

    #[test]
    fn one_that_does_not_answer_holds_nobody_up() {
        let mut merge = Merge::new(2);
        let mut fares = |registry, status| merge.take(registry, Vec::new(), status).1;
        assert!(!fares(0, synced()).synced, "the other may well have the nodes");
        let down = Status { error: Some("down".into()), ..Status::default() };
        let status = fares(1, down.clone());
        assert_eq!((status.synced, status.error.as_deref()), (true, Some("down")));
        assert!(!fares(0, down.clone()).synced, "none has answered");
        let refused = Status { refused: true, ..down.clone() };
        assert!(!fares(0, refused.clone()).refused);
        assert!(fares(1, refused).refused);

        let mut merge = Merge::new(2);
        let status = merge.take(0, Vec::new(), down).1;
        assert_eq!(status.error, None, "the other has not spoken yet");
    }
}
