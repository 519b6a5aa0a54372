//! What was read last of each service, and the revisions that Nacos does not have, without IO.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    super::{Entry, Listing, Malformed, Node},
    found::Found,
};

/// The revision of what was never seen to have a node.
const FIRST: u64 = 1;

/// Revisions are this process's own: each change that a read finds is one.
#[derive(Debug)]
pub(super) struct Known {
    revision: u64,
    questions: u64,
    services: HashMap<String, Seen>,
}

#[derive(Debug)]
struct Seen {
    /// The question that this answered.
    asked: u64,
    /// That of the last change.
    revision: u64,
    entries: BTreeMap<String, Entry>,
    malformed: Vec<Malformed>,
}

impl Known {
    pub(super) fn new() -> Self {
        Self { revision: FIRST, questions: 0, services: HashMap::new() }
    }

    /// A question begins: of two, the later has the later answer, whichever comes first.
    pub(super) fn ask(&mut self) -> u64 {
        self.questions += 1;
        self.questions
    }

    /// How a service stands, by this answer to that question or a later one that is here already.
    pub(super) fn answer(
        &mut self,
        asked: u64,
        service: &str,
        found: Vec<Found>,
        malformed: Vec<Malformed>,
    ) -> Listing {
        let revision = self.revision + 1;
        let Some(seen) = self.services.get_mut(service) else {
            // Names that never had a node are not kept: anybody can ask for any.
            if found.is_empty() && malformed.is_empty() {
                return Listing { revision: FIRST, ..Listing::default() };
            }
            let entries = found.into_iter().map(|found| new(found, revision)).collect();
            let seen = Seen { asked, revision, entries, malformed };
            let listing = seen.listing();
            self.services.insert(service.to_owned(), seen);
            self.revision = revision;
            return listing;
        };
        if asked > seen.asked {
            seen.asked = asked;
            let mut earlier = std::mem::take(&mut seen.entries);
            let mut has_changed = seen.malformed != malformed;
            seen.malformed = malformed;
            for found in found {
                let (key, entry) = match earlier.remove(&found.key) {
                    Some(entry) if is_same(&entry, found.rank, &found.node) => (found.key, entry),
                    _ => {
                        has_changed = true;
                        new(found, revision)
                    }
                };
                seen.entries.insert(key, entry);
            }
            if has_changed || !earlier.is_empty() {
                seen.revision = revision;
                self.revision = revision;
            }
        }
        seen.listing()
    }
}

fn is_same(entry: &Entry, rank: u8, node: &Node) -> bool {
    entry.rank == rank && *entry.node == *node
}

fn new(found: Found, revision: u64) -> (String, Entry) {
    let Found { key, rank, node, .. } = found;
    (key.clone(), Entry { key, revision, rank, node: Arc::new(node) })
}

impl Seen {
    fn listing(&self) -> Listing {
        Listing {
            revision: self.revision,
            entries: self.entries.values().cloned().collect(),
            malformed: self.malformed.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use nacos_sdk::api::naming::ServiceInstance;

    use super::{
        super::{super::format::Format, found::nodes},
        *,
    };

    /// Nodes by their ports.
    fn found(ports: &[i32]) -> Vec<Found> {
        let instance = |port: &i32| ServiceInstance {
            ip: "10.0.0.1".to_owned(),
            port: *port,
            metadata: [("protocol".to_owned(), "grpc".to_owned())].into(),
            ..ServiceInstance::default()
        };
        let instances: Vec<_> = ports.iter().map(instance).collect();
        nodes("a", "a", &instances, &[Format::Micro], None).0
    }

    /// `rREVISION`, and each entry's `PORT@REVISION`.
    fn told(listing: &Listing) -> String {
        let entry = |entry: &Entry| {
            let (_, port) = entry.node.address.split_once(':').unwrap();
            format!(" {port}@{}", entry.revision)
        };
        format!("r{}{}", listing.revision, listing.entries.iter().map(entry).collect::<String>())
    }

    #[test]
    fn each_change_is_a_revision_and_what_stands_keeps_its_own() {
        let mut known = Known::new();
        let mut read = |ports: &[i32]| {
            let asked = known.ask();
            told(&known.answer(asked, "a", found(ports), Vec::new()))
        };
        assert_eq!(read(&[]), "r1");
        assert_eq!(read(&[1, 2]), "r2 1@2 2@2");
        assert_eq!(read(&[2, 1]), "r2 1@2 2@2", "the order is no change");
        assert_eq!(read(&[2, 3]), "r3 2@2 3@3");
        assert_eq!(read(&[]), "r4");
        assert_eq!(read(&[]), "r4");
        assert_eq!(read(&[2]), "r5 2@5");
    }

    #[test]
    fn services_are_apart() {
        let mut known = Known::new();
        for (service, ports, expected) in [
            ("a", &[1][..], "r2 1@2"),
            ("b", &[1], "r3 1@3"),
            ("a", &[1], "r2 1@2"),
            ("c", &[], "r1"),
        ] {
            let asked = known.ask();
            assert_eq!(told(&known.answer(asked, service, found(ports), Vec::new())), expected);
        }
        assert_eq!(known.services.len(), 2, "a name without nodes is not kept");
    }

    #[test]
    fn an_answer_that_was_overtaken_says_nothing() {
        let mut known = Known::new();
        let (early, late) = (known.ask(), known.ask());
        assert_eq!(told(&known.answer(late, "a", found(&[2]), Vec::new())), "r2 2@2");
        assert_eq!(told(&known.answer(early, "a", found(&[1]), Vec::new())), "r2 2@2");
    }

    #[test]
    fn what_cannot_be_read_is_a_change_too() {
        let mut known = Known::new();
        let broken = || vec![Malformed { key: "a/x".to_owned(), reason: "why".to_owned() }];
        let asked = known.ask();
        assert_eq!(known.answer(asked, "a", Vec::new(), broken()).revision, 2);
        let asked = known.ask();
        assert_eq!(known.answer(asked, "a", Vec::new(), broken()).revision, 2);
        let asked = known.ask();
        assert_eq!(known.answer(asked, "a", Vec::new(), Vec::new()).revision, 3);
    }
}
