//! `target/faults.json`.

use std::fs;

use serde::{Deserialize, Serialize};

use crate::programs::root;

/// What became of the calls under one fault.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Line {
    /// What was done.
    pub fault: String,
    /// How many calls were made.
    pub calls: usize,
    /// How many of them failed.
    pub failed: usize,
    /// How many might have: those that a handler may have seen, in flight on the victim.
    pub allowed: usize,
    /// The worst time from the end of the fault until all was as before.
    pub seconds_to_recover: f64,
}

/// Writes the line into `target/faults.json`, in place of an earlier one for this fault.
///
/// # Panics
/// When the file cannot be written.
pub fn record(line: Line) {
    let path = root().join("target/faults.json");
    let mut lines: Vec<Line> = fs::read(&path)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default();
    println!("{line:?}");
    lines.retain(|other| other.fault != line.fault);
    lines.push(line);
    fs::create_dir_all(root().join("target")).expect("target can be made");
    let text = serde_json::to_string_pretty(&lines).expect("a list of plain facts");
    fs::write(&path, text + "\n").expect("target/faults.json can be written");
}
