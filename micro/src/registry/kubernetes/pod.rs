//! Records at pods, go-micro's and Kratos's: where they are, and how they are read and written.

mod kratos;
mod micro;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::core::ObjectMeta;
use serde_json::{Value as Json, json};

use self::{kratos::Kratos, micro::Micro};
use super::super::{Lease, Node, RenewError, format::Format};

/// All annotations of a pod together may have this many bytes.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// Where the record of a service is, in one format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Micro(Micro),
    Kratos(Kratos),
}

/// What a record is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Marks {
    labels: Vec<(String, String)>,
    annotations: Vec<(String, String)>,
}

impl Marks {
    /// One that the pod does not have, whatever its value.
    fn missing_at(&self, pod: &ObjectMeta) -> Option<&str> {
        let is_label_missing =
            |(key, value): &&(String, String)| !value.is_empty() && label(pod, key).is_empty();
        let is_annotation_missing = |(key, _): &&(String, String)| annotation(pod, key).is_none();
        let missing = self.labels.iter().find(is_label_missing);
        let missing = missing.or_else(|| self.annotations.iter().find(is_annotation_missing));
        missing.map(|(key, _)| key.as_str())
    }

    /// Whether the pod has all of them as they were written.
    fn stand_at(&self, pod: &ObjectMeta) -> bool {
        self.labels.iter().all(|(key, value)| label(pod, key) == value)
            && self.annotations.iter().all(|(key, value)| annotation(pod, key) == Some(value))
    }
}

impl Place {
    /// # Errors
    /// A name that no record of this format can have.
    pub(super) fn of(format: Format, service: &str) -> Result<Self, String> {
        match format {
            Format::Kratos => Kratos::of(service).map(Self::Kratos),
            _ => Micro::of(service).map(Self::Micro),
        }
    }

    pub(super) fn format(&self) -> Format {
        match self {
            Self::Micro(_) => Format::Micro,
            Self::Kratos(_) => Format::Kratos,
        }
    }

    /// What selects the pods that have one.
    pub(super) fn selector(&self) -> String {
        match self {
            Self::Micro(it) => it.selector(),
            Self::Kratos(it) => it.selector(),
        }
    }

    fn marks(&self, node: &Node, lease: Lease) -> Result<Marks, String> {
        match self {
            Self::Micro(it) => it.marks(node, lease),
            Self::Kratos(it) => it.marks(node, lease),
        }
    }

    /// The patch that writes the node's records, over whatever is there.
    ///
    /// # Errors
    /// A record that does not fit.
    pub(super) fn write(places: &[Self], node: &Node, lease: Lease) -> Result<Json, String> {
        let (mut labels, mut annotations) = (BTreeMap::new(), BTreeMap::new());
        for place in places {
            let marks = place.marks(node, lease)?;
            labels.extend(marks.labels);
            annotations.extend(marks.annotations);
        }
        let length: usize = annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
        if length > MAX_ANNOTATIONS {
            return Err(format!(
                "the record takes {length} bytes, and all annotations of a pod together may take \
                 {MAX_ANNOTATIONS}: give the node less metadata"
            ));
        }
        Ok(json!({ "metadata": { "labels": labels, "annotations": annotations } }))
    }

    /// The patch that removes the node's records from the pod as it was seen, and from no other; none
    /// when it has none.
    pub(super) fn remove(
        places: &[Self],
        seen: &ObjectMeta,
        node: &Node,
        lease: Lease,
    ) -> Option<Json> {
        let (mut labels, mut annotations) = (BTreeMap::new(), BTreeMap::new());
        for place in places.iter().filter(|place| place.is_of(seen, node, lease)) {
            let (own_labels, own_annotations) = match place {
                Self::Micro(it) => (it.own_labels(), it.own_annotations()),
                Self::Kratos(_) => (Kratos::own_labels(), Kratos::own_annotations()),
            };
            labels.extend(own_labels.into_iter().map(|label| (label, Json::Null)));
            annotations.extend(own_annotations.into_iter().map(|it| (it, Json::Null)));
        }
        if annotations.is_empty() {
            return None;
        }
        Some(json!({ "metadata": {
            "resourceVersion": seen.resource_version,
            "uid": seen.uid,
            "labels": labels,
            "annotations": annotations,
        } }))
    }

    /// Whether the node's record stands as it was written under this lease.
    pub(super) fn check(
        &self,
        pod: &ObjectMeta,
        node: &Node,
        lease: Lease,
    ) -> Result<(), RenewError> {
        let own = self.marks(node, lease).map_err(RenewError::Taken)?;
        if let Some(mark) = own.missing_at(pod) {
            let name = pod.name.as_deref().unwrap_or_default();
            return Err(RenewError::Lost(format!(
                "the pod {name} does not have `{mark}` of its record any more"
            )));
        }
        if own.stand_at(pod) {
            return Ok(());
        }
        Err(match self {
            Self::Micro(it) => it.taken(pod, node),
            Self::Kratos(_) => kratos::taken(pod),
        })
    }

    fn is_of(&self, pod: &ObjectMeta, node: &Node, lease: Lease) -> bool {
        match self {
            Self::Micro(it) => it.is_of(pod, node, lease),
            Self::Kratos(it) => it.is_of(pod, node, lease),
        }
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
        match self {
            Self::Micro(it) => it.read(pod, service),
            Self::Kratos(it) => it.read(pod),
        }
    }
}

/// The value of a pod's label; empty if it has none.
fn label<'a>(pod: &'a ObjectMeta, key: &str) -> &'a str {
    pod.labels.as_ref().and_then(|labels| labels.get(key)).map_or("", String::as_str)
}

fn annotation<'a>(pod: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    pod.annotations.as_ref().and_then(|annotations| annotations.get(key)).map(String::as_str)
}

/// What selects all pods that have a record of this format.
pub(super) fn any(format: Format) -> &'static str {
    match format {
        Format::Kratos => kratos::ANY,
        _ => micro::ANY,
    }
}

/// The names of the services that a pod has records of in this format; a record that is none has no
/// name.
pub(super) fn services(format: Format, pod: &Pod) -> Vec<String> {
    match format {
        _ if !is_running(pod) => Vec::new(),
        Format::Kratos => kratos::service(pod).into_iter().collect(),
        _ => micro::services(pod).collect(),
    }
}

/// As go-micro has it: a pod that is leaving, has ended, or has yet to start is not called.
fn is_running(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    pod.metadata.deletion_timestamp.is_none() && phase == Some("Running")
}

#[cfg(test)]
mod tests;
