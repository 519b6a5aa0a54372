//! go-micro's records at pods: where they are, and how one is read and written.

use k8s_openapi::api::core::v1::Pod;
use kube::core::ObjectMeta;
use serde_json::{Value as Json, json};

use super::super::{
    Lease, Node,
    format::{gomicro, shorten},
};

/// What go-micro marks a pod with that has any record.
pub(super) const ANY: &str = "micro.mu/type=service";

/// All annotations of a pod together may have this many bytes.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// The longest name of a label, after its prefix.
const MAX_NAME: usize = 63;

const SERVICE: &str = "service";
const TYPE: &str = "micro.mu/type";
const ANNOTATION: &str = "micro.mu/service-";

/// Where the record of a service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The name as go-micro spells it there. Two names may look the same: the record has the true
    /// one.
    spelt: String,
}

impl Place {
    /// # Errors
    /// A name that is too long for a label.
    pub(super) fn of(service: &str) -> Result<Self, String> {
        let is_kept = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        let spell = |b| if is_kept(b) { char::from(b) } else { '_' };
        let spelt: String = service.bytes().map(spell).collect();
        let most = MAX_NAME - "selector-".len();
        if service.is_empty() {
            return Err("the service has no name".to_owned());
        }
        if spelt.len() > most {
            let length = spelt.len();
            return Err(format!(
                "the service's name has {length} bytes where a pod's label takes {most}"
            ));
        }
        // A label's name ends as it begins, with a letter or digit.
        if !spelt.ends_with(|c: char| c.is_ascii_alphanumeric()) {
            return Err(format!(
                "the service's name ends in `{}`, as no pod's label may",
                service.chars().next_back().unwrap_or_default().escape_debug()
            ));
        }
        Ok(Self { spelt })
    }

    /// What selects the pods that have one.
    pub(super) fn selector(&self) -> String {
        format!("{}={SERVICE}", self.label())
    }

    fn label(&self) -> String {
        format!("micro.mu/selector-{}", self.spelt)
    }

    fn annotation(&self) -> String {
        format!("{ANNOTATION}{}", self.spelt)
    }

    /// Ours alone: go-micro has no leases, and passes over it.
    fn lease(&self) -> String {
        format!("micro.mu/lease-{}", self.spelt)
    }

    /// The patch that writes the record, over whatever is there.
    ///
    /// # Errors
    /// A record that does not fit.
    pub(super) fn write(&self, node: &Node, lease: Lease) -> Result<Json, String> {
        let record =
            String::from_utf8(gomicro::encode(node)?).map_err(|error| error.to_string())?;
        let length = record.len();
        if length > MAX_ANNOTATIONS {
            return Err(format!(
                "the record takes {length} bytes, and all annotations of a pod together may take \
                 {MAX_ANNOTATIONS}: give the node less metadata"
            ));
        }
        Ok(json!({ "metadata": {
            "labels": { (TYPE): SERVICE, (self.label()): SERVICE },
            "annotations": { (self.annotation()): record, (self.lease()): lease.0.to_string() },
        } }))
    }

    /// The patch that removes it from the pod as it was seen, and from no other.
    pub(super) fn remove(&self, seen: &ObjectMeta) -> Json {
        json!({ "metadata": {
            "resourceVersion": seen.resource_version,
            "uid": seen.uid,
            "labels": { (self.label()): null },
            "annotations": { (self.annotation()): null, (self.lease()): null },
        } })
    }

    /// What stands at the pod: the record's text, and the lease it was written under.
    pub(super) fn stands(&self, pod: &ObjectMeta) -> Option<(String, Option<Lease>)> {
        let annotations = pod.annotations.as_ref()?;
        let record = annotations.get(&self.annotation())?.clone();
        let lease = annotations.get(&self.lease()).and_then(|lease| lease.parse().ok());
        Some((record, lease.map(Lease)))
    }

    /// Whether the pod has the labels that its record is found by.
    pub(super) fn is_marked(&self, pod: &ObjectMeta) -> bool {
        let has = |label: &str| {
            let value = pod.labels.as_ref().and_then(|labels| labels.get(label));
            value.is_some_and(|value| value == SERVICE)
        };
        has(TYPE) && has(&self.label())
    }

    /// The node that the pod's record tells of; none if there is none, or the pod is not, or not
    /// any more, one to be called.
    ///
    /// # Errors
    /// What is wrong with the record.
    pub(super) fn read(&self, pod: &Pod, service: &str) -> Result<Option<Node>, String> {
        if !is_running(pod) {
            return Ok(None);
        }
        let Some((record, _)) = self.stands(&pod.metadata) else { return Ok(None) };
        let node = gomicro::decode(record.as_bytes())?;
        if node.service == service {
            return Ok(Some(node));
        }
        match Self::of(&node.service) {
            // Another service's, whose name looks the same here.
            Ok(place) if place == *self => Ok(None),
            _ => Err(shorten(format!("the record is of service {:?}", node.service))),
        }
    }
}

/// As go-micro has it: a pod that is leaving, has ended, or has yet to start is not called.
fn is_running(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    pod.metadata.deletion_timestamp.is_none() && phase == Some("Running")
}

/// The names of the services that a pod has records of; a record that is none has no name.
pub(super) fn services(pod: &Pod) -> impl Iterator<Item = String> {
    let annotations = pod.metadata.annotations.iter().flatten().filter(|_| is_running(pod));
    annotations
        .filter(|(key, _)| key.starts_with(ANNOTATION))
        .filter_map(|(_, record)| Some(gomicro::decode(record.as_bytes()).ok()?.service))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(json: Json) -> Pod {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_record_is_where_go_micro_looks_for_it() {
        let node = Node::new("team/pay.svc", "team/pay.svc-1", "10.1.0.4:9000");
        let place = Place::of(&node.service).unwrap();
        assert_eq!(place.selector(), "micro.mu/selector-team_pay.svc=service");
        let patch = place.write(&node, Lease(-7)).unwrap();
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

        let mut written = patch;
        written["status"] = json!({ "phase": "Running" });
        let written = pod(written);
        assert_eq!(place.read(&written, "team/pay.svc"), Ok(Some(node)));
        assert_eq!(place.read(&written, "team_pay.svc"), Ok(None), "it only looks the same");
        assert_eq!(place.stands(&written.metadata), Some((record.to_owned(), Some(Lease(-7)))));
        assert_eq!(services(&written).collect::<Vec<_>>(), ["team/pay.svc"]);

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
        let place = Place::of("a").unwrap();
        let with = |record: &str| {
            let annotations = json!({ "micro.mu/service-a": record });
            let status = json!({ "phase": "Running" });
            pod(json!({ "metadata": { "annotations": annotations }, "status": status }))
        };
        assert!(place.read(&with("{"), "a").unwrap_err().contains("not JSON"));
        let other = r#"{"name":"b","nodes":[{"id":"b-1"}]}"#;
        let why = place.read(&with(other), "a").unwrap_err();
        assert_eq!(why, r#"the record is of service "b""#);
        assert_eq!(place.stands(&with("{").metadata), Some(("{".to_owned(), None)));
    }

    #[test]
    fn what_no_label_takes_is_refused() {
        assert!(Place::of("").unwrap_err().contains("no name"));
        assert!(Place::of(&"a".repeat(54)).is_ok());
        assert!(Place::of(&"a".repeat(55)).unwrap_err().contains("takes 54"));
        assert!(Place::of("a/").unwrap_err().contains("ends in `/`"));
        let mut large = Node::new("a", "a-1", "h:1");
        large.metadata.insert("notes".to_owned(), "x".repeat(MAX_ANNOTATIONS));
        let why = Place::of("a").unwrap().write(&large, Lease(1)).unwrap_err();
        assert!(why.contains("less metadata"), "{why}");
    }
}
