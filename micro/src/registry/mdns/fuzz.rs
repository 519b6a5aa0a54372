//! Whatever comes in over the network, the machines hold what they promise. The packets begin as a
//! real go-micro's and ours.

use std::sync::LazyLock;

use proptest::prelude::*;
use tokio::time::Instant;

use super::{
    super::Node,
    browser::Browser,
    instance::Instance,
    packet::{self, Kind, Packet, SERVICES, TTL},
    responder::{Responder, Standing},
    vectors::captured,
};

static PACKETS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut packets = captured().all();
    let ours = Instance::of(&ours(2)).unwrap();
    packets.push(packet::probe(&ours).unwrap());
    packets.push(packet::announcement(&ours, TTL).unwrap());
    packets.push(packet::announcement(&ours, 0).unwrap());
    for (name, kind) in [(SERVICES, Kind::Ptr), (&ours.name, Kind::Any), (&ours.service, Kind::Ptr)]
    {
        packets.push(packet::query(name, kind).unwrap());
    }
    packets
});

fn ours(port: u16) -> Node {
    Node::new("echo.v1", "ours", format!("127.0.0.1:{port}"))
}

/// What may happen to a packet on its way.
#[derive(Debug, Clone)]
enum Change {
    Byte(usize, u8),
    Cut(usize),
    Insert(usize, Vec<u8>),
    /// A part of the packet once more, elsewhere in it.
    Copy(usize, usize, usize),
    /// Two bytes that point back.
    Pointer(usize, u8),
}

fn change() -> impl Strategy<Value = Change> {
    let at = || 0..2000usize;
    prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        // The header, and the first names.
        4 => (0..64usize, any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        1 => at().prop_map(Change::Cut),
        1 => (at(), prop::collection::vec(any::<u8>(), 1..300))
            .prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        1 => (at(), at(), 1..200usize).prop_map(|(from, to, length)| Change::Copy(from, to, length)),
        2 => (at(), any::<u8>()).prop_map(|(at, to)| Change::Pointer(at, to)),
    ]
}

fn packet() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec(change(), 0..4);
    (0..PACKETS.len(), changes).prop_map(|(which, changes)| {
        let mut bytes = PACKETS[which].clone();
        for change in changes {
            apply(&mut bytes, change);
        }
        bytes
    })
}

fn apply(bytes: &mut Vec<u8>, change: Change) {
    let length = bytes.len();
    if length == 0 {
        return;
    }
    match change {
        Change::Byte(at, byte) => bytes[at % length] = byte,
        Change::Cut(at) => bytes.truncate(at % length),
        Change::Insert(at, inserted) => {
            bytes.splice(at % length..at % length, inserted);
        }
        Change::Copy(from, to, many) => {
            let from = from % length;
            let part = bytes[from..(from + many).min(length)].to_vec();
            bytes.splice(to % length..to % length, part);
        }
        Change::Pointer(at, to) => {
            bytes[at % length] = 0xc0;
            bytes[(at + 1) % length] = to;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    /// No panic; what is kept is bounded and adds up; our own node stands, or somebody is named.
    #[test]
    fn any_packets_leave_the_machines_in_order(
        packets in prop::collection::vec((packet(), 0..40_000u64), 1..30)
    ) {
        let mut now = Instant::now();
        let (mut responder, mut browser) = (Responder::default(), Browser::new());
        browser.watched(now, "echo.v1", true);
        let lease = responder.register(now, &ours(1), vec![0]).unwrap();
        for (bytes, wait) in packets {
            match packet::read(&bytes) {
                Err(why) => prop_assert!(!why.is_empty() && why.len() < 200, "{why}"),
                Ok(Packet::Query(query)) => {
                    for answer in responder.asked(&query, 0, [127, 0, 0, 1].into()) {
                        prop_assert!(packet::read(&answer).is_ok(), "our own answers are well-formed");
                    }
                }
                Ok(Packet::Response(mut records)) => {
                    packet::set_scope(&mut records, 3);
                    responder.told(now, &records, 0, [127, 0, 0, 1].into());
                    browser.told(now, &records, |ip| ip.is_ipv6(), |name| responder.is_leaving(name));
                }
            }
            browser.check();
            now += std::time::Duration::from_millis(wait);
            // The links are others now and then.
            responder.relink(now, |_| vec![0, usize::try_from(wait / 30_000).unwrap()]);
            for send in responder.elapsed(now) {
                prop_assert!(packet::read(&send.bytes).is_ok());
            }
            browser.elapsed(now);
            prop_assert!(browser.take_questions().len() < 300);
            browser.check();
            for due in browser.wake_at().into_iter().chain(responder.wake_at()) {
                prop_assert!(due > now, "what is due has been done");
            }
            if let Standing::Refused(why) = responder.standing(lease) {
                prop_assert!(why.contains("has this id"), "{why}");
            }
        }
        now += std::time::Duration::from_secs(121);
        while let Some(due) = browser.wake_at().filter(|due| *due <= now) {
            browser.elapsed(due);
            browser.take_questions();
        }
        browser.check();
        prop_assert!(browser.entries("echo.v1").1.is_empty(), "all that was told is forgotten");
        prop_assert!(browser.malformed("echo.v1").is_empty(), "what made no sense, too");
    }
}
