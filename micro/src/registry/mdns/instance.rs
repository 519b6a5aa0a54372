//! A node as mDNS has it: an instance of a service, with a host, a port, an address and a text.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{
    super::{Node, format::gomicro, size},
    text,
};

/// The domain of go-micro's nodes. It is none of DNS's, and not `local`.
const DOMAIN: &str = "micro.";

/// The most bytes of a label and of a whole name (RFC 1035, section 3.1), the latter without the
/// lengths of its first label and of the root.
const MAX_LABEL: usize = 63;
const MAX_NAME: usize = 253;

/// The most hex that goes into one record, and with its neighbours into one datagram of 64 KiB.
const MAX_TEXT: usize = 60_000;

/// A node as it stands in packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Instance {
    /// `greeter-1.greeter.micro.`
    pub(super) name: String,
    /// `greeter.micro.`
    pub(super) service: String,
    /// The name that has the address.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) ip: IpAddr,
    /// The index of the interface that a link-local address is of; else 0.
    pub(super) scope: u32,
    /// Hex, as in the record's strings joined.
    pub(super) text: Vec<u8>,
}

impl Instance {
    /// # Errors
    /// What mDNS cannot say of the node, and what to do.
    pub(super) fn of(node: &Node) -> Result<Self, String> {
        let name = name(&node.id, &node.service);
        check(&name, &node.id, &node.service)?;
        let address: SocketAddr = node.address.parse().map_err(|_| {
            let address = &node.address;
            format!(
                "its address `{address}` is not an IP address with a port, and mDNS tells no other: \
                 advertise one"
            )
        })?;
        check_address(address).map_err(|why| format!("{why}: advertise another"))?;
        let text = text::encode(&gomicro::encode_text(node)?);
        if text.len() > MAX_TEXT {
            let length = text.len();
            return Err(format!(
                "what its record says takes {length} bytes, and a packet has room for {MAX_TEXT}: give \
                 the node less metadata, or split its service"
            ));
        }
        let instance = Self {
            // go-micro names the machine here. A name of the node's own is nobody else's on the
            // network: machines of one name (containers, say) mix nothing up.
            host: name.clone(),
            name,
            service: service_name(&node.service),
            port: address.port(),
            ip: address.ip(),
            scope: scope(address),
            text,
        };
        // What is small in a packet may be too large for who reads it.
        let read = instance.node().and_then(|node| size::of_record(&instance.text, &node));
        read.map_err(|why| {
            format!(
                "no other node would take its record: {why}: give the node less metadata, or split its \
                 service"
            )
        })?;
        Ok(instance)
    }

    /// The node that this tells of.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(super) fn node(&self) -> Result<Node, String> {
        let mut address = SocketAddr::new(self.ip, self.port);
        if let SocketAddr::V6(v6) = &mut address {
            v6.set_scope_id(self.scope);
        }
        check_address(address)?;
        let json = text::decode(&self.text)?;
        let mut node = gomicro::decode_text(&json, "", address.to_string())?;
        let id = self.name.strip_suffix(&format!(".{}", service_name(&node.service)));
        node.id = id
            .filter(|id| !id.is_empty())
            .ok_or_else(|| format!("its text is of service {:?}", node.service))?
            .to_owned();
        Ok(node)
    }
}

/// Refuses an address that no node can be reached at.
fn check_address(address: SocketAddr) -> Result<(), String> {
    let ip = address.ip().to_canonical();
    let is_nobodys = ip.is_unspecified() || ip.is_multicast() || ip == Ipv4Addr::BROADCAST;
    if is_nobodys || address.port() == 0 {
        return Err(format!("its address `{address}` is one that no node can have"));
    }
    if is_link_local(ip) && scope(address) == 0 {
        return Err(format!(
            "its address `{address}` is link-local and does not say of which interface, as \
             `[fe80::1%2]:80` does"
        ));
    }
    Ok(())
}

pub(super) fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// That of a link-local address; with any other it says nothing.
fn scope(address: SocketAddr) -> u32 {
    match address {
        SocketAddr::V6(v6) if is_link_local(address.ip()) => v6.scope_id(),
        _ => 0,
    }
}

pub(super) fn service_name(service: &str) -> String {
    format!("{service}.{DOMAIN}")
}

fn name(id: &str, service: &str) -> String {
    format!("{id}.{service}.{DOMAIN}")
}

/// Refuses a service whose name is no name in DNS.
pub(super) fn check_service(service: &str) -> Result<(), String> {
    check(&service_name(service), "", service)
}

fn check(name: &str, id: &str, service: &str) -> Result<(), String> {
    for (what, value) in [("id", id), ("service's name", service)] {
        if value.is_empty() && what == "id" {
            continue;
        }
        for label in value.split('.') {
            if label.is_empty() {
                return Err(format!(
                    "its {what} `{value}` has an empty part before or after a dot: leave out the dot"
                ));
            }
            if label.len() > MAX_LABEL {
                let length = label.len();
                return Err(format!(
                    "`{label}` in its {what} takes {length} bytes, and a label in DNS has at most \
                     {MAX_LABEL}: shorten it"
                ));
            }
        }
    }
    if name.trim_end_matches('.').len() > MAX_NAME {
        let length = name.len() - 1;
        return Err(format!(
            "`{name}` takes {length} bytes, and a name in DNS has at most {MAX_NAME}: shorten its id \
             or its service's name"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::{Endpoint, Value},
        *,
    };

    fn of(service: &str, id: &str, address: &str) -> Result<Instance, String> {
        Instance::of(&Node::new(service, id, address))
    }

    #[test]
    fn a_node_comes_back_as_it_was() {
        for (service, id, address) in [
            ("greeter", "greeter-1", "127.0.0.1:1"),
            ("echo.v1", "echo.v1-cfb391e1", "10.0.0.1:65535"),
            ("team/pay", "\u{e9} x", "[::1]:80"),
            ("greeter", "greeter-1", "[fe80::1%3]:80"),
        ] {
            let mut node = Node::new(service, id, address);
            node.metadata.insert("zone".to_owned(), "<a>".to_owned());
            assert_eq!(Instance::of(&node).unwrap().node(), Ok(node));
        }
    }

    #[test]
    fn names_are_made_of_labels() {
        let instance = of("echo.v1", "echo.v1-1", "127.0.0.1:1").unwrap();
        assert_eq!(instance.name, "echo.v1-1.echo.v1.micro.");
        assert_eq!(instance.service, "echo.v1.micro.");
    }

    #[test]
    fn a_text_of_another_service_is_refused() {
        let mut instance = of("greeter", "a", "127.0.0.1:1").unwrap();
        instance.name = "a.other.micro.".to_owned();
        assert!(instance.node().unwrap_err().contains("of service \"greeter\""));
        instance.name = "greeter.micro.".to_owned();
        assert!(instance.node().is_err(), "it has no id");
    }

    #[test]
    fn what_cannot_be_said_names_the_part_and_the_remedy() {
        let long = "x".repeat(64);
        let longest = ["x".repeat(63), "y".repeat(63), "z".repeat(63)].join(".");
        assert!(of(&"x".repeat(63), &"y".repeat(63), "127.0.0.1:1").is_ok());
        for (service, id, address, named) in [
            ("a", long.as_str(), "127.0.0.1:1", "in its id takes 64 bytes"),
            (&long, "a", "127.0.0.1:1", "in its service's name takes 64 bytes"),
            (&longest, &longest, "127.0.0.1:1", "a name in DNS has at most 253"),
            ("a..b", "a", "127.0.0.1:1", "`a..b` has an empty part"),
            ("a", "a.", "127.0.0.1:1", "`a.` has an empty part"),
            ("a", "a-1", "[fe80::1]:1", "does not say of which interface"),
            ("a", "a-1", "localhost:1", "`localhost:1` is not an IP address with a port"),
            (
                "a",
                "a-1",
                "0.0.0.0:1",
                "`0.0.0.0:1` is one that no node can have: advertise another",
            ),
        ] {
            let why = of(service, id, address).unwrap_err();
            assert!(why.contains(named), "{why} lacks {named}");
        }
        assert!(check_service(&long).is_err() && check_service("").is_err());
        let mut node = Node::new("a", "a-1", "127.0.0.1:1");
        let mut rng = fastrand::Rng::with_seed(7);
        let noise = (0..60_000).map(|_| char::from(rng.u8(b'!'..b'~'))).collect();
        node.metadata.insert("x".to_owned(), noise);
        assert!(Instance::of(&node).unwrap_err().contains("less metadata"));
    }

    fn with_methods(count: usize) -> Node {
        let field = |name| Value {
            name: format!("field_{name}"),
            kind: "string".to_owned(),
            values: vec![],
        };
        let message =
            |name| Value { name, kind: "Message".to_owned(), values: (0..8).map(field).collect() };
        let endpoint = |number| Endpoint {
            name: format!("Greeter.Method{number}"),
            request: Some(message(format!("Method{number}Request"))),
            response: Some(message(format!("Method{number}Response"))),
            metadata: [("stream".to_owned(), "true".to_owned())].into(),
        };
        let mut node = Node::new("greeter", "a", "127.0.0.1:1");
        node.endpoints = (0..count).map(endpoint).collect();
        node
    }

    #[test]
    fn hundreds_of_methods_are_told() {
        let node = with_methods(400);
        let instance = Instance::of(&node).unwrap();
        assert_eq!(instance.node(), Ok(node));
    }

    #[test]
    fn what_no_reader_takes_is_not_registered() {
        let mut long = Node::new("a", "a-1", "127.0.0.1:1");
        long.metadata.insert("x".to_owned(), "x".repeat(600_000));
        let mut many = Node::new("a", "a-1", "127.0.0.1:1");
        many.metadata.extend((0..12_000).map(|key| (key.to_string(), String::new())));
        for (node, named) in [
            (long, "inflates to more than 524288 bytes"),
            (many, "bytes of memory, over the limit of 1048576"),
            (with_methods(1000), "inflates to more than 524288 bytes"),
        ] {
            let why = Instance::of(&node).unwrap_err();
            assert!(why.contains(named) && why.contains("less metadata"), "{why} lacks {named}");
        }
    }
}
