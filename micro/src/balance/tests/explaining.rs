//! What is told of the set.

use super::*;

/// Time, in the text, is as the clock of the test has it.
#[tokio::test(start_paused = true)]
async fn each_node_is_told_with_its_state_and_why() {
    let world = world();
    world.network.set("refusing:1", Host::Refuses);
    world.send(nodes(&["a", "b", "c", "refusing"]));
    world.status.send_modify(|status| status.revision = 17);
    sleep(Duration::from_millis(10)).await;
    let held = (0..64).map(|_| world.pick()).find(|pick| pick.node().id == "a").expect("picked");
    for _ in 0..3 {
        let mut others = Vec::new();
        while others.last().is_none_or(|pick: &Pick<Connection>| pick.node().id != "b") {
            others.push(world.pick());
        }
        others.pop().expect("b").finish(Outcome::TransportFailure);
    }
    world.send(Update::Remove("c".into()));
    sleep(Duration::from_millis(4)).await;
    let told = world.balancer.explain().await.expect("the driver runs");

    assert_eq!((told.listed, told.revision), (3, 17));
    let states: Vec<_> = told.nodes.iter().map(|it| (it.node.id.as_str(), &it.state)).collect();
    assert!(
        matches!(
            states[..],
            [
                ("a", NodeState::Ready),
                ("b", NodeState::Ejected { .. }),
                ("c", NodeState::Removed),
                ("refusing", NodeState::Backoff { .. })
            ]
        ),
        "{states:?}"
    );
    assert_eq!(told.nodes[0].in_flight, 1);
    let lines: Vec<_> = told.to_string().lines().map(str::to_owned).collect();
    assert_eq!(
        lines[0],
        "service 'greeter': 3 nodes in memory://, 1 take calls; revision 17, no change for 4.0ms"
    );
    assert_eq!(lines[1], "  a at a:1: ready for 13.0ms; 1 in flight, health 1.00");
    assert!(
        lines[2].starts_with("  b at b:1: ejected (transport failures in a row; 30.0s more)"),
        "{}",
        lines[2]
    );
    assert!(lines[4].ends_with("cannot connect to refusing:1: Refuses"), "{}", lines[4]);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_down_is_told_to_be_since_it_went_and_not_since_the_last_attempt() {
    let world = world();
    world.network.set("a:1", Host::Refuses);
    world.send(nodes(&["a"]));
    sleep(Duration::from_secs(3600)).await;
    let line = told_of(&world, "a").await;
    assert!(line.contains("in backoff") && line.contains("for 3600.0s;"), "{line}");

    world.network.set("a:1", Host::Accepts);
    sleep(Duration::from_secs(7)).await;
    let ready = world.pick();
    let connected = world.balancer.explain().await.expect("the driver runs").nodes[0].since;
    assert!(connected < Duration::from_secs(7), "it came up: {connected:?}");
    world.network.set("a:1", Host::Refuses);
    world.network.end(ready.connection(), Ended::Closed("killed".into()));
    sleep(Duration::from_secs(60)).await;
    let line = told_of(&world, "a").await;
    assert!(line.contains("for 60.0s;"), "it went down: {line}");
}

#[tokio::test(start_paused = true)]
async fn an_ejected_node_is_told_to_be_without_a_connection_too() {
    let world = World::with(&["a", "b"]).await;
    let pin = Request { node: Some("a"), ..Request::default() };
    let connection = world.balancer.pick(&pin).expect("ready").connection().clone();
    for _ in 0..3 {
        world.balancer.pick(&pin).expect("ready").finish(Outcome::TransportFailure);
    }
    world.settle().await;
    world.network.set("a:1", Host::Refuses);
    world.network.end(&connection, Ended::Closed("killed".into()));
    sleep(Duration::from_secs(20)).await;
    let line = told_of(&world, "a").await;
    let ejected = "; ejected (transport failures in a row; 10.0s more)";
    assert!(line.contains("in backoff") && line.contains(ejected), "{line}");
    sleep(Duration::from_secs(20)).await;
    let line = told_of(&world, "a").await;
    let probed = "; ejected (transport failures in a row; a call is to try it)";
    assert!(line.contains("in backoff") && line.contains(probed), "{line}");
}

#[tokio::test(start_paused = true)]
async fn a_subset_is_told_with_its_size() {
    let world = world_of(Options { subset: Some(3), ..Options::default() });
    let ids: Vec<_> = (0..100).map(|n| format!("n{n}")).collect();
    world.send(nodes(&ids.iter().map(String::as_str).collect::<Vec<_>>()));
    sleep(Duration::from_millis(10)).await;
    let told = world.balancer.explain().await.expect("the driver runs").to_string();
    let first =
        "service 'greeter': 100 nodes in memory://, 3 in this client's subset, 3 take calls;";
    assert!(told.starts_with(first), "{told}");
}

#[tokio::test(start_paused = true)]
async fn no_record_forges_a_line() {
    let world = world();
    let forged = "x\n  evil at 1.1.1.1:1: ready for 1h";
    let node = Node::new("greeter", forged, "h\u{2028}:1\u{1b}[2K");
    world.network.set(&node.address, Host::Refuses);
    world.send(Update::Reset(vec![Arc::new(node)]));
    world.status.send_modify(|status| status.error = Some("no\nanswer".into()));
    sleep(Duration::from_millis(10)).await;
    let told = world.balancer.explain().await.expect("the driver runs").to_string();
    assert_eq!(told.lines().count(), 2, "{told}");
    let is_plain = |c: char| c == '\n' || !(c.is_control() || c == '\u{2028}');
    assert!(told.chars().all(is_plain), "{told:?}");
    assert!(told.contains(r"x\n  evil"), "{told}");
    let why = world.balancer.why_not_ready(&Request::default());
    assert!(!why.contains('\n'), "{why:?}");
}

/// The node's line.
async fn told_of(world: &World, id: &str) -> String {
    let told = world.balancer.explain().await.expect("the driver runs").to_string();
    let its = told.lines().find(|line| line.starts_with(&format!("  {id} at")));
    its.unwrap_or_else(|| panic!("no line of {id}: {told}")).to_owned()
}
