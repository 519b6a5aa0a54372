//! go-micro's records at pods: where they are, and how one is read and written.

use k8s_openapi::api::core::v1::Pod;
use kube::core::ObjectMeta;

use super::{
    super::super::{
        Lease, Node, RenewError,
        format::{gomicro, shorten},
    },
    Marks, annotation,
};

/// What go-micro marks a pod with that has any record.
pub(super) const ANY: &str = "micro.mu/type=service";

/// The longest name of a label, after its prefix.
const MAX_NAME: usize = 63;

const SERVICE: &str = "service";
const TYPE: &str = "micro.mu/type";
const ANNOTATION: &str = "micro.mu/service-";

/// Where the record of a service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Micro {
    /// The name as go-micro spells it there. Two names may look the same: the record has the true
    /// one.
    spelt: String,
}

impl Micro {
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

    /// What is written for the node.
    ///
    /// # Errors
    /// A record that cannot be.
    pub(super) fn marks(&self, node: &Node, lease: Lease) -> Result<Marks, String> {
        let record =
            String::from_utf8(gomicro::encode(node)?).map_err(|error| error.to_string())?;
        Ok(Marks {
            labels: vec![(TYPE.to_owned(), SERVICE.to_owned()), (self.label(), SERVICE.to_owned())],
            annotations: vec![(self.annotation(), record), (self.lease(), lease.0.to_string())],
        })
    }

    /// The labels that go with the record: the other is of all the pod's records.
    pub(super) fn own_labels(&self) -> Vec<String> {
        vec![self.label()]
    }

    pub(super) fn own_annotations(&self) -> Vec<String> {
        vec![self.annotation(), self.lease()]
    }

    /// What to say of a record that was written over.
    pub(super) fn taken(&self, pod: &ObjectMeta, node: &Node) -> RenewError {
        let record = annotation(pod, &self.annotation()).unwrap_or_default();
        match gomicro::decode(record.as_bytes()) {
            Ok(other) => RenewError::taken_by(node, &other),
            Err(why) => RenewError::Taken(format!(
                "the pod's annotation was overwritten with what is no record: {why}"
            )),
        }
    }

    /// Whether the record is this node's, under this lease or, written back by somebody's hand, under
    /// none: that one would outlive its node.
    pub(super) fn is_of(&self, pod: &ObjectMeta, node: &Node, lease: Lease) -> bool {
        annotation(pod, &self.annotation()).is_some_and(|record| {
            let is_its = || gomicro::decode(record.as_bytes()).is_ok_and(|it| it == *node);
            let written_under = annotation(pod, &self.lease()).and_then(|it| it.parse().ok());
            written_under.map_or_else(is_its, |it| Lease(it) == lease)
        })
    }

    /// The node that the pod's record tells of, if there is one.
    ///
    /// # Errors
    /// What is wrong with the record.
    pub(super) fn read(&self, pod: &Pod, service: &str) -> Result<Option<Node>, String> {
        let Some(record) = annotation(&pod.metadata, &self.annotation()) else { return Ok(None) };
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

/// The names of the services that a pod has records of; a record that is none has no name.
pub(super) fn services(pod: &Pod) -> impl Iterator<Item = String> {
    let annotations = pod.metadata.annotations.iter().flatten();
    annotations
        .filter(|(key, _)| key.starts_with(ANNOTATION))
        .filter_map(|(_, record)| Some(gomicro::decode(record.as_bytes()).ok()?.service))
}
