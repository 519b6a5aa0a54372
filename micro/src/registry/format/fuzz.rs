//! Whatever somebody writes into a registry, no decoder panics or takes more memory than it should.

use std::sync::LazyLock;

use fastrand::Rng;

use super::{
    super::{
        Node,
        fuzz::{FOR_ANY, Maker, PER_BYTE, allocated, alone, cut, each},
    },
    etcd_naming, go_zero,
    gomicro::{self, tag},
    json::MAX_LEN,
    kitex, kratos,
    tests::{DECODERS, Decode},
    vectors::records,
};

static RECORDS: LazyLock<Maker> = LazyLock::new(|| {
    let mut seeds: Vec<_> = records().into_iter().map(|(_, value)| value.into()).collect();
    let mut ours = Node::new("greeter", "greeter-1", "127.0.0.1:1");
    ours.metadata.extend([("weight", "7"), ("zone", "<a>")].map(|(k, v)| (k.into(), v.into())));
    seeds.extend([kratos::encode, kitex::encode, kitex::encode_entry].map(|it| it(&ours).unwrap()));
    seeds.extend([etcd_naming::encode, gomicro::encode_text].map(|it| it(&ours).unwrap()));
    seeds.push(go_zero::encode(&ours));
    Maker { seeds, keys: &KEYS }
});

/// A record of go-micro's, or what became of one.
pub(in crate::registry) fn record(rng: &mut Rng) -> Vec<u8> {
    RECORDS.input(rng)
}

const KEYS: [&str; 19] = [
    "name",
    "NODES",
    "id",
    "address",
    "port",
    "metadata",
    "endpoints",
    "request",
    "response",
    "values",
    "type",
    "version",
    "Service",
    "Op",
    "Addr",
    "network",
    "weight",
    "tags",
    "",
];

#[test]
fn no_record_panics_or_takes_more_memory_than_it_should() {
    let _alone = alone();
    each(record, |bytes| DECODERS.map(|(format, decode)| check(format, decode, bytes)));
}

/// go-micro's tags in Consul, plain and deflated: what is inflated may be long, the tag is not.
#[test]
fn no_tag_panics_or_takes_more_memory_than_a_record_may_hold() {
    let _alone = alone();
    let mut ours = Node::new("greeter", "greeter-1", "127.0.0.1:1");
    ours.metadata.insert("zone".to_owned(), "<a>".to_owned());
    let deflated = tag::encode_tags(&ours).unwrap();
    let one = |rng: &mut Rng| match rng.bool() {
        true => [&[b"t=", b"e=", b"v="][rng.usize(..3)][..], &record(rng)].concat(),
        false => {
            let mut tag = deflated[rng.usize(..deflated.len())].clone().into_bytes();
            (0..rng.usize(..3)).for_each(|_| cut(&mut tag, rng));
            tag
        }
    };
    let make = |rng: &mut Rng| {
        let tags: Vec<_> = (0..rng.usize(1..4)).map(|_| one(rng)).collect();
        tags.join(&0)
    };
    each(make, |tags| {
        let tags = String::from_utf8_lossy(tags);
        let most = PER_BYTE * (tags.len() + MAX_LEN) + FOR_ANY;
        let (decoded, took) = allocated(most, || tag::decode_tags(tags.split('\0')));
        assert!(took <= most, "{took} bytes allocated for {}", tags.len());
        [match decoded {
            Ok(_) => true,
            Err(why) => {
                assert!(!why.is_empty() && why.len() < 1000, "{why}");
                false
            }
        }]
    });
}

/// Long records of what takes the most for its length.
#[test]
fn no_bomb_takes_more_memory_than_it_should() {
    let _alone = alone();
    let filled = |head: &str, item: &str, tail: &str| {
        format!("{head}{}{tail}", vec![item; (64 * 1024) / (item.len() + 1)].join(","))
    };
    let nested = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    let numbered: Vec<_> = (0..4_000).map(|n| format!("\"{n:x}\":\"\"")).collect();
    let numbered = numbered.join(",");
    let node = r#"{"name":"a","nodes":[{"id":"1"}],"#;
    for bomb in [
        filled("[", "{}", "]"),
        filled("[", "[]", "]"),
        filled("[", "0", "]"),
        filled("[", "[0]", "]"),
        filled("[", "[0,0]", "]"),
        filled("[", r#"{"":0}"#, "]"),
        filled("[", r#"{"":{"":0}}"#, "]"),
        filled("[", r#""\n""#, "]"),
        filled("[", &nested, "]"),
        filled("{", r#""":0"#, "}"),
        filled("{", r#""\n":"""#, "}"),
        filled(&format!(r#"{node}"endpoints":["#), "{}", "]}"),
        filled(&format!(r#"{node}"endpoints":["#), r#"{"name":"a"}"#, "]}"),
        filled(&format!(r#"{node}"endpoints":["#), r#"{"name":"a","metadata":{"":""}}"#, "]}"),
        filled(&format!(r#"{node}"endpoints":["#), r#"{"name":"a","request":{}}"#, "]}"),
        filled(&format!(r#"{node}"endpoints":[{{"request":{{"values":["#), "{}", "]}}]}"),
        filled(
            &format!(r#"{node}"endpoints":[{{"request":{{"values":["#),
            r#"{"type":"T"}"#,
            "]}}]}",
        ),
        filled(r#"{"id":"1","name":"a","endpoints":["#, r#""""#, "]}"),
        format!(
            r#"{{"address":"h:1","Addr":"h:1","tags":{{{numbered}}},"Metadata":{{{numbered}}}}}"#
        ),
    ] {
        for (format, decode) in DECODERS {
            check(format, decode, bomb.as_bytes());
        }
    }
}

/// Whether it is a node in this format.
fn check(format: &str, decode: Decode, bytes: &[u8]) -> bool {
    let most = PER_BYTE * bytes.len() + FOR_ANY;
    let (decoded, took) = allocated(most, || decode(bytes));
    let length = bytes.len();
    assert!(
        took <= most,
        "{format}: {took} bytes allocated for {length}: {} a byte",
        took / length
    );
    match decoded {
        Err(why) => {
            assert!(!why.is_empty() && why.len() < 1000, "{format}: {why}");
            false
        }
        Ok(node) => {
            if let Some(written) = written(format, &node) {
                assert_eq!(decode(&written), Ok(node), "{format}: written and read again");
            }
            true
        }
    }
}

/// The node as we would write it, where that says all that was read.
fn written(format: &str, node: &Node) -> Option<Vec<u8>> {
    match format {
        "micro" => gomicro::encode(node).ok(),
        "kratos" if node.is_grpc() => kratos::encode(node).ok(),
        "kitex" => kitex::encode(node).ok(),
        "kitex's entry" => kitex::encode_entry(node).ok(),
        "etcd" => etcd_naming::encode(node).ok(),
        "go-zero" => Some(go_zero::encode(node)),
        _ => None,
    }
}
