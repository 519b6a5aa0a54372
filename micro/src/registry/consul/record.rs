//! A node as Consul holds it: one service of one agent, for all formats at once. go-micro's tags,
//! Kratos's tag and tagged address, Kitex's tags and weights are in nobody else's way.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::super::{
    Entry, Lease, Listing, Malformed, Node,
    format::{Format, gomicro::tag, kitex, kratos},
    url::host_and_port,
};

/// The longest registration, in bytes.
const MAX_LEN: usize = 1024 * 1024;

/// Consul's limits of `Meta`: pairs, and the lengths of key and value.
const MAX_META: usize = 64;
const MAX_META_KEY: usize = 128;
const MAX_META_VALUE: usize = 512;

/// A node that stays critical for this long is deregistered by its agent, beyond the TTL, and at
/// the least that Consul has and go-micro takes.
const KEPT_CRITICAL: Duration = Duration::from_secs(5);
const MIN_KEPT_CRITICAL: Duration = Duration::from_secs(65);

/// Before the lease in a check's notes.
const LEASE: &str = "micro lease ";

/// What lies behind a key of `TaggedAddresses` that Consul itself writes.
const OWN_ADDRESSES: [&str; 6] = ["lan", "wan", "lan_ipv4", "wan_ipv4", "lan_ipv6", "wan_ipv6"];

/// A registration with the agent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Registration {
    #[serde(rename = "ID")]
    id: String,
    name: String,
    tags: Vec<String>,
    port: u16,
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

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Address {
    address: String,
    #[serde(default)]
    port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    passing: i64,
    warning: i64,
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

/// A service as Consul tells of it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Service {
    #[serde(rename = "ID")]
    pub(super) id: String,
    /// The name.
    pub(super) service: String,
    tags: Option<Vec<String>>,
    address: String,
    port: u16,
    tagged_addresses: Option<BTreeMap<String, Address>>,
    meta: Option<BTreeMap<String, String>>,
    weights: Option<Weights>,
    modify_index: u64,
}

/// A check as Consul tells of it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Check {
    #[serde(rename = "CheckID")]
    check_id: String,
    status: String,
    notes: String,
}

/// What the agent knows of a service of its own.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Local {
    pub(super) service: Option<Service>,
    checks: Option<Vec<Check>>,
}

/// A service in the catalog, and its health.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Healthy {
    node: Machine,
    pub(super) service: Service,
    checks: Option<Vec<Check>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Machine {
    node: String,
    address: String,
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
            port,
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

fn notes(lease: Lease) -> String {
    format!("{LEASE}{}", lease.0)
}

/// The id of the check that a registration brings along.
pub(super) fn check_id(id: &str) -> String {
    format!("service:{id}")
}

/// The check of the node's TTL.
fn own_check<'a>(checks: Option<&'a Vec<Check>>, id: &str) -> Option<&'a Check> {
    let check_id = check_id(id);
    checks?.iter().find(|check| check.check_id == check_id)
}

impl Check {
    pub(super) fn is_under(&self, lease: Lease) -> bool {
        self.notes == notes(lease)
    }

    pub(super) fn is_critical(&self) -> bool {
        self.status == "critical"
    }
}

impl Local {
    pub(super) fn check(&self, id: &str) -> Option<&Check> {
        own_check(self.checks.as_ref(), id)
    }
}

impl Healthy {
    pub(super) fn check(&self, id: &str) -> Option<&Check> {
        own_check(self.checks.as_ref(), id)
    }

    /// The node, unless a check of its own or of its machine is critical. As with go-micro, one in
    /// `warning` still counts.
    fn read(&self, service: &str, formats: &[Format]) -> Option<Result<Entry, Malformed>> {
        if self.checks.iter().flatten().any(Check::is_critical) {
            return None;
        }
        let key = format!("{}/{}", self.node.node, self.service.id);
        let read = self.service.node(service, &self.node.address, formats);
        Some(match read {
            Ok((rank, node)) => Ok(Entry {
                key,
                revision: self.service.modify_index,
                rank,
                node: Arc::new(node),
            }),
            Err(reason) => Err(Malformed { key, reason }),
        })
    }
}

/// The nodes of a service among what Consul told of it.
pub(super) fn listing(
    revision: u64,
    found: &[Healthy],
    service: &str,
    formats: &[Format],
) -> Listing {
    let mut listing = Listing { revision, ..Listing::default() };
    for read in found.iter().filter_map(|healthy| healthy.read(service, formats)) {
        match read {
            Ok(entry) => listing.entries.push(entry),
            Err(malformed) => listing.malformed.push(malformed),
        }
    }
    listing
}

impl Service {
    /// The node, and the place of its format among those that are read.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(super) fn node(
        &self,
        service: &str,
        machine: &str,
        formats: &[Format],
    ) -> Result<(u8, Node), String> {
        let tagged = tag::decode_tags(self.tags())?;
        let is_micro = !tagged.is_empty();
        let is_kratos = self.endpoints().next().is_some();
        let is_in = |format: &Format| match format {
            Format::Kratos => is_kratos,
            Format::Kitex => !is_micro && !is_kratos,
            _ => is_micro,
        };
        let place = formats.iter().position(is_in);
        let host = if self.address.is_empty() { machine } else { &self.address };
        let address = match host.contains(':') {
            true => format!("[{host}]:{}", self.port),
            false => format!("{host}:{}", self.port),
        };
        let meta = self.meta.clone().unwrap_or_default();
        let bare = Node { metadata: meta, ..Node::new(service, &self.id, address) };
        let node = match place.map(|place| formats[place]) {
            Some(Format::Kratos) => {
                let endpoints: Vec<_> = self.endpoints().collect();
                kratos::with_endpoints(Node { version: self.kratos_version(), ..bare }, &endpoints)?
            }
            Some(Format::Kitex) => {
                let tags = self.tags().filter_map(|tag| tag.split_once(':'));
                let tags = tags.map(|(key, value)| (key.to_owned(), value.to_owned()));
                let weight = self.weights.map_or(0, |weights| weights.passing);
                kitex::tagged(bare, weight, tags)
            }
            // Also one that says what it is in plain Meta, and no more.
            _ => {
                let mut node = Node {
                    version: tagged.version.unwrap_or_default(),
                    endpoints: tagged.endpoints,
                    ..bare
                };
                node.metadata.extend(tagged.metadata);
                node
            }
        };
        if node.is_grpc() && !matches!(host_and_port(&node.address), Some((_, Some(_)))) {
            return Err(format!("its address is {:?}, not `host:port`", node.address));
        }
        Ok((place.and_then(|place| u8::try_from(place).ok()).unwrap_or(u8::MAX), node))
    }

    fn tags(&self) -> impl Iterator<Item = &str> {
        self.tags.iter().flatten().map(String::as_str)
    }

    /// Kratos's endpoints: URLs where Consul would have addresses.
    fn endpoints(&self) -> impl Iterator<Item = &str> {
        let addresses = self.tagged_addresses.iter().flatten();
        addresses
            .filter(|(key, its)| {
                !OWN_ADDRESSES.contains(&key.as_str()) && its.address.contains("://")
            })
            .map(|(_, its)| its.address.as_str())
    }

    fn kratos_version(&self) -> String {
        let version = self.tags().find_map(|tag| tag.strip_prefix("version="));
        version.unwrap_or_default().to_owned()
    }
}
