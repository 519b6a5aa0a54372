use super::{
    super::{
        super::{Event, Node, format::gomicro},
        text,
        vectors::{ID, captured, captured_instance},
    },
    known::MAX_NODES,
    *,
};

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn node(id: &str, port: u16) -> Node {
    Node::new("greeter", id, format!("127.0.0.1:{port}"))
}

fn records(node: &Node, ttl: u32) -> Vec<Record> {
    packet::records(&Instance::of(node).unwrap(), ttl)
}

/// A browser that follows `greeter`, and its time.
struct At {
    browser: Browser,
    start: Instant,
}

impl At {
    fn new() -> Self {
        let start = Instant::now();
        let mut browser = Browser::new();
        browser.watched(start, "greeter", true);
        Self { browser, start }
    }

    fn told(&mut self, at: u64, records: &[Record]) {
        self.browser.told(self.start + secs(at), records, |_| false, |_| false);
    }

    fn ids(&self) -> Vec<String> {
        let (_, entries) = self.browser.entries("greeter");
        entries.iter().map(|entry| entry.node.id.clone()).collect()
    }

    /// All that is asked up to then, in seconds.
    fn until(&mut self, at: u64) -> Vec<(u64, String, Kind)> {
        let mut asked = Vec::new();
        let mut now = self.start;
        loop {
            for (name, kind) in self.browser.take_questions() {
                asked.push((now.duration_since(self.start).as_secs(), name, kind));
            }
            match self.browser.wake_at().filter(|due| *due <= self.start + secs(at)) {
                Some(due) => now = due,
                None => return asked,
            }
            self.browser.elapsed(now);
        }
    }

    fn events(&self, after: u64) -> Vec<Event> {
        match self.browser.since("greeter", after) {
            Since::Batches(batches) => batches.into_iter().flat_map(|batch| batch.events).collect(),
            Since::Compacted => panic!("nothing is forgotten"),
        }
    }
}

fn times(asked: &[(u64, String, Kind)]) -> Vec<u64> {
    asked.iter().map(|(at, ..)| *at).collect()
}

#[test]
fn a_service_is_asked_for_again_and_again_ever_more_rarely() {
    let mut at = At::new();
    let asked = at.until(200);
    assert!(asked.iter().all(|(_, name, kind)| name == "greeter.micro." && *kind == Kind::Ptr));
    assert_eq!(times(&asked), [0, 1, 3, 7, 15, 31, 63, 123, 183]);
}

#[test]
fn a_service_that_nobody_watches_is_forgotten_with_its_nodes() {
    let mut at = At::new();
    at.browser.browse(at.start, "greeter");
    at.told(0, &records(&node("a", 1), packet::TTL));
    at.browser.watched(at.start + secs(60), "greeter", false);
    at.until(189);
    assert!(at.browser.is_browsed("greeter"));
    at.until(190);
    assert!(!at.browser.is_browsed("greeter") && at.ids().is_empty());
    assert_eq!(at.browser.wake_at(), None);
    at.browser.check();
    assert_eq!((at.browser.known.bytes(), at.browser.known.len()), (0, 0));
}

#[test]
fn a_silent_node_is_asked_for_from_80_percent_on_and_then_forgotten() {
    let mut at = At::new();
    at.until(63);
    at.told(70, &records(&node("a", 1), packet::TTL));
    // Those of the service come in between.
    let asked: Vec<_> =
        times(&at.until(189)).into_iter().filter(|at| ![123, 183].contains(at)).collect();
    assert_eq!(asked, [166, 172, 178, 184], "80, 85, 90 and 95 % of 120 s after 70");
    assert_eq!(at.ids(), ["a"]);
    at.until(190);
    assert!(at.ids().is_empty());
    assert!(matches!(&at.events(1)[..], [Event::Delete(key)] if key == "greeter/a"));
}

#[test]
fn a_node_that_answers_stays_and_is_no_news() {
    let mut at = At::new();
    for second in (0..1000).step_by(100) {
        at.until(second);
        at.told(second, &records(&node("a", 1), packet::TTL));
    }
    assert_eq!(at.ids(), ["a"]);
    assert_eq!(at.events(0).len(), 1);
    let mut changed = node("a", 1);
    changed.version = "2".to_owned();
    at.told(1000, &records(&changed, packet::TTL));
    assert!(matches!(&at.events(1)[..], [Event::Put(entry)] if *entry.node == changed));
}

#[test]
fn a_goodbye_removes_the_node_at_once_whatever_part_says_it() {
    let all = records(&node("a", 1), 0);
    let ptr = Record {
        name: "greeter.micro.".to_owned(),
        ttl: 0,
        data: Data::Ptr("a.greeter.micro.".to_owned()),
    };
    for goodbye in [&all[..], &all[..1], &all[2..], &[ptr]] {
        let mut at = At::new();
        at.told(0, &records(&node("a", 1), packet::TTL));
        at.told(0, &records(&node("b", 2), packet::TTL));
        at.told(1, goodbye);
        assert_eq!(at.ids(), ["b"], "{goodbye:?}");
    }
}

#[test]
fn a_node_that_takes_leave_here_is_not_heard_of_from_elsewhere() {
    let mut at = At::new();
    at.browser.told(
        at.start,
        &records(&node("a", 1), packet::TTL),
        |_| false,
        |name| name == "a.greeter.micro.",
    );
    assert!(at.ids().is_empty());
}

#[test]
fn a_node_told_in_parts_is_asked_for_and_put_together() {
    let whole = records(&node("a", 1), packet::TTL);
    let [srv, address, text] = &whole[..] else { panic!("three records") };
    for order in [[srv, address, text], [srv, text, address], [text, srv, address]] {
        let mut at = At::new();
        at.until(0);
        at.told(0, std::slice::from_ref(order[0]));
        assert_eq!(at.until(0), [(0, "a.greeter.micro.".to_owned(), Kind::Any)]);
        at.told(0, std::slice::from_ref(order[1]));
        assert!(at.ids().is_empty());
        at.told(0, std::slice::from_ref(order[2]));
        assert_eq!(at.ids(), ["a"], "{order:?}");
        assert!(at.browser.partials.is_empty());
    }
}

#[test]
fn the_rest_of_a_node_is_asked_for_twice_and_no_more() {
    let mut at = At::new();
    let ptr = Record {
        name: "greeter.micro.".to_owned(),
        ttl: packet::TTL,
        data: Data::Ptr("a.greeter.micro.".to_owned()),
    };
    at.told(0, std::slice::from_ref(&ptr));
    let asked: Vec<_> =
        at.until(10).into_iter().filter(|(_, name, _)| name == "a.greeter.micro.").collect();
    assert_eq!(times(&asked), [0, 1]);
    assert!(at.browser.partials.is_empty());
    // Of a node that is known, a name alone asks for nothing.
    at.told(10, &records(&node("a", 1), packet::TTL));
    at.told(10, &[ptr]);
    assert!(at.browser.take_questions().is_empty());
}

#[test]
fn names_that_only_look_like_a_services_are_told_apart() {
    let mut at = At::new();
    at.browser.watched(at.start, "v1.greeter", true);
    at.told(0, &records(&Node::new("v1.greeter", "a", "127.0.0.1:1"), packet::TTL));
    at.told(0, &records(&Node::new("other", "a", "127.0.0.1:1"), packet::TTL));
    assert!(at.ids().is_empty());
    assert_eq!(at.browser.entries("v1.greeter").1.len(), 1);
    // One name, and now of the shorter service.
    at.told(1, &records(&node("a.v1", 1), packet::TTL));
    assert_eq!(at.ids(), ["a.v1"]);
    assert_eq!(at.browser.entries("v1.greeter").1.len(), 0);
    assert_eq!(at.browser.known.len(), 1);
}

#[test]
fn a_real_go_micros_node_comes_and_goes() {
    let start = Instant::now();
    let told = |browser: &mut Browser, bytes: &[u8]| {
        let Ok(packet::Packet::Response(records)) = packet::read(bytes) else {
            panic!("a response")
        };
        browser.told(start, &records, |_| false, |_| false);
        let (_, entries) = browser.entries("echo.v1");
        entries.iter().map(|entry| (*entry.node).clone()).collect::<Vec<_>>()
    };
    let node = captured_instance().node().unwrap();
    assert_eq!(node.id, ID);
    let captured = captured();
    for bytes in captured.announcements.iter().chain([&captured.answer]) {
        let mut browser = Browser::new();
        browser.browse(start, "echo.v1");
        assert_eq!(told(&mut browser, bytes), std::slice::from_ref(&node));
        assert!(told(&mut browser, &captured.goodbye).is_empty());
    }
    let mut browser = Browser::new();
    assert!(told(&mut browser, &captured.answer).is_empty(), "nobody follows it");
    assert_eq!(browser.known.bytes(), 0);
}

#[test]
fn of_two_addresses_that_of_ipv4_is_taken() {
    let mut told = records(&Node::new("greeter", "a", "[fd00::1]:1"), packet::TTL);
    told.push(Record {
        data: Data::Address { ip: [10, 0, 0, 1].into(), scope: 0 },
        ..told[1].clone()
    });
    let mut at = At::new();
    at.told(0, &told);
    assert_eq!(at.browser.entries("greeter").1[0].node.address, "10.0.0.1:1");
}

#[test]
fn of_several_addresses_one_of_the_link_is_taken_and_kept() {
    let ips = ["10.0.0.1", "10.0.1.1", "fd00::1"].map(|ip| ip.parse::<IpAddr>().unwrap());
    let mut told = records(&Node::new("greeter", "a", "[fe80::1%3]:1"), packet::TTL);
    for ip in ips {
        told.push(Record { data: Data::Address { ip, scope: 0 }, ..told[1].clone() });
    }
    let start = Instant::now();
    let address = |near: &[IpAddr], browser: &mut Browser, told: &[Record]| {
        browser.told(start, told, |ip| near.contains(&ip), |_| false);
        browser.entries("greeter").1[0].node.address.clone()
    };
    for (near, expected) in [
        (&ips[..2], "10.0.0.1:1"),
        (&ips[1..2], "10.0.1.1:1"),
        (&ips[2..], "[fd00::1]:1"),
        (&["fe80::1".parse().unwrap()], "[fe80::1%3]:1"),
    ] {
        let mut browser = Browser::new();
        browser.watched(start, "greeter", true);
        assert_eq!(address(near, &mut browser, &told), expected);
        let revision = browser.revision();
        for other in ips {
            assert_eq!(address(&[other], &mut browser, &told), expected, "no link takes it away");
        }
        assert_eq!(browser.revision(), revision);
    }
    let mut browser = Browser::new();
    browser.watched(start, "greeter", true);
    assert_eq!(address(&ips[1..2], &mut browser, &told), "10.0.1.1:1");
    told.remove(4);
    assert_eq!(address(&ips[1..2], &mut browser, &told), "10.0.0.1:1", "it has that one no more");
}

#[test]
fn all_is_asked_for_again_on_other_links() {
    let mut at = At::new();
    at.until(100);
    at.browser.relinked(at.start + secs(100), [0].into());
    assert_eq!(times(&at.until(110)), [100, 101, 103, 107]);
}

/// Instances that differ in their names alone.
fn instances(node: &Node, numbers: std::ops::Range<usize>) -> impl Iterator<Item = Vec<Record>> {
    let instance = Instance::of(node).unwrap();
    numbers.map(move |number| {
        let name = format!("n{number}.greeter.micro.");
        packet::records(&Instance { name, ..instance.clone() }, packet::TTL)
    })
}

#[test]
fn a_node_that_comes_after_thousands_has_room_and_those_known_stay() {
    let mut at = At::new();
    for second in [0, 1] {
        at.told(second, &records(&node("known", 1), packet::TTL));
    }
    for (number, told) in instances(&node("a", 1), 0..MAX_NODES + 100).enumerate() {
        at.told(2 + number as u64 / 1000, &told);
    }
    at.told(10, &records(&node("late", 1), packet::TTL));
    at.browser.check();
    let ids = at.ids();
    assert_eq!(ids.len(), MAX_NODES);
    assert!(["known", "late"].iter().all(|id| ids.iter().any(|it| it == id)), "{}", ids.len());
    assert!(!ids.contains(&"n0".to_owned()), "who was heard of least lately made room");
    assert_eq!(at.browser.crowded_out.count(), 102);
}

#[test]
fn nodes_that_answer_are_not_crowded_out_until_they_fall_silent() {
    let mut at = At::new();
    for second in [0, 1] {
        instances(&node("a", 1), 0..MAX_NODES).for_each(|told| at.told(second, &told));
    }
    let told = records(&node("late", 1), packet::TTL);
    for (second, has_room) in [(2, false), (102, false), (103, true)] {
        at.told(second, &told);
        assert_eq!(at.ids().contains(&"late".to_owned()), has_room, "after {second} s");
        assert_eq!(at.ids().len(), MAX_NODES);
        at.browser.check();
    }
    assert_eq!(at.browser.crowded_out.count(), 3);
}

#[test]
fn what_nodes_take_is_bounded() {
    let mut at = At::new();
    let mut large = node("a", 1);
    large.metadata.extend((0..1000).map(|key| (format!("{key}"), "x".repeat(200))));
    instances(&large, 0..200).for_each(|told| at.told(0, &told));
    at.browser.check();
    assert!((100..150).contains(&at.ids().len()), "{}", at.ids().len());
    assert_eq!(at.browser.crowded_out.count(), 200 - at.ids().len() as u64);
    assert!(at.ids().contains(&"n199".to_owned()), "the last has room");
}

#[test]
fn parts_of_nodes_and_names_of_services_are_bounded() {
    let mut at = At::new();
    for number in 0..2 * MAX_PARTIALS {
        at.told(0, &records(&node(&format!("n{number}"), 1), packet::TTL)[..1]);
    }
    assert_eq!(at.browser.partials.len(), MAX_PARTIALS);
    for number in 0..2 * MAX_SERVICES {
        let data = Data::Ptr(format!("s{number}._services.micro."));
        at.told(0, &[Record { name: SERVICES.to_owned(), ttl: packet::TTL, data }]);
    }
    assert_eq!(at.browser.services.len(), MAX_SERVICES);
    let data = Data::Ptr("late._services.micro.".to_owned());
    at.told(200, &[Record { name: SERVICES.to_owned(), ttl: packet::TTL, data }]);
    let since = at.start + secs(200);
    assert_eq!(at.browser.services(since).collect::<Vec<_>>(), ["late"], "the old make room");
}

/// What says that a record of `a` cannot be read, each in its way.
fn unreadable() -> Vec<(Vec<Record>, &'static str)> {
    let with_text = |text: Vec<u8>| {
        let mut told = records(&node("a", 1), packet::TTL);
        told[2].data = Data::Text(text);
        told
    };
    // Small in a packet, and in JSON, and large in memory.
    let mut swollen = node("a", 1);
    swollen.metadata.extend((0..12_000).map(|key| (key.to_string(), String::new())));
    let swollen = text::encode(&gomicro::encode_text(&swollen).unwrap());
    let line = br#"{"Service":"greeter","Metadata":{"zone\nERROR":7}}"#;
    vec![
        (with_text(text::encode(line)), "`Metadata.zone ERROR` is a number"),
        (with_text(b"zz".to_vec()), "its text is not hex"),
        (with_text(Vec::new()), "its text is not zlib's"),
        (with_text(swollen), "bytes of memory"),
    ]
}

fn reasons(malformed: &[Malformed]) -> Vec<(&str, &str)> {
    malformed.iter().map(|it| (it.key.as_str(), it.reason.as_str())).collect()
}

#[test]
fn a_record_that_cannot_be_read_is_told_once_with_its_reason() {
    for (told, named) in unreadable() {
        let mut at = At::new();
        at.told(0, &told);
        at.told(1, &told);
        let malformed = at.browser.malformed("greeter");
        let [(key, why)] = reasons(&malformed)[..] else { panic!("one: {malformed:?}") };
        assert!(key == "greeter/a" && why.contains(named), "{key}: {why} lacks {named}");
        let events = at.events(0);
        assert!(matches!(&events[..], [Event::Malformed(it)] if *it == malformed[0]), "{events:?}");
        assert!(at.ids().is_empty() && at.browser.partials.is_empty());
        at.until(120);
        assert_eq!(at.browser.malformed("greeter").len(), 1);
        at.until(121);
        assert!(at.browser.malformed("greeter").is_empty(), "forgotten as a node is");
        assert!(matches!(&at.events(1)[..], [Event::Delete(key)] if key == "greeter/a"));
        at.browser.check();
    }
}

#[test]
fn a_record_that_cannot_be_read_takes_no_node_away_and_gives_way_to_one_that_can() {
    let good = records(&node("a", 1), packet::TTL);
    let (bad, _) = unreadable().remove(0);
    let mut at = At::new();
    at.told(0, &good);
    at.told(1, &bad);
    assert_eq!((at.ids().len(), at.browser.malformed("greeter").len()), (1, 1));
    at.told(2, &good);
    assert_eq!((at.ids().len(), at.browser.malformed("greeter").len()), (1, 0));
    let events = at.events(2);
    assert!(matches!(&events[..], [Event::Delete(_), Event::Put(_)]), "{events:?}");
    at.told(3, &bad);
    at.told(4, &records(&node("a", 1), 0));
    assert_eq!(
        (at.ids().len(), at.browser.malformed("greeter").len()),
        (0, 0),
        "a goodbye is of both"
    );
    at.told(5, &bad);
    at.browser.watched(at.start + secs(5), "greeter", false);
    at.until(135);
    at.browser.check();
    assert!(at.browser.malformed("greeter").is_empty() && at.browser.wake_at().is_none());
}

#[test]
fn records_that_cannot_be_read_are_bounded_and_the_rest_counted() {
    let mut at = At::new();
    let (mut bad, _) = unreadable().remove(0);
    for number in 0..unreadable::MAX_UNREADABLE + 10 {
        let name = format!("n{number}.greeter.micro.");
        (bad[0].name, bad[2].name) = (name.clone(), name);
        at.told(0, &bad);
    }
    at.browser.check();
    assert_eq!(at.browser.malformed("greeter").len(), unreadable::MAX_UNREADABLE);
    assert_eq!(at.browser.left_out.count(), 10);
}

#[test]
fn an_address_that_no_node_can_have_is_refused() {
    for (ip, port) in [
        ("224.0.0.1", 80),
        ("255.255.255.255", 80),
        ("0.0.0.0", 80),
        ("::", 80),
        ("ff02::1", 80),
        ("::ffff:224.0.0.1", 80),
        ("127.0.0.1", 0),
    ] {
        let mut instance = Instance::of(&node("a", 1)).unwrap();
        (instance.ip, instance.port) = (ip.parse().unwrap(), port);
        let mut at = At::new();
        at.told(0, &packet::records(&instance, packet::TTL));
        let malformed = at.browser.malformed("greeter");
        let [(_, why)] = reasons(&malformed)[..] else { panic!("one: {malformed:?}") };
        let address = std::net::SocketAddr::new(instance.ip, port).to_string();
        assert!(at.ids().is_empty() && why.contains(&address), "{why} lacks {address}");
    }
}

#[test]
fn a_link_local_node_that_is_heard_on_two_links_stays_on_the_first_while_that_is_there() {
    let mut at = At::new();
    at.browser.relinked(at.start, [0, 2, 3].into());
    let on = |scope| records(&Node::new("greeter", "a", format!("[fe80::7%{scope}]:1")), 120);
    let listed = |at: &At| at.browser.entries("greeter").1[0].node.address.clone();
    for scope in [2, 3, 2, 3] {
        at.told(1, &on(scope));
        assert_eq!(listed(&at), "[fe80::7%2]:1");
    }
    assert_eq!(at.events(0).len(), 1, "it is told of once");
    at.browser.relinked(at.start, [0, 3].into());
    at.told(2, &on(3));
    assert_eq!(listed(&at), "[fe80::7%3]:1");
}
