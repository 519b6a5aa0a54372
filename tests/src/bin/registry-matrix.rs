//! Prints which registry passed which test, from the logs of `tests/run registries` or `nacos` on
//! standard input.
//! The tables that every registry is put to have a column for each; one that does not apply has `no`
//! and the number of the reason, which stands beneath, and one without either fails. What is tested of
//! one registry alone is listed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read},
    process::ExitCode,
};

/// A test of every program that holds a registry to what every one is.
const CONFORMANCE: &str = "what_does_not_apply_is_a_case";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Table {
    Conformance,
    Data,
    Faults,
    /// Of one registry alone.
    Own,
}

/// In the order in which one outweighs another: of several runs, as with several versions of a server,
/// the worst counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Ok,
    No(String),
    Failed,
}

/// By the registry.
type Row = BTreeMap<String, Outcome>;

#[derive(Debug, Default)]
struct Matrix {
    tables: BTreeMap<Table, BTreeMap<String, Row>>,
}

impl Matrix {
    fn of(log: &str) -> Self {
        // By program, and by test.
        let mut programs: BTreeMap<&str, BTreeMap<&str, Outcome>> = BTreeMap::new();
        let (mut file, mut current) = ("", "");
        for line in log.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            let (test, outcome) = match words[..] {
                ["Running", path, ..] => {
                    // A program of several files has a folder of its name.
                    let path = path.trim_end_matches("/main.rs");
                    file = path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
                    continue;
                }
                ["----", name, "stdout", "----"] => {
                    current = name;
                    continue;
                }
                ["test", name, "...", "ok"] => (name, Outcome::Ok),
                // One that panics is told of with `should panic` before it.
                ["test", name, .., "ok"] => (name, Outcome::Ok),
                ["test", name, .., "FAILED"] => (name, Outcome::Failed),
                _ => match line.split_once(" does not apply: ") {
                    Some((_, why)) => (current, Outcome::No(why.to_owned())),
                    None => continue,
                },
            };
            let worst = programs.entry(file).or_default().entry(test).or_insert(Outcome::Ok);
            *worst = outcome.max(worst.clone());
        }
        let mut matrix = Self::default();
        let cases = cases(&programs);
        for (file, tests) in programs {
            for (name, outcome) in tests {
                let Some((table, registry, test)) = place(file, name, &cases) else { continue };
                let rows = matrix.tables.entry(table).or_default();
                let row = rows.entry(test.replace('_', " ")).or_default();
                let worst = row.entry(registry.to_owned()).or_insert(Outcome::Ok);
                *worst = outcome.max(worst.clone());
            }
        }
        matrix
    }

    /// The registries that there are.
    fn registries(&self) -> BTreeSet<&str> {
        self.tables.values().flat_map(BTreeMap::values).flatten().map(|it| it.0.as_str()).collect()
    }

    /// The cells without a word, as `registry: row`.
    fn blanks(&self) -> Vec<String> {
        let shared = self.tables.iter().filter(|(table, _)| **table != Table::Own);
        let mut blanks = Vec::new();
        for (test, row) in shared.flat_map(|(_, rows)| rows) {
            let missing = self.registries().into_iter().filter(|it| !row.contains_key(*it));
            blanks.extend(missing.map(|registry| format!("{registry}: {test}")));
        }
        blanks
    }

    fn print(&self) {
        let mut reasons: Vec<&str> = Vec::new();
        for (table, rows) in &self.tables {
            let title = match table {
                Table::Conformance => "What every registry is",
                Table::Data => "Many records, and odd ones",
                Table::Faults => "What may happen while calls go on",
                Table::Own => {
                    self.print_own(rows);
                    continue;
                }
            };
            let width = rows.keys().map(String::len).chain([title.len()]).max().unwrap_or_default();
            print!("\n{title:width$}");
            self.registries().iter().for_each(|registry| print!("  {registry:5}"));
            println!();
            for (test, row) in rows {
                print!("{test:width$}");
                for registry in self.registries() {
                    let cell = match row.get(registry) {
                        Some(Outcome::Ok) => "ok".to_owned(),
                        Some(Outcome::Failed) => "FAIL".to_owned(),
                        Some(Outcome::No(why)) => {
                            let known = reasons.iter().position(|it| it == why);
                            let number = known.unwrap_or_else(|| {
                                reasons.push(why);
                                reasons.len() - 1
                            });
                            format!("no {}", number + 1)
                        }
                        None => "?".to_owned(),
                    };
                    print!("  {cell:width$}", width = registry.len().max(5));
                }
                println!();
            }
        }
        println!();
        for (number, why) in reasons.iter().enumerate() {
            println!("no {}: {why}", number + 1);
        }
    }

    fn print_own(&self, rows: &BTreeMap<String, Row>) {
        println!("\nOf one registry alone");
        for registry in self.registries() {
            for (test, row) in rows {
                match row.get(registry) {
                    Some(Outcome::Ok) => println!("{registry}: {test}: ok"),
                    Some(Outcome::No(why)) => println!("{registry}: {test}: no: {why}"),
                    Some(Outcome::Failed) => println!("{registry}: {test}: FAIL"),
                    None => {}
                }
            }
        }
    }
}

/// The cases of the conformance suite: what all programs have that have it.
fn cases<'a>(programs: &BTreeMap<&str, BTreeMap<&'a str, Outcome>>) -> BTreeSet<&'a str> {
    let names = programs
        .iter()
        .filter(|(file, _)| registry_of(file).is_some())
        .map(|(_, tests)| tests.keys().map(|name| last(name)).collect::<BTreeSet<_>>());
    let all = names.filter(|names| names.contains(CONFORMANCE));
    all.reduce(|all, names| &all & &names).unwrap_or_default()
}

fn last(name: &str) -> &str {
    name.rsplit("::").next().unwrap_or(name)
}

/// Whose own program it is: `registry_NAME..`, or `NAME_registry..` of a suite apart.
fn registry_of(file: &str) -> Option<&str> {
    if file.starts_with(DATA) {
        return None;
    }
    match file.strip_prefix("registry_") {
        Some(rest) => rest.split('_').next(),
        None => file.split_once("_registry").map(|(registry, _)| registry),
    }
}

const DATA: &str = "registry_data";

/// Which cell a test is.
fn place<'a>(
    file: &'a str,
    name: &'a str,
    cases: &BTreeSet<&str>,
) -> Option<(Table, &'a str, &'a str)> {
    if let Some(registry) = registry_of(file) {
        let test = last(name);
        let table = if cases.contains(test) { Table::Conformance } else { Table::Own };
        return Some((table, registry, if table == Table::Own { name } else { test }));
    }
    let faults = file.strip_prefix("faults_");
    match (name.split_once("::"), faults) {
        // `static` is a word of the language's.
        (Some((registry, test)), _) if faults.is_some() || file.starts_with(DATA) => {
            let table = if faults.is_some() { Table::Faults } else { Table::Data };
            Some((table, registry.trim_start_matches("r#"), test))
        }
        (None, Some(rest)) => Some((Table::Own, rest.split('_').next()?, name)),
        _ => None,
    }
}

fn main() -> io::Result<ExitCode> {
    let mut log = String::new();
    io::stdin().read_to_string(&mut log)?;
    let matrix = Matrix::of(&log);
    matrix.print();
    let blanks = matrix.blanks();
    for blank in &blanks {
        println!("NO TEST AND NO REASON: {blank}");
    }
    let is_complete = blanks.is_empty() && !matrix.tables.is_empty();
    Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "
     Running tests/registry_a.rs (target/debug/deps/registry_a-1)
test a_case ... ok
test what_does_not_apply_is_a_case ... ok
test of_a_alone ... ok
     Running tests/registry_b_formats.rs (target/debug/deps/registry_b_formats-1)
test odd::a_case ... ok
test odd::what_does_not_apply_is_a_case ... ok
---- odd::a_case stdout ----
a_case does not apply: for a reason
     Running tests/registry_data/main.rs (target/debug/deps/registry_data-1)
test a::a_row ... ok
test r#b::a_row ... FAILED
test the_judge_sees - should panic ... ok
     Running tests/faults_silence.rs (target/debug/deps/faults_silence-1)
test a::silent ... ok
     Running tests/faults_a_members.rs (target/debug/deps/faults_a_members-1)
test a_member_dies ... ok
     Running tests/faults_silence.rs (target/debug/deps/faults_silence-1)
test a::silent ... FAILED
";

    fn cell<'a>(
        matrix: &'a Matrix,
        table: Table,
        test: &str,
        registry: &str,
    ) -> Option<&'a Outcome> {
        matrix.tables[&table].get(test)?.get(registry)
    }

    #[test]
    fn each_test_has_its_place_and_the_worst_run_counts() {
        let matrix = Matrix::of(LOG);
        let no = Outcome::No("for a reason".to_owned());
        assert_eq!(cell(&matrix, Table::Conformance, "a case", "a"), Some(&Outcome::Ok));
        assert_eq!(cell(&matrix, Table::Conformance, "a case", "b"), Some(&no));
        assert_eq!(cell(&matrix, Table::Data, "a row", "b"), Some(&Outcome::Failed));
        assert_eq!(cell(&matrix, Table::Faults, "silent", "a"), Some(&Outcome::Failed));
        assert_eq!(cell(&matrix, Table::Own, "of a alone", "a"), Some(&Outcome::Ok));
        assert_eq!(cell(&matrix, Table::Own, "a member dies", "a"), Some(&Outcome::Ok));
    }

    #[test]
    fn a_cell_without_a_test_and_without_a_reason_is_found() {
        assert_eq!(Matrix::of(LOG).blanks(), ["b: silent"]);
    }
}
