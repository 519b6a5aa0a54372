//! `target/registries.json`: which registry passed which test.

use serde::{Deserialize, Serialize};

use super::Cannot;
use crate::lines;

/// A cell: what came of one test with one registry.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Cell {
    registry: String,
    test: String,
    /// `passed`, `failed`, or why it does not apply.
    outcome: String,
}

/// Tries a test with a registry, and writes down what came of it.
///
/// # Panics
/// When it does, and when the file cannot be written.
pub async fn judge(registry: &str, test: &str, body: impl Future<Output = Result<(), Cannot>>) {
    // Whoever panics writes no more.
    write(registry, test, "failed");
    match body.await {
        Ok(()) => write(registry, test, "passed"),
        Err(Cannot(why)) => {
            println!("{registry}: {test} does not apply: {why}");
            write(registry, test, why);
        }
    }
}

fn write(registry: &str, test: &str, outcome: &str) {
    let [registry, test, outcome] = [registry, test, outcome].map(str::to_owned);
    let cell = Cell { registry, test, outcome };
    let this = cell.clone();
    lines::write("registries", cell, |other| {
        (&other.registry, &other.test) == (&this.registry, &this.test)
    });
}
