//! Reading all there is of a service, as of one moment.

use std::fmt::Debug;

use k8s_openapi::{
    NamespaceResourceScope,
    api::{core::v1::Pod, discovery::v1::EndpointSlice},
};
use kube::{
    Api, Resource,
    api::{ListParams, VersionMatch},
};
use serde::de::DeserializeOwned;
use tracing::warn;

use super::{
    cluster::{CallError, Cluster, Right},
    pod::{self, Place},
    target::Target,
    view::View,
};

/// What marks a slice with its Service.
pub(super) const OF_SERVICE: &str = "kubernetes.io/service-name";

/// Objects read in one request: some 700 kB of slices with a hundred endpoints each, or of pods,
/// which a link of 6 Mbit/s brings within an exchange's second.
const PAGE: u32 = 20;
const PAGE_OF_PODS: u32 = 100;

/// What can be listed and watched.
pub(super) trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Send
    + 'static
{
    /// As roles name it.
    const RESOURCE: &'static str;
    const PAGE: u32;
}

impl Kind for EndpointSlice {
    const RESOURCE: &'static str = "endpointslices";
    const PAGE: u32 = PAGE;
}

impl Kind for Pod {
    const RESOURCE: &'static str = "pods";
    const PAGE: u32 = PAGE_OF_PODS;
}

/// What selects a Service's slices.
pub(super) fn slices_of(service: &str) -> String {
    format!("{OF_SERVICE}={service}")
}

/// All objects that a selector selects, page by page, as of one version: the one named, or else
/// the latest, which is told.
pub(super) async fn list<K: Kind>(
    cluster: &Cluster,
    what: &str,
    selector: &str,
    at: Option<u64>,
) -> Result<(u64, Vec<K>), CallError> {
    let right = Right { verb: "list", resource: K::RESOURCE };
    let mut params = ListParams::default().labels(selector).limit(K::PAGE);
    if let Some(at) = at {
        params = params.at(&at.to_string()).matching(VersionMatch::Exact);
    }
    let mut objects = Vec::new();
    loop {
        let page = cluster.call(what, |client| {
            let api = Api::<K>::namespaced(client, &cluster.options().namespace);
            let params = params.clone();
            right.with(async move { api.list(&params).await })
        });
        let turn = cluster.turn(what).await?;
        let page = page.await?;
        drop(turn);
        objects.extend(page.items);
        match page.metadata.continue_ {
            Some(token) if !token.is_empty() => params = params.continue_token(&token),
            _ => {
                let version = page.metadata.resource_version.unwrap_or_default();
                return match version.parse() {
                    Ok(version) => Ok((version, objects)),
                    Err(_) => Err(cluster.refuse(
                        what,
                        &format!("its version `{}` is no number", version.escape_debug()),
                    )),
                };
            }
        }
    }
}

/// What there is of a service as of a version, or else of now.
///
/// Slices and pods are in one etcd, and so their versions are of one count: nobody keeps them
/// apart (`--etcd-servers-overrides` could).
pub(super) async fn view(
    cluster: &Cluster,
    what: &str,
    target: &Target,
    at: Option<u64>,
) -> Result<(u64, View), CallError> {
    let mut places = places(cluster, target);
    let mut version = at;
    let mut slices = Vec::new();
    if target.check().is_ok() {
        let selector = slices_of(&target.service);
        let (found_at, found) = list::<EndpointSlice>(cluster, what, &selector, version).await?;
        version = Some(found_at);
        slices = found;
    }
    let mut pods = Vec::new();
    for place in &places {
        match list::<Pod>(cluster, what, &place.selector(), version).await {
            Ok((found_at, found)) => {
                version = Some(found_at);
                pods.push(found);
            }
            // Who has slices is not taken down by a right that is missing for something else.
            Err(error) if error.is_forbidden() && !slices.is_empty() => {
                if at.is_none() {
                    warn!(service = target.service, "discovery: no records at pods: {error}");
                }
                pods.clear();
                break;
            }
            Err(error) => return Err(error),
        }
    }
    places.truncate(pods.len());
    let mut view = View::new(target.clone(), places);
    slices.iter().for_each(|slice| view.slice(slice));
    for (place, pods) in pods.iter().enumerate() {
        pods.iter().for_each(|pod| view.pod(place, pod));
    }
    Ok((version.unwrap_or_default(), view))
}

/// Where pods have records of it that are to be read.
fn places(cluster: &Cluster, target: &Target) -> Vec<Place> {
    let formats = cluster.options().read.iter();
    formats.filter_map(|format| Place::of(*format, &target.service).ok()).collect()
}

/// The names of all services.
pub(super) async fn services(cluster: &Cluster) -> Result<Vec<String>, CallError> {
    let what = "list services";
    let selector = match &cluster.options().target {
        Some(target) => slices_of(&target.service),
        None => OF_SERVICE.to_owned(),
    };
    let (_, slices) = list::<EndpointSlice>(cluster, what, &selector, None).await?;
    let name = |slice: EndpointSlice| slice.metadata.labels?.remove(OF_SERVICE);
    let mut services: Vec<_> = slices.into_iter().filter_map(name).collect();
    for format in &cluster.options().read {
        match list::<Pod>(cluster, what, pod::any(*format), None).await {
            Ok((_, pods)) => {
                services.extend(pods.iter().flat_map(|pod| pod::services(*format, pod)));
            }
            Err(error) if error.is_forbidden() && !services.is_empty() => {
                warn!("discovery: no records at pods: {error}");
            }
            Err(error) => return Err(error),
        }
    }
    if let Some(target) = &cluster.options().target {
        services.retain(|service| *service == target.service);
    }
    services.sort();
    services.dedup();
    Ok(services)
}
