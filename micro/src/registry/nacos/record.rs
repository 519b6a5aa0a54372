//! A node as it is written to Nacos: an instance under a service's name, with metadata of texts. What
//! go-micro, Kratos and Kitex write, and ours, which is go-micro's and says a little more.

use std::collections::{BTreeMap, HashMap};

use nacos_sdk::api::naming::ServiceInstance;

use super::super::{
    Lease, Node,
    format::{Format, gomicro::tag::encode_tags, kitex, kratos},
    url::host_and_port,
};

/// In an instance's metadata, the node's version: everybody's.
pub(super) const VERSION: &str = "version";

/// The scheme of a Kratos node.
pub(super) const KIND: &str = "kind";

/// A node's id, since Nacos's own is the address.
pub(super) const ID: &str = "micro-id";

/// The lease that a record was written under. The later of two is the higher.
pub(super) const LEASE: &str = "micro-lease";

/// The endpoints, as go-micro's tags with commas between them.
pub(super) const ENDPOINTS: &str = "micro-endpoints";

/// What Nacos takes, since 2.3, of all keys and values of an instance's metadata together.
const MAX_METADATA: usize = 1024;

/// What of calls a Kratos node gets, unless it says otherwise.
const KRATOS_WEIGHT: f64 = 100.0;

/// A record: one instance under one name.
#[derive(Debug, Clone)]
pub(super) struct Record {
    /// Nacos's service.
    pub(super) service: String,
    pub(super) instance: ServiceInstance,
}

impl Record {
    /// Whether two are at one place in Nacos.
    pub(super) fn is_at(&self, other: &ServiceInstance) -> bool {
        is_at(&self.instance, other)
    }
}

/// Whether two are at one place in Nacos.
pub(super) fn is_at(one: &ServiceInstance, other: &ServiceInstance) -> bool {
    (&one.ip, one.port) == (&other.ip, other.port)
}

/// What stands in an instance's stead at nobody's address, and is called by no one: of a service a client
/// has one instance, which the SDK writes by itself whenever it connects, and this makes it forget the
/// other.
pub(super) fn vacant(instance: &ServiceInstance) -> ServiceInstance {
    ServiceInstance {
        port: 0,
        enabled: false,
        weight: 0.0,
        metadata: HashMap::new(),
        ..instance.clone()
    }
}

/// Nacos's services that hold this service's nodes in these formats.
pub(super) fn services(service: &str, formats: &[Format]) -> Vec<String> {
    let mut services = Vec::new();
    if formats.iter().any(|format| *format != Format::Kratos) {
        services.push(service.to_owned());
    }
    if formats.contains(&Format::Kratos) {
        services.push(format!("{service}.grpc"));
    }
    services
}

/// The service that one of Nacos's is; none if none of these formats has it.
pub(super) fn service_of<'a>(name: &'a str, formats: &[Format]) -> Option<&'a str> {
    let kratos = name.strip_suffix(".grpc").filter(|_| formats.contains(&Format::Kratos));
    kratos.or_else(|| (formats != [Format::Kratos]).then_some(name))
}

/// The node's records.
///
/// # Errors
/// In words, for what Nacos cannot hold.
pub(super) fn records(
    node: &Node,
    formats: &[Format],
    cluster: Option<&str>,
    lease: Lease,
) -> Result<Vec<Record>, String> {
    nameable(&node.service)?;
    if node.id.is_empty() {
        return Err("the node's id is empty".to_owned());
    }
    let Some((host, Some(port))) = host_and_port(&node.address) else {
        return Err(format!("its address is {:?}, not `host:port`", node.address));
    };
    let kind = formats.contains(&Format::Kratos).then_some(KIND);
    for key in [VERSION, ID, LEASE, ENDPOINTS].into_iter().chain(kind) {
        if node.metadata.contains_key(key) {
            return Err(format!(
                "its metadata has {key:?}, which says something else in Nacos's records; name it \
                 otherwise"
            ));
        }
    }
    let instance = |metadata: HashMap<String, String>, weight: f64| ServiceInstance {
        ip: host.trim_matches(['[', ']']).to_owned(),
        port: port.into(),
        weight,
        metadata,
        cluster_name: Some(cluster.unwrap_or("DEFAULT").to_owned()),
        ..ServiceInstance::default()
    };
    let records = services(&node.service, formats).into_iter().map(|service| {
        let of_kratos = service != node.service;
        let instance = match of_kratos {
            true => instance(of_kratos_node(node), kratos_weight(node)),
            false => {
                let is_kitex = formats.contains(&Format::Kitex);
                let weight = if is_kitex { kitex::weight(node) as f64 } else { 1.0 };
                let metadata = match formats.contains(&Format::Micro) {
                    true => of_micro_node(node, lease)?,
                    false => owned(kitex::tags(node).unwrap_or_default()),
                };
                instance(metadata, weight)
            }
        };
        Ok(Record { service, instance })
    });
    records.collect()
}

/// Refuses what is no service's name in Nacos.
pub(super) fn nameable(service: &str) -> Result<(), String> {
    if service.is_empty() || service.contains("@@") || service.contains(char::is_whitespace) {
        return Err(format!(
            "the service's name is {service:?}: in Nacos it has a letter at least, no space and no \
             `@@`"
        ));
    }
    Ok(())
}

fn owned(facts: BTreeMap<&str, &str>) -> HashMap<String, String> {
    facts.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn of_micro_node(node: &Node, lease: Lease) -> Result<HashMap<String, String>, String> {
    let mut metadata: HashMap<_, _> = node.metadata.clone().into_iter().collect();
    metadata.insert(VERSION.to_owned(), node.version.clone());
    metadata.insert(LEASE.to_owned(), lease.0.to_string());
    metadata.insert(ID.to_owned(), node.id.clone());
    if !node.endpoints.is_empty() {
        let bare = Node { endpoints: node.endpoints.clone(), ..Node::new("", "", "") };
        let mut tags = encode_tags(&bare)?;
        tags.retain(|tag| tag.starts_with("e-"));
        let endpoints = tags.join(",");
        let length = |(key, value): (&String, &String)| key.len() + value.len();
        let others: usize = metadata.iter().map(length).sum();
        // Nobody calls by them.
        if others + ENDPOINTS.len() + endpoints.len() <= MAX_METADATA {
            metadata.insert(ENDPOINTS.to_owned(), endpoints);
        }
    }
    Ok(metadata)
}

fn of_kratos_node(node: &Node) -> HashMap<String, String> {
    let mut metadata = owned(kratos::metadata(node));
    let endpoint = kratos::endpoint(node);
    let kind = endpoint.split_once("://").map_or("grpc", |(scheme, _)| scheme);
    metadata.insert(KIND.to_owned(), kind.to_owned());
    metadata.insert(VERSION.to_owned(), node.version.clone());
    metadata
}

fn kratos_weight(node: &Node) -> f64 {
    let weight = node.metadata.get("weight").and_then(|weight| weight.parse::<f64>().ok());
    weight.filter(|weight| weight.is_finite() && *weight > 0.0).unwrap_or(KRATOS_WEIGHT)
}

#[cfg(test)]
mod tests {
    use super::{
        super::found::{self, Found, node},
        *,
    };
    use crate::registry::Endpoint;

    const ALL: [Format; 3] = [Format::Micro, Format::Kratos, Format::Kitex];

    fn written(node: &Node, formats: &[Format]) -> Vec<Record> {
        records(node, formats, None, Lease(7)).unwrap()
    }

    fn facts(instance: &ServiceInstance) -> BTreeMap<&str, &str> {
        instance.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
    }

    fn read(under: &str, instance: &ServiceInstance, formats: &[Format]) -> Result<Found, String> {
        node("helloworld", under, instance, formats)
    }

    #[test]
    fn ours_is_a_go_micro_node_that_says_more() {
        let mut node = Node::new("helloworld", "helloworld-1", "[fd00::1]:9000");
        node.metadata.insert("zone".to_owned(), "a".to_owned());
        node.endpoints = vec![Endpoint { name: "Greeter.Hello".into(), ..Endpoint::default() }];
        let [record] = &written(&node, &[Format::Micro])[..] else { panic!("one") };
        assert_eq!(record.service, "helloworld");
        let it = &record.instance;
        assert_eq!((it.ip.as_str(), it.port, it.weight), ("fd00::1", 9000, 1.0));
        assert!(it.ephemeral && it.healthy && it.enabled);
        assert_eq!(it.cluster_name.as_deref(), Some("DEFAULT"));
        let mut said = facts(it);
        assert!(said.remove(ENDPOINTS).unwrap().starts_with("e-789c"));
        let expected = [
            (ID, "helloworld-1"),
            (LEASE, "7"),
            ("protocol", "grpc"),
            ("server", "grpc"),
            ("transport", "grpc"),
            ("version", "latest"),
            ("zone", "a"),
        ];
        assert_eq!(said, expected.into());
        let found = read("helloworld", it, &ALL).unwrap();
        assert_eq!(found.node, node);
        assert_eq!(found.key, "helloworld/helloworld-1");
    }

    #[test]
    fn endpoints_stay_out_where_nacos_has_no_room_for_them() {
        let mut node = Node::new("helloworld", "helloworld-1", "10.0.3.7:9000");
        let endpoint = |index| Endpoint { name: format!("Greeter.{index}"), ..Endpoint::default() };
        node.endpoints = (0..20).map(endpoint).collect();
        let records = written(&node, &[Format::Micro]);
        assert!(!records[0].instance.metadata.contains_key(ENDPOINTS));
        node.endpoints.truncate(2);
        let records = written(&node, &[Format::Micro]);
        assert!(records[0].instance.metadata.contains_key(ENDPOINTS));
        let length: usize =
            facts(&records[0].instance).iter().map(|(k, v)| k.len() + v.len()).sum();
        assert!(length <= MAX_METADATA, "{length}");
    }

    #[test]
    fn kratos_has_a_name_of_its_own_and_kind_and_version() {
        let mut node = Node::new("helloworld", "id", "10.0.3.7:9000");
        node.version = "v1.0.0".to_owned();
        node.metadata.insert("region".to_owned(), "eu".to_owned());
        let [record] = &written(&node, &[Format::Kratos])[..] else { panic!("one") };
        assert_eq!(record.service, "helloworld.grpc");
        assert_eq!(record.instance.weight, 100.0);
        assert_eq!(
            facts(&record.instance),
            [("kind", "grpc"), ("region", "eu"), ("version", "v1.0.0")].into()
        );
        let found = read("helloworld.grpc", &record.instance, &[Format::Kratos]).unwrap();
        let read = &found.node;
        assert_eq!((read.version.as_str(), read.address.as_str()), ("v1.0.0", "10.0.3.7:9000"));
        assert!(
            read.is_grpc() && read.metadata["weight"] == "100" && read.metadata["region"] == "eu"
        );
        assert!(!read.metadata.contains_key("kind"));

        node.metadata.insert("weight".to_owned(), "7".to_owned());
        node.metadata.insert("scheme".to_owned(), "grpcs".to_owned());
        let records = written(&node, &[Format::Kratos]);
        assert_eq!(records[0].instance.weight, 7.0);
        let found = self::read("helloworld.grpc", &records[0].instance, &ALL).unwrap();
        assert_eq!(found.node.metadata["scheme"], "grpcs");
        assert_eq!(found.rank, 1);
    }

    #[test]
    fn kitex_has_weight_and_tags() {
        let mut node = Node::new("helloworld", "id", "10.0.3.7:9000");
        node.metadata.insert("weight".to_owned(), "20".to_owned());
        node.metadata.insert("zone".to_owned(), "a".to_owned());
        let [record] = &written(&node, &[Format::Kitex])[..] else { panic!("one") };
        assert_eq!(record.service, "helloworld");
        assert_eq!(record.instance.weight, 20.0);
        assert_eq!(facts(&record.instance), [("zone", "a")].into());
        let found = read("helloworld", &record.instance, &[Format::Kitex]).unwrap();
        assert_eq!(found.node.id, "10.0.3.7:9000");
        assert_eq!((&*found.node.metadata["weight"], &*found.node.metadata["zone"]), ("20", "a"));
        assert!(found.node.is_grpc());
    }

    #[test]
    fn all_formats_of_a_node_are_two_records() {
        let node = Node::new("helloworld", "id", "10.0.3.7:9000");
        let records = written(&node, &ALL);
        let names: Vec<_> = records.iter().map(|record| record.service.as_str()).collect();
        assert_eq!(names, ["helloworld", "helloworld.grpc"]);
        assert_eq!(records[0].instance.weight, 10.0, "Kitex's");
        let found = read("helloworld", &records[0].instance, &ALL).unwrap();
        assert_eq!((found.node, found.rank), (node, 0));
        for (name, formats, service) in [
            ("a.grpc", &ALL[..], Some("a")),
            ("a", &ALL, Some("a")),
            ("a.grpc", &[Format::Micro], Some("a.grpc")),
            ("a", &[Format::Kratos], None),
        ] {
            assert_eq!(service_of(name, formats), service);
        }
    }

    #[test]
    fn a_vacant_place_is_no_node() {
        let node = Node::new("helloworld", "id", "10.0.3.7:9000");
        for record in written(&node, &ALL) {
            let vacant = vacant(&record.instance);
            assert!(!record.is_at(&vacant));
            let (nodes, malformed) =
                found::nodes("helloworld", &record.service, &[vacant], &ALL, None);
            assert!(nodes.is_empty() && malformed.is_empty(), "{nodes:?} {malformed:?}");
        }
    }

    #[test]
    fn what_nacos_cannot_hold_is_refused() {
        let with = |key: &str| {
            let mut node = Node::new("a", "b", "h:1");
            node.metadata.insert(key.to_owned(), "x".to_owned());
            node
        };
        for (node, named) in [
            (Node::new("", "b", "h:1"), "the service's name is \"\""),
            (Node::new("a@@b", "b", "h:1"), "no `@@`"),
            (Node::new("a b", "b", "h:1"), "no space"),
            (Node::new("a", "", "h:1"), "id is empty"),
            (Node::new("a", "b", "h"), "not `host:port`"),
            (with("version"), "has \"version\""),
            (with("micro-id"), "has \"micro-id\""),
            (with("kind"), "has \"kind\""),
        ] {
            let why = records(&node, &ALL, None, Lease(1)).unwrap_err();
            assert!(why.contains(named), "{why}");
        }
        assert!(records(&with("kind"), &[Format::Micro], None, Lease(1)).is_ok());
    }
}
