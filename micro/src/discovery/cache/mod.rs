//! The nodes known last, in a file: with these a client starts whose registry is down.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    process,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use tokio::{sync::watch, task::spawn_blocking, time::sleep};
use tracing::warn;

use crate::registry::Node;

/// The largest file that is read, in bytes: some 50 000 nodes.
const MAX_LEN: u64 = 64 * 1024 * 1024;

/// How long further changes are waited for before they are written.
const GATHER: Duration = Duration::from_secs(1);

/// One service's place in the file, which other services, registries and processes share. Of two
/// processes that write at the same moment, the later keeps what the other wrote a moment before.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    path: PathBuf,
    registry: String,
    service: String,
}

/// By registry and service.
type Contents = BTreeMap<String, BTreeMap<String, Saved>>;

#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    /// When, in seconds since 1970.
    at: u64,
    /// go-micro's records.
    nodes: Vec<serde_json::Value>,
}

impl Cache {
    pub(super) fn new(path: PathBuf, registry: &str, service: &str) -> Self {
        Self { path, registry: registry.to_owned(), service: service.to_owned() }
    }

    /// What was known last, and how long ago. A file that is not there, or is none of ours, has
    /// nothing.
    pub(super) async fn load(self) -> Option<(Vec<Arc<Node>>, Duration)> {
        spawn_blocking(move || self.read()).await.ok().flatten()
    }

    /// A task that writes down the nodes that it is told of, until it is told no more.
    pub(super) async fn keep(self, mut nodes: watch::Receiver<Vec<Arc<Node>>>) {
        let mut is_troubled = false;
        while nodes.changed().await.is_ok() {
            sleep(GATHER).await;
            let (cache, nodes) = (self.clone(), nodes.borrow_and_update().clone());
            let written = spawn_blocking(move || cache.write(&nodes)).await;
            let error = written.map_err(io::Error::other).flatten().err();
            if let Some(error) = &error
                && !is_troubled
            {
                let (service, registry, path) = (&self.service, &self.registry, &self.path);
                warn!(service, registry, "discovery: {} is not written: {error}", path.display());
            }
            is_troubled = error.is_some();
        }
    }

    fn read(&self) -> Option<(Vec<Arc<Node>>, Duration)> {
        let mut contents = match contents(&self.path) {
            Ok(contents) => contents,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    let (service, registry, path) = (&self.service, &self.registry, &self.path);
                    warn!(service, registry, "discovery: {} is no cache: {error}", path.display());
                }
                return None;
            }
        };
        let saved = contents.remove(&self.registry)?.remove(&self.service)?;
        let at = UNIX_EPOCH.checked_add(Duration::from_secs(saved.at))?;
        let age = SystemTime::now().duration_since(at).unwrap_or_default();
        let node = |record: &serde_json::Value| {
            let node = Node::from_record(record.to_string().as_bytes()).ok()?;
            (node.service == self.service).then(|| Arc::new(node))
        };
        Some((saved.nodes.iter().filter_map(node).collect(), age))
    }

    fn write(&self, nodes: &[Arc<Node>]) -> io::Result<()> {
        static WRITING: Mutex<()> = Mutex::new(());
        let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
        let record = |node: &Arc<Node>| {
            let record = node.to_record().map_err(io::Error::other)?;
            serde_json::from_slice(&record).map_err(io::Error::other)
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let nodes = nodes.iter().map(record).collect::<io::Result<_>>()?;
        // What cannot be read is of no use to anybody.
        let mut contents = contents(&self.path).unwrap_or_default();
        let services = contents.entry(self.registry.clone()).or_default();
        services.insert(self.service.clone(), Saved { at: now.as_secs(), nodes });
        // Whole or not at all, whenever the process ends.
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{}", process::id()));
        let mut file = File::create(&name)?;
        serde_json::to_writer(&mut file, &contents)?;
        file.flush()?;
        file.sync_all()?;
        fs::rename(&name, &self.path)
    }
}

fn contents(path: &Path) -> io::Result<Contents> {
    let mut text = Vec::new();
    File::open(path)?.take(MAX_LEN + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_LEN {
        return Err(io::Error::other(format!("it has more than {MAX_LEN} bytes")));
    }
    Ok(serde_json::from_slice(&text)?)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::fixture::Log;

    fn cache(dir: &TempDir, registry: &str, service: &str) -> Cache {
        Cache::new(dir.path().join("cache.json"), registry, service)
    }

    fn node(service: &str, id: &str) -> Arc<Node> {
        let mut node = Node::new(service, id, "127.0.0.1:1");
        node.metadata.insert("zone".to_owned(), "<a>".to_owned());
        Arc::new(node)
    }

    #[test]
    fn what_was_written_is_read_back_by_registry_and_service() {
        let dir = TempDir::new().unwrap();
        let [one, two] = ["etcd://a", "etcd://b"].map(|it| cache(&dir, it, "greeter"));
        let other = cache(&dir, "etcd://a", "other");
        assert!(one.read().is_none());
        one.write(&[node("greeter", "1"), node("greeter", "2")]).unwrap();
        two.write(&[node("greeter", "3")]).unwrap();
        other.write(&[]).unwrap();
        one.write(&[node("greeter", "2")]).unwrap();
        let (nodes, age) = one.read().unwrap();
        assert_eq!(nodes, [node("greeter", "2")]);
        assert!(age < Duration::from_secs(60), "{age:?}");
        assert_eq!(two.read().unwrap().0, [node("greeter", "3")]);
        assert!(other.read().unwrap().0.is_empty());
        let files = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(files, 1, "nothing is left beside it");
    }

    #[test]
    fn a_file_that_is_no_cache_is_told_and_written_over() {
        let dir = TempDir::new().unwrap();
        let cache = cache(&dir, "etcd://a", "greeter");
        for text in ["", "{", "[]", r#"{"etcd://a":{"greeter":3}}"#, "\u{0}"] {
            fs::write(&cache.path, text).unwrap();
            let log = Log::down_to(tracing::Level::WARN);
            assert!(cache.read().is_none(), "{text}");
            assert_eq!(log.lines_with("is no cache").len(), 1, "{text}");
        }
        // What is not of this service, or no record, is left out.
        let text = r#"{"etcd://a":{"greeter":{"at":0,"nodes":[3,{"name":"x"},
            {"name":"other","nodes":[{"id":"1","address":"h:1"}]},
            {"name":"greeter","nodes":[{"id":"2","address":"h:1"}]}]}}}"#;
        fs::write(&cache.path, text).unwrap();
        let (nodes, age) = cache.read().unwrap();
        assert_eq!(nodes.iter().map(|node| &*node.id).collect::<Vec<_>>(), ["2"]);
        assert!(age > Duration::from_secs(1_000_000_000), "since 1970: {age:?}");
        cache.write(&[node("greeter", "1")]).unwrap();
        assert_eq!(cache.read().unwrap().0, [node("greeter", "1")]);
    }
}
