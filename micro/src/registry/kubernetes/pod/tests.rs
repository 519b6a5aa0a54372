use super::*;

fn pod(json: Json) -> Pod {
    serde_json::from_value(json).unwrap()
}

fn micro(service: &str) -> Result<Place, String> {
    Place::of(Format::Micro, service)
}

fn kratos(service: &str) -> Place {
    Place::of(Format::Kratos, service).unwrap()
}

fn write(place: &Place, node: &Node, lease: Lease) -> Result<Json, String> {
    Place::write(std::slice::from_ref(place), node, lease)
}

/// As it stands when the patch is written.
fn patched(patch: &Json) -> ObjectMeta {
    serde_json::from_value(patch["metadata"].clone()).unwrap()
}

#[test]
fn a_record_is_where_go_micro_looks_for_it() {
    let node = Node::new("team/pay.svc", "team/pay.svc-1", "10.1.0.4:9000");
    let place = micro(&node.service).unwrap();
    assert_eq!(place.selector(), "micro.mu/selector-team_pay.svc=service");
    let patch = write(&place, &node, Lease(-7)).unwrap();
    let record = concat!(
        r#"{"name":"team/pay.svc","version":"latest","metadata":null,"endpoints":[],"nodes":["#,
        r#"{"metadata":{"protocol":"grpc","server":"grpc","transport":"grpc"},"#,
        r#""id":"team/pay.svc-1","address":"10.1.0.4:9000"}]}"#
    );
    let expected = json!({ "metadata": {
        "labels": { "micro.mu/type": "service", "micro.mu/selector-team_pay.svc": "service" },
        "annotations": {
            "micro.mu/service-team_pay.svc": record, "micro.mu/lease-team_pay.svc": "-7"
        },
    } });
    assert_eq!(patch, expected);
    place.check(&patched(&patch), &node, Lease(-7)).unwrap();

    let mut written = patch;
    written["status"] = json!({ "phase": "Running" });
    let written = pod(written);
    assert_eq!(place.read(&written, "team/pay.svc"), Ok(Some(node)));
    assert_eq!(place.read(&written, "team_pay.svc"), Ok(None), "it only looks the same");
    assert_eq!(services(Format::Micro, &written), ["team/pay.svc"]);
    assert_eq!(services(Format::Kratos, &written), <[&str; 0]>::default());

    for field in ["phase", "deletion"] {
        let mut other = written.clone();
        match field {
            "phase" => other.status.as_mut().unwrap().phase = Some("Succeeded".to_owned()),
            _ => {
                let time = json!("2026-01-01T00:00:00Z");
                other.metadata.deletion_timestamp = serde_json::from_value(time).unwrap();
            }
        }
        assert_eq!(place.read(&other, "team/pay.svc"), Ok(None), "{field}");
    }
}

#[test]
fn a_record_that_is_none_is_told() {
    let place = micro("a").unwrap();
    let with = |record: &str| {
        let annotations = json!({ "micro.mu/service-a": record });
        let status = json!({ "phase": "Running" });
        pod(json!({ "metadata": { "annotations": annotations }, "status": status }))
    };
    assert!(place.read(&with("{"), "a").unwrap_err().contains("not JSON"));
    let other = r#"{"name":"b","nodes":[{"id":"b-1"}]}"#;
    let why = place.read(&with(other), "a").unwrap_err();
    assert_eq!(why, r#"the record is of service "b""#);
}

#[test]
fn what_no_label_takes_is_refused() {
    assert!(micro("").unwrap_err().contains("no name"));
    assert!(micro(&"a".repeat(54)).is_ok());
    assert!(micro(&"a".repeat(55)).unwrap_err().contains("takes 54"));
    assert!(micro("a/").unwrap_err().contains("ends in `/`"));
    let mut large = Node::new("a", "a-1", "h:1");
    large.metadata.insert("notes".to_owned(), "x".repeat(MAX_ANNOTATIONS));
    let why = write(&micro("a").unwrap(), &large, Lease(1)).unwrap_err();
    assert!(why.contains("less metadata"), "{why}");

    for (service, id, version, said) in [
        ("", "a-1", "v1", "the service has no name"),
        ("team/pay", "a-1", "v1", "the service's name `team/pay`"),
        (&"a".repeat(64), "a-1", "v1", "at most 63"),
        ("a", "a-", "v1", "the id `a-`"),
        ("a", "a-1", "1.0+b", "the version `1.0+b`"),
    ] {
        let mut node = Node::new(service, id, "h:1");
        node.version = version.to_owned();
        let place = Place::of(Format::Kratos, service);
        let why = place.and_then(|place| write(&place, &node, Lease(1))).unwrap_err();
        assert!(why.contains(said), "{why}");
    }
}

/// `helloworld`, as a Kratos application with a server of each kind registers it; `jsoniter` writes
/// the keys of a map in any order.
fn written_by_kratos() -> Json {
    json!({
        "metadata": {
            "name": "helloworld-0",
            "labels": {
                "kratos-service-id": "6f0c2a1e-21bb-4e7e-9d0b-6a3c3f2a9b10",
                "kratos-service-app": "helloworld",
                "kratos-service-version": "v1.0.0",
            },
            "annotations": {
                "kratos-service-metadata": "null",
                "kratos-service-protocols": r#"{"9000":"grpc","8000":"http"}"#,
            },
        },
        "spec": { "containers": [
            { "name": "a", "ports": [{ "containerPort": 8000 }, { "containerPort": 9000 }] }
        ] },
        "status": { "phase": "Running", "podIP": "10.0.3.7" },
    })
}

#[test]
fn kratos_pods_are_read_as_kratos_reads_them() {
    let place = kratos("helloworld");
    assert_eq!(place.selector(), "kratos-service-app=helloworld");
    let read = |json: Json| place.read(&pod(json), "helloworld");
    let node = read(written_by_kratos()).unwrap().unwrap();
    let expected = Node {
        version: "v1.0.0".to_owned(),
        ..Node::new("helloworld", "6f0c2a1e-21bb-4e7e-9d0b-6a3c3f2a9b10", "10.0.3.7:9000")
    };
    assert_eq!(node, expected);
    assert_eq!(services(Format::Kratos, &pod(written_by_kratos())), ["helloworld"]);

    // As the labels of a Deployment, written by hand, have it: what a port speaks by its name.
    let mut by_hand = written_by_kratos();
    by_hand["metadata"]["annotations"] = json!({
        "kratos-service-metadata": "{\"region\": \"sh\", \"zone\": \"sh001\"}\n",
        "kratos-service-protocols": "{\"80\": \"http\"}\n",
    });
    by_hand["metadata"]["labels"].as_object_mut().unwrap().remove("kratos-service-id");
    by_hand["spec"]["containers"][0]["ports"] =
        json!([{ "containerPort": 80 }, { "containerPort": 9001, "name": "grpc-main" }]);
    let node = read(by_hand.clone()).unwrap().unwrap();
    assert_eq!((&*node.id, &*node.address), ("helloworld-0", "10.0.3.7:9001"));
    assert_eq!((&*node.metadata["region"], &*node.metadata["zone"]), ("sh", "sh001"));

    by_hand["spec"]["containers"][0]["ports"] = json!([{ "containerPort": 80 }]);
    let node = read(by_hand.clone()).unwrap().unwrap();
    assert!(!node.is_grpc(), "{node:?}");
    assert_eq!(node.metadata["protocol"], "http");

    // No container needs to name a port for it to be one.
    let mut unnamed = written_by_kratos();
    unnamed["spec"]["containers"][0]["ports"] = Json::Null;
    unnamed["status"]["podIP"] = json!("fd00::7");
    assert_eq!(read(unnamed).unwrap().unwrap().address, "[fd00::7]:9000");

    // The annotation goes before the name of a port, which may be a sidecar's.
    let mut beside_sidecar = written_by_kratos();
    beside_sidecar["metadata"]["annotations"]["kratos-service-protocols"] =
        json!(r#"{"9000":"grpc"}"#);
    beside_sidecar["spec"]["containers"][0]["ports"] =
        json!([{ "containerPort": 15010, "name": "grpc-xds" }]);
    assert_eq!(read(beside_sidecar).unwrap().unwrap().address, "10.0.3.7:9000");

    // What Kratos leaves of a node that has left; a pod that has no address yet.
    let mut gone = written_by_kratos();
    gone["metadata"]["labels"]["kratos-service-app"] = json!("");
    assert_eq!(read(gone), Ok(None));
    let mut early = written_by_kratos();
    early["status"] = json!({ "phase": "Running" });
    assert_eq!(read(early), Ok(None));

    by_hand["metadata"]["annotations"]["kratos-service-metadata"] = json!("{\"a\": 1}");
    let why = read(by_hand).unwrap_err();
    assert_eq!(why, "kratos-service-metadata is no JSON object of strings (line 1, column 7)");
}

#[test]
fn our_node_is_written_as_kratos_writes_its_own() {
    let mut node = Node::new("helloworld", "helloworld-1", "10.0.3.7:9000");
    node.metadata.insert("weight".to_owned(), "20".to_owned());
    let place = kratos("helloworld");
    let patch = write(&place, &node, Lease(5)).unwrap();
    let expected = json!({ "metadata": {
        "labels": {
            "kratos-service-id": "helloworld-1",
            "kratos-service-app": "helloworld",
            "kratos-service-version": "latest",
        },
        "annotations": {
            "kratos-service-metadata": r#"{"weight":"20"}"#,
            "kratos-service-protocols": r#"{"9000":"grpc"}"#,
            "micro.mu/kratos-lease": "5",
        },
    } });
    assert_eq!(patch, expected);
    let mut written = patch;
    written["status"] = json!({ "phase": "Running", "podIP": "10.0.3.7" });
    assert_eq!(place.read(&pod(written), "helloworld"), Ok(Some(node.clone())));

    node.metadata.insert("scheme".to_owned(), "grpcs".to_owned());
    let patch = write(&place, &node, Lease(5)).unwrap();
    let annotations = &patch["metadata"]["annotations"];
    assert_eq!(annotations["kratos-service-protocols"], r#"{"9000":"grpcs"}"#);
}

#[test]
fn kratos_labels_that_are_gone_are_lost_and_anothers_are_taken() {
    let node = Node::new("a", "a-1", "10.0.3.7:9000");
    let place = kratos("a");
    let stands = write(&place, &node, Lease(5)).unwrap();
    place.check(&patched(&stands), &node, Lease(5)).unwrap();

    for key in ["kratos-service-id", "kratos-service-app"] {
        for left in [json!(""), Json::Null] {
            let mut other = stands.clone();
            if left.is_null() {
                other["metadata"]["labels"].as_object_mut().unwrap().remove(key);
            } else {
                other["metadata"]["labels"][key] = left;
            }
            let checked = place.check(&patched(&other), &node, Lease(5));
            assert!(matches!(checked, Err(RenewError::Lost(_))), "{key}: {checked:?}");
        }
    }
    let mut other = stands.clone();
    other["metadata"]["labels"]["kratos-service-app"] = json!("b");
    let checked = place.check(&patched(&other), &node, Lease(5));
    let Err(RenewError::Taken(why)) = checked else { panic!("{checked:?}") };
    assert!(why.contains("name a-1 of service b"), "{why}");
    let checked = place.check(&patched(&stands), &node, Lease(6));
    assert!(matches!(checked, Err(RenewError::Taken(_))), "{checked:?}");
}

#[test]
fn a_record_of_go_micros_lacks_nothing_it_is_found_by() {
    let node = Node::new("a", "a-1", "10.0.3.7:9000");
    let place = micro("a").unwrap();
    let stands = write(&place, &node, Lease(5)).unwrap();
    place.check(&patched(&stands), &node, Lease(5)).unwrap();

    for (kind, key) in [
        ("labels", "micro.mu/type"),
        ("labels", "micro.mu/selector-a"),
        ("annotations", "micro.mu/service-a"),
        ("annotations", "micro.mu/lease-a"),
    ] {
        let mut other = stands.clone();
        other["metadata"][kind].as_object_mut().unwrap().remove(key);
        let checked = place.check(&patched(&other), &node, Lease(5));
        let Err(RenewError::Lost(why)) = checked else { panic!("{key}: {checked:?}") };
        assert!(why.contains(key), "{why}");
    }
    for (key, by) in [("micro.mu/service-a", "{"), ("micro.mu/lease-a", "6")] {
        let mut other = stands.clone();
        other["metadata"]["annotations"][key] = json!(by);
        let checked = place.check(&patched(&other), &node, Lease(5));
        assert!(matches!(checked, Err(RenewError::Taken(_))), "{key}: {checked:?}");
    }
}

#[test]
fn what_is_removed_is_the_nodes_own() {
    let node = Node::new("a", "a-1", "10.0.3.7:9000");
    let places = [micro("a").unwrap(), kratos("a")];
    let both = Place::write(&places, &node, Lease(5)).unwrap();
    let removed = Place::remove(&places, &patched(&both), &node, Lease(5)).unwrap();
    let expected = json!({ "metadata": {
        "resourceVersion": null,
        "uid": null,
        "labels": {
            "micro.mu/selector-a": null,
            "kratos-service-id": null, "kratos-service-app": null, "kratos-service-version": null,
        },
        "annotations": {
            "micro.mu/service-a": null, "micro.mu/lease-a": null,
            "kratos-service-metadata": null, "kratos-service-protocols": null,
            "micro.mu/kratos-lease": null,
        },
    } });
    assert_eq!(removed, expected);
    assert_eq!(Place::remove(&places, &patched(&both), &node, Lease(6)), None);

    // Another has taken one of the two.
    let mut taken = both;
    taken["metadata"]["labels"]["kratos-service-id"] = json!("a-2");
    let removed = Place::remove(&places, &patched(&taken), &node, Lease(5)).unwrap();
    assert_eq!(removed["metadata"]["labels"], json!({ "micro.mu/selector-a": null }));
}
