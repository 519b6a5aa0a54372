//! Prints which registry passed which test, from the logs of `tests/run registries` on standard
//! input: a row each test that several registries share, and beneath the table why one does not apply.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read},
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
    fn of(log: &str) -> Self {
        let mut matrix = Self::default();
        let mut file = "";
        let mut current = "";
        for line in log.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            match words[..] {
                ["Running", path, ..] => {
                    file = path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
                }
                ["test", name, "...", outcome] => {
                    let outcome = if outcome == "ok" { "ok" } else { "FAIL" };
                    matrix.put(file, name, outcome);
                }
                ["----", name, "stdout", "----"] => current = name,
                _ => {
                    if let Some((_, why)) = line.split_once(" does not apply: ") {
                        let (registry, test) = matrix.put(file, current, "-");
                        matrix.reasons.entry((registry, why.to_owned())).or_default().insert(test);
                    }
                }
            }
        }
        matrix.cells.retain(|_, row| row.len() > 1);
        matrix
    }

    /// A test of a registry's own files, `registry_NAME_...`, or one that every registry is put to, in
    /// a module for each: what `registry_data` does, and the faults.
    fn put(&mut self, file: &str, name: &str, outcome: &'static str) -> (String, String) {
        let (registry, test) = match file.strip_prefix("registry_").filter(|it| *it != "data") {
            Some(file) => (file.split('_').next().unwrap_or_default(), name),
            None => name.split_once("::").unwrap_or((file, name)),
        };
        let (registry, test) = (registry.to_owned(), test.replace('_', " "));
        self.registries.insert(registry.clone());
        let cell = self.cells.entry(test.clone()).or_default().entry(registry.clone());
        // Of several runs, as with several versions of a server, the worst counts.
        let cell = cell.or_insert(outcome);
        if *cell != "FAIL" {
            *cell = outcome;
        }
        (registry, test)
    }

    fn print(&self) {
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
                let cell = row.get(*registry).copied().unwrap_or_default();
                print!("  {cell:width$}", width = registry.len());
            }
            println!();
        }
        println!("\n-: does not apply");
        for ((registry, why), tests) in &self.reasons {
            let tests: Vec<_> = tests.iter().map(String::as_str).collect();
            println!("{registry}: {why}: {}", tests.join(", "));
        }
    }
}

fn main() -> io::Result<()> {
    let mut log = String::new();
    io::stdin().read_to_string(&mut log)?;
    Matrix::of(&log).print();
    Ok(())
}
