//! What follows from a Service's slices, and from the records at pods: without IO.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use k8s_openapi::api::{
    core::v1::Pod,
    discovery::v1::{Endpoint, EndpointSlice},
};

use super::{
    super::{Entry, Event, Listing, Malformed, Node, format::Format, url::host_and_port},
    pod::Place,
    target::Target,
};

/// The revision of a node from a slice. A slice is written anew for each of its hundred endpoints,
/// so that none has a revision of its own; nor does it need one, being told once an address.
const IN_SLICES: u64 = 1;

/// All that is known of one service.
#[derive(Debug)]
pub(super) struct View {
    target: Target,
    /// Where the records at pods are that are of interest, those in force first.
    places: Vec<Place>,
    /// By name: an endpoint is gone when no slice has it any more, and a change of one slice says
    /// nothing of the others.
    slices: BTreeMap<String, Slice>,
    /// The pods with records of this service, by name, and each one's by place.
    pods: BTreeMap<String, BTreeMap<usize, Record>>,
    /// The ids that several pods have, or have had of which one is left: were such an id the first
    /// one's, it would be another's when that one goes. (Kratos has labels written by hand for a
    /// Deployment, one id for all its pods.)
    shared: HashSet<String>,
    told: BTreeMap<String, Told>,
}

#[derive(Debug)]
struct Slice {
    revision: u64,
    endpoints: Result<Vec<Candidate>, Unclear>,
}

/// A slice whose port to call is not known.
#[derive(Debug)]
struct Unclear {
    why: String,
    /// The pods in it that are not to be called, at no port.
    not_ready: Vec<String>,
}

/// An endpoint of a slice, as a node.
#[derive(Debug)]
struct Candidate {
    condition: Condition,
    is_ipv6: bool,
    pod: Option<String>,
    node: Arc<Node>,
}

/// Whether an endpoint may be called; the better the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Condition {
    Not,
    /// It answers, but is on its way out: called only when there is none that is ready.
    Serving,
    Ready,
}

#[derive(Debug)]
struct Record {
    revision: u64,
    node: Result<Arc<Node>, String>,
}

/// What is under a key: an entry's revision and node, or what is wrong.
type Told = Result<(u64, Arc<Node>), String>;

impl View {
    /// Nothing is known yet. With places, the records there are of interest too.
    pub(super) fn new(target: Target, places: Vec<Place>) -> Self {
        let (slices, pods, shared, told) = Default::default();
        Self { target, places, slices, pods, shared, told }
    }

    /// Takes in a slice of this Service.
    pub(super) fn slice(&mut self, slice: &EndpointSlice) {
        let name = slice.metadata.name.clone().unwrap_or_default();
        let ports = slice.ports.as_deref().unwrap_or_default();
        let is_ipv6 = slice.address_type == "IPv6";
        let candidate = |port| {
            let target = &self.target;
            move |endpoint| Candidate::of(endpoint, is_ipv6, target, port)
        };
        let endpoints = match self.target.resolve(ports) {
            Ok(port) => Ok(slice.endpoints.iter().filter_map(candidate(port)).collect()),
            Err(why) => {
                let not_ready = |it: &&Endpoint| Condition::of(it) != Condition::Ready;
                let not_ready = slice.endpoints.iter().filter(not_ready).filter_map(pod_of);
                Err(Unclear { why, not_ready: not_ready.map(str::to_owned).collect() })
            }
        };
        self.slices.insert(name, Slice { revision: revision(&slice.metadata), endpoints });
    }

    pub(super) fn slice_gone(&mut self, name: &str) {
        self.slices.remove(name);
    }

    /// Takes in a pod that has, or had, a record of this service at this place.
    pub(super) fn pod(&mut self, place: usize, pod: &Pod) {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let node = match self.places[place].read(pod, &self.target.service) {
            Ok(Some(node)) => Ok(Arc::new(node)),
            Ok(None) => return self.pod_gone(place, &name),
            Err(why) => Err(why),
        };
        let record = Record { revision: revision(&pod.metadata), node };
        self.pods.entry(name).or_default().insert(place, record);
    }

    /// A pod that has no record at this place any more.
    pub(super) fn pod_gone(&mut self, place: usize, name: &str) {
        let Some(records) = self.pods.get_mut(name) else { return };
        records.remove(&place);
        if records.is_empty() {
            self.pods.remove(name);
        }
    }

    pub(super) fn places(&self) -> &[Place] {
        &self.places
    }

    /// How all stands, which then is what has been told.
    pub(super) fn listing(&mut self, revision: u64) -> Listing {
        self.note_shared();
        self.told = self.now();
        let mut listing = Listing { revision, ..Listing::default() };
        for (key, told) in &self.told {
            let key = key.clone();
            match told {
                Ok((revision, node)) => {
                    let (revision, node) = (*revision, node.clone());
                    listing.entries.push(Entry { key, revision, rank: 0, node });
                }
                Err(reason) => listing.malformed.push(Malformed { key, reason: reason.clone() }),
            }
        }
        listing
    }

    /// What has changed since it was last told: what came before what went.
    pub(super) fn changes(&mut self) -> Vec<Event> {
        self.note_shared();
        let now = self.now();
        let is_new = |(key, told): &(&String, &Told)| self.told.get(*key) != Some(told);
        let event = |(key, told): (&String, &Told)| match told.clone() {
            Ok((revision, node)) => Event::Put(Entry { key: key.clone(), revision, rank: 0, node }),
            Err(reason) => Event::Malformed(Malformed { key: key.clone(), reason }),
        };
        let mut events: Vec<_> = now.iter().filter(is_new).map(event).collect();
        let gone = self.told.keys().filter(|key| !now.contains_key(*key));
        events.extend(gone.cloned().map(Event::Delete));
        self.told = now;
        events
    }

    fn note_shared(&mut self) {
        let mut pods_of_id: HashMap<&str, usize> = HashMap::new();
        for (.., node) in self.pods.values().filter_map(in_force) {
            *pods_of_id.entry(&node.id).or_default() += 1;
        }
        let is_shared = |(id, pods): &(&str, usize)| *pods > 1 || self.shared.contains(*id);
        let shared = pods_of_id.into_iter().filter(is_shared).map(|(id, _)| id.to_owned());
        self.shared = shared.collect();
    }

    fn now(&self) -> BTreeMap<String, Told> {
        let by_address = self.by_address();
        // A pod that a slice has is in the slice's hands, whether it may be called or not. Where the
        // slice's port is not clear, the record has one, for pods that are ready.
        let unclear = self.slices.values().filter_map(|slice| slice.endpoints.as_ref().err());
        let in_slices: HashSet<_> = by_address
            .values()
            .filter_map(|candidate| candidate.pod.as_deref())
            .chain(unclear.flat_map(|unclear| unclear.not_ready.iter().map(String::as_str)))
            .collect();
        let mut told = BTreeMap::new();
        for (pod, records) in &self.pods {
            for (place, record) in records {
                let Err(why) = &record.node else { continue };
                let key = match self.places[*place].format() {
                    Format::Micro => format!("pods/{pod}"),
                    other => format!("pods/{pod} as {other}"),
                };
                told.insert(key, Err(why.clone()));
            }
            let Some((place, revision, node)) = in_force(records) else { continue };
            if in_slices.contains(pod.as_str()) || by_address.contains_key(node.address.as_str()) {
                continue;
            }
            let mut node = node.clone();
            if self.shared.contains(&node.id) && self.places[place].format() == Format::Kratos {
                Arc::make_mut(&mut node).id.clone_from(pod);
            }
            told.insert(format!("pods/{pod}/{}", node.id), Ok((revision, node)));
        }
        let candidates = || by_address.values().copied();
        let best = candidates().map(|candidate| candidate.condition).max();
        let least = match best {
            // Better one that is leaving than none at all: it still answers.
            Some(Condition::Serving) if told.values().all(Result::is_err) => Condition::Serving,
            _ => Condition::Ready,
        };
        let mut by_id: HashMap<&str, &Candidate> = HashMap::new();
        for candidate in candidates().filter(|candidate| candidate.condition >= least) {
            let other = by_id.entry(&candidate.node.id).or_insert(candidate);
            // A pod of two families is one node.
            let rank = |it: &Candidate| (it.is_ipv6, it.node.address.clone());
            if rank(candidate) < rank(other) {
                *other = candidate;
            }
        }
        for (id, candidate) in by_id {
            let node = self.with_record(candidate);
            told.insert(format!("endpoints/{id}"), Ok((IN_SLICES, node)));
        }
        for (name, slice) in &self.slices {
            if let Err(Unclear { why, .. }) = &slice.endpoints {
                told.insert(format!("slices/{name}"), Err(why.clone()));
            }
        }
        told
    }

    /// Each address once.
    ///
    /// An endpoint that moves from one slice to another is as the slice written last has it.
    /// (Versions are numbers and of one type of object comparable, as Kubernetes has promised since
    /// KEP-5504.) An address that one pod has left and another has got is the better one's, whichever
    /// slice was written last: each slice tells of its own pod.
    fn by_address(&self) -> HashMap<&str, &Candidate> {
        let mut by_endpoint: HashMap<_, (u64, &Candidate)> = HashMap::new();
        for slice in self.slices.values() {
            for candidate in slice.endpoints.iter().flatten() {
                let one = (slice.revision, candidate);
                let endpoint = (candidate.node.address.as_str(), candidate.pod.as_deref());
                let other = by_endpoint.entry(endpoint).or_insert(one);
                let rank = |(revision, it): (u64, &Candidate)| (revision, it.condition);
                if rank(one) > rank(*other) {
                    *other = one;
                }
            }
        }
        let mut by_address: HashMap<&str, (u64, &Candidate)> = HashMap::new();
        // At last by id, so that a tie is not left to chance.
        let rank = |(revision, it): (u64, &Candidate)| (it.condition, revision, it.node.id.clone());
        for ((address, _), one) in by_endpoint {
            let other = by_address.entry(address).or_insert(one);
            if rank(one) > rank(*other) {
                *other = one;
            }
        }
        by_address.into_iter().map(|(address, (_, candidate))| (address, candidate)).collect()
    }

    /// The node, and what its pod's record says of it.
    fn with_record(&self, candidate: &Candidate) -> Arc<Node> {
        let records = candidate.pod.as_ref().and_then(|pod| self.pods.get(pod));
        let Some((.., record)) = records.and_then(in_force) else {
            return candidate.node.clone();
        };
        // One that does not speak gRPC is at another port.
        if !record.is_grpc() {
            return candidate.node.clone();
        }
        let mut node = Node::clone(&candidate.node);
        node.version.clone_from(&record.version);
        node.endpoints.clone_from(&record.endpoints);
        let facts = record.metadata.iter().map(|(key, value)| (key.clone(), value.clone()));
        let from_slice = std::mem::take(&mut node.metadata);
        node.metadata.extend(facts);
        node.metadata.extend(from_slice);
        Arc::new(node)
    }
}

impl Candidate {
    fn of(endpoint: &Endpoint, is_ipv6: bool, target: &Target, port: u16) -> Option<Self> {
        // What further ones would mean is not said anywhere, and the controller writes one.
        let host = endpoint.addresses.first()?;
        let address = if is_ipv6 { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let pod = pod_of(endpoint).map(str::to_owned);
        // The API server takes none that is no address.
        host_and_port(&address)?;
        let id = pod.clone().unwrap_or_else(|| address.clone());
        let mut node = Node::new(&target.service, id, address);
        let hints = endpoint.hints.as_ref().and_then(|hints| hints.for_zones.as_deref());
        let hints: Vec<_> =
            hints.unwrap_or_default().iter().map(|zone| zone.name.as_str()).collect();
        let zone = endpoint.zone.as_deref().or(hints.first().copied());
        node.metadata.extend(zone.map(|zone| ("zone".to_owned(), zone.to_owned())));
        if !hints.is_empty() {
            node.metadata.insert("zone-hints".to_owned(), hints.join(","));
        }
        let condition = Condition::of(endpoint);
        Some(Self { condition, is_ipv6, pod, node: Arc::new(node) })
    }
}

/// The record of the first place that has one, as a node: the place, the revision and it.
fn in_force(records: &BTreeMap<usize, Record>) -> Option<(usize, u64, &Arc<Node>)> {
    records
        .iter()
        .find_map(|(place, record)| Some((*place, record.revision, record.node.as_ref().ok()?)))
}

/// The pod behind an endpoint, if it is one.
fn pod_of(endpoint: &Endpoint) -> Option<&str> {
    let pod = endpoint.target_ref.as_ref().filter(|it| it.kind.as_deref() == Some("Pod"));
    pod?.name.as_deref()
}

impl Condition {
    fn of(endpoint: &Endpoint) -> Self {
        let conditions = endpoint.conditions.as_ref();
        let is_ready = conditions.and_then(|it| it.ready).unwrap_or(true);
        // Clusters from before there was this one tell of readiness alone.
        let is_serving = conditions.and_then(|it| it.serving).unwrap_or(is_ready);
        let is_terminating = conditions.and_then(|it| it.terminating).unwrap_or(false);
        match (is_ready && !is_terminating, is_serving) {
            (true, _) => Self::Ready,
            (false, true) => Self::Serving,
            (false, false) => Self::Not,
        }
    }
}

/// The object's version. All are etcd's revisions, and no other number is ever written.
pub(super) fn revision(metadata: &kube::core::ObjectMeta) -> u64 {
    metadata.resource_version.as_deref().and_then(|it| it.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests;
