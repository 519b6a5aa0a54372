//! Whatever comes in over the network, nothing panics or takes more memory than it should, and the
//! machines hold what they promise. The packets begin as a real go-micro's and ours.

use std::{cell::RefCell, sync::LazyLock, time::Duration};

use fastrand::Rng;
use tokio::time::Instant;

use super::{
    super::{
        Lease, Node,
        format::{fuzz::record, gomicro},
        fuzz::{FOR_ANY, Maker, PER_BYTE, allocated, alone, cut, each},
    },
    browser::Browser,
    instance::Instance,
    packet::{self, Data, Kind, MAX_PACKET, MAX_RECORDS, Packet, SERVICES, TTL},
    responder::{Responder, Standing},
    text,
    vectors::{Raw, RawRecord, captured, captured_instance},
};

/// The bytes that a question or a record may take besides: two names at the most are kept of one and
/// three are read, each of 127 labels for two bytes that point at it.
const PER_RECORD: usize = 3 * (128 * 24 + 256);

/// The bytes that inflating takes, whatever comes of it.
const FOR_INFLATING: usize = 64 * 1024;

/// So many packets come to one network.
const PACKETS_EACH: usize = 30;

static PACKETS: LazyLock<Vec<Raw>> = LazyLock::new(|| {
    let mut packets = captured().all();
    let ours = Instance::of(&ours(2)).unwrap();
    packets.push(packet::probe(&ours).unwrap());
    packets.push(packet::announcement(&ours, TTL).unwrap());
    packets.push(packet::announcement(&ours, 0).unwrap());
    for (name, kind) in [(SERVICES, Kind::Ptr), (&ours.name, Kind::Any), (&ours.service, Kind::Ptr)]
    {
        packets.push(packet::query(name, kind).unwrap());
    }
    packets.iter().map(|packet| Raw::read(packet)).collect()
});

/// What stands in a text once it is inflated.
static TEXTS: LazyLock<Maker> = LazyLock::new(|| {
    let mut node = ours(2);
    node.metadata.insert("zone".to_owned(), "<a>".to_owned());
    let gomicros = text::decode(&captured_instance().text).unwrap();
    Maker { seeds: vec![gomicros, gomicro::encode_text(&node).unwrap()], keys: &KEYS }
});

const KEYS: [&str; 10] = [
    "Service",
    "VERSION",
    "Metadata",
    "Endpoints",
    "name",
    "request",
    "response",
    "values",
    "type",
    "",
];

const NAMES: [&str; 8] = [
    "echo.v1.micro.",
    "ours.echo.v1.micro.",
    "a.echo.v1.micro.",
    "echo.v1._services.micro.",
    SERVICES,
    "micro.",
    "",
    "\u{e9}\u{0}.echo.v1.micro.",
];

/// PTR, ANY, SRV, TXT, A, AAAA; some that are others'; NSEC and OPT, which mDNS has.
const TYPES: [u16; 12] = [12, 255, 33, 16, 1, 28, 6, 15, 47, 41, 0, 0xffff];

/// IN, with the bit that asks for unicast or flushes caches, ANY, and none.
const CLASSES: [u16; 5] = [1, 0x8001, 255, 0, 3];

fn ours(port: u16) -> Node {
    Node::new("echo.v1", "ours", format!("127.0.0.1:{port}"))
}

fn one<T: Clone>(of: &[T], rng: &mut Rng) -> T {
    of[rng.usize(..of.len())].clone()
}

/// A datagram: changed in what it says, then in its structure, then as bytes.
fn datagram(rng: &mut Rng) -> Vec<u8> {
    let mut raw = one(&PACKETS, rng);
    if rng.bool() {
        let text = said(rng);
        for record in raw.records.iter_mut().flatten().filter(|record| record.kind == 16) {
            record.data = [b"text ", &text[..]].concat();
        }
    }
    for _ in 0..rng.usize(..4) {
        change(&mut raw, rng);
    }
    let mut bytes = write(&raw, rng);
    for _ in 0..one(&[0, 0, 1, 3], rng) {
        bend(&mut bytes, rng);
    }
    bytes.truncate(MAX_PACKET);
    bytes
}

/// A record's text: of what became of a node's, or of a record of another format.
fn said(rng: &mut Rng) -> Vec<u8> {
    let json = if rng.u8(..4) == 0 { record(rng) } else { TEXTS.input(rng) };
    let mut text = text::encode(&json);
    if rng.u8(..4) == 0 {
        cut(&mut text, rng);
    }
    text
}

/// Changes something in a packet.
fn change(raw: &mut Raw, rng: &mut Rng) {
    let records = &mut raw.records[one(&[0, 0, 1, 2], rng)];
    let at = rng.usize(..=records.len());
    let mut name = one(&NAMES, rng).to_owned();
    if rng.u8(..8) == 0 {
        name = name.repeat(rng.usize(..20));
    }
    match (rng.u8(..10), records.get_mut(at)) {
        (0, _) => raw.flags = one(&[0, 0x8400, 0x8000, 0x7800, 0x0003], rng),
        (1, _) => raw.questions.push((name, one(&TYPES, rng), one(&CLASSES, rng))),
        (2, _) => drop(raw.questions.pop()),
        (3, Some(_)) => drop(records.remove(at)),
        (4, Some(record)) => {
            let copies = vec![record.clone(); rng.usize(..300)];
            records.extend(copies);
        }
        (5, Some(record)) => record.name = name,
        (6, Some(record)) => record.kind = one(&TYPES, rng),
        (7, Some(record)) => record.class = one(&CLASSES, rng),
        (8, Some(record)) => record.ttl = one(&[0, 1, 120, u32::MAX], rng),
        (9, Some(record)) => cut(&mut record.data, rng),
        (_, None) => {
            let data = (0..one(&[0, 4, 16, 300], rng)).map(|_| rng.u8(..)).collect();
            records.push(RawRecord { name, kind: one(&TYPES, rng), class: 1, ttl: TTL, data });
        }
        (10.., Some(_)) => unreachable!("of ten"),
    }
}

/// The packet's bytes.
fn write(raw: &Raw, rng: &mut Rng) -> Vec<u8> {
    let count = |many: usize| u16::try_from(many).unwrap();
    let [answers, authorities, others] = raw.records.each_ref().map(|it| count(it.len()));
    let header = [raw.id, raw.flags, count(raw.questions.len()), answers, authorities, others];
    let mut bytes: Vec<_> = header.iter().flat_map(|it| it.to_be_bytes()).collect();
    for (name, kind, class) in &raw.questions {
        bytes.extend(name_of(name, rng));
        bytes.extend([*kind, *class].iter().flat_map(|it| it.to_be_bytes()));
    }
    for record in raw.records.iter().flatten() {
        bytes.extend(name_of(&record.name, rng));
        bytes.extend([record.kind, record.class].iter().flat_map(|it| it.to_be_bytes()));
        bytes.extend(record.ttl.to_be_bytes());
        let data = data_of(record, rng);
        bytes.extend(u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes());
        bytes.extend(data);
    }
    bytes
}

fn data_of(record: &RawRecord, rng: &mut Rng) -> Vec<u8> {
    let data = &record.data;
    let mut name = |from: usize| name_of(&String::from_utf8_lossy(&data[from..]), rng);
    match record.kind {
        12 => name(0),
        33 if data.len() >= 6 => [&data[..6], &name(6)].concat(),
        16 => {
            let text = data.strip_prefix(b"text ").unwrap_or(data);
            let string = |it: &[u8]| [&[u8::try_from(it.len()).unwrap()], it].concat();
            text.chunks(255).flat_map(string).collect()
        }
        _ => data.clone(),
    }
}

/// A name, written out or as two bytes that point at the first of the packet.
fn name_of(text: &str, rng: &mut Rng) -> Vec<u8> {
    if rng.u8(..8) == 0 {
        return vec![0xc0, 12];
    }
    let labels = text.split('.').filter(|label| !label.is_empty());
    let label = |it: &str| [&[u8::try_from(it.len()).unwrap_or(63)], it.as_bytes()].concat();
    labels.flat_map(label).chain([0]).collect()
}

/// Changes the bytes.
fn bend(bytes: &mut Vec<u8>, rng: &mut Rng) {
    if bytes.len() < 2 {
        return;
    }
    let at = rng.usize(..bytes.len() - 1);
    match rng.u8(..4) {
        // The header, and the first names.
        0 => bytes[at % 64] = rng.u8(..),
        1 => bytes[at..at + 2].copy_from_slice(&[0xc0, rng.u8(..)]),
        _ => cut(bytes, rng),
    }
}

/// Reads a packet: within a multiple of its length, and of the records that it promises.
fn read(bytes: &[u8]) -> Result<Packet, String> {
    let count = |at: usize| match bytes.get(at..at + 2) {
        Some(two) => usize::from(u16::from_be_bytes([two[0], two[1]])),
        None => 0,
    };
    let records = count(4) + count(6) + count(8) + count(10);
    let most = PER_BYTE * bytes.len() + FOR_ANY + PER_RECORD * records.min(MAX_RECORDS);
    let (packet, took) = allocated(most, || packet::read(bytes));
    assert!(took <= most, "{took} bytes allocated for {} and {records} records", bytes.len());
    if let Err(why) = &packet {
        assert!(!why.is_empty() && why.len() < 200, "{why}");
    }
    packet
}

/// Reads the node of a text: within a multiple of its length, and of what it inflates to.
fn read_node(text: &[u8]) -> Result<Node, String> {
    let inflated = text::decode(text).map_or(text::MAX_JSON, |json| json.len());
    let most = PER_BYTE * (text.len() + inflated) + FOR_INFLATING;
    let instance = Instance { text: text.to_vec(), ..captured_instance() };
    let (node, took) = allocated(most, || instance.node());
    assert!(took <= most, "{took} bytes allocated for {} and {inflated}", text.len());
    if let Err(why) = &node {
        assert!(!why.is_empty() && why.len() < 1000, "{why}");
    }
    node
}

#[test]
fn no_datagram_panics_or_takes_more_memory_than_it_should() {
    let _alone = alone();
    each(datagram, |bytes| match read(bytes) {
        Ok(Packet::Query(query)) => [!query.questions.is_empty(), false, false],
        Ok(Packet::Response(records)) => {
            let mut texts = records.iter().filter_map(|record| match &record.data {
                Data::Text(text) => Some(text),
                _ => None,
            });
            [false, !records.is_empty(), texts.next().is_some_and(|text| read_node(text).is_ok())]
        }
        Err(_) => [false; 3],
    });
}

/// What takes the most for its length: names that point at one long one, and strings of no length.
#[test]
fn no_bomb_takes_more_memory_than_it_should() {
    let _alone = alone();
    let long = [1, b'x'].repeat(126);
    let pointer = [0xc0, 12];
    let record = |kind: u8, data: &[u8]| {
        let length = u16::try_from(data.len()).unwrap().to_be_bytes();
        [&pointer[..], &[0, kind, 0, 1, 0, 0, 0, 120], &length, data].concat()
    };
    let srv = [&[0; 6][..], &pointer].concat();
    let soa = [&pointer[..], &pointer, &[0; 20]].concat();
    let question = [&pointer[..], &[0, 12, 0, 1]].concat();
    // Which of the header's counts is of what.
    for (at, item) in
        [(4, question), (6, record(12, &pointer)), (6, record(33, &srv)), (10, record(6, &soa))]
    {
        for (count, is_read) in [(MAX_RECORDS - 1, true), (MAX_RECORDS, false)] {
            let mut bytes = vec![0; 12];
            bytes[2] = 0x80;
            bytes[5] = 1;
            let promised = u16::try_from(count).unwrap() + u16::from(at == 4);
            bytes[at..at + 2].copy_from_slice(&promised.to_be_bytes());
            bytes.extend(long.iter().chain(&[0, 0, 12, 0, 1]));
            bytes.extend(item.repeat(count));
            assert_eq!(read(&bytes).is_ok(), is_read, "{count} of {}", item[3]);
        }
    }
    let mut strings = vec![0, 0, 0x80, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0];
    strings.extend([0, 16, 0, 1, 0, 0, 0, 120, 0xff, 0x00].iter().chain(&[0; 0xff00]));
    assert!(read(&strings).is_ok());

    let endpoints = |item: &str, length: usize| {
        let items = vec![item; length / (item.len() + 1)].join(",");
        format!(r#"{{"Service":"echo.v1","Endpoints":[{items}]}}"#)
    };
    let most = text::MAX_JSON - 100;
    for (json, is_read) in [
        (endpoints("{}", most), true),
        (endpoints(r#"{"name":"a","metadata":{"":""}}"#, most), true),
        (endpoints(r#"{"name":"a","request":{"values":[{},{}]}}"#, most), true),
        (endpoints("{}", most + 200), false),
        (" ".repeat(16 * 1024 * 1024), false),
    ] {
        assert_eq!(read_node(&text::encode(json.as_bytes())).is_ok(), is_read);
    }
}

/// Two machines, and their time.
struct Machines {
    now: Instant,
    responder: Responder,
    lease: Lease,
    browser: Browser,
    heard: usize,
}

impl Machines {
    fn new() -> Self {
        let now = Instant::now();
        let (mut responder, mut browser) = (Responder::default(), Browser::new());
        browser.watched(now, "echo.v1", true);
        let lease = responder.register(now, &ours(1), vec![0]).unwrap();
        Self { now, responder, lease, browser, heard: 0 }
    }

    /// No panic; what is kept is bounded and adds up; our own node stands, or somebody is named.
    /// Whether it was answered, and whether it told of a node.
    fn hear(&mut self, bytes: &[u8], wait: Duration) -> [bool; 2] {
        let Self { now, responder, lease, browser, .. } = self;
        let before = browser.revision();
        let mut is_answered = false;
        match packet::read(bytes) {
            Err(_) => {}
            Ok(Packet::Query(query)) => {
                for answer in responder.asked(&query, 0, [127, 0, 0, 1].into()) {
                    assert!(packet::read(&answer).is_ok(), "our own answers are well-formed");
                    is_answered = true;
                }
            }
            Ok(Packet::Response(mut records)) => {
                packet::set_scope(&mut records, 3);
                responder.told(*now, &records, 0, [127, 0, 0, 1].into());
                let is_leaving = |name: &str| responder.is_leaving(name);
                browser.told(*now, &records, |ip| ip.is_ipv6(), is_leaving);
            }
        }
        let is_told = browser.revision() != before;
        browser.check();
        *now += wait;
        // The links are others now and then.
        responder.relink(*now, |_| vec![0, usize::from(wait > Duration::from_secs(30))]);
        for send in responder.elapsed(*now) {
            assert!(packet::read(&send.bytes).is_ok());
        }
        browser.elapsed(*now);
        assert!(browser.take_questions().len() < 300);
        browser.check();
        for due in browser.wake_at().into_iter().chain(responder.wake_at()) {
            assert!(due > *now, "what is due has been done");
        }
        if let Standing::Refused(why) = responder.standing(*lease) {
            assert!(why.contains("has this id"), "{why}");
        }
        [is_answered, is_told]
    }

    /// Nothing more comes.
    fn end(mut self) {
        let Self { browser, now, .. } = &mut self;
        *now += Duration::from_secs(121);
        while let Some(due) = browser.wake_at().filter(|due| due <= now) {
            browser.elapsed(due);
            browser.take_questions();
        }
        browser.check();
        assert!(browser.entries("echo.v1").1.is_empty(), "all that was told is forgotten");
        assert!(browser.malformed("echo.v1").is_empty(), "what made no sense, too");
    }
}

#[test]
fn any_datagrams_leave_the_machines_in_order() {
    let _alone = alone();
    let machines = RefCell::new(Machines::new());
    let make = |rng: &mut Rng| [&rng.u16(..40_000).to_be_bytes()[..], &datagram(rng)].concat();
    each(make, |input| {
        let wait = Duration::from_millis(u16::from_be_bytes([input[0], input[1]]).into());
        let mut machines = machines.borrow_mut();
        let became = machines.hear(&input[2..], wait);
        machines.heard += 1;
        if machines.heard == PACKETS_EACH {
            std::mem::replace(&mut *machines, Machines::new()).end();
        }
        became
    });
}
