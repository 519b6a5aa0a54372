//! What the file holds, and the file itself.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{Key, pending::Told};
use crate::registry::Node;

/// The largest file that is read or written, in bytes: some 50 000 nodes.
const MAX_LEN: usize = 64 * 1024 * 1024;

/// What nobody has written for so long, nobody follows any more.
const FORGOTTEN: Duration = Duration::from_secs(30 * 24 * 3600);

/// By registry and service.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Contents(BTreeMap<String, BTreeMap<String, Saved>>);

#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    /// When, in seconds since 1970.
    at: u64,
    /// go-micro's records.
    nodes: Vec<serde_json::Value>,
}

/// Why there are no contents.
#[derive(Debug)]
pub(super) enum Fault {
    Missing,
    /// It is no cache, or half of one.
    Foreign(serde_json::Error),
    /// It may well be one.
    Unread(io::Error),
}

impl Contents {
    pub(super) fn read(path: &Path) -> Result<Self, Fault> {
        let mut text = Vec::new();
        let read = File::open(path)
            .and_then(|file| file.take(MAX_LEN as u64 + 1).read_to_end(&mut text))
            .and_then(|_| bounded(&text));
        match read {
            Ok(()) => serde_json::from_slice(&text).map_err(Fault::Foreign),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Fault::Missing),
            Err(error) => Err(Fault::Unread(error)),
        }
    }

    /// A service's nodes, and how old they are.
    pub(super) fn nodes(&self, key: &Key, now: u64) -> Option<(Vec<Arc<Node>>, Duration)> {
        let (registry, service) = key;
        let saved = self.0.get(registry)?.get(service)?;
        let node = |record: &serde_json::Value| {
            let node = Node::from_record(record.to_string().as_bytes()).ok()?;
            (node.service == *service).then(|| Arc::new(node))
        };
        let age = Duration::from_secs(now.saturating_sub(saved.at));
        Some((saved.nodes.iter().filter_map(node).collect(), age))
    }

    fn take(&mut self, told: Vec<Told>, now: u64) {
        for Told { key: (registry, service), nodes, at } in told {
            let services = self.0.entry(registry).or_default();
            // Another process may have heard of them since; unless the clock was put back.
            if services.get(&service).is_some_and(|saved| at < saved.at && saved.at <= now) {
                continue;
            }
            // What is too large in go-micro's words costs the others nothing.
            let record = |node: &Arc<Node>| {
                let text = node.to_record().map_err(|error| error.to_string());
                let record = text.and_then(|text| {
                    serde_json::from_slice(&text).map_err(|error| error.to_string())
                });
                let warn = |why: &String| {
                    warn!("discovery: node {} of {service} is not kept: {why}", node.id);
                };
                record.inspect_err(warn).ok()
            };
            let nodes = nodes.iter().filter_map(record).collect();
            services.insert(service, Saved { at, nodes });
        }
        for services in self.0.values_mut() {
            services.retain(|_, saved| now.saturating_sub(saved.at) < FORGOTTEN.as_secs());
        }
        self.0.retain(|_, services| !services.is_empty());
    }
}

/// Puts what was told into the file, and leaves what else it has.
///
/// # Errors
/// Also where the file cannot be read: what others keep in it is not to be lost for that.
pub(super) fn write(path: &Path, told: Vec<Told>, now: u64) -> io::Result<()> {
    // One file may have several names, and each a writer.
    static WRITING: Mutex<()> = Mutex::new(());
    let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut contents = match Contents::read(path) {
        Ok(contents) => contents,
        Err(Fault::Missing | Fault::Foreign(_)) => Contents::default(),
        Err(Fault::Unread(error)) => {
            return Err(io::Error::other(format!("what it has cannot be read: {error}")));
        }
    };
    contents.take(told, now);
    let text = serde_json::to_vec(&contents)?;
    bounded(&text)?;
    replace(path, &text)
}

fn bounded(text: &[u8]) -> io::Result<()> {
    if text.len() > MAX_LEN {
        let why = format!("it has more than {MAX_LEN} bytes; delete it, or name another file");
        return Err(io::Error::other(why));
    }
    Ok(())
}

/// Whole or not at all, whenever the process ends; and whoever else writes, also one of another
/// container, where the process's id is the same.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut beside = OsString::from(path);
    beside.push(format!(".{:016x}", fastrand::u64(..)));
    let mut file = OpenOptions::new().write(true).create_new(true).open(&beside)?;
    let written = file
        .write_all(text)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn key(registry: &str, service: &str) -> Key {
        (registry.to_owned(), service.to_owned())
    }

    fn node(service: &str, id: &str) -> Arc<Node> {
        let mut node = Node::new(service, id, "127.0.0.1:1");
        node.metadata.insert("zone".to_owned(), "<a>".to_owned());
        Arc::new(node)
    }

    fn told(key: &Key, ids: &[&str], at: u64) -> Vec<Told> {
        let nodes = ids.iter().map(|id| node(&key.1, id)).collect();
        vec![Told { key: key.clone(), nodes, at }]
    }

    fn ids(path: &Path, key: &Key) -> Option<Vec<String>> {
        let nodes = Contents::read(path).unwrap().nodes(key, NOW)?.0;
        Some(nodes.iter().map(|node| node.id.clone()).collect())
    }

    fn names(dir: &TempDir) -> Vec<OsString> {
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn what_was_written_is_read_back_by_registry_and_service() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("cache.json");
        assert!(matches!(Contents::read(&path), Err(Fault::Missing)));
        let [one, two] = ["etcd://a", "etcd://b"].map(|registry| key(registry, "greeter"));
        let other = key("etcd://a", "other");
        for told in [
            told(&one, &["1", "2"], NOW - 9),
            told(&two, &["3"], NOW - 8),
            told(&other, &[], NOW - 8),
            told(&one, &["2"], NOW - 7),
        ] {
            write(&path, told, NOW).unwrap();
        }
        let contents = Contents::read(&path).unwrap();
        let (nodes, age) = contents.nodes(&one, NOW).unwrap();
        assert_eq!((nodes, age), (vec![node("greeter", "2")], Duration::from_secs(7)));
        assert_eq!(ids(&path, &two).unwrap(), ["3"]);
        assert!(ids(&path, &other).unwrap().is_empty());
        assert_eq!(names(&dir), ["cache.json"], "nothing is left beside it");
    }

    #[test]
    fn a_file_that_is_no_cache_is_written_over() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("cache.json");
        let key = key("etcd://a", "greeter");
        for text in ["", "{", "[]", r#"{"etcd://a":{"greeter":3}}"#, "\u{0}"] {
            fs::write(&path, text).unwrap();
            assert!(matches!(Contents::read(&path), Err(Fault::Foreign(_))), "{text}");
            write(&path, told(&key, &["1"], NOW), NOW).unwrap();
            assert_eq!(ids(&path, &key).unwrap(), ["1"], "{text}");
        }
        // What is not of this service, or no record, is left out.
        let text = r#"{"etcd://a":{"greeter":{"at":0,"nodes":[3,{"name":"x"},
            {"name":"other","nodes":[{"id":"1","address":"h:1"}]},
            {"name":"greeter","nodes":[{"id":"2","address":"h:1"}]}]}}}"#;
        fs::write(&path, text).unwrap();
        assert_eq!(ids(&path, &key).unwrap(), ["2"]);
        let age = Contents::read(&path).unwrap().nodes(&key, NOW).unwrap().1;
        assert_eq!(age, Duration::from_secs(NOW), "since 1970");
    }

    #[test]
    fn a_node_that_is_too_large_to_keep_costs_the_others_nothing() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("cache.json");
        let [one, other] = ["greeter", "other"].map(|service| key("x", service));
        let mut all = told(&one, &["1", "2"], NOW);
        let mut large = Node::new("greeter", "2", "127.0.0.1:1");
        large.metadata.insert("x".to_owned(), "y".repeat(1024 * 1024));
        all[0].nodes[1] = Arc::new(large);
        all.extend(told(&other, &["3"], NOW));
        write(&path, all, NOW).unwrap();
        assert_eq!(ids(&path, &one).unwrap(), ["1"]);
        assert_eq!(ids(&path, &other).unwrap(), ["3"]);
    }

    #[test]
    fn what_cannot_be_read_is_not_written_over() {
        let dir = TempDir::new().unwrap();
        let key = key("etcd://a", "greeter");
        // As with rights: a folder can be opened, and not read.
        let folder = dir.path().join("folder");
        fs::create_dir(&folder).unwrap();
        let error = write(&folder, told(&key, &["1"], NOW), NOW).unwrap_err().to_string();
        assert!(error.starts_with("what it has cannot be read: "), "{error}");
        let long = dir.path().join("long");
        File::create(&long).unwrap().set_len(MAX_LEN as u64 + 1).unwrap();
        let error = write(&long, told(&key, &["1"], NOW), NOW).unwrap_err().to_string();
        assert!(error.contains("delete it"), "{error}");
        assert_eq!(fs::metadata(&long).unwrap().len(), MAX_LEN as u64 + 1, "it is as it was");
    }

    #[test]
    fn a_write_that_fails_leaves_nothing_beside_the_file() {
        let dir = TempDir::new().unwrap();
        // What cannot be renamed over a folder was written before.
        let path = dir.path().join("folder");
        fs::create_dir(&path).unwrap();
        replace(&path, b"{}").unwrap_err();
        assert_eq!(names(&dir), ["folder"]);
        // Another process's, of the same id: the name of old.
        let other = dir.path().join(format!("cache.json.{}", std::process::id()));
        fs::write(&other, "half").unwrap();
        replace(&dir.path().join("cache.json"), b"{}").unwrap();
        assert_eq!(fs::read_to_string(&other).unwrap(), "half");
    }

    #[test]
    fn what_nobody_wrote_for_30_days_is_left_out_and_newer_words_stay() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("cache.json");
        let [old, newer, other] = ["old", "newer", "other"].map(|service| key("x", service));
        let day = 24 * 3600;
        write(&path, told(&old, &["1"], NOW), NOW).unwrap();
        write(&path, told(&newer, &["1"], NOW + 2 * day), NOW + 2 * day).unwrap();
        write(&path, told(&other, &["1"], NOW + 30 * day), NOW + 30 * day).unwrap();
        assert_eq!(ids(&path, &old), None);
        assert_eq!(ids(&path, &newer).unwrap(), ["1"]);
        write(&path, told(&newer, &["2"], NOW), NOW + 30 * day).unwrap();
        assert_eq!(ids(&path, &newer).unwrap(), ["1"], "another process knew it later");
        write(&path, told(&newer, &["2"], NOW), NOW).unwrap();
        assert_eq!(ids(&path, &newer).unwrap(), ["2"], "the clock was put back");
    }
}
