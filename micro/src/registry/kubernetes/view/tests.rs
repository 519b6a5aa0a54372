use serde_json::{Value as Json, json};

use super::*;

/// A slice in short: `a@10.1.0.1` is the pod `a`, without a letter before the `@` there is no pod;
/// behind it, `r`, `s` and `t` say ready, serving and terminating, in capitals when they are not,
/// and a zone follows a slash.
fn slice(name: &str, version: u64, endpoints: &[&str]) -> EndpointSlice {
    let mut is_ipv6 = false;
    let mut endpoint = |short: &&str| {
        let (short, zone) = match short.split_once('/') {
            Some((short, zone)) => (short, json!(zone)),
            None => (*short, Json::Null),
        };
        let (pod, rest) = short.split_once('@').unwrap();
        let (address, flags) = rest.split_once(' ').unwrap_or((rest, ""));
        is_ipv6 |= address.contains(':');
        let condition = |yes, no| match (flags.contains(yes), flags.contains(no)) {
            (true, _) => json!(true),
            (_, true) => json!(false),
            _ => Json::Null,
        };
        let target =
            if pod.is_empty() { Json::Null } else { json!({ "kind": "Pod", "name": pod }) };
        json!({
            "addresses": [address], "targetRef": target, "zone": zone,
            "conditions": {
                "ready": condition('r', 'R'),
                "serving": condition('s', 'S'),
                "terminating": condition('t', 'T'),
            },
        })
    };
    let endpoints: Vec<_> = endpoints.iter().map(&mut endpoint).collect();
    let json = json!({
        "metadata": { "name": name, "resourceVersion": version.to_string() },
        "addressType": if is_ipv6 { "IPv6" } else { "IPv4" },
        "endpoints": endpoints,
        "ports": [{ "name": "grpc", "port": 9000 }],
    });
    serde_json::from_value(json).unwrap()
}

fn pod(name: &str, version: u64, record: Option<&Node>) -> Pod {
    let place = [Place::of(Format::Micro, "greeter").unwrap()];
    let mut json = match record {
        Some(record) => Place::write(&place, record, crate::registry::Lease(1)).unwrap(),
        None => json!({ "metadata": {} }),
    };
    json["metadata"]["name"] = json!(name);
    json["metadata"]["resourceVersion"] = json!(version.to_string());
    json["status"] = json!({ "phase": "Running" });
    serde_json::from_value(json).unwrap()
}

fn view() -> View {
    View::new(Target::parse("greeter").unwrap(), vec![Place::of(Format::Micro, "greeter").unwrap()])
}

/// What has changed, in short: `+KEY@ADDRESS`, `-KEY`, `?KEY`.
fn changes(view: &mut View) -> String {
    let short = |event| match event {
        Event::Put(entry) => format!("+{}@{}", entry.key, entry.node.address),
        Event::Delete(key) => format!("-{key}"),
        Event::Malformed(malformed) => format!("?{}", malformed.key),
        Event::Reset(_) => panic!("changes, not all"),
    };
    view.changes().into_iter().map(short).collect::<Vec<_>>().join(" ")
}

fn node(view: &mut View, id: &str) -> Node {
    let listing = view.listing(1);
    let entry = listing.entries.iter().find(|entry| entry.node.id == id);
    Node::clone(&entry.expect("it is there").node)
}

#[test]
fn a_node_is_its_pod_or_its_address() {
    let mut view = view();
    view.slice(&slice("s", 1, &["a@10.1.0.1 rsT/zone-a", "@10.1.0.2"]));
    assert_eq!(
        changes(&mut view),
        "+endpoints/10.1.0.2:9000@10.1.0.2:9000 +endpoints/a@10.1.0.1:9000"
    );
    let a = node(&mut view, "a");
    assert_eq!((a.service.as_str(), a.version.as_str()), ("greeter", "latest"));
    assert!(a.is_grpc());
    assert_eq!(a.metadata["zone"], "zone-a");
    assert_eq!(changes(&mut view), "", "all is told");
}

#[test]
fn conditions_say_who_is_called() {
    for (flags, is_called) in [
        ("rsT", true),
        ("", true),
        ("r", true),
        ("T", true),
        ("RST", false),
        ("RsT", false),
        ("R", false),
        // As the controller has it, and as it has it where not ready ones are published too.
        ("Rst", false),
        ("RSt", false),
        ("rst", false),
    ] {
        let mut view = view();
        view.slice(&slice("s", 1, &["a@10.1.0.1 rsT", &format!("b@10.1.0.2 {flags}")]));
        let listing = view.listing(1);
        assert_eq!(listing.entries.len(), 1 + usize::from(is_called), "{flags:?}");
    }
}

#[test]
fn an_endpoint_leaves_as_the_controller_has_it() {
    let mut view = view();
    view.slice(&slice("s", 1, &["a@10.1.0.1 rsT", "b@10.1.0.2 rsT"]));
    changes(&mut view);
    view.slice(&slice("s", 2, &["a@10.1.0.1 Rst", "b@10.1.0.2 rsT"]));
    assert_eq!(changes(&mut view), "-endpoints/a");
    view.slice(&slice("s", 3, &["a@10.1.0.1 RSt", "b@10.1.0.2 rsT"]));
    assert_eq!(changes(&mut view), "");
    view.slice(&slice("s", 4, &["b@10.1.0.2 rsT"]));
    assert_eq!(changes(&mut view), "");
    // The last ones leave, all at once: they still answer.
    view.slice(&slice("s", 5, &["b@10.1.0.2 Rst"]));
    assert_eq!(changes(&mut view), "", "called as long as there is none that is ready");
    view.slice(&slice("s", 6, &["b@10.1.0.2 Rst", "c@10.1.0.3 RsT", "d@10.1.0.4 RST"]));
    assert_eq!(changes(&mut view), "+endpoints/c@10.1.0.3:9000");
    view.slice(&slice("s", 7, &["b@10.1.0.2 Rst", "c@10.1.0.3 rsT"]));
    assert_eq!(changes(&mut view), "-endpoints/b");
    view.slice_gone("s");
    assert_eq!(changes(&mut view), "-endpoints/c");
}

#[test]
fn slices_are_one_list_and_a_change_of_one_is_none_of_the_others() {
    let mut view = view();
    view.slice(&slice("s", 1, &["a@10.1.0.1", "b@10.1.0.2"]));
    view.slice(&slice("t", 2, &["c@10.1.0.3", "b@10.1.0.2"]));
    assert_eq!(view.listing(2).entries.len(), 3, "an address in two slices is one node");
    view.slice(&slice("s", 3, &["a@10.1.0.1"]));
    assert_eq!(changes(&mut view), "");
    view.slice_gone("t");
    assert_eq!(changes(&mut view), "-endpoints/b -endpoints/c");
    // Of two slices that disagree, the one written last knows.
    view.slice(&slice("t", 9, &["a@10.1.0.1 Rst", "d@10.1.0.4"]));
    assert_eq!(changes(&mut view), "+endpoints/d@10.1.0.4:9000 -endpoints/a");
    // An address that one pod has left and another has got.
    view.slice(&slice("u", 10, &["e@10.1.0.5 Rst", "f@10.1.0.5", "d@10.1.0.4"]));
    assert_eq!(changes(&mut view), "+endpoints/f@10.1.0.5:9000");
    // The same in two slices: the one that is written last tells of its own pod.
    view.slice(&slice("v", 11, &["g@10.1.0.5 RSt"]));
    assert_eq!(changes(&mut view), "");
    view.slice(&slice("v", 12, &["g@10.1.0.5"]));
    assert_eq!(changes(&mut view), "+endpoints/g@10.1.0.5:9000 -endpoints/f");
}

#[test]
fn ipv6_is_written_in_brackets_and_a_pod_of_two_families_is_one_node() {
    let mut view = view();
    view.slice(&slice("six", 1, &["a@fd00:1::1", "b@fd00:1::2"]));
    assert_eq!(changes(&mut view), "+endpoints/a@[fd00:1::1]:9000 +endpoints/b@[fd00:1::2]:9000");
    view.slice(&slice("four", 2, &["a@10.1.0.1"]));
    assert_eq!(changes(&mut view), "+endpoints/a@10.1.0.1:9000");
    view.slice_gone("four");
    assert_eq!(changes(&mut view), "+endpoints/a@[fd00:1::1]:9000");
}

#[test]
fn a_slice_whose_port_is_not_clear_spoils_no_other() {
    let mut view = view();
    let mut unclear = slice("unclear", 1, &["a@10.1.0.1"]);
    let ports = json!([{ "name": "http", "port": 80 }, { "name": "metrics", "port": 90 }]);
    unclear.ports = serde_json::from_value(ports).unwrap();
    view.slice(&unclear);
    view.slice(&slice("clear", 2, &["b@10.1.0.2"]));
    assert_eq!(changes(&mut view), "+endpoints/b@10.1.0.2:9000 ?slices/unclear");
    let listing = view.listing(2);
    assert!(listing.malformed[0].reason.contains("http=80, metrics=90"), "{listing:?}");
    view.slice(&slice("unclear", 3, &["a@10.1.0.1"]));
    assert_eq!(changes(&mut view), "+endpoints/a@10.1.0.1:9000 -slices/unclear");
}

#[test]
fn a_slice_whose_port_is_not_clear_still_says_which_pods_are_not_called() {
    let mut view = view();
    view.pod(0, &pod("a", 1, Some(&Node::new("greeter", "greeter-1", "10.1.0.1:9000"))));
    view.pod(0, &pod("b", 2, Some(&Node::new("greeter", "greeter-2", "10.1.0.2:9000"))));
    let mut unclear = slice("unclear", 3, &["a@10.1.0.1 RST", "b@10.1.0.2 rsT"]);
    unclear.ports = serde_json::from_value(json!([{ "port": 80 }, { "port": 90 }])).unwrap();
    view.slice(&unclear);
    assert_eq!(changes(&mut view), "+pods/b/greeter-2@10.1.0.2:9000 ?slices/unclear");
}

#[test]
fn zone_hints_are_kept() {
    let mut view = view();
    let mut hinted = slice("s", 1, &["a@10.1.0.1/zone-a", "b@10.1.0.2"]);
    let hints = json!({ "forZones": [{ "name": "zone-b" }, { "name": "zone-c" }] });
    for endpoint in &mut hinted.endpoints {
        endpoint.hints = serde_json::from_value(hints.clone()).unwrap();
    }
    view.slice(&hinted);
    for (id, zone) in [("a", "zone-a"), ("b", "zone-b")] {
        let node = node(&mut view, id);
        assert_eq!(node.metadata["zone"], zone);
        assert_eq!(node.metadata["zone-hints"], "zone-b,zone-c");
    }
}

#[test]
fn a_pods_record_tells_more_of_a_node_and_stands_alone_where_no_slice_has_it() {
    let mut view = view();
    let mut record = Node::new("greeter", "greeter-1", "10.1.0.1:9000");
    record.version = "1.2.0".to_owned();
    record.metadata.insert("color".to_owned(), "red".to_owned());
    view.pod(0, &pod("a", 1, Some(&record)));
    assert_eq!(changes(&mut view), "+pods/a/greeter-1@10.1.0.1:9000");

    view.slice(&slice("s", 2, &["a@10.1.0.1 rsT/zone-a"]));
    assert_eq!(changes(&mut view), "+endpoints/a@10.1.0.1:9000 -pods/a/greeter-1");
    let found = node(&mut view, "a");
    assert_eq!(found.version, "1.2.0");
    assert_eq!((&*found.metadata["color"], &*found.metadata["zone"]), ("red", "zone-a"));

    // Whether it may be called is the slice's word alone.
    view.slice(&slice("s", 3, &["a@10.1.0.1 RST", "b@10.1.0.2"]));
    assert_eq!(changes(&mut view), "+endpoints/b@10.1.0.2:9000 -endpoints/a");

    // A record at the address of an endpoint without a pod; and one of a node that is no gRPC.
    let mut mucp = Node::new("greeter", "greeter-2", "10.1.0.2:8080");
    mucp.metadata.insert("protocol".to_owned(), "mucp".to_owned());
    view.pod(0, &pod("b", 4, Some(&mucp)));
    assert_eq!(node(&mut view, "b").version, "latest");
    assert!(node(&mut view, "b").is_grpc());

    view.slice_gone("s");
    assert_eq!(
        changes(&mut view),
        "+pods/a/greeter-1@10.1.0.1:9000 +pods/b/greeter-2@10.1.0.2:8080 -endpoints/b"
    );
    view.pod(0, &pod("a", 5, None));
    view.pod_gone(0, "b");
    assert_eq!(changes(&mut view), "-pods/a/greeter-1 -pods/b/greeter-2");
}

#[test]
fn a_pod_with_a_malformed_record_is_told() {
    let mut view = view();
    let mut broken = pod("a", 1, Some(&Node::new("greeter", "greeter-1", "10.1.0.1:9000")));
    let annotations = broken.metadata.annotations.as_mut().unwrap();
    annotations.insert("micro.mu/service-greeter".to_owned(), "{".to_owned());
    view.pod(0, &broken);
    assert_eq!(changes(&mut view), "?pods/a");
    view.pod_gone(0, "a");
    assert_eq!(changes(&mut view), "-pods/a");
}

/// A pod with Kratos's record, under this id, and go-micro's, unless it is this text.
fn in_both(name: &str, ip: &str, id: &str, micro: Option<&str>) -> Pod {
    let node = Node::new("greeter", id, format!("{ip}:9000"));
    let mut json = Place::write(&both(), &node, crate::registry::Lease(1)).unwrap();
    if let Some(micro) = micro {
        json["metadata"]["annotations"]["micro.mu/service-greeter"] = json!(micro);
    }
    json["metadata"]["name"] = json!(name);
    json["metadata"]["resourceVersion"] = json!("1");
    json["status"] = json!({ "phase": "Running", "podIP": ip });
    serde_json::from_value(json).unwrap()
}

fn both() -> [Place; 2] {
    [Format::Micro, Format::Kratos].map(|format| Place::of(format, "greeter").unwrap())
}

#[test]
fn a_pod_with_records_in_two_formats_is_one_node() {
    let mut view = View::new(Target::parse("greeter").unwrap(), both().into());
    let pod = in_both("p", "10.1.0.1", "a", None);
    view.pod(1, &pod);
    view.pod(0, &pod);
    assert_eq!(changes(&mut view), "+pods/p/a@10.1.0.1:9000");
    view.pod_gone(0, "p");
    assert_eq!(changes(&mut view), "", "the other format still has it");
    view.pod(0, &in_both("p", "10.1.0.1", "a", Some("{")));
    assert_eq!(changes(&mut view), "?pods/p", "what is wrong is told, and the other in force");
    view.pod_gone(1, "p");
    assert_eq!(changes(&mut view), "-pods/p/a");
    view.pod_gone(0, "p");
    assert_eq!(changes(&mut view), "-pods/p");
    view.pod_gone(0, "p");
}

#[test]
fn an_id_that_kratos_pods_share_is_none_of_theirs_until_all_have_gone() {
    let mut view = View::new(Target::parse("greeter").unwrap(), vec![both()[1].clone()]);
    view.pod(0, &in_both("p", "10.1.0.1", "a", None));
    assert_eq!(changes(&mut view), "+pods/p/a@10.1.0.1:9000");
    view.pod(0, &in_both("q", "10.1.0.2", "a", None));
    assert_eq!(changes(&mut view), "+pods/p/p@10.1.0.1:9000 +pods/q/q@10.1.0.2:9000 -pods/p/a");
    view.pod_gone(0, "p");
    assert_eq!(changes(&mut view), "-pods/p/p", "the one that is left stays as it was");
    view.pod_gone(0, "q");
    assert_eq!(changes(&mut view), "-pods/q/q");
    view.pod(0, &in_both("q", "10.1.0.2", "a", None));
    assert_eq!(changes(&mut view), "+pods/q/a@10.1.0.2:9000");
}
