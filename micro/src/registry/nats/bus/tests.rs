use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{
    super::{
        super::{Batch, format::gomicro},
        known::MAX_NODES,
    },
    *,
};

const TTL: Duration = Duration::from_secs(10);

fn node(id: &str, port: u16) -> Node {
    Node::new("greeter", id, format!("127.0.0.1:{port}"))
}

fn told(event: &Event) -> String {
    let last = |key: &str| key.rsplit('/').next().unwrap_or_default().to_owned();
    match event {
        Event::Put(entry) => format!("+{}@{}", entry.node.id, entry.node.address),
        Event::Delete(key) => format!("-{}", last(key)),
        Event::Malformed(malformed) => format!("?{}", last(&malformed.key)),
        Event::Reset(_) => "=".to_owned(),
    }
}

/// A connected bus on which `greeter` is looked for, and its time.
struct At {
    bus: Bus,
    start: Instant,
    now: Instant,
}

impl At {
    fn new() -> Self {
        let now = Instant::now();
        let mut bus = Bus::new();
        bus.watched(now, "greeter", true);
        bus.connected(now);
        bus.elapsed(now + AGAIN);
        assert_eq!(bus.take_say(), [Say::Get("greeter".into())]);
        Self { bus, start: now, now }
    }

    fn hear(&mut self, action: &str, node: &Node) {
        self.hear_with(action, node, Some(TTL));
    }

    fn hear_with(&mut self, action: &str, node: &Node, ttl: Option<Duration>) {
        let bytes = gomicro::encode_event(action, node).unwrap();
        self.bus.heard(self.now, &bytes, ttl);
    }

    fn ids(&self) -> Vec<String> {
        let (_, entries) = self.bus.entries("greeter");
        entries.iter().map(|entry| entry.node.id.clone()).collect()
    }

    /// Goes on to this second, the bus carrying all that is said or nothing. Returns what was said.
    fn until(&mut self, second: u64, carries: bool) -> Vec<(u64, Say)> {
        let end = self.start + Duration::from_secs(second);
        let mut said = Vec::new();
        loop {
            self.bus.elapsed(self.now);
            for say in self.bus.take_say() {
                said.push(((self.now - self.start).as_secs(), say));
                if carries {
                    self.bus.proven(self.now);
                }
            }
            self.bus.check();
            match self.bus.wake_at().filter(|at| *at <= end) {
                Some(at) => self.now = at.max(self.now),
                None => break,
            }
        }
        self.now = end;
        said
    }

    fn events(&self, after: u64) -> Vec<String> {
        let Since::Batches(batches) = self.bus.since("greeter", after) else {
            return vec!["gap".to_owned()];
        };
        let events = batches.into_iter().flat_map(|Batch { events, .. }| events);
        events.map(|event| told(&event)).collect()
    }
}

#[test]
fn a_node_is_there_as_long_as_it_says_so() {
    let mut at = At::new();
    at.hear("create", &node("a", 1));
    for second in [5, 10, 15, 20] {
        at.until(second, true);
        assert_eq!(at.ids(), ["a"]);
        at.hear("update", &node("a", 1));
    }
    assert_eq!(at.events(1), ["+a@127.0.0.1:1"], "what says nothing new is no event");
    assert_eq!(at.until(60, true), [(28, Say::Get("greeter".into()))]);
    assert!(at.ids().is_empty());
    assert_eq!(at.events(1), ["+a@127.0.0.1:1", "-a"]);
}

#[test]
fn who_asks_hears_what_was_said_last() {
    let mut at = At::new();
    let [first, second] = [1, 2].map(|port| Arc::new(node("a", port)));
    let lease = at.bus.register(at.now, &first, TTL);
    let answer = |bus: &mut Bus| {
        bus.asked(at.now, &gomicro::encode_get("greeter"), "_INBOX.1");
        bus.take_say()
    };
    let answered = |node: &Arc<Node>| [Say::Answer("_INBOX.1".into(), node.clone(), TTL)];
    assert_eq!(answer(&mut at.bus), answered(&first));
    // All are told of it anew, and one asks who may have heard that.
    at.bus.says(&Say::Create(second.clone(), TTL));
    assert_eq!(answer(&mut at.bus), answered(&second));
    at.bus.standing(at.now, &first, lease).expect("it is not known yet that they were");
    let lease = at.bus.register(at.now, &second, TTL);
    assert_eq!(answer(&mut at.bus), answered(&second));
    at.bus.says(&Say::Create(first, TTL));
    assert!(at.bus.deregister(&second, lease));
    assert_eq!(answer(&mut at.bus), []);
    at.bus.check();
}

#[test]
fn a_silent_node_that_answers_when_asked_stays() {
    let mut at = At::new();
    let document = gomicro::encode(&node("a", 1)).unwrap();
    at.hear("create", &node("a", 1));
    for round in 1..=5 {
        let said = at.until(round * 8, true);
        assert_eq!(said, [(round * 8, Say::Get("greeter".into()))]);
        at.bus.answered(at.now, &document, Some(TTL));
    }
    assert_eq!(at.ids(), ["a"]);
}

#[test]
fn a_node_without_a_ttl_is_go_micros_and_believed_in_for_90_s() {
    let mut at = At::new();
    at.hear_with("create", &node("a", 1), None);
    assert_eq!(at.until(89, true), [(72, Say::Get("greeter".into()))]);
    assert_eq!(at.ids(), ["a"]);
    at.until(90, true);
    assert!(at.ids().is_empty());
}

#[test]
fn a_ttl_that_another_says_is_bounded() {
    let mut at = At::new();
    at.hear_with("create", &node("a", 1), Some(Duration::ZERO));
    at.hear_with("create", &node("b", 2), Some(Duration::MAX));
    assert_eq!(at.ids(), ["a", "b"]);
    at.until(1, true);
    assert_eq!(at.ids(), ["b"]);
    at.until(24 * 60 * 60, true);
    assert!(at.ids().is_empty());
}

#[test]
fn nobody_is_forgotten_for_a_question_that_was_not_carried() {
    let mut at = At::new();
    at.hear("create", &node("a", 1));
    at.until(300, false);
    assert_eq!(at.ids(), ["a"], "the bus carries nothing: that says nothing of the node");
    at.bus.disconnected();
    at.until(600, false);
    assert_eq!(at.ids(), ["a"], "without a bus time stands still");
    assert_eq!(at.bus.wake_at(), None);

    at.bus.connected(at.now);
    at.until(609, true);
    assert_eq!(at.ids(), ["a"], "another TTL, once the bus is back");
    at.until(610, true);
    assert!(at.ids().is_empty());
}

#[test]
fn a_proof_from_before_the_question_is_none() {
    let mut at = At::new();
    at.hear("create", &node("a", 1));
    at.bus.proven(at.now);
    at.until(20, false);
    assert_eq!(at.ids(), ["a"]);
    at.bus.proven(at.now);
    at.until(21, false);
    assert!(at.ids().is_empty());
}

#[test]
fn a_new_connection_is_a_gap_and_all_say_again_who_they_are() {
    let mut at = At::new();
    let own = node("own", 9);
    at.bus.register(at.now, &own, TTL);
    at.hear("create", &node("a", 1));
    let seen = at.bus.revision();
    assert!(at.events(seen).is_empty());
    at.bus.disconnected();
    at.bus.connected(at.now);
    assert_eq!(at.events(seen), ["gap"], "something may have been missed, though nothing was told");
    assert!(at.events(at.bus.revision()).is_empty());
    at.bus.elapsed(at.now + AGAIN);
    assert_eq!(at.bus.take_say(), [Say::Create(own.into(), TTL), Say::Get("greeter".into())]);
    assert_eq!(at.ids(), ["a", "own"]);
}

#[test]
fn a_fleet_that_is_connected_at_once_does_not_speak_at_once() {
    let now = Instant::now();
    let mut said = [0; 5];
    for seed in 0..1000 {
        let mut bus = Bus::new();
        bus.rng = fastrand::Rng::with_seed(seed);
        bus.watched(now, "greeter", true);
        bus.register(now, &node("own", 9), TTL);
        bus.connected(now);
        for (fifth, said) in (1..).zip(&mut said) {
            bus.elapsed(now + AGAIN * fifth / 5);
            *said += bus.take_say().len();
        }
    }
    assert_eq!(said.iter().sum::<usize>(), 2000, "all is said");
    assert!(said.iter().all(|said| (300..500).contains(said)), "{said:?}");
}

#[test]
fn a_node_that_left_a_moment_after_the_bus_came_back_is_not_said_to_be_there() {
    let mut at = At::new();
    let own = node("own", 9);
    let lease = at.bus.register(at.now, &own, TTL);
    at.bus.connected(at.now);
    assert!(at.bus.deregister(&own, lease));
    at.bus.elapsed(at.now + AGAIN);
    assert_eq!(at.bus.take_say(), [Say::Get("greeter".into())]);
}

#[test]
fn what_is_said_to_a_bus_that_is_gone_is_not_said_later() {
    let mut at = At::new();
    at.hear("create", &node("a", 1));
    at.now += TTL;
    at.bus.elapsed(at.now);
    at.bus.disconnected();
    assert!(at.bus.take_say().is_empty());
}

#[test]
fn our_own_node_goes_with_its_ttl_unless_it_is_renewed() {
    let mut at = At::new();
    let own = node("own", 9);
    let lease = at.bus.register(at.now, &own, TTL);
    at.until(9, true);
    at.bus.renewed(at.now, &own, lease).unwrap();
    // Its echo, or a copy of it, renews nothing.
    at.until(18, true);
    at.hear("create", &own);
    assert_eq!(at.ids(), ["own"]);
    let said = at.until(19, true);
    assert!(said.is_empty(), "nobody asks himself: {said:?}");
    assert!(at.ids().is_empty());
    let renewed = at.bus.renewed(at.now, &own, lease);
    assert!(matches!(renewed, Err(RenewError::Lost(_))), "{renewed:?}");
}

#[test]
fn another_with_our_id_takes_it_and_is_not_answered_for() {
    let mut at = At::new();
    let (own, other) = (node("own", 9), node("own", 8));
    let lease = at.bus.register(at.now, &own, TTL);
    at.hear("create", &other);
    let renewed = at.bus.standing(at.now, &own, lease);
    assert!(
        matches!(&renewed, Err(RenewError::Taken(why)) if why.contains("127.0.0.1:8")),
        "{renewed:?}"
    );
    at.bus.asked(at.now, &gomicro::encode_get("greeter"), "_INBOX.1");
    assert!(at.bus.take_say().is_empty());
    assert!(!at.bus.deregister(&own, lease), "the other is not told to have left");
    assert_eq!(at.ids(), ["own"]);
    let lease = at.bus.register(at.now, &own, TTL);
    at.bus.standing(at.now, &own, lease).unwrap();
}

#[test]
fn another_with_our_id_is_seen_though_nobody_looks_for_the_service() {
    let mut bus = Bus::new();
    let now = Instant::now();
    bus.connected(now);
    let lease = bus.register(now, &node("own", 9), TTL);
    bus.heard(now, &gomicro::encode_event("create", &node("a", 1)).unwrap(), None);
    bus.heard(now, &gomicro::encode_event("create", &node("own", 8)).unwrap(), None);
    assert!(matches!(bus.standing(now, &node("own", 9), lease), Err(RenewError::Taken(_))));
    assert_eq!(bus.entries("greeter").1.len(), 1, "a, which nobody looks for, is not kept");
}

#[test]
fn a_delete_is_of_the_record_that_it_names() {
    let mut at = At::new();
    at.hear("create", &node("a", 1));
    at.hear("delete", &node("a", 2));
    assert_eq!(at.ids(), ["a"], "its predecessor, on another port, has left");
    at.hear("delete", &node("a", 1));
    assert!(at.ids().is_empty());

    let own = node("own", 9);
    let lease = at.bus.register(at.now, &own, TTL);
    at.hear("delete", &own);
    assert!(matches!(at.bus.standing(at.now, &own, lease), Err(RenewError::Lost(_))));
}

#[test]
fn a_node_that_leaves_is_gone_and_may_be_told_of_twice() {
    let mut at = At::new();
    let own = node("own", 9);
    let older = at.bus.register(at.now, &own, TTL);
    let newer = at.bus.register(at.now, &own, TTL);
    assert!(!at.bus.deregister(&own, older));
    assert_eq!(at.ids(), ["own"]);
    assert!(at.bus.deregister(&own, newer));
    assert!(at.ids().is_empty());
    assert!(at.bus.deregister(&own, newer), "the first time may not have been heard");
}

#[test]
fn questions_are_answered_for_our_own_nodes_alone() {
    let mut at = At::new();
    let own = node("own", 9);
    at.hear("create", &node("a", 1));
    at.bus.register(at.now, &own, TTL);
    at.bus.register(at.now, &Node::new("other", "o", "h:1"), TTL);
    at.bus.asked(at.now, &gomicro::encode_get("greeter"), "_INBOX.1");
    at.bus.asked(at.now, &gomicro::encode_get("nobody"), "_INBOX.2");
    assert_eq!(at.bus.take_say(), [Say::Answer("_INBOX.1".into(), own.into(), TTL)]);
    at.bus.asked(at.now, &gomicro::encode_list(), "_INBOX.3");
    assert_eq!(at.bus.take_say().len(), 2);
    at.bus.asked(at.now, b"what?", "_INBOX.4");
    at.bus.asked(at.now, br#"{"Service":{"name":"greeter"},"Action":"create"}"#, "_INBOX.5");
    assert!(at.bus.take_say().is_empty());
}

#[test]
fn services_are_listed_from_answers_since_the_question() {
    let mut at = At::new();
    at.bus.answered(at.now, &gomicro::encode(&Node::new("old", "o", "h:1")).unwrap(), None);
    at.now += TTL;
    let asked = at.now;
    at.bus.answered(at.now, &gomicro::encode(&Node::new("new", "n", "h:1")).unwrap(), None);
    at.bus.register(at.now, &node("own", 9), TTL);
    let services: BTreeSet<_> = at.bus.services(asked).collect();
    assert_eq!(services, ["greeter", "new"].into());
}

#[test]
fn what_cannot_be_read_is_told_by_its_key_and_goes_after_90_s() {
    let mut at = At::new();
    let bad =
        br#"{"Service":{"name":"greeter","nodes":[{"id":"x","address":3}]},"Action":"create"}"#;
    at.bus.heard(at.now, bad, None);
    at.bus.heard(at.now, bad, None);
    assert_eq!(at.events(1), ["?x"]);
    let malformed = at.bus.malformed("greeter");
    assert_eq!(malformed[0].key, "greeter/x");
    assert!(
        malformed[0].reason.contains("`Service.nodes[0].address`")
            || malformed[0].reason.contains("`nodes[0].address`"),
        "{malformed:?}"
    );
    at.until(90, true);
    assert!(at.bus.malformed("greeter").is_empty());
    assert_eq!(at.events(1), ["?x", "-x"]);

    at.bus.heard(at.now, bad, None);
    at.hear("create", &node("x", 1));
    assert!(at.bus.malformed("greeter").is_empty());
    assert_eq!(at.ids(), ["x"]);
}

#[test]
fn nodes_beyond_the_most_of_one_document_are_told_as_one_that_cannot_be_read() {
    let mut at = At::new();
    let nodes = |count: usize, action: &str| {
        let nodes: Vec<_> =
            (0..count).map(|n| format!(r#"{{"id":"n{n}","address":"h:1"}}"#)).collect();
        let nodes = nodes.join(",");
        format!(r#"{{"Service":{{"name":"greeter","nodes":[{nodes}]}},"Action":"{action}"}}"#)
    };
    at.bus.heard(at.now, nodes(40, "create").as_bytes(), None);
    assert_eq!(at.ids().len(), 32);
    let [beyond] = &at.bus.malformed("greeter")[..] else { panic!("one for all of them") };
    assert_eq!(beyond.key, "greeter/n32");
    assert!(beyond.reason.starts_with("it and 7 more are beyond"), "{}", beyond.reason);
    at.bus.heard(at.now, nodes(40, "delete").as_bytes(), None);
    assert!(at.ids().is_empty() && at.bus.malformed("greeter").is_empty());
    at.bus.check();
}

#[test]
fn a_service_that_nobody_looks_for_any_more_is_forgotten() {
    let mut at = At::new();
    at.hear_with("create", &node("a", 1), Some(Duration::from_secs(1000)));
    at.bus.watched(at.now, "greeter", false);
    at.until(129, true);
    assert_eq!(at.ids(), ["a"]);
    at.until(130, true);
    assert!(at.ids().is_empty());
    assert_eq!(at.bus.wake_at(), None);
    at.hear("create", &node("a", 1));
    assert!(at.ids().is_empty());
}

#[test]
fn what_others_say_is_bounded() {
    let mut at = At::new();
    for n in 0..MAX_NODES + 10 {
        at.hear("create", &node(&format!("n-{n}"), 1));
    }
    assert_eq!(at.ids().len(), MAX_NODES);
    assert_eq!(at.bus.crowded_out.count(), 10);
    at.hear("create", &node("n-0", 2));
    assert_eq!(
        at.bus.entries("greeter").1[0].node.address,
        "127.0.0.1:2",
        "a known one may change"
    );

    let mut at = At::new();
    for n in 0..75 {
        let mut node = node(&format!("n-{n}"), 1);
        node.metadata.insert("x".to_owned(), "x".repeat(900_000));
        at.hear("create", &node);
    }
    at.bus.check();
    assert!(at.ids().len() < 75, "{}", at.ids().len());

    for n in 0..100 {
        let bad = format!(
            r#"{{"Service":{{"name":"greeter","nodes":[{{"id":"{n}","address":3}}]}},"Action":"create"}}"#
        );
        at.bus.heard(at.now, bad.as_bytes(), None);
    }
    assert_eq!(at.bus.malformed("greeter").len(), MAX_UNREADABLE);
    for n in 0..5000 {
        let told = gomicro::encode(&Node::new(format!("s-{n}"), "i", "h:1")).unwrap();
        at.bus.answered(at.now, &told, None);
    }
    assert_eq!(at.bus.services(at.start).count(), MAX_SERVICES);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever comes in whatever order, what is kept agrees and is within its bounds.
    #[test]
    fn nothing_that_is_heard_breaks_it(steps in proptest::collection::vec((0..9u8, 0..4u8, 0..3u16, 0..7u64), 0..60)) {
        let mut at = At::new();
        let mut leases = Vec::new();
        for (step, id, port, seconds) in steps {
            let node = node(&id.to_string(), port);
            match step {
                0 => at.hear("create", &node),
                1 => at.hear_with("update", &node, None),
                2 => at.hear("delete", &node),
                3 => leases.push((node.clone(), at.bus.register(at.now, &node, TTL))),
                4 => if let Some((node, lease)) = leases.pop() {
                    at.bus.deregister(&node, lease);
                },
                5 => if let Some((node, lease)) = leases.last() {
                    let _ = at.bus.renewed(at.now, node, *lease);
                },
                6 => at.bus.disconnected(),
                7 => at.bus.connected(at.now),
                _ => at.bus.heard(at.now, &[id; 3], None),
            }
            at.bus.check();
            let second = (at.now - at.start).as_secs() + seconds;
            at.until(second, port == 1);
        }
    }
}
