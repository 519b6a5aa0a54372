//! Lists that the tests write beside their verdicts: `target/NAME.json`.

use std::{
    fs,
    sync::{Mutex, PoisonError},
};

use serde::{Serialize, de::DeserializeOwned};

use crate::programs::root;

/// Writes the line into `target/NAME.json`, in place of those that are of the same thing.
///
/// # Panics
/// When the file cannot be written.
pub fn write<T: Serialize + DeserializeOwned>(name: &str, line: T, is_same: impl Fn(&T) -> bool) {
    static WRITING: Mutex<()> = Mutex::new(());
    let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let path = root().join("target").join(name).with_extension("json");
    let mut lines: Vec<T> = fs::read(&path)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default();
    lines.retain(|other| !is_same(other));
    lines.push(line);
    fs::create_dir_all(root().join("target")).expect("target can be made");
    let text = serde_json::to_string_pretty(&lines).expect("a list of plain facts");
    fs::write(&path, text + "\n").unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
