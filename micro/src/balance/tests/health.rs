//! Nodes that are asked whether they are well.

use super::*;
use crate::fixture::Log;

struct Asking(World);

impl Asking {
    async fn with(ids: &[&str]) -> Self {
        let world = world_tuned(Tuning { health_check: Some("".into()), ..Tuning::default() });
        world.send(nodes(ids));
        sleep(Duration::from_millis(10)).await;
        Self(world)
    }

    async fn says(&self, id: &str, health: Result<(), String>) {
        self.tells(id, health.map_or_else(Health::Unwell, |()| Health::Well)).await;
    }

    async fn tells(&self, id: &str, health: Health) {
        let told = self.0.network.0.lock().unwrap().health[&format!("{id}:1")].1.clone();
        told.send(health).expect("it is listened to");
        self.0.settle().await;
    }

    /// Has another connection in place of the one that calls go over.
    async fn reconnects(&self, id: &str) {
        let connection = loop {
            let pick = self.0.pick();
            if pick.node().id == id {
                break pick.connection().clone();
            }
        };
        self.0.network.end(&connection, Ended::Closed("reset".to_owned()));
        sleep(Duration::from_secs(2)).await;
    }

    /// Asks from now on of this service, if at all.
    async fn asks(&self, service: Option<&str>) {
        self.0.tuning.send_modify(|tuning| tuning.health_check = service.map(Arc::from));
        self.0.settle().await;
    }

    /// Of which service a node is asked now, if it is.
    fn asked(&self, id: &str) -> Option<Arc<str>> {
        let inner = self.0.network.0.lock().unwrap();
        let asked = inner.health.get(&format!("{id}:1")).filter(|(_, tell)| !tell.is_closed());
        asked.map(|(service, _)| service.clone())
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_is_called_while_it_says_that_it_is_well() {
    let world = Asking::with(&["a", "b"]).await;
    assert!(world.0.balancer.pick(&Request::default()).is_none(), "neither has said anything");
    world.says("a", Ok(())).await;
    assert_eq!(world.0.picks(), ["a"]);
    world.says("b", Ok(())).await;
    assert_eq!(world.0.picks(), ["a", "b"]);
    world.says("a", Err("it says of itself that it is NOT_SERVING".to_owned())).await;
    assert_eq!(world.0.picks(), ["b"]);
    let told = world.0.balancer.explain().await.expect("the driver runs").to_string();
    assert!(told.contains("a at a:1: not well for"), "{told}");
    assert!(told.contains("; it says of itself that it is NOT_SERVING"), "{told}");
    world.says("a", Ok(())).await;
    assert_eq!(world.0.picks(), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_fails_fast_waits_a_second_for_the_first_word_of_each_node() {
    let world = Asking::with(&["a"]).await;
    let why = |world: &Asking| world.0.balancer.why_not_ready(&Request::default());
    let (start, waits) = (Instant::now(), ready(&world.0.balancer, true));
    let waits = timeout(Duration::from_secs(3600), waits).await;
    assert!(!waits.expect("it ends by itself"), "it may be well");
    let waited = start.elapsed();
    assert!((900..=1_000).contains(&waited.as_millis()), "as for a connection: {waited:?}");
    assert_eq!(
        why(&world),
        "none of 1 nodes is well: node a: it has not said within 1s whether it is well"
    );
    assert!(!ready(&world.0.balancer, true).await, "and then nothing is waited for");
    world.says("a", Ok(())).await;
    assert_eq!(world.0.picks(), ["a"], "its word is heard, however late");

    let world = Asking::with(&["a"]).await;
    world.says("a", Err("not yet".to_owned())).await;
    assert!(!ready(&world.0.balancer, true).await, "it is not");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(why(&world), "none of 1 nodes is well: node a: not yet", "it has said so");

    world.says("a", Ok(())).await;
    world.asks(Some("other")).await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(world.0.picks(), ["a"], "who was well has time for another question");
}

#[tokio::test(start_paused = true)]
async fn nodes_without_a_connection_are_not_said_to_be_unwell_nor_the_others_to_have_none() {
    let why = |world: &Asking| world.0.balancer.why_not_ready(&Request::default());
    let world = Asking(world_tuned(Tuning { health_check: Some("".into()), ..Tuning::default() }));
    world.0.network.set("a:1", Host::Refuses);
    world.0.send(nodes(&["a"]));
    sleep(Duration::from_millis(10)).await;
    let refused = "none of 1 nodes is connected: node a: cannot connect to a:1: Refuses";
    assert_eq!(why(&world), refused, "it is asked in vain");

    world.0.send(nodes(&["b"]));
    sleep(Duration::from_millis(10)).await;
    world.says("b", Err("it says of itself that it is SERVICE_UNKNOWN".to_owned())).await;
    let unwell = "none of 1 nodes is well: node b: it says of itself that it is SERVICE_UNKNOWN";
    assert_eq!(why(&world), unwell);
    let pin = Request { node: Some("b"), ..Request::default() };
    assert_eq!(
        world.0.balancer.why_not_ready(&pin),
        "node b, which the call is pinned to, is none of the 0 that are ready, of 1 that are \
         registered; the last error: node b: it says of itself that it is SERVICE_UNKNOWN"
    );
    world.0.tuning.send_modify(|tuning| tuning.health_check = None);
    assert_eq!(why(&world), unwell, "it is connected, and nobody has looked again yet");
}

#[tokio::test(start_paused = true)]
async fn a_new_connection_begins_without_a_word() {
    let world = Asking::with(&["a", "b"]).await;
    world.says("a", Ok(())).await;
    world.says("b", Ok(())).await;
    world.reconnects("a").await;
    assert_eq!(world.0.picks(), ["b"]);
    world.says("a", Ok(())).await;
    assert_eq!(world.0.picks(), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_cannot_say_how_it_is_is_called_and_named_once() {
    let log = Log::down_to(tracing::Level::WARN);
    let world = Asking::with(&["a", "b"]).await;
    world.tells("a", Health::Mute).await;
    world.tells("b", Health::Mute).await;
    assert_eq!(world.0.picks(), ["a", "b"]);
    world.reconnects("a").await;
    world.tells("a", Health::Mute).await;
    assert_eq!(world.0.picks(), ["a", "b"]);
    let lines = log.lines_with("a node does not tell its health");
    assert_eq!(lines.len(), 2, "once a node, whatever becomes of its connections: {lines:?}");
    for (line, node) in lines.iter().zip(["a", "b"]) {
        let named = format!(" service=\"greeter\" node=\"{node}\" address=\"{node}:1\"");
        assert!(line.ends_with(&named), "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_that_are_connected_are_asked_and_no_longer_asked_as_the_config_changes() {
    let world = Asking(World::with(&["a", "b"]).await);
    assert_eq!(world.asked("a"), None);
    world.asks(Some("greeter.v1.Greeter")).await;
    assert_eq!(world.asked("a").as_deref(), Some("greeter.v1.Greeter"));
    assert_eq!(world.0.picks(), ["a", "b"], "to be asked makes nobody unwell");
    world.says("a", Err("NOT_SERVING".to_owned())).await;
    world.says("b", Ok(())).await;
    assert_eq!(world.0.picks(), ["b"]);

    world.asks(Some("")).await;
    assert_eq!(world.asked("a").as_deref(), Some(""), "in place of the other");
    assert_eq!(world.0.picks(), ["b"], "what it said last holds until it says something else");
    world.says("a", Ok(())).await;
    assert_eq!(world.0.picks(), ["a", "b"]);
    world.says("b", Err("NOT_SERVING".to_owned())).await;
    assert_eq!(world.0.picks(), ["a"]);

    world.asks(None).await;
    assert_eq!((world.asked("a"), world.asked("b")), (None, None));
    assert_eq!(world.0.picks(), ["a", "b"], "nobody is asked, and all are well");
    assert_eq!(world.0.network.dials("a:1").len(), 1, "all over one connection");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_has_not_said_anything_is_called_once_it_is_no_longer_asked() {
    let world = Asking::with(&["a"]).await;
    assert!(world.0.balancer.pick(&Request::default()).is_none());
    world.asks(None).await;
    assert_eq!(world.0.picks(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_node_starts_slowly_from_when_it_is_well_and_not_from_when_it_is_connected() {
    let world = Asking::with(&["a", "b"]).await;
    world.0.tuning.send_modify(|tuning| tuning.balancing = Balancing::weighted());
    world.says("a", Ok(())).await;
    sleep(Duration::from_secs(20)).await;
    world.says("b", Ok(())).await;
    let calls_of_b = || (0..200).filter(|_| world.0.pick().node().id == "b").count();
    assert!((1..60).contains(&calls_of_b()), "a tenth of its weight at first");
    // Away for a moment, as on a connection that a GOAWAY ended for its age.
    sleep(Duration::from_secs(20)).await;
    world.says("b", Err("NOT_SERVING".to_owned())).await;
    world.says("b", Ok(())).await;
    assert!(calls_of_b() > 80, "it has been there all the time");
    world.says("b", Err("NOT_SERVING".to_owned())).await;
    sleep(Duration::from_secs(2)).await;
    world.says("b", Ok(())).await;
    assert!((1..60).contains(&calls_of_b()), "it is new again");
}
