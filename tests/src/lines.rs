//! Lists that the tests write beside their verdicts: `target/NAME.json`.

use std::fs::{self, File};

use serde::{Serialize, de::DeserializeOwned};

use crate::programs::root;

/// Writes the line into `target/NAME.json`, in place of those that are of the same thing.
///
/// # Panics
/// When the file cannot be written.
pub fn write<T: Serialize + DeserializeOwned>(name: &str, line: T, is_same: impl Fn(&T) -> bool) {
    fs::create_dir_all(root().join("target")).expect("target can be made");
    let path = root().join("target").join(name).with_extension("json");
    // Programs write side by side, and their tests.
    let lock = File::create(path.with_extension("lock")).expect("a file beside it");
    lock.lock().expect("a file can be locked");
    let mut lines: Vec<T> = fs::read(&path)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default();
    lines.retain(|other| !is_same(other));
    lines.push(line);
    let text = serde_json::to_string_pretty(&lines).expect("a list of plain facts");
    fs::write(&path, text + "\n").unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
