use super::{
    super::{json::MAX_LEN, vectors::records},
    *,
};
use crate::registry::{Endpoint, Node, Value};

#[test]
fn every_record_of_a_real_go_micro_is_read_and_written_to_the_byte() {
    let records: Vec<_> =
        records().into_iter().filter(|(key, _)| key.starts_with("/micro/registry/")).collect();
    assert_eq!(records.len(), 7);
    for (key, value) in records {
        let node = decode(value.as_bytes()).unwrap_or_else(|why| panic!("{key}: {why}"));
        let written = String::from_utf8(encode(&node).unwrap()).unwrap();
        assert_eq!(written, value, "{key}");
        assert_eq!(node.is_grpc(), !key.contains("mucp"), "{key}");
        let file = key.rsplit('/').next().unwrap();
        assert_eq!(node.id.replace('/', "-"), file);
    }
}

#[test]
fn records_of_other_kinds_are_errors_and_not_nodes() {
    let records: Vec<_> =
        records().into_iter().filter(|(key, _)| !key.starts_with("/micro/registry/")).collect();
    assert_eq!(records.len(), 8);
    for (key, value) in records {
        assert!(decode(value.as_bytes()).is_err(), "{key}");
    }
}

#[test]
fn the_helloworld_of_a_go_service_is_written_to_the_byte() {
    let value = |name: &str, kind: &str, values| Value {
        name: name.to_owned(),
        kind: kind.to_owned(),
        values,
    };
    let message =
        |name: &str, field: &str| Some(value(name, name, vec![value(field, "string", Vec::new())]));
    let mut node = Node::new(
        "helloworld",
        "helloworld-7f3c1c0e-6a53-4d0e-9a6b-0c5f0e5d1b11",
        "10.0.0.5:41597",
    );
    node.metadata
        .extend([("broker", "http"), ("registry", "etcd")].map(|(k, v)| (k.into(), v.into())));
    node.endpoints = vec![
        Endpoint {
            name: "Greeter.SayHello".to_owned(),
            request: message("HelloRequest", "name"),
            response: message("HelloReply", "message"),
            ..Endpoint::default()
        },
        Endpoint {
            name: "Greeter.Chat".to_owned(),
            request: Some(value("Context", "Context", Vec::new())),
            response: Some(value("Stream", "Stream", Vec::new())),
            metadata: [("stream".to_owned(), "true".to_owned())].into(),
        },
    ];
    let expected = concat!(
        r#"{"name":"helloworld","version":"latest","metadata":null,"endpoints":[{"request":"#,
        r#"{"name":"HelloRequest","type":"HelloRequest","values":[{"name":"name","type":"string","#,
        r#""values":null}]},"response":{"name":"HelloReply","type":"HelloReply","values":[{"#,
        r#""name":"message","type":"string","values":null}]},"metadata":{},"name":"#,
        r#""Greeter.SayHello"},{"request":{"name":"Context","type":"Context","values":null},"#,
        r#""response":{"name":"Stream","type":"Stream","values":null},"metadata":{"stream":"true"}"#,
        r#","name":"Greeter.Chat"}],"nodes":[{"metadata":{"broker":"http","protocol":"grpc","#,
        r#""registry":"etcd","server":"grpc","transport":"grpc"},"id":"#,
        r#""helloworld-7f3c1c0e-6a53-4d0e-9a6b-0c5f0e5d1b11","address":"10.0.0.5:41597"}]}"#,
    );
    let written = encode(&node).unwrap();
    assert_eq!(String::from_utf8(written.clone()).unwrap(), expected);
    assert_eq!(written.len(), 704);
    assert_eq!(decode(&written), Ok(node));
}

#[test]
fn a_service_without_methods_has_an_empty_list_and_a_bare_endpoint_nulls() {
    let mut node = Node::new("a", "a-1", "h:1");
    let text = String::from_utf8(encode(&node).unwrap()).unwrap();
    assert!(text.contains(r#""endpoints":[],"#), "{text}");
    node.endpoints.push(Endpoint { name: "A.B".to_owned(), ..Endpoint::default() });
    let text = String::from_utf8(encode(&node).unwrap()).unwrap();
    let bare = r#"[{"request":null,"response":null,"metadata":{},"name":"A.B"}]"#;
    assert!(text.contains(bare), "{text}");
}

#[test]
fn strings_are_escaped_as_go_escapes_them() {
    let mut node = Node::new("a", "a-1", "h:1");
    node.version =
        "<b>&\u{2028}\u{2029}/\"\\\n\r\t\u{8}\u{c}\u{1}\u{1f}\u{7f}\u{e9}\u{1f600}".to_owned();
    let written = encode(&node).unwrap();
    let text = String::from_utf8(written.clone()).unwrap();
    let expected = concat!(
        r#""version":"\u003cb\u003e\u0026\u2028\u2029/\"\\\n\r\t\b\f\u0001\u001f"#,
        "\u{7f}\u{e9}\u{1f600}\""
    );
    assert!(text.contains(expected), "{text}");
    assert_eq!(decode(&written), Ok(node));
}

#[test]
fn metadata_is_sorted_by_bytes_as_go_sorts_it() {
    let mut node = Node::new("a", "a-1", "h:1");
    node.metadata = ["b", "a", "B", "\u{e9}", "a.b"].map(|key| (key.into(), "1".into())).into();
    let text = String::from_utf8(encode(&node).unwrap()).unwrap();
    let expected = "{\"B\":\"1\",\"a\":\"1\",\"a.b\":\"1\",\"b\":\"1\",\"\u{e9}\":\"1\"}";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn missing_null_unknown_and_otherwise_cased_keys_are_no_error() {
    for record in [
        r#"{"name":"a","nodes":[{"id":"a-1","address":"h:1","metadata":{"protocol":"grpc"}}]}"#,
        r#"{"NAME":"a","Nodes":[{"ID":"a-1","Address":"h:1","MetaData":{"protocol":"grpc"}}]}"#,
        r#" { "name" : "a", "version":null, "metadata":null, "endpoints":null, "nodes":
            [{"id":"a-1","address":"h:1","metadata":{"protocol":"grpc"}}], "new":[{}]} "#,
        r#"{"name":"a","metadata":{"x":1},"endpoints":[null],"nodes":[{"id":"a-1","address":"h:1",
            "port":3,"metadata":{"protocol":"grpc"}}]}"#,
    ] {
        let node = decode(record.as_bytes()).unwrap_or_else(|why| panic!("{record}: {why}"));
        assert_eq!((node.service.as_str(), node.id.as_str()), ("a", "a-1"));
        assert!(node.version.is_empty() && node.endpoints.is_empty() && node.is_grpc(), "{record}");
    }
    let odd = r#"{"name":"a","nodes":[{"id":"a-1","address":null,"metadata":{"x":null}}],
        "endpoints":[{"name":"A.B","request":{"values":[null,{"type":"T"}]},"response":null}]}"#;
    let node = decode(odd.as_bytes()).unwrap();
    assert_eq!(node.metadata["x"], "");
    let request = node.endpoints[0].request.as_ref().unwrap();
    assert_eq!((request.values.len(), request.values[0].kind.as_str()), (1, "T"));
}

/// `micro` and its plugins before v2.
#[test]
fn the_port_that_go_micro_v1_had_apart_is_the_addresss() {
    let read = |address: &str, port: &str| {
        let record = format!(
            r#"{{"name":"go.micro.srv.greeter","version":"1.0.0","metadata":{{}},"endpoints":[],
                "nodes":[{{"id":"go.micro.srv.greeter-1","address":{address},"port":{port},
                "metadata":{{"protocol":"grpc"}}}}]}}"#
        );
        decode(record.as_bytes()).map(|node| node.address)
    };
    for (address, port, expected) in [
        (r#""10.0.0.5""#, "41597", "10.0.0.5:41597"),
        (r#""host""#, "1", "host:1"),
        (r#""fd00::1""#, "41597", "[fd00::1]:41597"),
        (r#""[fd00::1]""#, "41597", "[fd00::1]:41597"),
        (r#""10.0.0.5:1""#, "0", "10.0.0.5:1"),
        (r#""10.0.0.5:1""#, "null", "10.0.0.5:1"),
        // Later versions have it in the address, and nobody looks for it elsewhere.
        (r#""10.0.0.5:1""#, "2", "10.0.0.5:1"),
        (r#""[fd00::1]:1""#, "\"x\"", "[fd00::1]:1"),
    ] {
        assert_eq!(read(address, port).as_deref(), Ok(expected), "{address} {port}");
    }
    for (address, port, named) in [
        (r#""10.0.0.5""#, "0", "`nodes[0].address` is \"10.0.0.5\", not `host:port`"),
        (r#""fd00::1""#, "null", "`nodes[0].address` is \"fd00::1\", not `host:port`"),
        (r#""10.0.0.5""#, "70000", "`nodes[0].address` is \"10.0.0.5:70000\", not `host:port`"),
        (r#""10.0.0.5""#, "-1", "`nodes[0].address` is \"10.0.0.5:-1\", not `host:port`"),
        (r#""10.0.0.5""#, "\"1\"", "`nodes[0].port` is a string where an integer is expected"),
        ("null", "41597", "`nodes[0].address` is \"\", not `host:port`"),
    ] {
        let why = read(address, port).unwrap_err();
        assert_eq!(why, named, "{address} {port}");
    }
}

#[test]
fn the_key_as_written_wins_over_the_same_in_another_case() {
    let record = r#"{"NAME":"b","name":"a","nodes":[{"id":"a-1"}]}"#;
    assert_eq!(decode(record.as_bytes()).unwrap().service, "a");
}

#[test]
fn malformed_records_say_what_is_wrong_and_where() {
    let deep = format!("{}1{}", "[".repeat(200_000), "]".repeat(200_000));
    let nested = format!(
        r#"{{"name":"a","nodes":[{{"id":"1"}}],"endpoints":[{{"request":{}{}}}]}}"#,
        r#"{"values":["#.repeat(200),
        "]}".repeat(200)
    );
    let key =
        format!(r#"{{"name":"a","nodes":[{{"id":"1","metadata":{{"{}":1}}}}]}}"#, "k".repeat(999));
    let long = format!(r#"{{"name":"{}"}}"#, "a".repeat(MAX_LEN));
    let node = |rest: &str| format!(r#"{{"name":"a","nodes":[{{"id":"1",{rest}}}]}}"#);
    for (record, named) in [
        ("", "it is empty"),
        ("null", "it is `null`"),
        ("{", "not JSON"),
        ("{}x", "not JSON"),
        ("127.0.0.1:1", "not JSON"),
        ("[]", "`the record` is a list where an object is expected"),
        ("\"a\"", "`the record` is a string where an object is expected"),
        ("{}", "`name` is missing"),
        (r#"{"name":1}"#, "`name` is a number where a string is expected"),
        (r#"{"name":"\ud800"}"#, "not JSON"),
        (r#"{"name":"a"}"#, "`nodes` has 0 nodes where there must be one"),
        (r#"{"name":"a","nodes":[]}"#, "`nodes` has 0 nodes"),
        (r#"{"name":"a","nodes":{}}"#, "`nodes` is an object where a list is expected"),
        (r#"{"name":"a","nodes":[{},{}]}"#, "`nodes` has 2 nodes"),
        (r#"{"name":"a","nodes":[null]}"#, "`nodes[0]` is `null`"),
        (r#"{"name":"a","nodes":[true]}"#, "`nodes[0]` is a boolean where an object is expected"),
        (r#"{"name":"a","nodes":[{}]}"#, "`nodes[0].id` is missing"),
        (&node(r#""metadata":[]"#), "`nodes[0].metadata` is a list where an object is expected"),
        (&node(r#""metadata":{"a":{}}"#), "`nodes[0].metadata.a` is an object where a string"),
        (&node(r#""metadata":{"protocol":"grpc"}"#), "`nodes[0].address` is \"\", not `host:port`"),
        (
            &node(r#""metadata":{"protocol":"grpc"},"address":"h""#),
            "`nodes[0].address` is \"h\", not `host:port`",
        ),
        (r#"{"name":"a","version":[],"nodes":[{"id":"1"}]}"#, "`version` is a list"),
        (r#"{"name":"a","nodes":[{"id":"1"}],"endpoints":[1]}"#, "`endpoints[0]` is a number"),
        (
            r#"{"name":"a","nodes":[{"id":"1"}],"endpoints":[{"request":{"values":[{"name":1}]}}]}"#,
            "`endpoints[0].request.values[0].name` is a number",
        ),
        (&deep, "not JSON: recursion limit"),
        (&nested, "not JSON: recursion limit"),
        (&key, "`nodes[0].metadata.kkkk"),
        (&long, "over the limit of 1048576"),
    ] {
        let why = decode(record.as_bytes()).expect_err(&record[..record.len().min(80)]);
        assert!(why.contains(named), "{why} lacks {named}");
        assert!(why.len() < 300, "the reason must not carry the record: {why}");
    }
    assert!(decode(b"{\"name\":\"\xff\"}").unwrap_err().contains("not JSON"));
}

#[test]
fn a_record_cut_or_changed_anywhere_never_panics() {
    let (_, record) = records()[0];
    assert!(decode(record.as_bytes()).is_ok());
    for at in (0..record.len()).step_by(3) {
        assert!(decode(&record.as_bytes()[..at]).is_err(), "cut at {at}");
        for byte in [0, b'"', b'{', b']', b'1', 0xff] {
            let mut changed = record.as_bytes().to_vec();
            changed[at] = byte;
            let _ = decode(&changed);
        }
    }
}

#[test]
fn a_record_over_the_limit_is_not_written() {
    let mut node = Node::new("a", "a-1", "h:1");
    node.metadata.insert("x".to_owned(), "y".repeat(MAX_LEN));
    assert!(encode(&node).unwrap_err().contains("over the limit of 1048576"));
}
