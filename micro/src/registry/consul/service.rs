//! A node as Consul tells of it, whoever registered it.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    super::{
        Entry, Lease, Malformed, Node,
        format::{Format, gomicro::tag, kitex, kratos, shorten},
        url::host_and_port,
    },
    registration::{check_id, notes},
};

/// What lies behind a key of `TaggedAddresses` that Consul itself writes.
const OWN_ADDRESSES: [&str; 6] = ["lan", "wan", "lan_ipv4", "wan_ipv4", "lan_ipv6", "wan_ipv6"];

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Address {
    pub(super) address: String,
    #[serde(default)]
    pub(super) port: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Weights {
    pub(super) passing: i64,
    pub(super) warning: i64,
}

/// A service as Consul tells of it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Service {
    #[serde(rename = "ID")]
    pub(super) id: String,
    /// The name.
    pub(super) service: String,
    pub(super) tags: Option<Vec<String>>,
    pub(super) address: String,
    /// Consul takes any number.
    pub(super) port: i64,
    pub(super) tagged_addresses: Option<BTreeMap<String, Address>>,
    pub(super) meta: Option<BTreeMap<String, String>>,
    pub(super) weights: Option<Weights>,
    connect: Option<Connect>,
    modify_index: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Connect {
    native: bool,
}

impl Service {
    /// Whether it takes part in the service mesh by itself.
    pub(super) fn is_native(&self) -> bool {
        self.connect.as_ref().is_some_and(|connect| connect.native)
    }
}

/// A check as Consul tells of it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Check {
    #[serde(rename = "CheckID")]
    check_id: String,
    status: String,
    notes: String,
    modify_index: u64,
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

    /// When it was last registered. Consul passes over what is written into a service as it was; the
    /// lease in the notes of the check of its TTL is a new one each time. Each pass of that check is
    /// not told in the catalog, only another state.
    fn revision(&self) -> u64 {
        let check = self.check(&self.service.id).map_or(0, |check| check.modify_index);
        check.max(self.service.modify_index)
    }

    /// The node, unless a check of its own or of its machine is critical. As with go-micro, one in
    /// `warning` still counts.
    pub(super) fn read(
        &self,
        service: &str,
        formats: &[Format],
    ) -> Option<Result<Entry, Malformed>> {
        if self.checks.iter().flatten().any(Check::is_critical) {
            return None;
        }
        let key = format!("{}/{}", self.node.node, self.service.id);
        let read = self.service.node(service, &self.node.address, formats);
        Some(match read {
            Ok((rank, node)) => {
                Ok(Entry { key, revision: self.revision(), rank, node: Arc::new(node) })
            }
            Err(reason) => Err(Malformed { key, reason: shorten(reason) }),
        })
    }
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
            // Nobody's whose word is taken here.
            _ if !formats.contains(&Format::Micro) => {
                let mut node = bare;
                node.metadata.remove("protocol");
                node
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

#[cfg(test)]
mod tests {
    use super::{
        super::{super::Listing, known::Known},
        *,
    };

    fn listed(json: &serde_json::Value, formats: &[Format]) -> Listing {
        let mut known = Known::default();
        known.take(json.to_string().as_bytes(), "a", formats).unwrap();
        known.listing(1)
    }

    /// A service on the machine 10.0.0.9, with these fields and a check in this state.
    fn healthy(service: &serde_json::Value, status: &str) -> serde_json::Value {
        serde_json::json!([{
            "Node": { "Node": "n9", "Address": "10.0.0.9", "Unknown": 1 },
            "Service": service,
            "Checks": [{ "CheckID": "serfHealth", "Status": status }]
        }])
    }

    #[test]
    fn a_port_that_is_none_spoils_its_own_service_alone() {
        let service = |port: i64| {
            serde_json::json!({
                "ID": format!("a-{port}"), "Service": "a", "Port": port,
                "Meta": { "protocol": "grpc" },
                "TaggedAddresses": { "lan": { "Address": "10.0.0.9", "Port": port } }
            })
        };
        let all = [80, 70_000, -1].map(|port| healthy(&service(port), "passing")[0].clone());
        let listing = listed(&serde_json::json!(all), &[Format::Micro]);
        assert_eq!(listing.entries.len(), 1);
        assert_eq!(listing.entries[0].node.address, "10.0.0.9:80");
        let reasons: Vec<_> = listing.malformed.iter().map(|it| &*it.reason).collect();
        assert_eq!(reasons.len(), 2);
        assert!(reasons.iter().all(|it| it.contains("not `host:port`")), "{reasons:?}");
    }

    #[test]
    fn what_is_missing_or_null_is_empty() {
        let bare = serde_json::json!({
            "ID": "a-1", "Service": "a", "Port": 80, "Tags": null, "Meta": null, "Weights": null,
            "TaggedAddresses": null, "ModifyIndex": 5
        });
        for format in [Format::Micro, Format::Kratos] {
            let listing = listed(&healthy(&bare, "passing"), &[format]);
            let [entry] = &listing.entries[..] else { panic!("{listing:?}") };
            assert_eq!((entry.key.as_str(), entry.revision), ("n9/a-1", 5));
            assert_eq!(entry.node.address, "10.0.0.9:80", "its machine's");
            assert!(!entry.node.is_grpc());
        }
        let kitex = listed(&healthy(&bare, "warning"), &[Format::Kitex]);
        assert_eq!(kitex.entries[0].node.metadata["weight"], "10");
        assert!(
            listed(&serde_json::json!([{ "Service": {} }]), &[Format::Micro]).malformed.is_empty()
        );
    }

    #[test]
    fn a_check_of_its_ttl_that_was_written_anew_is_a_new_registration() {
        let mut found = healthy(&serde_json::json!({ "ID": "a-1", "ModifyIndex": 5 }), "passing");
        let checks = serde_json::json!([
            { "CheckID": "serfHealth", "Status": "passing", "ModifyIndex": 9 },
            { "CheckID": "service:a-1", "Status": "passing", "ModifyIndex": 7 }
        ]);
        found[0]["Checks"] = checks;
        assert_eq!(listed(&found, &[Format::Micro]).entries[0].revision, 7);
    }

    #[test]
    fn a_node_is_out_while_any_check_is_critical() {
        let service = serde_json::json!({ "ID": "a-1", "Port": 80, "Address": "fd00::1" });
        for (status, count) in [("passing", 1), ("warning", 1), ("critical", 0), ("", 1)] {
            let listing = listed(&healthy(&service, status), &[Format::Micro]);
            assert_eq!(listing.entries.len(), count, "{status}");
        }
        let listing = listed(&healthy(&service, "passing"), &[Format::Micro]);
        assert_eq!(listing.entries[0].node.address, "[fd00::1]:80");
    }

    #[test]
    fn what_cannot_be_called_is_told_by_its_key() {
        for (service, named) in [
            (
                serde_json::json!({ "ID": "x", "Port": 0, "Meta": { "protocol": "grpc" } }),
                "`host:port`",
            ),
            (serde_json::json!({ "ID": "x", "Tags": ["t-789c00"] }), "not zlib's"),
            (
                serde_json::json!({
                    "ID": "x", "TaggedAddresses": { "grpc": { "Address": "grpc://nowhere" } }
                }),
                "`host:port`",
            ),
        ] {
            let listing = listed(&healthy(&service, "passing"), &[Format::Kratos, Format::Micro]);
            assert!(listing.entries.is_empty());
            assert_eq!(listing.malformed[0].key, "n9/x");
            assert!(listing.malformed[0].reason.contains(named), "{listing:?}");
        }
    }
}
