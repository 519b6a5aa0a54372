//! Many nodes and odd ones in the registries that are lists, without records that could have a node's
//! id or text: what a row of the table is there, stands where it is done.

use micro::registry;
use tests::{
    dns::Dns,
    log::Warnings,
    raw::{Cannot, Following, judge},
};

type Done = Result<(), Cannot>;

/// A zone with SRV records: a node is a target and a port, and its id is where it is.
struct Zone(Dns);

impl Zone {
    async fn of(records: &[&str]) -> Self {
        let mut dns = Dns::start().await;
        dns.set(records).await;
        Self(dns)
    }

    async fn follow(&self) -> Following {
        Following::of(&self.0.url("{service}.test"), "odd").await
    }
}

/// A node that is there, and the address of the host that all are on.
const FIRST: &str = "_grpc._tcp.odd 1 SRV 0 1 1 host";
const SECOND: &str = "_grpc._tcp.odd 1 SRV 0 1 2 host";
const HOST: &str = "host 1 A 10.1.0.1";

/// A record that cannot be followed, beside which a node is, and one more comes.
async fn is_left_out(odd: &[&str], key: &str) {
    let warnings = Warnings::kept();
    let mut zone = Zone::of(&[FIRST, HOST]).await;
    let mut following = zone.follow().await;
    assert!(following.nodes.keys().eq(["10.1.0.1:1"]));
    zone.0.set(&[&[FIRST, HOST], odd].concat()).await;
    following.malformed(1).await;
    zone.0.set(&[&[FIRST, HOST, SECOND], odd].concat()).await;
    following.tells(&["+10.1.0.1:2".to_owned()]).await;
    following.malformed(1).await;
    let lines = warnings.with(key);
    assert_eq!(lines.len(), 1, "told once: {lines:#?}");
    zone.0.set(&[FIRST, HOST]).await;
    following.tells(&["-10.1.0.1:2".to_owned()]).await;
    following.malformed(0).await;
    assert!(following.nodes.keys().eq(["10.1.0.1:1"]), "the neighbour is untouched");
}

/// The answer has 200 addresses, and is then too long for a datagram.
async fn batches_of_200() {
    let addresses = |subnet: u8| (1..=200).map(move |host| format!("10.1.{subnet}.{host}"));
    let records = |subnet: u8| addresses(subnet).map(|it| format!("batch 1 A {it}"));
    let mut dns = Dns::start().await;
    dns.set(&["batch 1 A 10.1.2.1"]).await;
    let mut following = Following::of(&dns.url("batch.test:9000"), "batch").await;
    let mut there = vec!["10.1.2.1".to_owned()];
    for subnet in [0, 1] {
        let all: Vec<_> = records(subnet).collect();
        dns.set(&all.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let mut came: Vec<_> = addresses(subnet).map(|it| format!("+{it}:9000")).collect();
        let mut went: Vec<_> = there.iter().map(|it| format!("-{it}:9000")).collect();
        // In the order of their ids, and those that come before those that go.
        came.sort();
        went.sort();
        following.tells(&[came, went].concat()).await;
        there = addresses(subnet).collect();
    }
    assert_eq!(following.nodes.len(), 200);
    following.malformed(0).await;
}

async fn dns(row: &str) -> Done {
    match row {
        "batches_of_200_are_told_whole_and_in_order" => batches_of_200().await,
        // The target is there, and has no address.
        "an_empty_value_is_left_out" => {
            let odd = ["_grpc._tcp.odd 1 SRV 0 1 3 empty", "empty 1 TXT x"];
            is_left_out(&odd, "empty.test.").await;
        }
        // The target is another name's, which is nobody's.
        "json_of_a_wrong_type_is_left_out" => {
            let odd = ["_grpc._tcp.odd 1 SRV 0 1 3 alias", "alias 1 CNAME nobody"];
            is_left_out(&odd, "alias.test.").await;
        }
        // The longest name there is.
        "overlong_garbage_is_left_out" => {
            let name =
                [&"x".repeat(63), &"y".repeat(63), &"z".repeat(63), "w"].map(|it| it.to_owned());
            let name = name.join(".");
            let odd = format!("_grpc._tcp.odd 1 SRV 0 1 3 {name}");
            is_left_out(&[&odd], &name).await;
        }
        // No label has a slash, and of letters those of ASCII.
        "unicode_and_slashes_are_kept" => {
            let zone = Zone::of(&[FIRST, HOST]).await;
            let registry = registry::open(&zone.0.url("{service}.test")).expect("a URL");
            for service in ["team/pay", "p\u{e4}y"] {
                let refused = registry.read(service).await.expect_err("there can be none");
                let text = refused.to_string();
                assert!(refused.is_config() && text.contains(service), "{text}");
            }
            return Err(Cannot);
        }
        // Two records of one target and port.
        "two_records_of_one_address_are_one_node" => {
            let mut zone = Zone::of(&[FIRST, HOST]).await;
            let mut following = zone.follow().await;
            let other = ["_grpc._tcp.odd 1 SRV 0 1 1 other", "other 1 A 10.1.0.1"];
            zone.0.set(&[&[FIRST, HOST], &other[..]].concat()).await;
            following.is_told_nothing().await;
            zone.0.set(&[&[HOST], &other[..]].concat()).await;
            following.is_told_nothing().await;
            assert!(following.nodes.keys().eq(["10.1.0.1:1"]));
        }
        // An answer that is as it was.
        "a_record_written_again_as_it_was_is_told" => {
            let mut zone = Zone::of(&[FIRST, HOST]).await;
            let mut following = zone.follow().await;
            zone.0.set(&[FIRST, HOST]).await;
            following.is_told_nothing().await;
            return Err(Cannot);
        }
        _ => return Err(Cannot),
    }
    Ok(())
}

/// Its nodes are there from the start, and nothing can be written.
async fn r#static(row: &str) -> Done {
    match row {
        // In the URL, where the name is percent-encoded.
        "unicode_and_slashes_are_kept" => {
            let url = "static://team%2Fp%C3%A4y.svc=10.1.0.1:1;plain=10.1.0.1:2";
            let following = Following::of(url, "team/p\u{e4}y.svc").await;
            let node = following.nodes.values().next().expect("a node");
            assert_eq!((&*node.service, &*node.address), ("team/p\u{e4}y.svc", "10.1.0.1:1"));
        }
        "batches_of_200_are_told_whole_and_in_order" => {
            let addresses: Vec<_> = (1..=200).map(|host| format!("10.1.0.{host}:1")).collect();
            let url = format!("static://batch={}", addresses.join(","));
            let mut following = Following::of(&url, "batch").await;
            assert_eq!(following.nodes.len(), 200);
            following.is_told_nothing().await;
        }
        _ => return Err(Cannot),
    }
    Ok(())
}

macro_rules! on_list {
    ($name:ident, not { $($why:literal: $($cannot:ident)*;)* } => $($row:ident)*) => {
        mod $name {
            use super::*;

            const DECLARED: &[(&str, &str)] = &[$($((stringify!($cannot), $why)),*),*];

            $(
                // On this thread alone, whose log lines are its own.
                #[tokio::test]
                async fn $row() {
                    judge(stringify!($row), super::$name(stringify!($row)).await, DECLARED);
                }
            )*
        }
    };
}

/// A test for every row and list. In braces are the rows that do not apply, behind the reason.
macro_rules! every_list {
    ($($name:ident, not $declared:tt;)*) => {
        $(tests::every_row! { on_list! { $name, not $declared } })*
    };
}

every_list! {
    dns, not {
        "a zone has addresses, in which nothing tells one write from the next":
            a_watch_cut_50_times_neither_loses_nor_doubles;
        "there is no JSON in a zone": broken_json_is_left_out;
        "a record of a node has a name, a port and a weight": a_record_of_100_kib_is_read;
        "a name with a slash, or with other letters than ASCII's, is refused":
            unicode_and_slashes_are_kept;
        "a node's id is its address": a_duplicate_id_is_one_node;
        "an answer as the last has told nothing new": a_record_written_again_as_it_was_is_told;
    };
    r#static, not {
        "its nodes are in the URL, which is taken whole or refused, and nobody is asked again":
            a_watch_cut_50_times_neither_loses_nor_doubles an_empty_value_is_left_out
            broken_json_is_left_out json_of_a_wrong_type_is_left_out overlong_garbage_is_left_out
            a_record_written_again_as_it_was_is_told;
        "a node in the URL is an address": a_record_of_100_kib_is_read;
        "a node's id is its address": a_duplicate_id_is_one_node
            two_records_of_one_address_are_one_node;
    };
}
