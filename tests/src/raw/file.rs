//! What a file lists.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    sync::{Mutex, PoisonError},
};

use micro::{registry::Node, testing::registry::Cannot};
use tempfile::TempDir;

use super::{Odd, Raw};

/// A registry in a file of its own.
#[derive(Debug)]
pub struct InFile {
    dir: TempDir,
    lines: Mutex<Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    nodes: BTreeMap<(String, String), Node>,
    /// By service and id, what stands where a node would.
    odd: BTreeMap<(String, String), String>,
}

impl Raw for InFile {
    const CANNOT: &'static [(&'static str, &'static str)] = &[
        (
            "a_watch_cut_50_times_neither_loses_nor_doubles",
            "there is no connection: the file is looked at",
        ),
        ("a_duplicate_id_is_one_node", "an id that is there twice is a fault of the file"),
        (
            "two_records_of_one_address_are_one_node",
            "an address that is there twice is a fault of the file",
        ),
        (
            "a_record_written_again_as_it_was_is_told",
            "a file that lists what it listed has not changed",
        ),
    ];
    // Looked at twice a second.
    const TELLS_EVERY_CHANGE: bool = false;
    const IS_CONNECTED: bool = false;
    const ODD: Odd = Odd::HoldsUpAll;

    async fn serving() -> Self {
        let file = Self { dir: TempDir::new().expect("a folder"), lines: Mutex::default() };
        file.change(|_| {});
        file
    }

    fn address(&self) -> String {
        String::new()
    }

    fn url_at(&self, _address: &str) -> String {
        format!("file://{}/nodes.toml", self.dir.path().display())
    }

    async fn put(&self, node: &Node) {
        self.put_all(std::slice::from_ref(node)).await;
    }

    async fn take(&self, node: &Node) {
        self.take_all(std::slice::from_ref(node)).await;
    }

    async fn put_all(&self, nodes: &[Node]) {
        self.change(|lines| lines.nodes.extend(nodes.iter().map(|it| (key(it), it.clone()))));
    }

    async fn take_all(&self, nodes: &[Node]) {
        self.change(|lines| {
            lines.nodes.retain(|key, _| nodes.iter().all(|it| self::key(it) != *key))
        });
    }

    async fn put_in(&self, _place: &str, _node: &Node) -> Result<(), Cannot> {
        Err(Cannot)
    }

    async fn take_from(&self, _place: &str, _node: &Node) -> Result<(), Cannot> {
        Err(Cannot)
    }

    /// In a line of its own, whose number is the key. An empty one would be none.
    async fn write_raw(&self, service: &str, id: &str, text: &str) -> Option<String> {
        let line = if text.is_empty() { r#""""#.to_owned() } else { text.replace('\n', "") };
        let key = (service.to_owned(), id.to_owned());
        let written = self.change(|lines| lines.odd.insert(key, line.clone()));
        let number =
            written.lines().position(|it| it == format!("{line},")).expect("it is written");
        Some(format!("nodes.toml:{}:", number + 1))
    }

    async fn delete_raw(&self, service: &str, id: &str) {
        self.change(|lines| lines.odd.remove(&(service.to_owned(), id.to_owned())));
    }
}

fn key(node: &Node) -> (String, String) {
    (node.service.clone(), node.id.clone())
}

impl InFile {
    /// Writes the file anew, as one should: beside, and renamed. Returns what it says.
    fn change<T>(&self, change: impl FnOnce(&mut Lines) -> T) -> String {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut lines);
        let mut services: BTreeMap<&str, (&str, String)> = BTreeMap::new();
        for ((service, _), text) in &lines.odd {
            let (_, list) = services.entry(service).or_insert(("latest", String::new()));
            let _ = writeln!(list, "{text},");
        }
        for node in lines.nodes.values() {
            let Node { service, version, id, address, metadata, .. } = node;
            let (of, list) = services.entry(service).or_default();
            *of = version;
            let facts: Vec<_> = metadata
                .iter()
                .map(|(key, value)| format!("{} = {}", quoted(key), quoted(value)))
                .collect();
            let (address, id, facts) = (quoted(address), quoted(id), facts.join(", "));
            let _ =
                writeln!(list, "{{ address = {address}, id = {id}, metadata = {{ {facts} }} }},");
        }
        let mut text = String::new();
        for (service, (version, list)) in services {
            let (service, version) = (quoted(service), quoted(version));
            let _ = write!(text, "[{service}]\nversion = {version}\nnodes = [\n{list}]\n");
        }
        let beside = self.dir.path().join("new");
        fs::write(&beside, &text).expect("a file is written");
        fs::rename(&beside, self.dir.path().join("nodes.toml")).expect("a file is renamed");
        text
    }
}

/// A string of TOML's: that of JSON's, but for nothing that is needed here.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string can be written")
}
