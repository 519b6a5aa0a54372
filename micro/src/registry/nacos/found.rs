//! A node as it is found in Nacos: what go-micro, Kratos, Kitex and this crate write, read again.

use std::collections::BTreeMap;

use nacos_sdk::api::naming::ServiceInstance;

use super::{
    super::{
        Malformed, Node,
        format::{Format, gomicro::tag::decode_tags, kitex, kratos, shorten},
        url::host_and_port,
    },
    record::{ENDPOINTS, ID, KIND, LEASE, VERSION},
};

/// The longest ip that is taken, in bytes: that of a host's name.
pub(super) const MAX_IP: usize = 255;

/// What is told of a value that cannot be read, in characters.
const MAX_TOLD: usize = 40;

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
pub(super) fn node(
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
pub(super) fn place(instance: &ServiceInstance) -> (&str, i32, Option<&str>) {
    (&instance.ip, instance.port, instance.cluster_name.as_deref())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const ALL: [Format; 3] = [Format::Micro, Format::Kratos, Format::Kitex];

    /// At 10.0.3.7:9000, with this metadata.
    pub(in super::super) fn instance(facts: &[(&str, &str)]) -> ServiceInstance {
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
    }
}
