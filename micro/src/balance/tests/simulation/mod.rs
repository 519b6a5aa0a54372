//! Policies against each other: ours as they are, and the rules of go-zero, Kratos and tower as in
//! their sources, over the same simulated nodes. What comes out is the table in `snapshots`.
//!
//! Virtual time and fixed seeds: a run is the same each time. A change of a policy that changes the
//! table is looked at (`cargo insta review`), and the assertions say what has to hold of it.

use std::fmt::Write as _;

use super::super::{Balancing, ConsistentHash};

mod ours;
mod references;
mod scenarios;
mod world;

use ours::Ours;
use references::{GoZero, Kratos, Tower};
use scenarios::{Scenario, all};
use world::{Chooser, Report, run};

const HEAD: &str = "\
Four clients, each with a policy of its own, send calls at random times (Poisson) to nodes of four
workers each and a queue. A call takes 10 ms there on average, of which half is random, and fails
after 1 s. p50 and p99 are of all calls but those that a node failed at once. There are no retries
and no ejection, which would take out a node that fails.

Beside the references our p2c is the best or within noise (5%) of it (of those that fail as few calls:
who sends them to a node that fails has the less to do at the others), but for one thing: of a node
that fails at once Kratos sees less. It asks such a node again after 3 s, ours after about 1 s, so that
one that is well again is back the sooner. go-zero sees 25 times as many, and tower more, which does
not look at failures.

Of the others, zone_first does not wait until the own zone is the dearer one. round_robin, random,
weighted and pick_first do not look at how nodes fare: a slow node, or a single one with all calls,
costs what it must. With least_request and consistent_hash a node that fails at once always has room.
";

/// What is as good as equal.
const NOISE: f64 = 1.05;

/// How many calls a second may fail more than with the best reference, where one fails at all: one
/// from each client, to find out whether the node is well again.
const PROBES: f64 = 4.0;

/// A policy's name, and one of it for a client.
type Contender = (&'static str, fn() -> Box<dyn Chooser>);

const REFERENCES: [Contender; 3] = [
    ("go-zero's p2c", || Box::new(GoZero::default())),
    ("Kratos' p2c", || Box::new(Kratos::default())),
    ("tower's p2c", || Box::new(Tower::default())),
];

const OURS: [Contender; 8] = [
    ("p2c", || Ours::boxed(&Balancing::p2c())),
    ("round_robin", || Ours::boxed(&Balancing::round_robin())),
    ("random", || Ours::boxed(&Balancing::random())),
    ("least_request", || Ours::boxed(&Balancing::least_request())),
    ("weighted", || Ours::boxed(&Balancing::weighted())),
    ("consistent_hash", || Ours::boxed(&ConsistentHash::by_key().into())),
    ("pick_first", || Ours::boxed(&Balancing::pick_first())),
    ("zone_first", || Ours::boxed(&Balancing::zone_first("a"))),
];

fn lines(table: &mut String, scenario: &Scenario, contenders: &[Contender]) -> Vec<Report> {
    let of = |(name, new): &Contender| {
        let report = run(scenario, *new);
        writeln!(table, "{name:<16}{report}").expect("a string grows");
        report
    };
    contenders.iter().map(of).collect()
}

#[test]
fn ours_is_as_good_as_the_best_reference_in_every_scenario() {
    let mut table = HEAD.to_owned();
    for scenario in all() {
        writeln!(table, "\n{}", scenario.text).expect("a string grows");
        writeln!(table, "{:<16}{}", "", Report::HEAD).expect("a string grows");
        let ours = lines(&mut table, &scenario, &OURS).swap_remove(0);
        let references = lines(&mut table, &scenario, &REFERENCES);
        let text = scenario.text;
        let fewest = references.iter().map(Report::failed).fold(f64::INFINITY, f64::min);
        let probes = PROBES * scenario.lasts.as_secs_f64() / scenario.calls();
        let allowed = if fewest > 0.0 { fewest + probes } else { 0.0 };
        assert!(ours.failed() <= allowed, "{text}: {} of the calls failed", ours.failed());
        // One that has a node fail its calls has the less to do at the others, and is no measure.
        let peers = || references.iter().filter(|it| it.failed() <= allowed);
        for percent in [50, 99] {
            let best = peers().map(|it| it.percentile(percent)).fold(f64::INFINITY, f64::min);
            let found = ours.percentile(percent);
            assert!(found <= best * NOISE, "{text}: p{percent} of {found} ms, the best {best} ms");
        }
    }
    insta::assert_snapshot!("policies", table);
}
