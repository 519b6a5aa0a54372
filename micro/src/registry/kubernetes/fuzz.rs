//! Whatever stands in slices and at pods, it panics nowhere, and what is made of it takes no more memory
//! than it should. What the objects themselves take is not counted: the API server takes none that is
//! not of its type, and kube's client makes them.

use std::sync::LazyLock;

use fastrand::Rng;
use k8s_openapi::api::{core::v1::Pod, discovery::v1::EndpointSlice};
use serde_json::{Value as Json, json};

use super::{
    super::{
        Lease, Node,
        format::{Format, fuzz::record},
        fuzz::{FOR_ANY, Maker, PER_BYTE, allocated, alone, each},
        url::host_and_port,
    },
    pod::{self, Place},
    target::Target,
    view::View,
};

const KEYS: [&str; 20] = [
    "metadata",
    "name",
    "resourceVersion",
    "annotations",
    "labels",
    "kratos-service-app",
    "kratos-service-protocols",
    "containerPort",
    "deletionTimestamp",
    "status",
    "phase",
    "endpoints",
    "addresses",
    "addressType",
    "conditions",
    "ready",
    "targetRef",
    "hints",
    "ports",
    "",
];

/// As the controller of slices writes them.
static SLICES: LazyLock<Maker> = LazyLock::new(|| {
    let endpoint = |pod: &str, address: &str| {
        json!({
            "addresses": [address],
            "conditions": { "ready": true, "serving": true, "terminating": false },
            "targetRef": { "kind": "Pod", "namespace": "default", "name": pod, "uid": "0-1" },
            "nodeName": "worker-1", "zone": "a", "hints": { "forZones": [{ "name": "b" }] },
        })
    };
    let slice = |kind: &str, endpoints: Vec<Json>| {
        json!({
            "metadata": {
                "name": "greeter-x2k4q", "namespace": "default", "resourceVersion": "812",
                "labels": { "kubernetes.io/service-name": "greeter" },
            },
            "addressType": kind,
            "endpoints": endpoints,
            "ports": [
                { "name": "grpc", "port": 9000, "protocol": "TCP", "appProtocol": "grpc" },
                { "name": "metrics", "port": 9100, "protocol": "TCP" },
            ],
        })
    };
    let (ipv4, ipv6) = (endpoint("greeter-1", "10.1.0.4"), endpoint("greeter-1", "fd00::4"));
    let seeds = [
        slice("IPv4", vec![ipv4, endpoint("greeter-2", "10.1.0.5")]),
        slice("IPv6", vec![ipv6]),
        slice("IPv4", Vec::new()),
    ];
    Maker { seeds: seeds.iter().map(|seed| seed.to_string().into()).collect(), keys: &KEYS }
});

/// With a record in each format.
fn pod() -> Json {
    let mut node = Node::new("greeter", "greeter-1", "10.1.0.4:9000");
    node.metadata.insert("zone".to_owned(), "a".to_owned());
    let mut pod = Place::write(&places(), &node, Lease(7)).unwrap();
    pod["metadata"]["name"] = json!("greeter-1");
    pod["metadata"]["resourceVersion"] = json!("812");
    pod["spec"] = json!({ "containers": [{
        "name": "greeter", "ports": [{ "name": "grpc", "containerPort": 9000, "protocol": "TCP" }],
    }] });
    pod["status"] = json!({ "phase": "Running", "podIP": "10.1.0.4" });
    pod
}

static PODS: LazyLock<Maker> =
    LazyLock::new(|| Maker { seeds: vec![pod().to_string().into()], keys: &KEYS });

const FORMATS: [Format; 2] = [Format::Micro, Format::Kratos];

fn places() -> Vec<Place> {
    FORMATS.iter().map(|format| Place::of(*format, "greeter").unwrap()).collect()
}

fn view() -> View {
    View::new(Target::parse("greeter").unwrap(), places())
}

/// What a view takes that is told nothing: it is none of a record's.
static EMPTY: LazyLock<usize> = LazyLock::new(|| allocated(0, || view().listing(1)).1);

/// What is found in a view that took it in, whose every entry is a node to be called; none if it took
/// too much memory.
fn found(length: usize, take: impl Fn(&mut View)) -> bool {
    let most = PER_BYTE * length + FOR_ANY + *EMPTY;
    let (listing, took) = allocated(most, || {
        let mut view = view();
        take(&mut view);
        view.listing(1)
    });
    assert!(took <= most, "{took} bytes allocated for {length}");
    for malformed in &listing.malformed {
        assert!(!malformed.reason.is_empty() && malformed.reason.len() < 1000, "{malformed:?}");
    }
    for node in listing.entries.iter().map(|entry| &entry.node).filter(|node| node.is_grpc()) {
        let is_address = matches!(host_and_port(&node.address), Some((_, Some(_))));
        assert!(is_address, "{:?}", node.address);
    }
    !listing.entries.is_empty()
}

#[test]
fn no_slice_panics_or_takes_more_memory_than_it_should() {
    let _alone = alone();
    each(
        |rng| SLICES.input(rng),
        |bytes| match serde_json::from_slice::<EndpointSlice>(bytes) {
            Ok(slice) => [found(bytes.len(), |view| view.slice(&slice))],
            Err(_) => [false],
        },
    );
}

/// Its record is one of go-micro's, or what became of one; else the pod is changed, with its records in
/// both formats.
#[test]
fn no_pod_panics_or_takes_more_memory_than_it_should() {
    let _alone = alone();
    let make = |rng: &mut Rng| {
        if rng.bool() {
            return PODS.input(rng);
        }
        let mut pod = pod();
        let record = String::from_utf8_lossy(&record(rng)).into_owned();
        // Most are of another service.
        let record = record.replace("echo.v1.Echo", "greeter").replace("helloworld", "greeter");
        pod["metadata"]["annotations"]["micro.mu/service-greeter"] = json!(record);
        pod.to_string().into_bytes()
    };
    each(make, |bytes| {
        let Ok(pod) = serde_json::from_slice::<Pod>(bytes) else { return [false; FORMATS.len()] };
        let most = PER_BYTE * bytes.len() + FOR_ANY;
        [0, 1].map(|place| {
            let (_, took) = allocated(most, || pod::services(FORMATS[place], &pod).len());
            assert!(took <= most, "{took} bytes allocated for {}", bytes.len());
            found(bytes.len(), |view| view.pod(place, &pod))
        })
    });
}
