//! A node as Nacos has it: an instance under a service's name, with metadata of texts. What go-micro,
//! Kratos and Kitex write, and ours, which is go-micro's and says a little more.

use std::collections::{BTreeMap, HashMap};

use nacos_sdk::api::naming::ServiceInstance;

use super::super::{
    Lease, Malformed, Node,
    format::{
        Format,
        gomicro::tag::{decode_tags, encode_tags},
        kitex, kratos, shorten,
    },
    url::host_and_port,
};

/// In an instance's metadata, the node's version: everybody's.
const VERSION: &str = "version";

/// The scheme of a Kratos node.
const KIND: &str = "kind";

/// A node's id, since Nacos's own is the address.
const ID: &str = "micro-id";

/// The lease that a record was written under. The later of two is the higher.
const LEASE: &str = "micro-lease";

/// The endpoints, as go-micro's tags with commas between them.
const ENDPOINTS: &str = "micro-endpoints";

/// What Nacos takes, since 2.3, of all keys and values of an instance's metadata together.
const MAX_METADATA: usize = 1024;

/// The longest ip that is taken, in bytes: that of a host's name.
const MAX_IP: usize = 255;

/// What is told of a value that cannot be read, in characters.
const MAX_TOLD: usize = 40;

/// What of calls a Kratos node gets, unless it says otherwise.
const KRATOS_WEIGHT: f64 = 100.0;

/// A record: one instance under one name.
#[derive(Debug, Clone)]
pub(super) struct Record {
    /// Nacos's service.
    pub(super) service: String,
    pub(super) instance: ServiceInstance,
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

/// A node that was found.
#[derive(Debug)]
pub(super) struct Found {
    /// The record's key.
    pub(super) key: String,
    /// The place of its format among those that are read.
    pub(super) rank: u8,
    pub(super) node: Node,
    /// What ours were written under; 0 for others'.
    lease: i64,
}

/// The nodes among instances of one of Nacos's services, in one cluster if it is named, and the records
/// that are none. Left out are instances that Nacos has for unhealthy, that somebody has taken out, and
/// that are to get no calls.
pub(super) fn nodes(
    service: &str,
    under: &str,
    instances: &[ServiceInstance],
    formats: &[Format],
    cluster: Option<&str>,
) -> (Vec<Found>, Vec<Malformed>) {
    let (mut nodes, mut malformed) = (BTreeMap::<String, Found>::new(), Vec::new());
    // Nacos has no order, and the same address may stand in two clusters.
    let mut instances: Vec<_> = instances.iter().collect();
    instances.sort_by_key(|it| place(it));
    let is_in_service = |it: &&ServiceInstance| it.healthy && it.enabled && it.weight > 0.0;
    let is_in_cluster =
        |it: &&ServiceInstance| cluster.is_none() || it.cluster_name.as_deref() == cluster;
    for instance in instances.into_iter().filter(is_in_service).filter(is_in_cluster) {
        match node(service, under, instance, formats) {
            // Of two with one id the later took it from the earlier; of as late ones it is the last.
            Ok(found) if nodes.get(&found.key).is_some_and(|it| it.lease > found.lease) => {}
            Ok(found) => drop(nodes.insert(found.key.clone(), found)),
            Err(reason) => {
                let (key, reason) = (format!("{under}/{}", told(instance)), shorten(reason));
                malformed.push(Malformed { key, reason });
            }
        }
    }
    (nodes.into_values().collect(), malformed)
}

/// The node that an instance is.
///
/// # Errors
/// What is wrong with it, in words.
fn node(
    service: &str,
    under: &str,
    instance: &ServiceInstance,
    formats: &[Format],
) -> Result<Found, String> {
    if instance.ip.len() > MAX_IP {
        return Err(format!("its ip has {} bytes, over {MAX_IP}", instance.ip.len()));
    }
    let address = address(instance);
    let mut metadata: BTreeMap<_, _> = instance.metadata.clone().into_iter().collect();
    let is_kratos = under != service;
    let is_micro = metadata.contains_key("protocol") || metadata.contains_key(ID);
    let format = match (is_kratos, formats.contains(&Format::Kitex)) {
        (true, _) => Format::Kratos,
        (false, true) if !is_micro || !formats.contains(&Format::Micro) => Format::Kitex,
        _ => Format::Micro,
    };
    let place = formats.iter().position(|its| *its == format);
    let rank = place.and_then(|place| u8::try_from(place).ok()).unwrap_or(u8::MAX);
    let lease = match metadata.remove(LEASE) {
        Some(lease) if format == Format::Micro => lease.parse().map_err(|_| {
            let lease: String = lease.chars().take(MAX_TOLD).collect();
            format!("`{LEASE}` is {lease:?}, and no number")
        })?,
        _ => 0,
    };
    let (id, endpoints) = (metadata.remove(ID), metadata.remove(ENDPOINTS));
    // go-micro's and Kratos's nodes are known by what Nacos calls them.
    let named = instance.instance_id.clone().filter(|id| !id.is_empty());
    let named = named.unwrap_or_else(|| address.clone());
    let found = |key: String, node: Node| Found { key, rank, node, lease };
    let key = format!("{under}/{address}");
    let found = match format {
        Format::Kratos => {
            let version = metadata.remove(VERSION).unwrap_or_default();
            let kind = metadata.remove(KIND).unwrap_or_else(|| "grpc".to_owned());
            metadata.insert("weight".to_owned(), format!("{}", instance.weight.ceil()));
            let node = Node { version, metadata, ..Node::new(service, named, &address) };
            found(key, kratos::with_endpoints(node, &[&format!("{kind}://{address}")])?)
        }
        Format::Kitex => {
            let node = Node::new(service, &address, &address);
            let weight = instance.weight.round() as i64;
            found(key, kitex::tagged(node, weight, metadata.into_iter()))
        }
        _ => {
            let version = metadata.remove(VERSION).unwrap_or_default();
            let endpoints = match endpoints {
                Some(tags) => {
                    decode_tags(tags.split(','))
                        .map_err(|why| format!("`{ENDPOINTS}`: {why}"))?
                        .endpoints
                }
                None => Vec::new(),
            };
            let key = id.as_ref().map_or(key, |id| format!("{under}/{id}"));
            let node = Node::new(service, id.unwrap_or(named), &address);
            found(key, Node { version, metadata, endpoints, ..node })
        }
    };
    let node = &found.node;
    if node.is_grpc() && !matches!(host_and_port(&node.address), Some((_, Some(_)))) {
        return Err(format!("its address is {:?}, not `host:port`", node.address));
    }
    Ok(found)
}

fn address(instance: &ServiceInstance) -> String {
    match instance.ip.contains(':') {
        true => format!("[{}]:{}", instance.ip, instance.port),
        false => format!("{}:{}", instance.ip, instance.port),
    }
}

/// Its address, if that is not too long, or else how it begins.
fn told(instance: &ServiceInstance) -> String {
    if instance.ip.len() <= MAX_IP {
        return address(instance);
    }
    let ip: String = instance.ip.chars().take(MAX_TOLD).collect();
    format!("{ip}..:{}", instance.port)
}

/// What tells one instance of a service from another, and in which order they stand.
fn place(instance: &ServiceInstance) -> (&str, i32, Option<&str>) {
    (&instance.ip, instance.port, instance.cluster_name.as_deref())
}

/// What became of a record.
#[derive(Debug)]
pub(super) enum Fate {
    Stands,
    /// Also if an earlier one stands there again, which the SDK writes when it has connected anew.
    Gone,
    /// Another's stands in its place: the node, if it is one.
    Taken(Result<Node, String>),
}

impl Record {
    /// Whether two are at one place in Nacos.
    pub(super) fn is_at(&self, other: &ServiceInstance) -> bool {
        (&self.instance.ip, self.instance.port) == (&other.ip, other.port)
    }

    /// What the instances that Nacos has now say of it. An operator may have changed its metadata, given
    /// it another weight or taken it out: it stands as long as its lease is there, and without one, in
    /// others' formats, all that was written.
    pub(super) fn fate(
        &self,
        node: &Node,
        instances: &[ServiceInstance],
        formats: &[Format],
    ) -> Fate {
        let read = |instance: &ServiceInstance| {
            let read = self::node(&node.service, &self.service, instance, formats);
            read.map(|found| found.node).map_err(shorten)
        };
        let lease_of = |it: &ServiceInstance| it.metadata.get(LEASE)?.parse::<i64>().ok();
        let own = lease_of(&self.instance);
        let later = |it: &&ServiceInstance| {
            own.is_some() && lease_of(it) > own && it.metadata.get(ID) == Some(&node.id)
        };
        let later = instances.iter().filter(later);
        if let Some(later) = later.max_by_key(|it| (lease_of(it), place(it))) {
            return Fate::Taken(read(later));
        }
        let says = |it: &ServiceInstance, (key, value): (&String, &String)| {
            it.metadata.get(key) == Some(value)
        };
        let has = |it: &ServiceInstance| match self.instance.metadata.get_key_value(LEASE) {
            Some(lease) => says(it, lease),
            None => self.instance.metadata.iter().all(|fact| says(it, fact)),
        };
        // In two clusters there may be two: another's beside it takes nothing.
        let here = || instances.iter().filter(|instance| self.is_at(instance));
        let is_earlier = |it: &ServiceInstance| {
            lease_of(it).is_some_and(|its| Some(its) < own) && it.metadata.get(ID) == Some(&node.id)
        };
        match here().max_by_key(|instance| place(instance)) {
            None => Fate::Gone,
            Some(_) if here().any(has) => Fate::Stands,
            Some(instance) if is_earlier(instance) => Fate::Gone,
            Some(instance) => Fate::Taken(read(instance)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Endpoint;

    const ALL: [Format; 3] = [Format::Micro, Format::Kratos, Format::Kitex];

    fn written(node: &Node, formats: &[Format]) -> Vec<Record> {
        records(node, formats, None, Lease(7)).unwrap()
    }

    fn facts(instance: &ServiceInstance) -> BTreeMap<&str, &str> {
        instance.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
    }

    fn instance(facts: &[(&str, &str)]) -> ServiceInstance {
        ServiceInstance {
            ip: "10.0.3.7".to_owned(),
            port: 9000,
            metadata: facts
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect(),
            ..ServiceInstance::default()
        }
    }

    fn read(under: &str, instance: &ServiceInstance, formats: &[Format]) -> Result<Found, String> {
        node("helloworld", under, instance, formats)
    }

    #[test]
    fn a_go_micro_node_is_read() {
        let gomicro = instance(&[
            ("protocol", "grpc"),
            ("server", "grpc"),
            ("transport", "grpc"),
            ("registry", "nacos"),
            ("version", "latest"),
        ]);
        let named = ServiceInstance {
            instance_id: Some("10.0.3.7#9000#DEFAULT#DEFAULT_GROUP@@helloworld".to_owned()),
            ..gomicro.clone()
        };
        let found = read("helloworld", &named, &ALL).unwrap();
        assert_eq!(found.key, "helloworld/10.0.3.7:9000");
        assert_eq!(found.node.id, "10.0.3.7#9000#DEFAULT#DEFAULT_GROUP@@helloworld");
        assert_eq!((found.node.version.as_str(), found.rank), ("latest", 0));
        assert!(found.node.is_grpc() && !found.node.metadata.contains_key("version"));
        assert_eq!(found.node.metadata["registry"], "nacos");
        assert_eq!(read("helloworld", &gomicro, &ALL).unwrap().node.id, "10.0.3.7:9000");
        // Its default protocol is its own.
        let mucp = instance(&[("protocol", "mucp")]);
        assert!(!read("helloworld", &mucp, &ALL).unwrap().node.is_grpc());
        assert!(!read("helloworld", &instance(&[]), &[Format::Micro]).unwrap().node.is_grpc());
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
    fn what_is_out_of_service_is_left_out_and_what_is_broken_told() {
        let node = [("protocol", "grpc"), ("micro-id", "x")];
        let out = [
            ServiceInstance { healthy: false, ..instance(&node) },
            ServiceInstance { enabled: false, ..instance(&node) },
            ServiceInstance { weight: 0.0, ..instance(&node) },
        ];
        let (nodes, malformed) = super::nodes("a", "a", &out, &ALL, None);
        assert!(nodes.is_empty() && malformed.is_empty());
        for (cluster, count) in [("DEFAULT", 1), ("c1", 0)] {
            let (nodes, _) = super::nodes("a", "a", &[instance(&node)], &ALL, Some(cluster));
            assert_eq!(nodes.len(), count, "{cluster}");
        }
        for (broken, named) in [
            (ServiceInstance { port: 70_000, ..instance(&node) }, "not `host:port`"),
            (ServiceInstance { port: -1, ..instance(&node) }, "not `host:port`"),
            (ServiceInstance { ip: "x".repeat(256), ..instance(&node) }, "has 256 bytes, over 255"),
            (instance(&[("micro-id", "x"), ("micro-endpoints", "e-789c00")]), "micro-endpoints"),
            (instance(&[("micro-id", "x"), ("micro-lease", "soon")]), "micro-lease"),
        ] {
            let other =
                ServiceInstance { ip: "10.0.3.8".into(), ..instance(&[("protocol", "grpc")]) };
            let key = format!("a/{}", told(&broken));
            let (nodes, malformed) = super::nodes("a", "a", &[broken, other], &ALL, None);
            assert_eq!((nodes.len(), malformed.len()), (1, 1), "{nodes:?} {malformed:?}");
            assert_eq!(malformed[0].key, key);
            assert!(key.len() < 60, "{key}");
            assert!(malformed[0].reason.contains(named), "{malformed:?}");
        }
    }

    #[test]
    fn of_two_with_one_id_the_later_is_in_force() {
        let at = |port, lease: &str| ServiceInstance {
            port,
            ..instance(&[("protocol", "grpc"), ("micro-id", "x"), ("micro-lease", lease)])
        };
        for instances in [[at(1, "10"), at(2, "9")], [at(2, "9"), at(1, "10")]] {
            let (nodes, _) = super::nodes("a", "a", &instances, &ALL, None);
            assert_eq!(nodes.len(), 1);
            assert_eq!(nodes[0].node.address, "10.0.3.7:1");
        }
    }

    #[test]
    fn of_one_address_in_two_clusters_always_the_same_is_in_force() {
        let of = |cluster: &str, zone: &str| ServiceInstance {
            cluster_name: Some(cluster.to_owned()),
            ..instance(&[("protocol", "grpc"), ("zone", zone)])
        };
        let (one, two) = (of("c1", "a"), of("c2", "b"));
        for instances in [[one.clone(), two.clone()], [two.clone(), one.clone()]] {
            let (nodes, _) = super::nodes("a", "a", &instances, &ALL, None);
            assert_eq!(nodes.len(), 1);
            assert_eq!(nodes[0].node.metadata["zone"], "b");
        }
        let node = Node::new("a", "x", "10.0.3.7:9000");
        let record = records(&node, &[Format::Micro], Some("c1"), Lease(7)).unwrap().remove(0);
        let mine = record.instance.clone();
        for instances in [[mine.clone(), two.clone()], [two.clone(), mine]] {
            let fate = record.fate(&node, &instances, &ALL);
            assert!(matches!(fate, Fate::Stands), "another cluster's takes nothing: {fate:?}");
        }
        for instances in [[one.clone(), two.clone()], [two, one]] {
            let Fate::Taken(Ok(by)) = record.fate(&node, &instances, &ALL) else { panic!("taken") };
            assert_eq!(by.metadata["zone"], "b");
        }
    }

    #[test]
    fn what_became_of_a_record_is_told_by_what_was_written() {
        let node = Node::new("a", "x", "10.0.3.7:9000");
        let records = written(&node, &[Format::Micro]);
        let [record] = &records[..] else { panic!("one") };
        let fate = |instances: &[ServiceInstance]| record.fate(&node, instances, &ALL);
        assert!(matches!(fate(&[]), Fate::Gone));
        let mut stands = record.instance.clone();
        stands.enabled = false;
        stands.weight = 50.0;
        stands.metadata.insert("protocol".to_owned(), "from the console".to_owned());
        assert!(matches!(fate(&[stands.clone()]), Fate::Stands));
        let other = ServiceInstance { port: 1, ..stands.clone() };
        assert!(matches!(fate(std::slice::from_ref(&other)), Fate::Gone), "another's port");
        let mut earlier = stands.clone();
        earlier.metadata.insert(LEASE.to_owned(), "6".to_owned());
        assert!(matches!(fate(&[earlier]), Fate::Gone), "it was before");
        let later = |mut other: ServiceInstance| {
            other.metadata.insert(LEASE.to_owned(), "8".to_owned());
            other
        };
        let Fate::Taken(Ok(by)) = fate(&[stands.clone(), later(other)]) else { panic!("taken") };
        assert_eq!(by.address, "10.0.3.7:1");
        let Fate::Taken(Ok(_)) = fate(&[later(stands)]) else { panic!("taken") };
        let Fate::Taken(Ok(by)) = fate(&[instance(&[("protocol", "grpc")])]) else {
            panic!("overwritten")
        };
        assert_eq!(by.id, "10.0.3.7:9000");
        let later = instance(&[("protocol", "grpc"), (ID, "x"), (LEASE, "8")]);
        let broken = ServiceInstance { ip: "\u{1}".repeat(MAX_IP), port: 70_000, ..later };
        let Fate::Taken(Err(why)) = fate(&[broken]) else { panic!("overwritten") };
        assert!(why.starts_with("its address is") && why.len() < 300, "{why}");
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
