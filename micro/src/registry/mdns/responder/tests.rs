use std::net::Ipv4Addr;

use super::{super::vectors::captured, *};

/// Where others send from.
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9));

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn node(id: &str, port: u16) -> Node {
    Node::new("greeter", id, format!("127.0.0.1:{port}"))
}

/// A responder, and its time.
struct At {
    responder: Responder,
    start: Instant,
}

impl At {
    fn new() -> Self {
        Self { responder: Responder::default(), start: Instant::now() }
    }

    fn ms(&self, after: u64) -> Instant {
        self.start + ms(after)
    }

    fn register(&mut self, at: u64, node: &Node) -> Result<Lease, String> {
        self.responder.register(self.ms(at), node, vec![0])
    }

    /// All that is sent up to then: when, what, from which port.
    fn until(&mut self, at: u64) -> Vec<(u64, &'static str, From)> {
        let mut sent = Vec::new();
        while let Some(due) = self.responder.wake_at().filter(|due| *due <= self.ms(at)) {
            for send in self.responder.elapsed(due) {
                let after = due.duration_since(self.start).as_millis();
                sent.push((u64::try_from(after).unwrap(), what(&send.bytes), send.from));
            }
        }
        sent
    }

    /// A node that was announced at 450.
    fn announced(node: &Node) -> (Self, Lease) {
        let mut at = Self::new();
        let lease = at.register(0, node).unwrap();
        assert_eq!(at.until(450).len(), 4);
        assert_eq!(at.responder.standing(lease), Standing::Announced);
        (at, lease)
    }

    fn told(&mut self, at: u64, node: &Node, ttl: u32) {
        let records = packet::records(&Instance::of(node).unwrap(), ttl);
        self.responder.told(self.ms(at), &records, 0, OTHER);
    }

    fn probed(&mut self, node: &Node) -> Vec<Vec<u8>> {
        let probe = packet::probe(&Instance::of(node).unwrap()).unwrap();
        self.asked(&probe, 0)
    }

    fn asked(&mut self, packet: &[u8], link: LinkId) -> Vec<Vec<u8>> {
        let Ok(packet::Packet::Query(query)) = packet::read(packet) else { panic!("a query") };
        self.responder.asked(&query, link, OTHER)
    }
}

fn what(bytes: &[u8]) -> &'static str {
    match packet::read(bytes).unwrap() {
        packet::Packet::Query(_) => "probe",
        packet::Packet::Response(records) if records[0].ttl == 0 => "goodbye",
        packet::Packet::Response(_) => "announcement",
    }
}

#[test]
fn three_probes_come_before_three_announcements() {
    let mut at = At::new();
    let lease = at.register(0, &node("a", 1)).unwrap();
    assert_eq!(
        at.until(449),
        [(0, "probe", From::Own), (150, "probe", From::Own), (300, "probe", From::Own)]
    );
    assert_eq!(at.responder.standing(lease), Standing::Probing);
    assert_eq!(
        at.until(60_000),
        [
            (450, "announcement", From::Shared),
            (1450, "announcement", From::Shared),
            (3450, "announcement", From::Shared)
        ]
    );
    assert_eq!(at.responder.standing(lease), Standing::Announced);
    assert_eq!(at.responder.wake_at(), None, "then it is quiet, as go-micro is");
}

#[test]
fn goodbye_is_said_three_times_within_the_drains_gap() {
    let (mut at, lease) = At::announced(&node("a", 1));
    at.responder.deregister(at.ms(500), lease);
    assert!(at.responder.is_leaving("a.greeter.micro."));
    let goodbyes = at.until(60_000);
    assert_eq!(goodbyes.len(), 3, "and no announcement more: {goodbyes:?}");
    for ((after, what, from), due) in goodbyes.into_iter().zip([500, 550, 650]) {
        assert_eq!((after, what, from), (due, "goodbye", From::Shared));
        assert!(ms(after - 500) < super::super::SPREAD);
    }
    assert!(!at.responder.is_leaving("a.greeter.micro."));
    assert_eq!(at.responder.standing(lease), Standing::Gone);
}

#[test]
fn on_a_new_link_a_node_is_announced_and_nothing_is_said_on_fewer() {
    let (mut at, lease) = At::announced(&node("a", 1));
    at.until(10_000);
    at.responder.relink(at.ms(20_000), |_| vec![0, 4]);
    assert_eq!(at.responder.standing(lease), Standing::Announced);
    let sent = at.responder.elapsed(at.ms(20_000));
    assert_eq!(sent.iter().map(|send| &send.links[..]).collect::<Vec<_>>(), [[0, 4]]);
    assert_eq!(at.until(60_000), [(22_000, "announcement", From::Shared)]);
    at.responder.relink(at.ms(60_000), |_| vec![4]);
    assert_eq!(at.responder.wake_at(), None);
    let question = packet::query("greeter.micro.", Kind::Ptr).unwrap();
    assert!(at.asked(&question, 0).is_empty() && at.asked(&question, 4).len() == 1);
}

#[test]
fn on_a_link_that_comes_up_meanwhile_a_node_is_probed_for_before_it_is_announced() {
    let mut at = At::new();
    let lease = at.register(0, &node("a", 1)).unwrap();
    at.until(300);
    at.responder.relink(at.ms(400), |_| vec![0, 4]);
    let sent = at.responder.elapsed(at.ms(400));
    assert_eq!(sent.iter().map(|send| &send.links[..]).collect::<Vec<_>>(), [[0, 4]]);
    assert_eq!(what(&sent[0].bytes), "probe");
    assert_eq!(at.until(849), [(550, "probe", From::Own), (700, "probe", From::Own)]);
    // One fewer is no cause to begin again, and a new one is for what is announced.
    at.responder.relink(at.ms(849), |_| vec![4]);
    assert_eq!(at.until(850), [(850, "announcement", From::Shared)]);
    assert_eq!(at.responder.standing(lease), Standing::Announced);

    let lease = at.register(2000, &node("b", 1)).unwrap();
    at.until(2300);
    at.responder.relink(at.ms(2400), |_| vec![0, 4]);
    let other = packet::records(&Instance::of(&node("b", 2)).unwrap(), packet::TTL);
    at.responder.told(at.ms(2500), &other, 4, OTHER);
    assert!(matches!(at.responder.standing(lease), Standing::Refused(_)), "it is known there");
}

#[test]
fn what_was_not_announced_leaves_without_a_word() {
    let mut at = At::new();
    let lease = at.register(0, &node("a", 1)).unwrap();
    at.until(300);
    at.responder.deregister(at.ms(300), lease);
    assert!(at.until(60_000).is_empty());
}

#[test]
fn one_who_has_the_name_ends_a_probe() {
    for other in [node("a", 2), Node::new("greeter", "a", "127.0.0.2:1"), {
        let mut other = node("a", 1);
        other.version = "2".to_owned();
        other
    }] {
        let mut at = At::new();
        let lease = at.register(0, &node("a", 1)).unwrap();
        at.until(150);
        at.told(160, &other, TTL);
        let Standing::Refused(why) = at.responder.standing(lease) else { panic!("refused") };
        assert!(why.contains(&format!("at {} has this id", other.address)), "{why}");
        assert!(at.until(60_000).is_empty(), "and nothing is announced");
    }
}

#[test]
fn one_who_does_not_say_where_it_is_is_named_by_its_senders_address() {
    let other = packet::records(&Instance::of(&node("a", 2)).unwrap(), TTL);
    let [srv, _, _] = &other[..] else { panic!("three records") };
    let mut text = other[2].clone();
    text.data = Data::Text(b"other".to_vec());
    for (told, named) in [(srv, "a node at 10.0.0.9:2 has"), (&text, "a node at 10.0.0.9 has")] {
        let mut at = At::new();
        let lease = at.register(0, &node("a", 1)).unwrap();
        at.responder.told(at.ms(1), std::slice::from_ref(told), 0, OTHER);
        let Standing::Refused(why) = at.responder.standing(lease) else { panic!("refused") };
        assert!(why.contains(named), "{why} lacks {named}");
    }
}

#[test]
fn the_same_records_are_no_other() {
    let mut at = At::new();
    let lease = at.register(0, &node("a", 1)).unwrap();
    at.until(0);
    at.told(1, &node("a", 1), TTL);
    at.told(1, &node("b", 2), TTL);
    assert!(at.probed(&node("a", 1)).is_empty());
    assert_eq!(at.responder.standing(lease), Standing::Probing);
    at.until(450);
    at.told(460, &node("a", 1), TTL);
    at.responder.renew(&node("a", 1), lease).unwrap();
}

#[test]
fn of_two_probes_the_one_that_sorts_later_has_the_name() {
    for (port, has_it) in [(1, true), (3, false)] {
        let mut at = At::new();
        let lease = at.register(0, &node("a", 2)).unwrap();
        at.until(0);
        assert!(at.probed(&node("a", port)).is_empty(), "nobody has announced it");
        let standing = at.responder.standing(lease);
        assert_eq!(standing == Standing::Probing, has_it, "{standing:?}");
        if let Standing::Refused(why) = standing {
            let named = "a node at 10.0.0.9:3, which registers at this very moment, has this id";
            assert!(why.contains(named), "{why}");
        }
    }
}

#[test]
fn a_probe_is_answered_by_who_has_the_name() {
    let (mut at, _) = At::announced(&node("a", 1));
    let answers = at.probed(&node("a", 2));
    let [answer] = &answers[..] else { panic!("one answer: {answers:?}") };
    let packet::Packet::Response(records) = packet::read(answer).unwrap() else { panic!() };
    assert_eq!(records, packet::records(&Instance::of(&node("a", 1)).unwrap(), TTL));
}

#[test]
fn a_twin_is_told_at_the_renewal_and_the_name_defended() {
    let (mut at, lease) = At::announced(&node("a", 1));
    at.until(10_000);
    at.told(10_000, &node("a", 2), TTL);
    at.told(10_001, &node("a", 2), TTL);
    assert_eq!(at.until(20_000), [(10_000, "announcement", From::Shared)], "once for both");
    let renewed = at.responder.renew(&node("a", 1), lease);
    assert!(
        matches!(&renewed, Err(RenewError::Taken(why)) if why.contains("127.0.0.1:2")),
        "{renewed:?}"
    );
    // The next registration asks first.
    let lease = at.register(20_000, &node("a", 1)).unwrap();
    assert_eq!(at.until(20_000), [(20_000, "probe", From::Own)]);
    assert_eq!(at.responder.standing(lease), Standing::Probing);
}

#[test]
fn a_twins_goodbye_is_contradicted() {
    let (mut at, lease) = At::announced(&node("a", 1));
    at.until(10_000);
    at.told(10_000, &node("a", 2), 0);
    assert_eq!(at.until(20_000), [(10_000, "announcement", From::Shared)]);
    at.responder.renew(&node("a", 1), lease).unwrap();
}

#[test]
fn the_last_of_a_twins_goodbyes_is_contradicted_too_once_a_second() {
    let (mut at, lease) = At::announced(&node("a", 1));
    at.until(10_000);
    let mut sent = Vec::new();
    for after in [10_000, 10_050, 10_150, 11_100] {
        sent.extend(at.until(after));
        at.told(after, &node("a", 2), 0);
    }
    sent.extend(at.until(60_000));
    let expected = [10_000, 11_000, 12_000].map(|after| (after, "announcement", From::Shared));
    assert_eq!(sent, expected, "none of the goodbyes is the last word");
    at.responder.renew(&node("a", 1), lease).unwrap();
}

#[test]
fn a_defence_that_waits_is_no_obstacle() {
    for again in [false, true] {
        let (mut at, lease) = At::announced(&node("a", 1));
        at.until(10_000);
        at.told(10_000, &node("a", 2), 0);
        at.until(10_000);
        at.told(10_050, &node("a", 2), 0);
        assert_eq!(at.responder.standing(lease), Standing::Announced);
        assert_eq!(at.probed(&node("a", 2)).len(), 1, "it answers meanwhile");
        assert!(at.register(10_060, &node("a", 2)).is_err());
        if again {
            at.register(10_060, &node("a", 1)).unwrap();
            assert_eq!(at.until(10_500), [(10_060, "announcement", From::Shared)]);
        } else {
            at.responder.deregister(at.ms(10_060), lease);
            let sent = at.until(60_000);
            assert!(sent.len() == 3 && sent.iter().all(|(_, what, _)| *what == "goodbye"));
        }
    }
}

#[test]
fn a_twin_that_has_left_is_no_twin_any_more() {
    let (mut at, lease) = At::announced(&node("a", 1));
    at.until(10_000);
    at.told(10_000, &node("a", 2), TTL);
    assert!(at.responder.renew(&node("a", 1), lease).is_err());
    at.told(18_000, &node("a", 2), 0);
    at.responder.renew(&node("a", 1), lease).unwrap();
}

#[test]
fn a_node_registered_again_is_announced_again_under_a_new_lease() {
    let (mut at, first) = At::announced(&node("a", 1));
    let second = at.register(5000, &node("a", 1)).unwrap();
    assert_ne!(first, second);
    assert_eq!(at.until(5000), [(5000, "announcement", From::Shared)]);
    at.responder.deregister(at.ms(5001), first);
    at.responder.renew(&node("a", 1), second).unwrap();
    assert!(matches!(at.responder.renew(&node("a", 1), first), Err(RenewError::Taken(_))));
    assert!(at.register(5002, &node("a", 2)).unwrap_err().contains("127.0.0.1:1 has this id"));
}

#[test]
fn questions_are_answered_one_packet_a_node() {
    let mut at = At::new();
    for id in ["a", "b"] {
        at.register(0, &node(id, 1)).unwrap();
    }
    at.register(0, &Node::new("other", "a", "127.0.0.1:3")).unwrap();
    let query = |name: &str, kind| packet::query(name, kind).unwrap();
    assert!(
        at.asked(&query("greeter.micro.", Kind::Ptr), 0).is_empty(),
        "not before it is announced"
    );
    at.until(450);
    for (name, kind, count) in [
        ("greeter.micro.", Kind::Ptr, 2),
        ("greeter.micro.", Kind::Any, 2),
        ("greeter.micro.", Kind::Own(simple_dns::TYPE::SRV), 0),
        ("a.greeter.micro.", Kind::Any, 1),
        ("a.greeter.micro.", Kind::Own(simple_dns::TYPE::TXT), 1),
        ("a.greeter.micro.", Kind::Ptr, 0),
        ("Greeter.micro.", Kind::Ptr, 0),
        ("nobody.micro.", Kind::Ptr, 0),
        (SERVICES, Kind::Ptr, 2),
        (SERVICES, Kind::Own(simple_dns::TYPE::SRV), 0),
    ] {
        assert_eq!(at.asked(&query(name, kind), 0).len(), count, "{name} {kind:?}");
        assert!(at.asked(&query(name, kind), 1).is_empty(), "not on a link that it is not told on");
    }
}

#[test]
fn equal_questions_of_a_packet_are_answered_once() {
    let (at, _) = At::announced(&node("a", 1));
    let At { mut responder, .. } = at;
    let question = |kind| Question { name: "a.greeter.micro.".to_owned(), kind, unicast: false };
    let (any, text) = (question(Kind::Any), question(Kind::Own(simple_dns::TYPE::TXT)));
    let questions = vec![any.clone(), text.clone(), any.clone(), text, any];
    let query = Query { id: 0, questions, claims: Vec::new() };
    assert_eq!(responder.asked(&query, 0, OTHER).len(), 2);
}

#[test]
fn a_real_go_micros_question_is_answered_as_its_node_answers() {
    let instance = super::super::vectors::captured_instance();
    let mut at = At::new();
    at.register(0, &instance.node().unwrap()).unwrap();
    at.until(450);
    let captured = captured();
    let answers = at.asked(&captured.queries[1], 0);
    let [answer] = &answers[..] else { panic!("one answer: {answers:?}") };
    let (Ok(packet::Packet::Response(ours)), Ok(packet::Packet::Response(theirs))) =
        (packet::read(answer), packet::read(&captured.answer))
    else {
        panic!("answers")
    };
    let kinds = |records: &[Record]| -> Vec<_> {
        records.iter().map(|record| (std::mem::discriminant(&record.data), record.ttl)).collect()
    };
    assert_eq!(kinds(&ours), kinds(&theirs));
    assert_eq!(ours[0], theirs[0]);
    assert_eq!(ours[3].name, theirs[3].name);
}
