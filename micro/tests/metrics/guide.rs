//! Keeps the guide's table of metrics true.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt as _;
use micro::{
    discovery::Discovery,
    registration::{Options, Registration, RegistrationState},
    registry::Node,
};
use tokio::time::sleep;

use crate::{SECOND, collected::Collected, faulty::Faulty};

const CHAPTER: &str = include_str!("../../src/guide/metrics.md");

/// By name: kind, unit and attributes.
type Table = BTreeMap<String, (String, String, BTreeSet<String>)>;

/// The names in backquotes.
fn quoted(cell: &str) -> impl Iterator<Item = String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned)
}

fn documented() -> Table {
    // Those that every metric of a table has stand above it.
    let mut common = BTreeSet::new();
    let mut table = Table::new();
    for line in CHAPTER.lines() {
        if line.starts_with("All have ") {
            common = quoted(line).collect();
        }
        let Some(row) = line.strip_prefix("| `micro.") else { continue };
        let cells: Vec<_> = row.split(" | ").collect();
        let [name, kind, unit, attributes, ..] = cells[..] else { panic!("a row: {line}") };
        let name = format!("micro.{}", name.trim_end_matches('`'));
        let unit = quoted(unit).next().expect("a unit");
        let attributes = quoted(attributes).filter(|it| it.starts_with("micro."));
        let attributes = common.iter().cloned().chain(attributes).collect();
        assert!(table.insert(name, (kind.to_owned(), unit, attributes)).is_none(), "{line}");
    }
    table
}

#[tokio::test(start_paused = true)]
async fn the_guides_table_has_every_metric_as_it_is() {
    Collected::now();
    let registry = Faulty::named("faulty://guide");
    let node = Node::new("greeter", "greeter-1", "127.0.0.1:1");
    let registration = Registration::start(registry.clone(), node, Options::default());
    let mut state = registration.state();
    state.wait_for(|state| *state == RegistrationState::Registered).await.unwrap();
    let mut nodes = Discovery::new(registry).subscribe("greeter");
    nodes.next().await;
    sleep(10 * SECOND).await;
    let mut told = Table::new();
    for series in Collected::of("faulty://guide").0 {
        let attributes = series.attributes.into_keys().collect();
        told.insert(series.name, (series.kind.to_owned(), series.unit, attributes));
    }
    assert_eq!(told, documented());
}
