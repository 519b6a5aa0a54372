//! Prints which registry passed which test, from the logs of `tests/run registries` or `nacos` on standard
//! input: a row for each test that most registries share, and beneath a table why one does not apply.
//! Of those that share it, none may leave it out without a reason.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read},
    process::ExitCode,
};

#[derive(Default)]
struct Matrix {
    registries: BTreeSet<String>,
    /// By test and registry: `ok`, `FAIL` or `-`.
    cells: BTreeMap<String, BTreeMap<String, &'static str>>,
    /// By registry and reason, the tests that do not apply.
    reasons: BTreeMap<(String, String), BTreeSet<String>>,
}

impl Matrix {
    /// Of the test programs that are asked for.
    fn of(log: &str, is_asked_for: impl Fn(&str) -> bool) -> Self {
        let mut matrix = Self::default();
        let mut file = "";
        let mut current = "";
        for line in log.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            match words[..] {
                ["Running", path, ..] => {
                    file = path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
                }
                ["test", name, "...", outcome] if is_asked_for(file) => {
                    let outcome = if outcome == "ok" { "ok" } else { "FAIL" };
                    if let Some(cell) = cell(file, name) {
                        matrix.put(cell, outcome);
                    }
                }
                ["----", name, "stdout", "----"] => current = name,
                _ if is_asked_for(file) => {
                    if let Some((_, why)) = line.split_once(" does not apply: ")
                        && let Some((registry, test)) = cell(file, current)
                    {
                        matrix.put((registry.clone(), test.clone()), "-");
                        matrix.reasons.entry((registry, why.to_owned())).or_default().insert(test);
                    }
                }
                _ => {}
            }
        }
        // What a few share, they merely named alike.
        matrix.cells.retain(|_, row| 2 * row.len() > matrix.registries.len());
        matrix
    }

    fn put(&mut self, (registry, test): (String, String), outcome: &'static str) {
        self.registries.insert(registry.clone());
        let cell = self.cells.entry(test).or_default().entry(registry).or_insert(outcome);
        // Of several runs, as with several versions of a server, the worst counts.
        let rank = |outcome| ["ok", "-", "FAIL"].iter().position(|it| *it == outcome);
        if rank(outcome) > rank(*cell) {
            *cell = outcome;
        }
    }

    /// Says whether every cell has a word.
    fn print(&self) -> bool {
        let mut is_complete = true;
        let columns: Vec<_> = self
            .registries
            .iter()
            .filter(|registry| self.cells.values().any(|row| row.contains_key(*registry)))
            .collect();
        let width = self.cells.keys().map(String::len).max().unwrap_or_default();
        print!("{:width$}", "");
        columns.iter().for_each(|registry| print!("  {registry}"));
        println!();
        for (test, row) in &self.cells {
            print!("{test:width$}");
            for registry in &columns {
                let cell = row.get(*registry).copied().unwrap_or("?");
                is_complete &= cell != "?";
                print!("  {cell:width$}", width = registry.len());
            }
            println!();
        }
        println!(
            "\n-: does not apply{}",
            if is_complete { "" } else { "; ?: NO TEST AND NO REASON" }
        );
        for ((registry, why), tests) in &self.reasons {
            let tests: Vec<_> = tests.iter().map(String::as_str).collect();
            println!("{registry}: {why}: {}", tests.join(", "));
        }
        is_complete
    }
}

/// What the registries are put to that have a server to keep many records, and odd ones.
const DATA: &str = "registry_data";

/// The registry and the test: one of a registry's own files, `registry_NAME_...` or, of a suite of its
/// own, `NAME_registry_...`, or one that each is put to by one program, `NAME::...`.
fn cell(file: &str, name: &str) -> Option<(String, String)> {
    let own = match file.split_once("registry") {
        _ if file == DATA => None,
        Some(("", file)) => file.trim_start_matches('_').split('_').next(),
        Some((registry, _)) => registry.strip_suffix('_'),
        None => None,
    };
    let (registry, test) = match own {
        Some(registry) => (registry, name),
        None => name.split_once("::")?,
    };
    // `static` is a word of the language's.
    let registry = registry.trim_start_matches("r#");
    Some((registry.to_owned(), test.replace('_', " ")))
}

fn main() -> io::Result<ExitCode> {
    let mut log = String::new();
    io::stdin().read_to_string(&mut log)?;
    let is_complete = Matrix::of(&log, |file| file != DATA).print();
    println!("\nMany records, and odd ones:");
    let is_complete = Matrix::of(&log, |file| file == DATA).print() && is_complete;
    Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
