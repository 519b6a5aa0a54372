//! What is told of the set.

use super::*;
use crate::balance::NodeState;

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
