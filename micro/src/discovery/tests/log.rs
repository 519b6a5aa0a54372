//! What is logged, line by line.

use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::sleep;
use tracing::Level;

use super::scripted::Scripted;
use crate::{discovery::Discovery, fixture::Log};

/// Lets the driver do what is due now.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_set_is_one_line_and_the_rest_is_quiet() {
    fastrand::seed(7);
    let log = Log::down_to(Level::INFO);
    let registry = Scripted::new(&["a@x", "b@y"]);
    let mut updates = Discovery::new(registry.clone()).subscribe("greeter");
    updates.next().await;
    let _other = Discovery::new(registry.clone()).subscribe("greeter");
    registry.write(&["c@z", "-a"]);
    settle().await;
    registry.write(&["c@z"]); // as it was
    registry.write(&["c@w"]); // elsewhere
    registry.write(&["?m@v"]); // none of ours
    settle().await;
    sleep(Duration::from_secs(3600)).await; // a dozen times all is read again
    assert!(registry.reads() > 9, "{}", registry.reads());
    registry.write(&["d\n@1", "e@2", "f@3", "g@4", "h@5", "i@6", "-b"]);
    registry.write(&["-c"]);
    registry.write(&["-d\n"]);
    settle().await;
    let fields = r#"service="greeter" registry="scripted://""#;
    let expected = [
        "added 2 (a, b), now 2",
        "added 1 (c), removed 1 (a), now 2",
        "changed 1 (c), now 2",
        "added 6, removed 1 (b), now 7",
        "removed 1 (c), now 6",
        r"removed 1 (d\n), now 5",
    ];
    let expected = expected.map(|nodes| format!("INFO discovery: nodes {nodes} {fields}"));
    assert_eq!(log.lines(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_is_away_is_one_line_and_its_return_another() {
    fastrand::seed(7);
    let log = Log::down_to(Level::INFO);
    let registry = Scripted::new(&["a@x"]);
    let mut updates = Discovery::new(registry.clone()).subscribe("greeter");
    updates.next().await;
    let (mut lines, reads) = (log.lines(), registry.reads());
    assert_eq!(lines.len(), 1, "the first nodes: {lines:?}");
    for _ in 0..2 {
        registry.lock().down = true;
        registry.cut();
        sleep(Duration::from_secs(60)).await;
        registry.lock().down = false;
        sleep(Duration::from_secs(60)).await;
        let new = log.lines().split_off(lines.len());
        let [away, back] = &new[..] else { panic!("two lines, not {new:?}") };
        assert!(away.starts_with("WARN discovery: keeping the nodes known so far"), "{away}");
        assert!(back.starts_with("INFO discovery: all nodes read again"), "{back}");
        lines.extend(new);
    }
    assert!(registry.reads() - reads > 20, "attempts: {}", registry.reads() - reads);
}
