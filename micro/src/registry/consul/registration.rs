//! A node as it is registered: one service of one agent, for all formats at once. go-micro's tags,
//! Kratos's tag and tagged address, Kitex's tags and weights are in nobody else's way.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use super::{
    super::{
        Lease, Node,
        format::{Format, gomicro::tag, kitex, kratos},
        url::host_and_port,
    },
    service::{Address, Service, Weights},
};

/// The longest registration, in bytes.
const MAX_LEN: usize = 1024 * 1024;

/// Consul's limits of `Meta`: pairs, and the lengths of key and value.
const MAX_META: usize = 64;
const MAX_META_KEY: usize = 128;
const MAX_META_VALUE: usize = 512;

/// The largest weight that Consul takes.
const MAX_WEIGHT: i64 = 65_535;

/// A node that stays critical for this long is deregistered by its agent, beyond the TTL, and at
/// the least that Consul has and go-micro takes.
const KEPT_CRITICAL: Duration = Duration::from_secs(5);
const MIN_KEPT_CRITICAL: Duration = Duration::from_secs(65);

/// Before the lease in a check's notes.
const LEASE: &str = "micro lease ";

/// A registration with the agent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Registration {
    #[serde(rename = "ID")]
    id: String,
    name: String,
    tags: Vec<String>,
    port: i64,
    address: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tagged_addresses: BTreeMap<String, Address>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    meta: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    weights: Option<Weights>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect: Option<Connect>,
}

/// One, under the check of its TTL.
#[derive(Serialize)]
struct Under<'a> {
    #[serde(flatten)]
    record: &'a Registration,
    #[serde(rename = "Check")]
    check: NewCheck,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct NewCheck {
    #[serde(rename = "TTL")]
    ttl: String,
    deregister_critical_service_after: String,
    /// A node that registers is there, and one that does so anew does not flicker.
    status: &'static str,
    notes: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Connect {
    native: bool,
}

impl Registration {
    /// How the node is registered.
    ///
    /// # Errors
    /// In words, for what Consul or none of the formats can hold.
    pub(super) fn of(node: &Node, formats: &[Format], is_connect: bool) -> Result<Self, String> {
        nameable("service name", &node.service)?;
        nameable("id", &node.id)?;
        let Some((host, Some(port))) = host_and_port(&node.address) else {
            return Err(format!("its address is {:?}, not `host:port`", node.address));
        };
        let mut record = Self {
            id: node.id.clone(),
            name: node.service.clone(),
            tags: Vec::new(),
            port: port.into(),
            address: host.trim_matches(['[', ']']).to_owned(),
            tagged_addresses: BTreeMap::new(),
            meta: BTreeMap::new(),
            weights: None,
            connect: is_connect.then_some(Connect { native: true }),
        };
        // What is in go-micro's tags may be missing elsewhere.
        let has_tags = formats.contains(&Format::Micro);
        for format in formats {
            match format {
                Format::Kratos => record.add_kratos(node, has_tags)?,
                Format::Kitex => record.add_kitex(node, has_tags)?,
                _ => {
                    record.tags.extend(tag::encode_tags(node)?);
                    let facts = node.metadata.iter().map(|(key, value)| (&**key, &**value));
                    record.add_meta(facts, has_tags)?;
                }
            }
        }
        let length = serde_json::to_vec(&record).map_err(|error| error.to_string())?.len();
        if length > MAX_LEN {
            return Err(format!(
                "the record takes {length} bytes, over the limit of {MAX_LEN}: give the node less \
                 metadata"
            ));
        }
        Ok(record)
    }

    fn add_kratos(&mut self, node: &Node, has_tags: bool) -> Result<(), String> {
        self.tags.push(format!("version={}", node.version));
        let address = kratos::endpoint(node);
        let scheme = address.split_once("://").map_or("grpc", |(scheme, _)| scheme).to_owned();
        self.tagged_addresses.insert(scheme, Address { address, port: self.port });
        self.add_meta(kratos::metadata(node).into_iter(), has_tags)
    }

    fn add_kitex(&mut self, node: &Node, has_tags: bool) -> Result<(), String> {
        for (key, value) in kitex::tags(node).unwrap_or_default() {
            if !key.contains(':') {
                self.tags.push(format!("{key}:{value}"));
            } else if !has_tags {
                return Err(format!("Kitex can have no `:` in a key of metadata, as in {key:?}"));
            }
        }
        let weight = kitex::weight(node);
        if weight > MAX_WEIGHT {
            return Err(format!("Consul takes no weight over {MAX_WEIGHT}, as {weight} is"));
        }
        self.weights = Some(Weights { passing: weight, warning: weight });
        Ok(())
    }

    fn add_meta<'a>(
        &mut self,
        facts: impl Iterator<Item = (&'a str, &'a str)>,
        has_tags: bool,
    ) -> Result<(), String> {
        for (key, value) in facts {
            let fits = fits_meta(key, value)
                && (self.meta.len() < MAX_META || self.meta.contains_key(key));
            if fits {
                self.meta.insert(key.to_owned(), value.to_owned());
            } else if !has_tags {
                return Err(format!(
                    "Consul's Meta cannot hold the metadata {key:?}: it has {MAX_META} pairs, with \
                     keys of {MAX_META_KEY} ASCII letters, digits, `-` and `_`, and values of \
                     {MAX_META_VALUE} bytes; the format `micro` has no such limits"
                ));
            }
        }
        Ok(())
    }

    /// The registration under a TTL and a lease, as Consul takes it.
    ///
    /// # Errors
    /// A TTL that Consul cannot count.
    pub(super) fn under(&self, ttl: Duration, lease: Lease) -> Result<Vec<u8>, String> {
        let kept = ttl.saturating_add(KEPT_CRITICAL).max(MIN_KEPT_CRITICAL);
        if i64::try_from(kept.as_nanos()).is_err() {
            return Err(format!("a TTL of {ttl:?} is beyond what Consul can count"));
        }
        let check = NewCheck {
            // As Go reads them, too.
            ttl: format!("{ttl:?}"),
            deregister_critical_service_after: format!("{kept:?}"),
            status: "passing",
            notes: notes(lease),
        };
        serde_json::to_vec(&Under { record: self, check }).map_err(|error| error.to_string())
    }

    /// Whether this is what stands there.
    pub(super) fn is(&self, service: &Service) -> bool {
        let tags = service.tags.as_deref().unwrap_or_default();
        let meta = service.meta.as_ref();
        let addresses = service.tagged_addresses.as_ref();
        let has_address = |(key, own): (&String, &Address)| {
            addresses.and_then(|addresses| addresses.get(key)) == Some(own)
        };
        self.name == service.service
            && self.address == service.address
            && self.port == service.port
            && self.tags == tags
            && meta.map_or(self.meta.is_empty(), |meta| *meta == self.meta)
            && self.tagged_addresses.iter().all(has_address)
            && self.weights.is_none_or(|weights| service.weights == Some(weights))
            && self.connect.is_some() == service.is_native()
    }
}

/// Refuses a name that the agent cannot be asked for.
pub(super) fn nameable(what: &str, name: &str) -> Result<(), String> {
    match name {
        "" | "." | ".." => Err(format!("the {what} is {name:?}, which no URL's path can have")),
        _ => Ok(()),
    }
}

fn fits_meta(key: &str, value: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    !key.is_empty()
        && key.len() <= MAX_META_KEY
        && key.bytes().all(is_plain)
        // Consul keeps these to itself.
        && !key.starts_with("consul-")
        && value.len() <= MAX_META_VALUE
}

/// What a check says of its lease.
pub(super) fn notes(lease: Lease) -> String {
    format!("{LEASE}{}", lease.0)
}

/// The id of the check that a registration brings along.
pub(super) fn check_id(id: &str) -> String {
    format!("service:{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(node: &Node, formats: &[Format]) -> serde_json::Value {
        let record = Registration::of(node, formats, false).unwrap();
        let body = record.under(Duration::from_secs(15), Lease(7)).unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    #[test]
    fn a_registration_has_go_micros_shape() {
        let node = Node::new("greeter", "greeter-1", "[fd00::1]:3456");
        let body = json(&node, &[Format::Micro]);
        let tags = body["Tags"].as_array().unwrap();
        assert_eq!(tags.len(), 4, "three facts and the version: {tags:?}");
        let expected = serde_json::json!({
            "ID": "greeter-1", "Name": "greeter", "Tags": tags, "Port": 3456, "Address": "fd00::1",
            "Meta": { "protocol": "grpc", "server": "grpc", "transport": "grpc" },
            "Check": {
                "TTL": "15s", "DeregisterCriticalServiceAfter": "65s", "Status": "passing",
                "Notes": "micro lease 7"
            }
        });
        assert_eq!(body, expected);
        let record = Registration::of(&node, &[Format::Micro], true).unwrap();
        let long = record.under(Duration::from_millis(90_500), Lease(7)).unwrap();
        let long: serde_json::Value = serde_json::from_slice(&long).unwrap();
        assert_eq!(long["Check"]["TTL"], "90.5s");
        assert_eq!(long["Check"]["DeregisterCriticalServiceAfter"], "95.5s");
        assert_eq!(long["Connect"], serde_json::json!({ "Native": true }));
        assert!(record.under(Duration::MAX, Lease(7)).unwrap_err().contains("beyond"));
    }

    #[test]
    fn a_record_that_left_the_service_mesh_or_came_into_it_is_another() {
        let mut node = Node::new("greeter", "greeter-1", "10.0.3.7:9000");
        node.metadata.clear();
        for is_native in [false, true] {
            let record = Registration::of(&node, &[Format::Micro], is_native).unwrap();
            let mut body = serde_json::to_value(&record).unwrap();
            body["Service"] = body["Name"].take();
            for (connect, is_there) in [
                (serde_json::json!({ "Native": true }), true),
                (serde_json::json!({}), false),
                (serde_json::Value::Null, false),
            ] {
                body["Connect"] = connect;
                let service = serde_json::from_value(body.clone()).unwrap();
                assert_eq!(record.is(&service), is_native == is_there, "{body}");
            }
        }
    }

    #[test]
    fn kratos_and_kitex_find_their_own_words() {
        let mut node = Node::new("greeter", "greeter-1", "10.0.3.7:9000");
        node.version = "v1".to_owned();
        node.metadata.insert("zone".to_owned(), "a".to_owned());
        let body = json(&node, &[Format::Kratos, Format::Kitex]);
        assert_eq!(body["Tags"], serde_json::json!(["version=v1", "zone:a"]));
        assert_eq!(body["Meta"], serde_json::json!({ "zone": "a" }));
        assert_eq!(body["Weights"], serde_json::json!({ "Passing": 10, "Warning": 10 }));
        let grpc = serde_json::json!({ "Address": "grpc://10.0.3.7:9000", "Port": 9000 });
        assert_eq!(body["TaggedAddresses"], serde_json::json!({ "grpc": grpc }));
        node.metadata.insert("scheme".to_owned(), "grpcs".to_owned());
        let body = json(&node, &[Format::Kratos]);
        assert_eq!(body["TaggedAddresses"]["grpcs"]["Address"], "grpcs://10.0.3.7:9000");
    }

    #[test]
    fn what_cannot_be_held_is_refused_unless_tags_hold_it() {
        let with = |key: &str, value: &str| {
            let mut node = Node::new("greeter", "greeter-1", "h:1");
            node.metadata.insert(key.to_owned(), value.to_owned());
            node
        };
        let (long_key, long_value) = ("x".repeat(129), "x".repeat(513));
        let mut many = with("a", "b");
        many.metadata.extend((0..64).map(|n| (format!("k{n}"), String::new())));
        for (node, format, named) in [
            (with("a.b", "c"), Format::Kratos, "\"a.b\""),
            (with("", "c"), Format::Kratos, "\"\""),
            (with(&long_key, "c"), Format::Kratos, "Meta cannot hold"),
            (with("a", &long_value), Format::Kratos, "\"a\""),
            (with("consul-a", "b"), Format::Kratos, "\"consul-a\""),
            (many, Format::Kratos, "64 pairs"),
            (with("a:b", "c"), Format::Kitex, "\"a:b\""),
        ] {
            let why = Registration::of(&node, &[format], false).unwrap_err();
            assert!(why.contains(named), "{why}");
            let both = [Format::Micro, format];
            let record = Registration::of(&node, &both, false).expect("the tags hold it");
            assert!(record.meta.len() <= MAX_META);
        }
        let large = with("a", &String::from_iter((0..2 << 20).map(|_| fastrand::alphanumeric())));
        for (node, named) in [
            (large, "less metadata"),
            (Node::new("a", "b", "h"), "not `host:port`"),
            (Node::new("..", "b", "h:1"), "service name"),
            (Node::new("a", "", "h:1"), "the id is \"\""),
        ] {
            let why = Registration::of(&node, &[Format::Micro], false).unwrap_err();
            assert!(why.contains(named), "{why}");
        }
    }
}
