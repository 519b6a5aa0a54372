//! Whatever a service in the catalog is, it panics nowhere and takes no more memory than it should.

use std::sync::LazyLock;

use fastrand::Rng;
use serde_json::{Value as Json, json};

use super::{
    super::{
        format::{Format, fuzz::record},
        fuzz::{FOR_ANY, Maker, PER_BYTE, allocated, alone, each},
    },
    known::Known,
};

const ALL: [Format; 3] = [Format::Micro, Format::Kratos, Format::Kitex];

/// Of what tags are inflated to, an entry may have so much.
const MAX_INFLATED: usize = 1024 * 1024;

const KEYS: [&str; 20] = [
    "Node",
    "Address",
    "Service",
    "ID",
    "Tags",
    "Port",
    "TaggedAddresses",
    "grpc",
    "Meta",
    "protocol",
    "Weights",
    "Passing",
    "Warning",
    "Checks",
    "CheckID",
    "Status",
    "Notes",
    "Definition",
    "ModifyIndex",
    "",
];

/// What Consul 1.20 told of a service whose nodes were registered as go-micro, Kratos and Kitex do,
/// without the spaces that an agent with `-dev` adds.
const ANSWER: &str = include_str!("../../../../tests/vectors/consul-health.json");

static ANSWERS: LazyLock<Maker> = LazyLock::new(|| {
    let all: Vec<Json> = serde_json::from_str(ANSWER).unwrap();
    let each = all.iter().map(|one| Json::from(vec![one.clone()]).to_string());
    let seeds = each.chain([ANSWER.to_owned()]).map(String::into_bytes).collect();
    Maker { seeds, keys: &KEYS }
});

#[test]
fn a_real_answer_is_read() {
    let mut known = Known::default();
    known.take(ANSWER.as_bytes(), "echo", &ALL).unwrap();
    let listing = known.listing(1);
    assert!(listing.malformed.is_empty(), "{listing:?}");
    let mut addresses: Vec<_> =
        listing.entries.iter().map(|entry| (entry.node.address.as_str(), entry.rank)).collect();
    addresses.sort_unstable();
    assert_eq!(addresses, [("127.0.0.1:7841", 0), ("127.0.0.1:7842", 1), ("127.0.0.1:7843", 2)]);
    assert!(listing.entries.iter().all(|entry| entry.node.is_grpc()));
}

fn count(bytes: &[u8], part: &[u8]) -> usize {
    bytes.windows(part.len()).filter(|it| *it == part).count()
}

/// Some have a tag of the older, plain form that holds what became of a record.
#[test]
fn no_entry_panics_or_takes_more_memory_than_it_should() {
    let _alone = alone();
    let make = |rng: &mut Rng| {
        let answer = ANSWERS.input(rng);
        if rng.u8(..4) > 0 {
            return answer;
        }
        let Ok(mut answer) = serde_json::from_slice::<Json>(&answer) else { return answer };
        let tag =
            format!("{}={}", ["t", "e"][rng.usize(..2)], String::from_utf8_lossy(&record(rng)));
        if let Some(tags) = answer.pointer_mut("/0/Service/Tags").and_then(Json::as_array_mut) {
            tags.push(tag.into());
        }
        answer.to_string().into_bytes()
    };
    each(make, |bytes| {
        // An entry may be as short as `{}`, though none of Consul's is.
        let entries = bytes.iter().filter(|byte| **byte == b'{').count();
        let is_tagged = [&b"t="[..], b"e=", b"-78"].iter().any(|tag| count(bytes, tag) > 0);
        let inflated = if is_tagged { count(bytes, b"\"Tags\"") * MAX_INFLATED } else { 0 };
        let most = PER_BYTE * (bytes.len() + inflated) + FOR_ANY * (1 + entries);
        let (found, took) = allocated(most, || {
            let mut known = Known::default();
            known.take(bytes, "echo", &ALL).map(|()| known.listing(1))
        });
        assert!(took <= most, "{took} bytes allocated for {}", bytes.len());
        [match found {
            Ok(listing) => {
                for malformed in &listing.malformed {
                    let reason = &malformed.reason;
                    assert!(!reason.is_empty() && reason.len() < 1000, "{malformed:?}");
                }
                !listing.entries.is_empty()
            }
            Err(why) => {
                assert!(!why.is_empty());
                false
            }
        }]
    });
}

/// Of a thousandfold what they take in the answer, all tags of an entry together may hold what one
/// record may.
#[test]
fn what_tags_are_inflated_to_takes_no_more_memory_than_a_record() {
    let _alone = alone();
    let filled = |head: &str, item: &str, tail: &str| {
        let count = (MAX_INFLATED - head.len() - tail.len()) / (item.len() + 1);
        format!("{head}{}{tail}", vec![item; count].join(","))
    };
    let tag = |kind: char, payload: &str| {
        let deflated = miniz_oxide::deflate::compress_to_vec_zlib(payload.as_bytes(), 9);
        let hex: Vec<_> = deflated.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{kind}-{}", hex.concat())
    };
    let values = filled(r#"{"name":"a","request":{"values":["#, r#"{"type":"T"}"#, "]}}");
    let facts: Vec<_> = (0..80_000).map(|n| format!("\"{n:x}\":\"\"")).collect();
    let facts = format!("{{{}}}", facts.join(","));
    for (tags, is_read) in [
        (vec![tag('t', &" ".repeat(MAX_INFLATED)); 64], false),
        (vec![tag('v', &"x".repeat(MAX_INFLATED / 2)); 64], false),
        (vec![tag('e', &values); 2], false),
        (vec![tag('e', &values)], true),
        (vec![tag('t', &facts)], true),
        (vec![tag('t', &filled("[", "{}", "]"))], false),
    ] {
        let service = json!({ "ID": "a", "Port": 1, "Tags": tags });
        let answer = json!([{ "Service": service }]).to_string();
        let most = PER_BYTE * (answer.len() + MAX_INFLATED) + FOR_ANY;
        let (listing, took) = allocated(most, || {
            let mut known = Known::default();
            known.take(answer.as_bytes(), "echo", &ALL).unwrap();
            known.listing(1)
        });
        assert!(took <= most, "{took} bytes allocated for {}", answer.len());
        assert_eq!(listing.entries.len(), usize::from(is_read), "{:?}", listing.malformed);
    }
}
