//! Whatever somebody publishes, it panics nowhere, takes no more memory than it should, and leaves what
//! the bus knows within its bounds.

use std::{cell::RefCell, sync::LazyLock, time::Duration};

use fastrand::Rng;
use serde_json::{Value as Json, json};
use tokio::time::Instant;

use super::{
    super::{
        Node,
        format::{
            fuzz::record,
            gomicro::{self, Told},
        },
        fuzz::{FOR_ANY, Maker, PER_BYTE, allocated, alone, each},
        size::MAX_NODE,
    },
    bus::Bus,
};

const KEYS: [&str; 16] = [
    "Service",
    "Action",
    "name",
    "version",
    "metadata",
    "endpoints",
    "NODES",
    "id",
    "address",
    "port",
    "request",
    "response",
    "values",
    "type",
    "create",
    "",
];

/// The most nodes of one document: so many are read, and one that is unreadable stands for those beyond.
const MOST_NODES: usize = 33;

/// The bytes of the heap that may be what `size` reckons as one: a map with one entry takes as much as
/// one with eleven.
const PER_SIZE: usize = 8;

/// Ours, and what becomes of it with more nodes; and the questions.
static EVENTS: LazyLock<Maker> = LazyLock::new(|| {
    let mut node = Node::new("greeter", "greeter-1", "127.0.0.1:1");
    node.metadata.insert("zone".to_owned(), "<a>".to_owned());
    let actions = ["create", "update", "delete"];
    let mut seeds: Vec<_> =
        actions.into_iter().map(|action| gomicro::encode_event(action, &node).unwrap()).collect();
    let mut several: Json = serde_json::from_slice(&seeds[0]).unwrap();
    let one = several.pointer("/Service/nodes/0").unwrap().clone();
    for count in [3, 40] {
        let nodes = (0..count).map(|n| {
            let mut node = one.clone();
            node["id"] = format!("greeter-{n}").into();
            node
        });
        several["Service"]["nodes"] = nodes.collect();
        several["Service"]["endpoints"] = json!([{
            "name": "Greeter.Hello", "metadata": { "stream": "true" },
            "request": { "name": "In", "type": "In", "values": [{ "name": "a", "type": "b" }] },
        }]);
        seeds.push(several.to_string().into_bytes());
    }
    seeds.extend([gomicro::encode_get("greeter"), gomicro::encode_list()]);
    Maker { seeds, keys: &KEYS }
});

/// An event, what is no event, or a record of go-micro's in one.
fn said(rng: &mut Rng) -> Vec<u8> {
    match rng.u8(..4) {
        0 => [br#"{"Service":"#, &record(rng)[..], br#","Action":"create"}"#].concat(),
        _ => EVENTS.input(rng),
    }
}

/// A document, or what may come in its place.
fn answer(rng: &mut Rng) -> Vec<u8> {
    if rng.bool() {
        return record(rng);
    }
    let event = EVENTS.input(rng);
    match serde_json::from_slice::<Json>(&event) {
        Ok(event) if event["Service"].is_object() => event["Service"].to_string().into_bytes(),
        _ => event,
    }
}

/// The bound on what a message of this length allocates, all told: of the whole once, and of what its
/// nodes share once for each, which has a limit of its own.
fn most(length: usize) -> usize {
    let once = PER_BYTE * length + FOR_ANY;
    once * 2 + (once * MOST_NODES).min(PER_SIZE * MAX_NODE)
}

/// Whether nodes can be read of it.
fn check(told: &Told) -> bool {
    assert!(told.nodes.len() <= MOST_NODES);
    for unreadable in told.nodes.iter().filter_map(|node| node.as_ref().err()) {
        let reason = &unreadable.reason;
        assert!(!reason.is_empty() && reason.len() < 1000, "{unreadable:?}");
    }
    told.nodes.iter().any(Result::is_ok)
}

fn is_a_word(why: &str) -> bool {
    !why.is_empty() && why.len() < 1000
}

#[test]
fn no_event_panics_or_takes_more_memory_than_it_should() {
    let _alone = alone();
    each(said, |bytes| {
        [true, false].map(|follows| {
            // Of a service that nobody looks for no node is read.
            let most = if follows { most(bytes.len()) } else { PER_BYTE * bytes.len() + FOR_ANY };
            let (event, took) = allocated(most, || gomicro::decode_event(bytes, |_| follows));
            assert!(took <= most, "{took} bytes allocated for {}", bytes.len());
            match event {
                Ok(event) => match event.told {
                    Some(told) if follows => check(&told),
                    told => told.is_none_or(|told| told.nodes.is_empty()),
                },
                Err(why) => !is_a_word(&why),
            }
        })
    });
}

#[test]
fn no_answer_panics_or_takes_more_memory_than_it_should() {
    let _alone = alone();
    each(answer, |bytes| {
        let most = most(bytes.len());
        let (told, took) = allocated(most, || gomicro::decode_told(bytes, |_| true));
        assert!(took <= most, "{took} bytes allocated for {}", bytes.len());
        [match told {
            Ok(told) => check(&told),
            Err(why) => !is_a_word(&why),
        }]
    });
}

/// All that is heard is heard by one bus, which follows the service that most of it is about.
#[test]
fn a_bus_holds_its_bounds_whatever_it_hears() {
    let _alone = alone();
    let start = Instant::now();
    let ours = Node::new("greeter", "ours", "127.0.0.1:2");
    let (mut bus, ttl) = (Bus::new(), Duration::from_secs(10));
    bus.watched(start, "greeter", true);
    bus.connected(start);
    let lease = bus.register(start, &ours, ttl);
    let heard = RefCell::new((bus, start));
    let make = |rng: &mut Rng| {
        let kind = rng.u8(..3);
        [&[kind][..], &if kind == 1 { answer(rng) } else { said(rng) }].concat()
    };
    each(make, |input| {
        let (bus, now) = &mut *heard.borrow_mut();
        *now += Duration::from_millis(u64::from(input.last().copied().unwrap_or_default()));
        let before = bus.revision();
        match (input[0], &input[1..]) {
            (0, bytes) => bus.heard(*now, bytes, Some(ttl)),
            (1, bytes) => bus.answered(*now, bytes, None),
            (_, bytes) => bus.asked(*now, bytes, "_INBOX.1"),
        }
        let is_told = bus.revision() != before;
        bus.elapsed(*now);
        let is_said = !bus.take_say().is_empty();
        bus.proven(*now);
        bus.renewed(*now, &ours, lease).expect("nobody has told of a node of this id");
        bus.check();
        [is_told, is_said]
    });
}

/// Long documents of what takes the most for its length.
#[test]
fn no_bomb_takes_more_memory_than_it_should() {
    let _alone = alone();
    let list = |item: &str, length: usize| vec![item; length / (item.len() + 1)].join(",");
    let nodes = list(r#"{"id":"1"}"#, 350);
    let half = 512 * 1024;
    for (endpoint, is_read) in [
        (list("{}", half), true),
        (list(r#"{"name":"a"}"#, half), false),
        (list(r#"{"name":"a"}"#, 1000), true),
        (list(r#"{"name":"a","metadata":{"":""}}"#, half), false),
        (list(r#"{"name":"a","metadata":{"":""}}"#, 1500), true),
        (
            format!(r#"{{"name":"a","request":{{"values":[{}]}}}}"#, list(r#"{"type":"T"}"#, half)),
            false,
        ),
    ] {
        let document = format!(r#"{{"name":"a","endpoints":[{endpoint}],"nodes":[{nodes}]}}"#);
        let most = most(document.len());
        let (told, took) = allocated(most, || gomicro::decode_told(document.as_bytes(), |_| true));
        assert!(took <= most, "{took} bytes allocated for {}", document.len());
        assert_eq!(check(&told.unwrap()), is_read, "{}", &document[..60]);
    }
    let version = "v".repeat(half);
    let document = format!(r#"{{"name":"a","version":"{version}","nodes":[{nodes}]}}"#);
    let most = most(document.len());
    let (told, took) = allocated(most, || gomicro::decode_told(document.as_bytes(), |_| true));
    assert!(took <= most && !check(&told.unwrap()), "{took} bytes allocated");
}
