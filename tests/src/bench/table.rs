//! The table that a benchmark prints, and `target/bench/NAME.json`.

use std::{fs, process::ExitCode};

use serde::Serialize;

use super::measure::Spread;
use crate::programs::root;

/// Which way a figure is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// The budget is the most it may be.
    Lower,
    /// The budget is the least it may be.
    Higher,
}

/// One figure and its budget.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    name: String,
    ratio: f64,
    low: f64,
    high: f64,
    /// None where nothing is promised: it is told for comparison.
    budget: Option<f64>,
    better: Better,
    holds: bool,
}

impl Row {
    /// A figure that holds if its median is within the budget.
    pub fn new(name: impl Into<String>, spread: Spread, budget: f64, better: Better) -> Self {
        let Spread { median: ratio, low, high } = spread;
        let holds = match better {
            Better::Lower => ratio <= budget,
            Better::Higher => ratio >= budget,
        };
        Self { name: name.into(), ratio, low, high, budget: Some(budget), better, holds }
    }

    /// A figure without a budget.
    pub fn told(name: impl Into<String>, spread: Spread) -> Self {
        let Spread { median: ratio, low, high } = spread;
        let (budget, better) = (None, Better::Lower);
        Self { name: name.into(), ratio, low, high, budget, better, holds: true }
    }
}

/// Prints the rows and writes them to `target/bench/NAME.json`. What its program ends with fails if a
/// budget was missed.
///
/// # Panics
/// When the file cannot be written.
#[must_use]
pub fn report(name: &str, rows: &[Row]) -> ExitCode {
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or_default();
    println!("\n{:width$}  {:>7}  {:>17}  {:>9}", name, "median", "spread", "budget");
    for Row { name, ratio, low, high, budget, better, holds } in rows {
        let sign = if *better == Better::Lower { "<=" } else { ">=" };
        let spread = format!("{low:.2} to {high:.2}");
        let verdict = if *holds { "holds" } else { "MISSED" };
        let budget = match budget {
            Some(budget) => format!("{sign} {budget:>6.2}  {verdict}"),
            None => format!("{:>9}", "-"),
        };
        println!("{name:width$}  {ratio:>7.2}  {spread:>17}  {budget}");
    }
    let dir = root().join("target/bench");
    fs::create_dir_all(&dir).expect("target/bench can be made");
    let text = serde_json::to_string_pretty(rows).expect("plain facts");
    let path = dir.join(format!("{name}.json"));
    fs::write(&path, text + "\n").expect("the table can be written");
    println!("\nwritten to target/bench/{name}.json");
    let missed = rows.iter().filter(|row| !row.holds).count();
    if missed > 0 {
        println!("{missed} budgets MISSED");
    }
    ExitCode::from(u8::from(missed > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_holds_on_the_right_side_of_its_budget() {
        let spread = Spread { median: 1.0, low: 0.5, high: 2.0 };
        for (budget, better, holds) in [
            (1.1, Better::Lower, true),
            (0.9, Better::Lower, false),
            (0.9, Better::Higher, true),
            (1.1, Better::Higher, false),
        ] {
            assert_eq!(Row::new("row", spread, budget, better).holds, holds, "{budget} {better:?}");
        }
    }
}
