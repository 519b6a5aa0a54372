//! `kubernetes://`: a Service's EndpointSlices, and go-micro's and Kratos's records at pods.

mod cluster;
mod connections;
mod credentials;
#[cfg(test)]
mod fuzz;
mod options;
mod pod;
mod read;
mod target;
mod view;
mod watch;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, stream};
use http::StatusCode;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use tokio::time::Instant;

use self::{
    cluster::{Cluster, Right},
    options::{Options, OwnPod},
    pod::Place,
    target::Target,
    view::View,
};
use super::{
    BoxFuture, Lease, Listing, Node, Registry, RenewError, Watch, WatchError, share::share,
    url::Url,
};
use crate::{Error, ErrorKind};

/// How long a removal may take to reach everybody: the controller gathers changes of a Service's
/// endpoints, and other clients than ours ask the API server through a proxy or a name server.
const SPREAD: Duration = Duration::from_secs(5);

/// There is no TTL; renewals that come more often than this are of no use to anybody.
const MIN_TTL: Duration = Duration::from_secs(1);

/// How long what was read of a service is kept for the watch that follows it.
const KEPT: Duration = Duration::from_secs(5);

/// Where the pod's name is handed on.
const MANIFEST: &str = "deploy/kubernetes/deployment.yaml";

const GET: Right = Right { verb: "get", resource: "pods" };
const PATCH: Right = Right { verb: "patch", resource: "pods" };

/// A registry in a Kubernetes cluster: nodes are found in the EndpointSlices of the Service of the
/// called name, `greeter` or, with a port, `greeter:9000` or `greeter:grpc`.
///
/// Whoever has a Service is found there, whether it has ever heard of micro or not: what Kubernetes
/// asks of it is readiness. So a node registers by being ready, and what
/// [`register`](Registry::register) writes are its version, metadata and endpoints, as go-micro has
/// it, or Kratos: at its own pod. Neither expires: there is no TTL, and it is the kubelet
/// that finds out about a node that was killed.
///
/// Every exchange is bounded by 1 s. Of those that look for nodes 32 go on at a time, and the others
/// wait for their turn, 1 s at most. One that fails, but by the server's word, makes the next begin
/// with a new client, which reads token, certificates and kubeconfig anew; so does a token that
/// the server does not take any more.
///
/// One URL opened several times in a process (and runtime) is one registry, whose client all share.
/// Over TLS the server is asked for HTTP/2: a connection has up to 100 watches, or as many as the
/// server takes. In HTTP/1.1 each has one of its own.
#[derive(Debug)]
pub struct Kubernetes {
    cluster: Arc<Cluster>,
    hint: String,
    /// What was read last of each service, and when: a watch begins with it, and would have to read
    /// it once more.
    last_read: Mutex<HashMap<String, (Instant, u64, View)>>,
}

impl Kubernetes {
    pub(super) fn open(url: &Url) -> Result<Arc<dyn Registry>, Error> {
        let options = Options::of(url)?;
        Ok(share(options.identity(), || {
            let namespace = &options.namespace;
            let hint = match &options.target {
                Some(target) => {
                    format!("{} has the Service {} alone", options.name, target.service)
                }
                None => format!(
                    "{} has what a Service of that name in the namespace {namespace} selects and \
                     is ready",
                    options.name
                ),
            };
            Self { cluster: Arc::new(Cluster::new(options)), hint, last_read: Mutex::default() }
        }))
    }

    fn refuse(&self, node: &Node, why: &str) -> Error {
        let (name, id, service) = (self.name(), &node.id, &node.service);
        Error::config(format!("{name}: cannot register {id} of service {service}: {why}"))
    }

    /// What is called by this name.
    ///
    /// # Errors
    /// `Config` for what is not to be had here.
    fn target(&self, called: &str) -> Result<Target, Error> {
        let options = self.cluster.options();
        let fail = |why: &str| {
            let (name, called) = (self.name(), called.escape_debug());
            Error::config(format!("{name}: cannot look for `{called}`: {why}"))
        };
        let mut target = Target::parse(called).map_err(|why| fail(&why))?;
        if let Some(only) = &options.target {
            if target.service != only.service {
                return Err(fail(&format!(
                    "the registry's URL names the Service {}; leave it out of the URL to call others",
                    only.service
                )));
            }
            target.port = target.port.or_else(|| only.port.clone());
        }
        // A record at a pod can have another name than a Service.
        if let Err(why) = target.check()
            && !options.read.iter().any(|format| Place::of(*format, &target.service).is_ok())
        {
            return Err(fail(&why));
        }
        Ok(target)
    }

    /// Our own pod.
    fn pod(&self, what: &str) -> Result<&OwnPod, Error> {
        self.cluster.options().pod.as_ref().ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{}: cannot {what}: which pod this is is not known: set POD_NAME and \
                     POD_NAMESPACE from the pod's own fields, as {MANIFEST} does; outside of a \
                     cluster there is nothing to register",
                    self.name()
                ),
            )
        })
    }

    fn last_read(&self) -> MutexGuard<'_, HashMap<String, (Instant, u64, View)>> {
        self.last_read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the node's records are.
    fn places(&self, node: &Node) -> Result<Vec<Place>, Error> {
        let formats = self.cluster.options().written.iter();
        let places: Result<_, _> =
            formats.map(|format| Place::of(*format, &node.service)).collect();
        places.map_err(|why| self.refuse(node, &why))
    }
}

fn what(verb: &str, node: &Node) -> String {
    format!("{verb} {} of service {}", node.id, node.service)
}

fn pods(client: Client, pod: &OwnPod) -> Api<Pod> {
    Api::namespaced(client, &pod.namespace)
}

impl Registry for Kubernetes {
    fn name(&self) -> &str {
        &self.cluster.options().name
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn hint(&self) -> Option<&str> {
        Some(&self.hint)
    }

    fn spread(&self) -> Duration {
        SPREAD
    }

    fn min_ttl(&self) -> Duration {
        MIN_TTL
    }

    fn validate(&self, node: &Node) -> Result<(), Error> {
        let written = Place::write(&self.places(node)?, node, Lease(0));
        written.map(drop).map_err(|why| self.refuse(node, &why))
    }

    fn register<'a>(
        &'a self,
        node: &'a Node,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Lease, Error>> {
        async move {
            let what = what("register", node);
            let pod = self.pod(&what)?;
            if ttl < MIN_TTL {
                let why = format!("a TTL of {ttl:?} is under the least, {MIN_TTL:?}");
                return Err(self.refuse(node, &why));
            }
            let lease = Lease(fastrand::i64(1..));
            let patch = Place::write(&self.places(node)?, node, lease)
                .map_err(|why| self.refuse(node, &why))?;
            let write = |client| {
                let (api, patch) = (pods(client, pod), Patch::Strategic(patch.clone()));
                PATCH.with(
                    async move { api.patch(&pod.name, &PatchParams::default(), &patch).await },
                )
            };
            self.cluster.call(&what, write).await?;
            Ok(lease)
        }
        .boxed()
    }

    fn renew<'a>(&'a self, node: &'a Node, lease: Lease) -> BoxFuture<'a, Result<(), RenewError>> {
        async move {
            let what = what("renew", node);
            let pod = self.pod(&what).map_err(RenewError::Failed)?;
            let places = self.places(node).map_err(RenewError::Failed)?;
            let get = |client| {
                let api = pods(client, pod);
                // Of a pod that is all there is to know here: the rest is many times larger.
                GET.with(async move { Ok(api.get_metadata(&pod.name).await?.metadata) })
            };
            let found = match self.cluster.call(&what, get).await {
                Ok(found) => found,
                Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => {
                    return Err(RenewError::Lost(format!("the pod {} is gone", pod.name)));
                }
                Err(error) => return Err(RenewError::Failed(error.into())),
            };
            places.iter().try_for_each(|place| place.check(&found, node, lease))
        }
        .boxed()
    }

    fn deregister<'a>(&'a self, node: &'a Node, lease: Lease) -> BoxFuture<'a, Result<(), Error>> {
        async move {
            let what = what("deregister", node);
            let pod = self.pod(&what)?;
            let places = &self.places(node)?;
            let remove = |client| {
                let api = pods(client, pod);
                async move {
                    loop {
                        let found = match GET.with(api.get_metadata(&pod.name)).await {
                            Ok(found) => found.metadata,
                            Err(failed) if failed.status() == Some(StatusCode::NOT_FOUND) => {
                                return Ok(());
                            }
                            Err(failed) => return Err(failed),
                        };
                        let Some(patch) = Place::remove(places, &found, node, lease) else {
                            return Ok(());
                        };
                        let patch = Patch::Strategic(patch);
                        let params = PatchParams::default();
                        match PATCH.with(api.patch(&pod.name, &params, &patch)).await {
                            Err(failed) if failed.status() == Some(StatusCode::NOT_FOUND) => {
                                return Ok(());
                            }
                            // The pod was written meanwhile, perhaps its record.
                            Err(failed) if failed.status() == Some(StatusCode::CONFLICT) => {}
                            done => return done.map(drop),
                        }
                    }
                }
            };
            Ok(self.cluster.call(&what, remove).await?)
        }
        .boxed()
    }

    fn read<'a>(&'a self, service: &'a str) -> BoxFuture<'a, Result<Listing, Error>> {
        async move {
            let target = self.target(service)?;
            let what = format!("read service {service}");
            let (version, mut view) = read::view(&self.cluster, &what, &target, None).await?;
            let listing = view.listing(version);
            let mut last_read = self.last_read();
            last_read.retain(|_, (read, ..)| read.elapsed() < KEPT);
            last_read.insert(service.to_owned(), (Instant::now(), version, view));
            Ok(listing)
        }
        .boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<String>, Error>> {
        async move { Ok(read::services(&self.cluster).await?) }.boxed()
    }

    fn watch(&self, service: &str, after: u64) -> Watch {
        match self.target(service) {
            Ok(target) => {
                let read = self.last_read().remove(service);
                let read =
                    read.filter(|(read, version, _)| read.elapsed() < KEPT && *version == after);
                let view = read.map(|(.., view)| view);
                watch::watch(self.cluster.clone(), target, after, view)
            }
            Err(error) => stream::iter([Err(WatchError::Disconnected(error))]).boxed(),
        }
    }
}
