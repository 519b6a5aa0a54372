use std::collections::BTreeMap;

use super::{super::Node, vectors::records, *};

const SOME: &[Format] = &[Format::Micro, Format::Kratos];

fn formats(query: &str, supported: &[Format]) -> Result<Vec<Format>, String> {
    let url = Url::parse(&format!("consul://127.0.0.1{query}")).unwrap();
    Format::of(&url, supported).map_err(|error| error.to_string())
}

#[test]
fn the_formats_of_a_url_are_those_it_names_in_its_order() {
    use Format::{Etcd, GoZero, Kitex, Kratos, Micro};
    let all = [Micro, GoZero, Kratos, Kitex, Etcd];
    for (query, expected) in [
        ("", vec![Micro]),
        ("?tls=true", vec![Micro]),
        ("?format=kratos", vec![Kratos]),
        ("?format=kratos,micro", vec![Kratos, Micro]),
        ("?format=micro%2Ckratos", vec![Micro, Kratos]),
        ("?format=etcd,kitex,kratos,go-zero,micro", vec![Etcd, Kitex, Kratos, GoZero, Micro]),
    ] {
        assert_eq!(formats(query, &all), Ok(expected), "{query}");
    }
}

#[test]
fn what_is_no_format_here_is_refused_with_those_that_are() {
    for (query, named) in [
        ("?format=", "option `format` names none; consul:// has micro, kratos"),
        ("?format=dubbo", "option `format`: unknown `dubbo`; consul:// has micro, kratos"),
        ("?format=micro,kitex", "unknown `kitex`; consul:// has micro, kratos"),
        ("?format=Micro", "unknown `Micro`"),
        ("?format=micro,", "unknown ``"),
        ("?format=micro,+kratos", "unknown ` kratos`"),
        ("?format=micro%0A", "unknown `micro\\n`"),
        ("?format=kratos,kratos", "option `format` names kratos twice"),
    ] {
        let error = formats(query, SOME).unwrap_err();
        assert!(error.contains(named), "{query}: {error}");
    }
}

pub(super) type Decode = fn(&[u8]) -> Result<Node, String>;

/// Every decoder of a value, with what else it is told filled in.
pub(super) const DECODERS: [(&str, Decode); 7] = [
    ("micro", |bytes| gomicro::decode(bytes)),
    ("micro's text", |bytes| gomicro::decode_text(bytes, "a-1", "h:1".to_owned())),
    ("kratos", |bytes| kratos::decode(bytes)),
    ("kitex", |bytes| kitex::decode(bytes, "a")),
    ("kitex's entry", |bytes| kitex::decode_entry(bytes, "a", "h:1")),
    ("etcd", |bytes| etcd_naming::decode(bytes, "a", "a-1")),
    ("go-zero", |bytes| go_zero::decode(bytes, "a", "a-1")),
];

fn metadata(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A node that says `grpc` and this.
fn node(service: &str, id: &str, address: &str, facts: &[(&str, &str)]) -> Node {
    let mut node = Node::new(service, id, address);
    node.metadata.extend(metadata(facts));
    node
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn every_record_of_a_real_peer_is_read_and_written_to_the_byte() {
    let mut read = Vec::new();
    for (key, value) in records() {
        let last = key.rsplit('/').next().unwrap();
        let bytes = value.as_bytes();
        let (node, written) = if key.starts_with("/microservices/") {
            let node = kratos::decode(bytes).unwrap();
            assert_eq!(key, format!("/microservices/{}/{}", node.service, node.id));
            // Our nodes have no other endpoint.
            let written = text(kratos::encode(&node).unwrap());
            (node, written.replace("7821\"]", "7821\",\"http://127.0.0.1:39893\"]"))
        } else if key.starts_with("kitex/") {
            let node = kitex::decode(bytes, "echo").unwrap();
            assert_eq!(last, node.id);
            let written = text(kitex::encode(&node).unwrap());
            (node, written)
        } else if key.starts_with("grpcgo/") {
            let node = etcd_naming::decode(bytes, "grpcgo/echo", last).unwrap();
            let written = text(etcd_naming::encode(&node).unwrap());
            (node, written)
        } else if key.starts_with("echo.rpc/") {
            let node = go_zero::decode(bytes, "echo.rpc", last).unwrap();
            let written = text(go_zero::encode(&node));
            (node, written)
        } else {
            continue;
        };
        assert_eq!(written, value, "{key}");
        assert!(node.is_grpc());
        read.push((node.address, node.version, node.metadata));
    }
    let read = |address: &str| read.iter().find(|read| read.0 == address).unwrap();
    let grpc = [("protocol", "grpc"), ("server", "grpc"), ("transport", "grpc")];
    let and = |facts: &[(&str, &str)]| metadata(&[&grpc[..], facts].concat());
    for (address, version, facts) in [
        ("127.0.0.1:7821", "v1.0.0", and(&[])),
        ("127.0.0.1:7822", "v1.0.0", and(&[("weight", "100"), ("zone", "a")])),
        ("192.0.2.2:7823", "v1.0.0", and(&[])),
        ("127.0.0.1:7831", "latest", and(&[("weight", "10")])),
        ("127.0.0.1:7832", "latest", and(&[("weight", "10"), ("zone", "a")])),
        ("127.0.0.1:7801", "latest", and(&[])),
        ("127.0.0.1:7802", "latest", and(&[("zone", "a")])),
        ("127.0.0.1:7811", "latest", and(&[])),
    ] {
        assert_eq!(*read(address), (address.to_owned(), version.to_owned(), facts));
    }
}

#[test]
fn our_own_node_is_in_every_format_what_a_peer_would_write() {
    let mut ours = node("greeter", "greeter-1", "10.0.3.7:9000", &[("weight", "3"), ("a", "<b>")]);
    ours.version = "v2".to_owned();
    assert_eq!(
        text(kratos::encode(&ours).unwrap()),
        concat!(
            r#"{"id":"greeter-1","name":"greeter","version":"v2","#,
            r#""metadata":{"a":"\u003cb\u003e","weight":"3"},"endpoints":["grpc://10.0.3.7:9000"]}"#
        )
    );
    assert_eq!(
        kratos::decode(&kratos::encode(&ours).unwrap()),
        Ok(ours.clone()),
        "nothing is lost"
    );
    assert_eq!(
        text(kitex::encode(&ours).unwrap()),
        r#"{"network":"tcp","address":"10.0.3.7:9000","weight":3,"tags":{"a":"\u003cb\u003e"}}"#
    );
    assert_eq!(
        text(kitex::encode_entry(&ours).unwrap()),
        r#"{"Weight":3,"Tags":{"a":"\u003cb\u003e"}}"#
    );
    assert_eq!(
        text(etcd_naming::encode(&ours).unwrap()),
        r#"{"Op":0,"Addr":"10.0.3.7:9000","Metadata":{"a":"\u003cb\u003e","weight":"3"}}"#
    );
    assert_eq!(go_zero::encode(&ours), b"10.0.3.7:9000");
    // What is neither gRPC's nor ours to leave out stays.
    ours.metadata.insert("server".to_owned(), "tonic".to_owned());
    assert!(text(etcd_naming::encode(&ours).unwrap()).contains(r#""server":"tonic""#));
    for weight in ["0", "-1", "1.5", "", "much", "99999999999999999999"] {
        ours.metadata.insert("weight".to_owned(), weight.to_owned());
        assert!(text(kitex::encode(&ours).unwrap()).contains(r#""weight":10,"#), "{weight}");
    }
}

#[test]
fn tls_is_a_scheme_in_kratos_and_in_a_nodes_metadata() {
    let ours = node("greeter", "greeter-1", "h:1", &[("scheme", "grpcs")]);
    let record = text(kratos::encode(&ours).unwrap());
    assert!(record.contains(r#""metadata":null,"endpoints":["grpcs://h:1"]"#), "{record}");
    assert_eq!(kratos::decode(record.as_bytes()), Ok(ours));
}

#[test]
fn kratos_nodes_are_called_at_their_first_endpoint_for_grpc() {
    let decode = |endpoints: &str| {
        let record = format!(
            r#"{{"ID":"1","Name":"a","Version":null,"MetaData":{{"protocol":"x","b":null}},
                "endpoints":{endpoints},"unknown":[{{}}]}}"#
        );
        kratos::decode(record.as_bytes()).unwrap()
    };
    for (endpoints, address, scheme) in [
        (r#"["http://h:1","grpc://h:2","grpc://h:3"]"#, "h:2", None),
        (r#"["grpcs://h:1","GRPC://h:2?isSecure=false"]"#, "h:2", None),
        (r#"["https://h:1",null,"grpcs://[::1]:2/?a#b"]"#, "[::1]:2", Some("grpcs")),
    ] {
        let node = decode(endpoints);
        assert!(node.is_grpc(), "{endpoints}");
        assert_eq!(node.address, address);
        assert_eq!(node.metadata.get("scheme").map(String::as_str), scheme);
        assert_eq!(node.metadata["b"], "");
    }
    // Not for us, and nothing is wrong with it.
    for (endpoints, protocol) in [
        (r#"["http://h:1"]"#, Some("http")),
        (r#"["ws://h:1?x","http://h:2"]"#, Some("ws")),
        ("[]", None),
        ("null", None),
        (r#"["", "grpc"]"#, None),
    ] {
        let node = decode(endpoints);
        assert!(!node.is_grpc(), "{endpoints}");
        assert_eq!(node.metadata.get("protocol").map(String::as_str), protocol);
        assert_eq!(node.address, if protocol.is_some() { "h:1" } else { "" });
    }
}

#[test]
fn whatever_a_go_peer_may_write_is_read() {
    let kitex = |record: &str| kitex::decode(record.as_bytes(), "a").unwrap();
    for (record, facts) in [
        (r#"{"address":"h:1"}"#, vec![("weight", "10")]),
        (r#"{"network":null,"address":"h:1","weight":null,"tags":null}"#, vec![("weight", "10")]),
        (r#"{"network":"tcp4","address":"h:1","weight":-5,"tags":{}}"#, vec![("weight", "10")]),
        (
            r#"{"NETWORK":"tcp","Address":"h:1","Weight":7,"TAGS":{"z":"a","protocol":"x"},"x":0}"#,
            vec![("weight", "7"), ("z", "a")],
        ),
    ] {
        assert_eq!(kitex(record), node("a", "h:1", "h:1", &facts), "{record}");
    }
    let entry = |record: &str| kitex::decode_entry(record.as_bytes(), "a", "h:1").unwrap();
    for record in [r#"{"Weight":7,"Tags":{"z":"a"}}"#, r#"{"weight":7,"tags":{"z":"a"}}"#] {
        assert_eq!(entry(record), node("a", "h:1", "h:1", &[("weight", "7"), ("z", "a")]));
    }
    let etcd = |record: &str| etcd_naming::decode(record.as_bytes(), "a", "a-1").unwrap();
    for (record, facts) in [
        (r#"{"Addr":"h:1"}"#, vec![]),
        (r#"{"op":null,"ADDR":"h:1","metadata":"x"}"#, vec![]),
        (r#"{"Op":0,"Addr":"h:1","Metadata":["x"],"Attributes":null}"#, vec![]),
        (
            r#"{"Op":0,"Addr":"h:1","Metadata":{"a":"b","n":1.5,"t":true,"o":{},"l":[],"x":null}}"#,
            vec![("a", "b"), ("n", "1.5"), ("t", "true")],
        ),
    ] {
        assert_eq!(etcd(record), node("a", "a-1", "h:1", &facts), "{record}");
    }
    let go_zero = go_zero::decode(b"[::1]:8080", "user.rpc", "7587870460981677828").unwrap();
    assert_eq!(go_zero, node("user.rpc", "7587870460981677828", "[::1]:8080", &[]));
}

#[test]
fn malformed_records_say_what_is_wrong_and_where() {
    let decode = |format: &str, record: &str| {
        let (_, decode) = DECODERS.iter().find(|(name, _)| *name == format).unwrap();
        decode(record.as_bytes()).expect_err(record)
    };
    for (format, record, named) in [
        ("kratos", "", "it is empty"),
        ("kratos", "null", "it is `null`"),
        ("kratos", r#"{"id":"1"}"#, "`name` is missing"),
        ("kratos", r#"{"name":"a"}"#, "`id` is missing"),
        ("kratos", r#"{"name":"a","id":1}"#, "`id` is a number where a string is expected"),
        ("kratos", r#"{"id":"1","name":"a","metadata":{"x":1}}"#, "`metadata.x` is a number"),
        ("kratos", r#"{"id":"1","name":"a","endpoints":{}}"#, "`endpoints` is an object"),
        ("kratos", r#"{"id":"1","name":"a","endpoints":["",1]}"#, "`endpoints[1]` is a number"),
        (
            "kratos",
            r#"{"id":"1","name":"a","endpoints":["http://h:1","grpc://h"]}"#,
            "`endpoints` has \"grpc://h\", which has no `host:port`",
        ),
        ("kitex", "127.0.0.1:1", "not JSON"),
        ("kitex", "{}", "`address` is \"\", not `host:port`"),
        ("kitex", r#"{"network":"unix","address":"/tmp/a"}"#, "`network` is \"unix\", not `tcp`"),
        ("kitex", r#"{"address":"h:1","weight":1.5}"#, "`weight` is 1.5, not an integer"),
        ("kitex", r#"{"address":"h:1","weight":"1"}"#, "`weight` is a string where an integer"),
        ("kitex", r#"{"address":"h:1","weight":1e999}"#, "not JSON: number out of range"),
        ("kitex", r#"{"address":"h:1","weight":18446744073709551615}"#, "not an integer"),
        ("kitex", r#"{"address":"h:1","tags":[]}"#, "`tags` is a list"),
        ("kitex's entry", r#"{"Tags":{"a":{}}}"#, "`tags.a` is an object"),
        ("etcd", r#"{"Op":1,"Addr":"h:1"}"#, "`Op` is 1, not 0"),
        ("etcd", r#"{"Op":0}"#, "`Addr` is \"\", not `host:port`"),
        ("etcd", r#"{"Op":0,"Addr":7}"#, "`Addr` is a number"),
        ("go-zero", "", "it is \"\", not `host:port`"),
        ("go-zero", "127.0.0.1", "it is \"127.0.0.1\", not `host:port`"),
        ("go-zero", "h:1\n", "it is \"h:1\\n\", not"),
        ("go-zero", r#"{"Op":0,"Addr":"h:1"}"#, "not `host:port`"),
    ] {
        let why = decode(format, record);
        assert!(why.contains(named), "{format} {record}: {why} lacks {named}");
    }
    assert!(go_zero::decode(b"h:\xff", "a", "1").unwrap_err().contains("UTF-8"));
}

#[test]
fn bombs_are_refused_in_every_format() {
    let long = format!(r#"{{"x":"{}"}}"#, "a".repeat(1024 * 1024));
    let deep = format!(r#"{{"x":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    let open = r#"{"tags":"#.repeat(100_000);
    for (format, decode) in DECODERS {
        assert!(decode(long.as_bytes()).unwrap_err().contains("over the limit of 1048576"));
        for bomb in [&deep, &open, r#"{"weight":1e99999}"#] {
            let why = decode(bomb.as_bytes()).expect_err(format);
            assert!(why.len() < 1000, "the reason must not carry the record: {why}");
            assert!(format == "go-zero" || why.contains("not JSON"), "{format}: {why}");
        }
    }
    let mut node = Node::new("a", "a-1", "h:1");
    node.metadata.insert("x".to_owned(), "y".repeat(1024 * 1024));
    for record in [kratos::encode(&node), kitex::encode(&node), etcd_naming::encode(&node)] {
        assert!(record.unwrap_err().contains("over the limit of 1048576"));
    }
}
