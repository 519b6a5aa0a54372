//! Kratos's record at a pod, of which a pod has one: labels, and two annotations.
//!
//! A node's address is the pod's own, at a port that the annotation of protocols says speaks gRPC.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::api::core::v1::{ContainerPort, Pod};
use kube::core::ObjectMeta;

use super::{
    super::super::{
        Lease, Node, RenewError,
        format::{kratos, shorten},
    },
    Marks, annotation, label,
};

const ID: &str = "kratos-service-id";
const APP: &str = "kratos-service-app";
const VERSION: &str = "kratos-service-version";
const METADATA: &str = "kratos-service-metadata";
const PROTOCOLS: &str = "kratos-service-protocols";

/// Ours alone: Kratos has no leases, and passes over it.
const LEASE: &str = "micro.mu/kratos-lease";

/// What selects the pods with a record.
pub(super) const ANY: &str = APP;

/// The longest value of a label, in bytes.
const MAX_VALUE: usize = 63;

/// Where the record of a service is: under its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Kratos {
    service: String,
}

impl Kratos {
    pub(super) fn of(service: &str) -> Result<Self, String> {
        if service.is_empty() {
            return Err("the service has no name".to_owned());
        }
        in_label("the service's name", service)?;
        Ok(Self { service: service.to_owned() })
    }

    pub(super) fn selector(&self) -> String {
        format!("{APP}={}", self.service)
    }

    pub(super) fn marks(&self, node: &Node, lease: Lease) -> Result<Marks, String> {
        in_label("the id", &node.id)?;
        in_label("the version", &node.version)?;
        let endpoint = kratos::endpoint(node);
        let (scheme, address) = endpoint.split_once("://").unwrap_or(("grpc", &endpoint));
        let (_, port) = address.rsplit_once(':').unwrap_or_default();
        let object = |object: BTreeMap<&str, &str>| {
            serde_json::to_string(&object).map_err(|error| error.to_string())
        };
        let label = |(key, value): (&str, &String)| (key.to_owned(), value.clone());
        Ok(Marks {
            labels: [(ID, &node.id), (APP, &self.service), (VERSION, &node.version)]
                .map(label)
                .into(),
            annotations: vec![
                (METADATA.to_owned(), object(kratos::metadata(node))?),
                (PROTOCOLS.to_owned(), object(BTreeMap::from([(port, scheme)]))?),
                (LEASE.to_owned(), lease.0.to_string()),
            ],
        })
    }

    pub(super) fn own_labels() -> Vec<String> {
        [ID, APP, VERSION].map(str::to_owned).into()
    }

    pub(super) fn own_annotations() -> Vec<String> {
        [METADATA, PROTOCOLS, LEASE].map(str::to_owned).into()
    }

    pub(super) fn is_of(&self, pod: &ObjectMeta, node: &Node, lease: Lease) -> bool {
        let is_its = label(pod, APP) == self.service && label(pod, ID) == node.id;
        let written_under = annotation(pod, LEASE).and_then(|it| it.parse().ok());
        is_its && written_under.is_none_or(|it| Lease(it) == lease)
    }

    /// As Kratos reads it, a port that no container names included: to name them is not needed for
    /// anything else.
    pub(super) fn read(&self, pod: &Pod) -> Result<Option<Node>, String> {
        let meta = &pod.metadata;
        let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
        let Some(ip) = ip.filter(|_| label(meta, APP) == self.service) else { return Ok(None) };
        let ip: IpAddr = ip.parse().map_err(|_| "the pod's address is none".to_owned())?;
        let host = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
        let mut protocols = object(meta, PROTOCOLS)?;
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let ports = containers.flat_map(|container| container.ports.iter().flatten());
        let (mut endpoints, mut guessed) = (Vec::new(), Vec::new());
        for port in ports {
            let number = port.container_port.to_string();
            match protocols.remove(&number).filter(|scheme| !scheme.is_empty()) {
                Some(scheme) => endpoints.push(format!("{scheme}://{host}:{number}")),
                None => guessed.push(format!("{}://{host}:{number}", scheme_of(port))),
            }
        }
        endpoints
            .extend(protocols.iter().map(|(port, scheme)| format!("{scheme}://{host}:{port}")));
        // A sidecar may call one of its ports `grpc` as well.
        endpoints.append(&mut guessed);
        // One that is written by hand may have none.
        let name = meta.name.as_deref().unwrap_or_default();
        let id = Some(label(meta, ID)).filter(|id| !id.is_empty()).unwrap_or(name);
        let node = Node {
            version: label(meta, VERSION).to_owned(),
            metadata: object(meta, METADATA)?,
            ..Node::new(&self.service, id, "")
        };
        let endpoints: Vec<_> = endpoints.iter().map(String::as_str).collect();
        kratos::with_endpoints(node, &endpoints)
            .map(Some)
            .map_err(|why| shorten(format!("{PROTOCOLS} {why}")))
    }
}

/// The service that a pod has a record of.
pub(super) fn service(pod: &Pod) -> Option<String> {
    Some(label(&pod.metadata, APP).to_owned()).filter(|app| !app.is_empty())
}

/// What to say of a record that was written over.
pub(super) fn taken(pod: &ObjectMeta) -> RenewError {
    let (id, app) = (label(pod, ID).escape_debug(), label(pod, APP).escape_debug());
    RenewError::Taken(format!(
        "the pod's Kratos labels were written over, and name {id} of service {app}: a pod has one node \
         with `kratos` among its formats"
    ))
}

/// What a port speaks by its name, `grpc` or `grpc-main`, where the annotation does not say.
fn scheme_of(port: &ContainerPort) -> &str {
    match port.name.as_deref() {
        None | Some("") => port.protocol.as_deref().unwrap_or("TCP"),
        Some(name) => name.split('-').next().unwrap_or(name),
    }
}

/// The strings in an annotation; what Kratos takes for none is none.
fn object(pod: &ObjectMeta, key: &str) -> Result<BTreeMap<String, String>, String> {
    let text = annotation(pod, key).map_or("", str::trim);
    if matches!(text, "" | "null" | "nil" | "[]") {
        return Ok(BTreeMap::new());
    }
    // The error's own text may quote all of it.
    serde_json::from_str(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("{key} is no JSON object of strings (line {line}, column {column})")
    })
}

/// Whether a label can have this value.
///
/// # Errors
/// Why none can.
fn in_label(what: &str, value: &str) -> Result<(), String> {
    let is_kept = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let is_end = |b: Option<&u8>| b.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = value.as_bytes();
    if value.len() <= MAX_VALUE
        && bytes.iter().copied().all(is_kept)
        && is_end(bytes.first())
        && is_end(bytes.last())
    {
        return Ok(());
    }
    Err(format!(
        "{what} `{}` is a label's value in Kratos's format: at most {MAX_VALUE} of a-z, A-Z, 0-9, `-`, \
         `_` and `.`, a letter or digit at its ends",
        value.escape_debug()
    ))
}
