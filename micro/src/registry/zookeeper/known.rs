//! What a watch has told so far, so that nothing is told twice and revisions never fall: ZooKeeper
//! says of a change where it was, and what stands there by then may be from a later one.

use std::collections::HashMap;

use super::{
    super::{Batch, Event},
    record::{Folder, Record},
};

/// A change, as ZooKeeper tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) path: String,
    /// Its revision; 0 from servers before 3.9, which do not tell it.
    pub(super) revision: u64,
}

/// The records told, each with the revision of its last write.
#[derive(Debug)]
pub(super) struct Known {
    records: HashMap<String, u64>,
    revision: u64,
}

impl Known {
    /// What was read when the watch began, with the revision of all of it.
    pub(super) fn new(records: HashMap<String, u64>, revision: u64) -> Self {
        Self { records, revision }
    }

    /// What these changes brought, given what stands at each of their paths now; nothing if it was
    /// told already.
    pub(super) fn told(
        &mut self,
        service: &str,
        folders: &[Folder],
        changes: impl IntoIterator<Item = (Change, Option<Record>)>,
    ) -> Option<Batch> {
        let mut events = Vec::new();
        for (Change { path, revision }, found) in changes {
            let Some(folder) = folders.iter().find(|folder| folder.has(&path)) else { continue };
            let written = found.as_ref().map_or(0, Record::revision);
            self.revision = self.revision.max(revision).max(written);
            if found.is_some() && self.records.get(&path) == Some(&written) {
                continue;
            }
            let event = match found.map(|record| folder.read(service, &record)) {
                Some(Ok(Some(entry))) => Event::Put(entry),
                Some(Err(malformed)) => Event::Malformed(malformed),
                // Gone, or another service's by now.
                None | Some(Ok(None)) => {
                    if self.records.remove(&path).is_some() {
                        events.push(Event::Delete(path));
                    }
                    continue;
                }
            };
            self.records.insert(path, written);
            events.push(event);
        }
        let revision = self.revision;
        (!events.is_empty()).then_some(Batch { revision, events })
    }
}

#[cfg(test)]
mod tests {
    use zookeeper_client::Stat;

    use super::{
        super::{
            super::format::{Format, gomicro},
            path::Root,
        },
        *,
    };
    use crate::registry::Node;

    const STAT: Stat = Stat {
        czxid: 0,
        mzxid: 0,
        pzxid: 0,
        ctime: 0,
        mtime: 0,
        version: 0,
        cversion: 0,
        aversion: 0,
        ephemeral_owner: 1,
        data_length: 0,
        num_children: 0,
    };

    fn record(id: &str, service: &str, mzxid: i64) -> Record {
        let value = gomicro::encode(&Node::new(service, id, "h:1")).unwrap();
        Record { path: path(id), value: Some(value), stat: Stat { mzxid, ..STAT } }
    }

    fn path(id: &str) -> String {
        format!("/micro-registry/team-pay/{id}")
    }

    fn change(id: &str, revision: u64, found: Option<Record>) -> (Change, Option<Record>) {
        (Change { path: path(id), revision }, found)
    }

    /// `7: +a -b ?c`, as far as there is something to tell.
    fn told(known: &mut Known, changes: Vec<(Change, Option<Record>)>) -> String {
        let folders = Folder::all(&[Format::Micro], &Root::of("").unwrap(), "team/pay").unwrap();
        let Some(Batch { revision, events }) = known.told("team/pay", &folders, changes) else {
            return String::new();
        };
        let last = |key: &str| key.rsplit('/').next().unwrap().to_owned();
        let events: Vec<_> = events
            .iter()
            .map(|event| match event {
                Event::Put(entry) => format!("+{}", entry.node.id),
                Event::Delete(key) => format!("-{}", last(key)),
                Event::Malformed(malformed) => format!("?{}", last(&malformed.key)),
                Event::Reset(_) => unreachable!(),
            })
            .collect();
        format!("{revision}: {}", events.join(" "))
    }

    #[test]
    fn each_write_is_told_once_and_revisions_never_fall() {
        let mut known = Known::new(HashMap::from([(path("a"), 3)]), 5);
        let put = |id: &str, revision| Some(record(id, "team/pay", revision));
        // From before the reading with which the watch began.
        assert_eq!(told(&mut known, vec![change("a", 3, put("a", 3))]), "");
        // Of two writes the first is read when the second has happened already.
        assert_eq!(told(&mut known, vec![change("a", 6, put("a", 8))]), "8: +a");
        assert_eq!(told(&mut known, vec![change("b", 7, put("b", 7))]), "8: +b");
        assert_eq!(told(&mut known, vec![change("a", 8, put("a", 8))]), "");
        // Replaced in one transaction: gone and there again.
        let both = vec![change("a", 9, put("a", 9)), change("a", 9, put("a", 9))];
        assert_eq!(told(&mut known, both), "9: +a");
        assert_eq!(
            told(&mut known, vec![change("a", 10, None), change("b", 11, None)]),
            "11: -a -b"
        );
        assert_eq!(told(&mut known, vec![change("b", 11, None)]), "", "gone already");
        // A server before 3.9 tells no revision of a removal.
        assert_eq!(told(&mut known, vec![change("c", 0, put("c", 12))]), "12: +c");
        assert_eq!(told(&mut known, vec![change("c", 0, None)]), "12: -c");
    }

    #[test]
    fn what_is_no_record_of_the_service_is_told_apart() {
        let mut known = Known::new(HashMap::new(), 0);
        // Another service, whose folder looks the same.
        let other = |revision| Some(record("x", "team-pay", revision));
        assert_eq!(told(&mut known, vec![change("x", 1, other(1))]), "");
        let ours = Some(record("x", "team/pay", 2));
        assert_eq!(told(&mut known, vec![change("x", 2, ours)]), "2: +x");
        assert_eq!(told(&mut known, vec![change("x", 3, other(3))]), "3: -x");
        let broken = Record { value: Some(b"{".to_vec()), ..record("y", "team/pay", 4) };
        assert_eq!(told(&mut known, vec![change("y", 4, Some(broken))]), "4: ?y");
        let hidden = || Some(Record::hidden(path("y")));
        assert_eq!(told(&mut known, vec![change("y", 5, hidden())]), "5: ?y");
        assert_eq!(told(&mut known, vec![change("y", 5, hidden())]), "");
        assert_eq!(told(&mut known, vec![change("y", 6, None)]), "6: -y");
        // Neither the folder itself nor what lies deeper is a record.
        let elsewhere = |path: &str| (Change { path: path.to_owned(), revision: 7 }, None);
        let changes = vec![elsewhere("/micro-registry/team-pay"), elsewhere(&path("a/b"))];
        assert_eq!(told(&mut known, changes), "");
    }

    #[test]
    fn a_record_that_no_session_keeps_is_shown_as_such() {
        let folders = Folder::all(&[Format::Micro], &Root::of("").unwrap(), "team/pay").unwrap();
        let ours = record("a", "team/pay", 1);
        let entry = folders[0].read("team/pay", &ours).unwrap().unwrap();
        assert!(!entry.node.metadata.contains_key("ephemeral"));
        let stale = Record { stat: Stat { ephemeral_owner: 0, ..STAT }, ..ours };
        let entry = folders[0].read("team/pay", &stale).unwrap().unwrap();
        assert_eq!(entry.node.metadata["ephemeral"], "false");
    }
}
