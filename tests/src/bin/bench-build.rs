//! A clean build of hello world (`examples/template`) beside tonic's (`tests/hello-tonic`): time,
//! and packages built. Both are built with the versions of `Cargo.lock`, from an empty folder, by
//! turns, and nothing is downloaded in that time.

use std::{fs, process::ExitCode};

use tests::{
    bench::{
        measure::Spread,
        table::{Better, Row, report},
    },
    programs::root,
    projects::Project,
};
use tokio::time::Instant;

const ROUNDS: usize = 3;
const BUDGET: f64 = 1.6;

fn main() -> ExitCode {
    let ours = Project::copy("examples/template", "bench-micro");
    let theirs = Project::copy("tests/hello-tonic", "bench-tonic");
    for project in [&ours, &theirs] {
        project.fetch();
    }

    let mut ratios = Vec::new();
    for round in 1..=ROUNDS {
        let (own, other) = (build(&ours), build(&theirs));
        println!("round {round}: micro {own:.1} s, tonic {other:.1} s");
        ratios.push(own / other);
    }
    let (own, other) = (ours.packages(), theirs.packages());
    println!("packages: micro {own}, tonic {other}");
    #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
    let packages = own as f64 / other as f64;
    report(
        "build",
        &[
            Row::new("clean build, time, micro / tonic", Spread::of(ratios), BUDGET, Better::Lower),
            Row::new("packages, micro / tonic", Spread::of([packages]), BUDGET, Better::Lower),
        ],
    )
}

/// Seconds of a build into an empty folder.
fn build(project: &Project) -> f64 {
    let target = root().join("target/projects/bench-target");
    let _ = fs::remove_dir_all(&target);
    let begin = Instant::now();
    project.build(&target);
    let took = begin.elapsed().as_secs_f64();
    let _ = fs::remove_dir_all(&target);
    took
}
