//! `target/faults.json`.

use serde::{Deserialize, Serialize};

use crate::lines;

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
    /// The worst time from the end of the fault, or its begin where it does not end, until all was as
    /// before: who returned is called, and listed, and no call fails or takes over 100 ms.
    pub seconds_to_recover: f64,
}

/// Writes the line into `target/faults.json`, in place of an earlier one for this fault.
///
/// # Panics
/// When the file cannot be written.
pub fn record(line: Line) {
    println!("{line:?}");
    let fault = line.fault.clone();
    lines::write("faults", line, |other| other.fault == fault);
}
