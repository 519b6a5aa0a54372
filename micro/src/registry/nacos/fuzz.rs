//! Whatever Nacos pushes or lists, the instances in it panic nowhere and take no more memory than they
//! should. What the SDK makes of its JSON is not counted.

use std::sync::LazyLock;

use fastrand::Rng;
use nacos_sdk::api::naming::ServiceInstance;
use serde::Deserialize;
use serde_json::json;

use super::{
    super::{
        Lease, Malformed, Node,
        format::Format,
        fuzz::{FOR_ANY, Maker, PER_BYTE, allocated, alone, each},
    },
    fate::Fate,
    found,
    record::{self, Record},
};

/// Of what tags are inflated to, a record may have so much.
const MAX_INFLATED: usize = 1024 * 1024;

const ALL: [Format; 3] = [Format::Micro, Format::Kratos, Format::Kitex];

const KEYS: [&str; 18] = [
    "hosts",
    "instanceId",
    "ip",
    "port",
    "weight",
    "healthy",
    "enabled",
    "ephemeral",
    "clusterName",
    "serviceName",
    "metadata",
    "protocol",
    "version",
    "kind",
    "micro-id",
    "micro-lease",
    "micro-endpoints",
    "",
];

/// What the SDK reads of a push or a list.
#[derive(Debug, Deserialize)]
struct ServiceInfo {
    hosts: Option<Vec<ServiceInstance>>,
}

/// What was written before those.
static EARLIER: LazyLock<(Node, Vec<Record>)> = LazyLock::new(|| {
    let node = Node::new("helloworld", "helloworld-1", "10.0.3.7:9000");
    let records = record::records(&node, &ALL, None, Lease(5)).unwrap();
    (node, records)
});

/// As Nacos pushes them: ours, and those of go-micro and Kratos.
static INFOS: LazyLock<Maker> = LazyLock::new(|| {
    let mut node = Node::new("helloworld", "helloworld-1", "10.0.3.7:9000");
    node.metadata.insert("zone".to_owned(), "a".to_owned());
    node.endpoints =
        vec![super::super::Endpoint { name: "Greeter.Hello".into(), ..Default::default() }];
    let ours = record::records(&node, &ALL, None, Lease(7)).unwrap();
    let ours = ours.into_iter().map(|record| serde_json::to_value(record.instance).unwrap());
    let instance = |port: u16, metadata: serde_json::Value| {
        json!({
            "instanceId": format!("10.0.3.8#{port}#DEFAULT#DEFAULT_GROUP@@helloworld"),
            "ip": "10.0.3.8", "port": port, "weight": 1.0, "healthy": true, "enabled": true,
            "ephemeral": true, "clusterName": "DEFAULT",
            "serviceName": "DEFAULT_GROUP@@helloworld", "metadata": metadata,
            "instanceHeartBeatInterval": 5000, "ipDeleteTimeout": 30000,
        })
    };
    let gomicro = json!({
        "protocol": "grpc", "server": "grpc", "transport": "grpc", "registry": "nacos",
        "version": "latest"
    });
    let kratos = json!({ "kind": "grpc", "version": "v1.0.0", "weight": "100" });
    let hosts = ours.chain([instance(9001, gomicro), instance(9002, kratos)]);
    let info = |hosts: Vec<_>| {
        let info = json!({
            "name": "helloworld", "groupName": "DEFAULT_GROUP", "clusters": "",
            "cacheMillis": 10000, "hosts": hosts, "lastRefTime": 1_766_000_000_000_u64,
            "checksum": "", "allIPs": false, "reachProtectionThreshold": false, "valid": true
        });
        info.to_string().into_bytes()
    };
    let hosts: Vec<_> = hosts.collect();
    let each = hosts.iter().map(|host| info(vec![host.clone()]));
    let seeds = each.chain([info(hosts.clone()), info(Vec::new())]).collect();
    Maker { seeds, keys: &KEYS }
});

#[test]
fn no_instance_panics_or_takes_more_memory_than_it_should() {
    let _alone = alone();
    let make = |rng: &mut Rng| INFOS.input(rng);
    each(make, |bytes| {
        let Ok(info) = serde_json::from_slice::<ServiceInfo>(bytes) else { return [false; 2] };
        let instances = info.hosts.unwrap_or_default();
        let inflated = match instances.iter().any(|it| it.metadata.contains_key("micro-endpoints"))
        {
            true => MAX_INFLATED,
            false => 0,
        };
        let most = PER_BYTE * (bytes.len() + inflated) + FOR_ANY;
        ["helloworld", "helloworld.grpc"].map(|under| {
            let read = || found::nodes("helloworld", under, &instances, &ALL, None);
            let ((nodes, malformed), took) = allocated(most, read);
            assert!(took <= most, "{took} bytes allocated for {}", bytes.len());
            for malformed in &malformed {
                let Malformed { key, reason } = malformed;
                assert!(!reason.is_empty() && reason.len() < 1000, "{malformed:?}");
                assert!(key.len() < 300, "{malformed:?}");
            }
            let (node, records) = &*EARLIER;
            for record in records {
                match record.fate(node, &instances, &ALL) {
                    Fate::Taken(Ok(other)) => assert!(other.address.len() < 300, "{other:?}"),
                    Fate::Taken(Err(why)) => {
                        assert!(!why.is_empty() && why.len() < 1000, "{why}");
                    }
                    Fate::Stands | Fate::Gone => {}
                }
            }
            !nodes.is_empty()
        })
    });
}
