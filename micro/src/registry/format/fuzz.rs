//! Whatever somebody writes into a registry, no decoder panics or takes more memory than it should.
//! The inputs begin as records of real peers and of ours, and are changed in their structure first.
//!
//! `MICRO_FUZZ_INPUTS` says how many there are; each follows from its number alone.

use std::{
    alloc::System,
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
};

use fastrand::Rng;
use serde_json::{Map, Number, Value as Json, json};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use super::{
    super::Node,
    etcd_naming, go_zero, gomicro, kitex, kratos,
    tests::{DECODERS, Decode},
    vectors::records,
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// How many inputs there are when nobody says: some seconds of a debug build.
const INPUTS: u64 = 2_000;

/// The bytes that a decoder may allocate for each of a record's, all told, and for any record.
const PER_BYTE: usize = 64;
const FOR_ANY: usize = 2048;

/// How often one is measured that takes more: tests beside this one allocate, too.
const MEASURED: usize = 200;

/// One test at a time: what another allocates is counted, too.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

static SEEDS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut seeds: Vec<_> = records().into_iter().map(|(_, value)| value.into()).collect();
    let mut ours = Node::new("greeter", "greeter-1", "127.0.0.1:1");
    ours.metadata.extend([("weight", "7"), ("zone", "<a>")].map(|(k, v)| (k.into(), v.into())));
    seeds.extend([kratos::encode, kitex::encode, kitex::encode_entry].map(|it| it(&ours).unwrap()));
    seeds.extend([etcd_naming::encode, gomicro::encode_text].map(|it| it(&ours).unwrap()));
    seeds.push(go_zero::encode(&ours));
    seeds
});

/// What decoders look for.
const KEYS: [&str; 18] = [
    "name",
    "NODES",
    "id",
    "address",
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

const TEXTS: [&str; 14] = [
    "",
    "h:1",
    "[::1]:1",
    "h",
    "h:0",
    ":",
    "://",
    "grpc://",
    "grpc://h:1?isSecure=false",
    "grpcs://[",
    "http://h:1",
    "grpc",
    "\u{0}\u{2028}<&>",
    "\u{10ffff}",
];

/// What may stand in the midst of a record, as bytes.
const PIECES: [&[u8]; 12] = [
    b"1e999",
    b"-0",
    b"99999999999999999999999",
    b"null",
    b"\"\\ud800\"",
    b"\"\\u0000\"",
    b"\xff",
    b"{",
    b"[",
    b"\"a\":",
    b",",
    b"  ",
];

fn inputs() -> u64 {
    env::var("MICRO_FUZZ_INPUTS")
        .map_or(INPUTS, |inputs| inputs.parse().expect("MICRO_FUZZ_INPUTS is a number of inputs"))
}

#[test]
fn no_record_panics_or_takes_more_memory_than_it_should() {
    let _alone = alone();
    let inputs = inputs();
    let mut decoded = [0_u64; DECODERS.len()];
    for number in 0..inputs {
        let bytes = input(&mut Rng::with_seed(number));
        let run = || DECODERS.map(|(format, decode)| check(format, decode, &bytes));
        let Ok(are_nodes) = catch_unwind(AssertUnwindSafe(run)) else {
            let start = bytes[..bytes.len().min(2000)].escape_ascii();
            panic!("input {number}, {} bytes: {start}", bytes.len());
        };
        for (count, is_node) in decoded.iter_mut().zip(are_nodes) {
            *count += u64::from(is_node);
        }
    }
    // Of every 200 inputs at least one is still a record in each format, or little would be tried.
    let fewest = decoded.iter().min().unwrap_or(&0);
    assert!(*fewest >= inputs / 200, "{decoded:?} of {inputs}");
}

/// go-micro's tags in Consul, plain and deflated: what is inflated may be long, the tag is not.
#[test]
fn no_tag_panics_or_takes_more_memory_than_a_record_may_hold() {
    use super::{gomicro::tag, json::MAX_LEN};

    let _alone = alone();
    let mut ours = Node::new("greeter", "greeter-1", "127.0.0.1:1");
    ours.metadata.insert("zone".to_owned(), "<a>".to_owned());
    let deflated = tag::encode_tags(&ours).unwrap();
    let mut read = 0;
    for number in 0..inputs() {
        let rng = &mut Rng::with_seed(number);
        let tags: Vec<_> = (0..rng.usize(1..4))
            .map(|_| match rng.bool() {
                true => [b"t=", b"e=", b"v="][rng.usize(..3)]
                    .iter()
                    .copied()
                    .chain(input(rng))
                    .collect(),
                false => {
                    let mut tag = deflated[rng.usize(..deflated.len())].clone().into_bytes();
                    (0..rng.usize(..3)).for_each(|_| cut(&mut tag, rng));
                    tag
                }
            })
            .map(|tag: Vec<u8>| String::from_utf8_lossy(&tag).into_owned())
            .collect();
        let length: usize = tags.iter().map(String::len).sum();
        let most = PER_BYTE * (length + MAX_LEN) + FOR_ANY;
        let run = || allocated(most, || tag::decode_tags(tags.iter().map(String::as_str)));
        let Ok((decoded, took)) = catch_unwind(AssertUnwindSafe(run)) else {
            panic!("input {number}: {tags:?}");
        };
        assert!(took <= most, "input {number}: {took} bytes allocated for {length}");
        match decoded {
            Ok(_) => read += 1,
            Err(why) => assert!(!why.is_empty() && why.len() < 1000, "{why}"),
        }
    }
    assert!(read >= inputs() / 20, "{read} of {}", inputs());
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

/// What comes of it, and the bytes that it allocated, measured anew while those are too many.
fn allocated<T>(most: usize, run: impl Fn() -> T) -> (T, usize) {
    let measured = || {
        let region = Region::new(&INSTRUMENTED_SYSTEM);
        let outcome = run();
        (outcome, region.change().bytes_allocated)
    };
    let (outcome, mut took) = measured();
    for _ in 1..MEASURED {
        if took <= most {
            break;
        }
        took = took.min(measured().1);
    }
    (outcome, took)
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

fn input(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = SEEDS[rng.usize(..SEEDS.len())].clone();
    if let Ok(mut json) = serde_json::from_slice::<Json>(&bytes) {
        for _ in 0..rng.usize(..4) {
            change(&mut json, rng);
        }
        bytes = json.to_string().into_bytes();
    }
    for _ in 0..[0, 0, 1, 3][rng.usize(..4)] {
        cut(&mut bytes, rng);
    }
    bytes
}

/// Changes something somewhere in the tree.
fn change(json: &mut Json, rng: &mut Rng) {
    let goes_on = rng.u8(..4) > 0;
    match json {
        Json::Array(items) if goes_on && !items.is_empty() => {
            let index = rng.usize(..items.len());
            match rng.u8(..8) {
                0 => drop(items.remove(index)),
                1 => items.push(items[index].clone()),
                _ => change(&mut items[index], rng),
            }
        }
        Json::Object(fields) if goes_on && !fields.is_empty() => {
            let index = rng.usize(..fields.len());
            let Some(key) = fields.keys().nth(index).cloned() else { return };
            match rng.u8(..8) {
                0 => drop(fields.remove(&key)),
                1 => rename(fields, &key, &key.to_uppercase()),
                2 => rename(fields, &key, KEYS[rng.usize(..KEYS.len())]),
                3 => {
                    fields.insert(KEYS[rng.usize(..KEYS.len())].to_owned(), value(rng));
                }
                _ => fields.values_mut().nth(index).into_iter().for_each(|it| change(it, rng)),
            }
        }
        json => *json = value(rng),
    }
}

fn rename(fields: &mut Map<String, Json>, from: &str, to: &str) {
    if let Some(value) = fields.remove(from) {
        fields.insert(to.to_owned(), value);
    }
}

fn value(rng: &mut Rng) -> Json {
    let depth = rng.usize(..200);
    match rng.u8(..14) {
        0 => vec![leaf(rng); rng.usize(..300)].into(),
        1 => (0..depth).map(|n| (n.to_string(), leaf(rng))).collect(),
        2 => (0..depth).fold(leaf(rng), |inner, _| json!([inner])),
        3 => (0..depth / 3).fold(json!({}), |inner, _| json!({ "values": [inner] })),
        4 => TEXTS[rng.usize(..TEXTS.len())].repeat(depth).into(),
        _ => leaf(rng),
    }
}

fn leaf(rng: &mut Rng) -> Json {
    match rng.u8(..12) {
        0 => Json::Null,
        1 => json!(rng.bool()),
        2 => json!([0, -1, i64::MIN, i64::MAX, 7][rng.usize(..5)]),
        3 => json!(u64::MAX),
        4 => Number::from_f64([1e308, -0.5, 1e-300][rng.usize(..3)]).into(),
        5 => json!({}),
        6 => json!([]),
        _ => TEXTS[rng.usize(..TEXTS.len())].into(),
    }
}

/// Changes the bytes, whatever they mean.
fn cut(bytes: &mut Vec<u8>, rng: &mut Rng) {
    let length = bytes.len();
    if length == 0 {
        return;
    }
    let (at, other) = (rng.usize(..length), rng.usize(..length));
    match rng.u8(..5) {
        0 => bytes[at] = rng.u8(..),
        1 => bytes.truncate(at),
        2 => {
            bytes.splice(at..at, PIECES[rng.usize(..PIECES.len())].iter().copied());
        }
        3 => {
            let part = bytes[at..length.min(at + 40)].to_vec();
            bytes.splice(other..other, part);
        }
        _ => drop(bytes.drain(at.min(other)..at.max(other))),
    }
}
