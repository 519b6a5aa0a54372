//! A part of the nodes, and who stands in for whom.

use super::*;

fn subset(size: usize, health_check: Option<&str>) -> World {
    let registry = Memory::new();
    let options = Options { subset: Some(size), ..Options::default() };
    let tuning = Tuning { health_check: health_check.map(Arc::from), ..Tuning::default() };
    world_of_all(registry.clone(), Arc::new(registry), options, tuning)
}

const TEN: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];

impl World {
    /// The nodes that have been dialled.
    fn dialled(&self) -> Vec<&'static str> {
        let was = |id: &&str| !self.network.dials(&format!("{id}:1")).is_empty();
        TEN.into_iter().filter(was).collect()
    }

    async fn says(&self, id: &str, is_well: bool) {
        let told = self.network.0.lock().unwrap().health[&format!("{id}:1")].1.clone();
        let health = if is_well { Health::Well } else { Health::Unwell("NOT_SERVING".to_owned()) };
        told.send(health).expect("heard");
        sleep(Duration::from_millis(10)).await;
    }

    /// How many nodes there are in the part.
    async fn part(&self) -> Option<usize> {
        self.balancer.explain().await.expect("the driver runs").subset
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_not_well_has_a_stand_in_until_it_is() {
    let world = subset(2, Some(""));
    world.send(nodes(&TEN));
    sleep(Duration::from_millis(10)).await;
    let first = world.dialled();
    assert_eq!(first.len(), 2);
    for id in &first {
        world.says(id, true).await;
    }
    assert_eq!(world.picks(), first);
    for id in &first {
        world.says(id, false).await;
    }
    // Before those that come are given up for saying nothing.
    sleep(Duration::from_millis(600)).await;
    let others: Vec<_> = world.dialled().into_iter().filter(|id| !first.contains(id)).collect();
    assert_eq!(others.len(), 2, "two in place of two");
    for id in &others {
        world.says(id, true).await;
    }
    assert_eq!(world.picks(), others);

    for id in &first {
        world.says(id, true).await;
    }
    assert_eq!(world.picks(), first);
    assert_eq!(world.part().await, Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_say_how_it_is_has_a_stand_in() {
    let world = subset(2, Some(""));
    world.send(nodes(&TEN));
    sleep(Duration::from_millis(10)).await;
    let first = world.dialled();
    assert_eq!(first.len(), 2);
    world.says(first[0], true).await;
    sleep(Duration::from_millis(1500)).await;
    assert_eq!(world.dialled().len(), 3, "in place of the one that was asked and is silent");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_there_is_no_socket_for_has_no_stand_in() {
    let world = subset(2, None);
    let set = |host| TEN.iter().for_each(|id| world.network.set(&format!("{id}:1"), host));
    set(Host::Unasked);
    world.send(nodes(&TEN));
    sleep(Duration::from_secs(10)).await;
    let first = world.dialled();
    assert_eq!(first.len(), 2, "there would be none for that either");
    set(Host::Accepts);
    sleep(Duration::from_secs(6)).await;
    assert_eq!(world.picks(), first);
}

#[tokio::test(start_paused = true)]
async fn an_ejected_node_has_a_stand_in_until_it_is_let_in() {
    let world = subset(2, None);
    world.send(nodes(&TEN));
    sleep(Duration::from_millis(10)).await;
    let first = world.picks();
    for _ in 0..3 {
        let request = Request { node: Some(&first[0]), ..Request::default() };
        let pick = world.balancer.pick(&request).expect("it is ready");
        pick.finish(Outcome::TransportFailure);
    }
    sleep(Duration::from_millis(10)).await;
    let picks = world.picks();
    assert!(picks.len() == 2 && !picks.contains(&first[0]), "{picks:?}, and at first {first:?}");
    sleep(Duration::from_secs(40)).await;
    let probe = world.pick();
    assert!(probe.is_probe);
    probe.finish(Outcome::Success);
    sleep(Duration::from_millis(10)).await;
    assert_eq!(world.picks(), first);
    assert_eq!(world.part().await, Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_chosen_again_is_as_unwell_as_it_was() {
    let world = subset(1, Some(""));
    world.send(nodes(&TEN));
    sleep(Duration::from_millis(10)).await;
    let first = world.dialled()[0];
    world.says(first, false).await;
    assert_eq!(world.part().await, Some(2));
    // While the registry does not list it, its connection lasts.
    world.send(Update::Remove(first.into()));
    sleep(Duration::from_millis(10)).await;
    assert_eq!(world.part().await, Some(1));
    world.send(Update::Insert(Arc::new(Node::new("greeter", first, format!("{first}:1")))));
    sleep(Duration::from_millis(600)).await;
    assert_eq!(world.part().await, Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_dial_to_where_a_node_was_says_nothing_of_where_it_is() {
    let world = subset(1, None);
    let node = |id: &str, host| Arc::new(Node::new("greeter", id, format!("{id}-{host}:1")));
    for id in ["a", "b"] {
        world.network.set(&format!("{id}-old:1"), Host::Silent);
    }
    world.send(Update::Reset(["a", "b"].map(|id| node(id, "old")).into()));
    sleep(Duration::from_millis(10)).await;
    let is_a = !world.network.dials("a-old:1").is_empty();
    let (chosen, other) = if is_a { ("a", "b") } else { ("b", "a") };
    world.send(Update::Insert(node(chosen, "new")));
    // The dial to the old address has timed out by then.
    sleep(Duration::from_secs(2)).await;
    assert_eq!(world.picks(), [chosen]);
    assert_eq!(world.part().await, Some(1));
    assert!(world.network.dials(&format!("{other}-old:1")).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_cut_off_dials_few_more_a_second_and_comes_back_to_its_part() {
    let ids: Vec<_> = (0..1_000).map(|number| number.to_string()).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let world = subset(3, None);
    let set = |host| ids.iter().for_each(|id| world.network.set(&format!("{id}:1"), host));
    world.send(nodes(&ids));
    sleep(Duration::from_millis(10)).await;
    let first = world.picks();
    assert_eq!(first.len(), 3);
    set(Host::Refuses);
    for id in &first {
        let request = Request { node: Some(id), ..Request::default() };
        let connection = world.balancer.pick(&request).expect("ready").connection().clone();
        world.network.end(&connection, Ended::Closed("cut".to_owned()));
    }
    sleep(Duration::from_secs(10)).await;
    let part = world.part().await.expect("a subset");
    assert!((40..=46).contains(&part), "{part}");
    set(Host::Accepts);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(world.picks(), first);
    assert_eq!(world.part().await, Some(3));
}
