//! Calls of one key to one node: multi-probe consistent hashing.
//!
//! A node is *one* point on a ring. A key is hashed 21 times, and goes to the node that one of these
//! probes is the nearest before (Appleton & O'Reilly, "Multi-probe consistent hashing", 2015: the
//! busiest node has 1.1 times the mean). So a node costs one entry, and not the hundreds of points
//! that gRPC's `ring_hash` needs for the same.

use std::{
    fmt::{self, Write as _},
    hash::Hasher as _,
    sync::Arc,
};

use http::HeaderName;
use twox_hash::XxHash64;

use super::{
    super::{EndpointId, ewma::Load, request::Asked, snapshot::Endpoint},
    Counted,
    in_flight::InFlight,
};
use crate::Error;

/// The paper's number for a busiest node at 1.1 times the mean.
const PROBES: u64 = 21;

/// How many times the mean a node may have in flight (Mirrokni, Thorup & Zadimoghaddam, "Consistent
/// hashing with bounded loads", 2018: their example, and HAProxy's default is 1.5).
const BOUND: f64 = 1.25;

/// A chunk that has grown to more is split: a change copies one, and the list of them.
const CHUNK: usize = 256;

/// Calls of one key to one node, for as long as that node is there: the policy for caches and
/// sessions.
///
/// A key is what [`Call::hash_key`](crate::client::Call::hash_key) says, else the value of a header
/// if one [is named](Self::by_header). A call that has neither goes as with
/// [`Balancing::p2c`](super::Balancing::p2c). All clients, whatever the process, agree on the node of
/// a key; but not those with a [subset](crate::ChannelOptions::subset) of the nodes, which is each
/// client's own.
///
/// A node that comes or goes moves only the keys that it gets or had. With a bound on the load, which
/// is the default, a node that has 1.25 times the mean of the calls in flight, rounded up, passes the
/// next call on to another, of each key to the same: no node melts under a hot key, at the price that
/// a key's calls at one time may be at several nodes. Where the bound is set as the channel runs, what
/// began before does not count: a node with old streams is not full for those. [`unbounded`](Self::unbounded) leaves each key
/// at its node, as long as that has a stream free: a call goes elsewhere before it waits.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "to be given to ChannelOptions::balancing"]
pub struct ConsistentHash {
    header: Option<Arc<str>>,
    is_bounded: bool,
}

impl ConsistentHash {
    /// By the key that a call is given.
    pub const fn by_key() -> Self {
        Self { header: None, is_bounded: true }
    }

    /// By the key that a call is given, or else by the value of this header of its metadata. A name
    /// that no header can have is an error of `ClientBuilder::build`.
    pub fn by_header(name: &str) -> Self {
        Self { header: Some(name.into()), ..Self::by_key() }
    }

    /// Without the bound on the load.
    pub fn unbounded(self) -> Self {
        Self { is_bounded: false, ..self }
    }

    fn header(&self) -> Option<HeaderName> {
        HeaderName::from_bytes(self.header.as_deref()?.as_bytes()).ok()
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        match &self.header {
            Some(name) if self.header().is_none() => Err(Error::config(format!(
                "consistent_hash by the header '{}': no header can have that name; take letters, \
                 digits and '-'",
                name.escape_debug()
            ))),
            _ => Ok(()),
        }
    }
}

/// A key from its bytes (XXH64, which gRFC A42 hashes headers with).
pub(super) fn hash_bytes(key: &[u8]) -> u64 {
    XxHash64::oneshot(0, key)
}

/// A key from its text: the same as from the bytes of that.
pub(crate) fn hash_text(key: impl fmt::Display) -> u64 {
    struct Text(XxHash64);
    impl fmt::Write for Text {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.write(text.as_bytes());
            Ok(())
        }
    }
    let mut text = Text(XxHash64::with_seed(0));
    // What cannot be shown has the key of what was shown before.
    let _ = write!(text, "{key}");
    text.0.finish()
}

/// A point's place: those of one node at two addresses are apart by the second.
type Point = (u64, EndpointId);

/// A node at its point.
type Entry<C> = (u64, Arc<Endpoint<C>>);

/// The points in order.
#[derive(Debug)]
pub(in super::super) struct Ring<C> {
    chunks: Vec<Arc<Vec<Entry<C>>>>,
    /// The first point of each chunk.
    firsts: Vec<Point>,
    len: usize,
    /// Where a call without a key has one.
    header: Option<HeaderName>,
    /// The calls in flight on all, if the load is bounded: those that began while it was.
    counted: Option<Arc<InFlight>>,
}

impl<C> Clone for Ring<C> {
    fn clone(&self) -> Self {
        Self {
            chunks: self.chunks.clone(),
            firsts: self.firsts.clone(),
            len: self.len,
            header: self.header.clone(),
            counted: self.counted.clone(),
        }
    }
}

impl<C> Ring<C> {
    pub(super) fn new(hash: &ConsistentHash, counted: &Arc<InFlight>) -> Self {
        let counted = hash.is_bounded.then(|| counted.clone());
        let header = hash.header();
        Self { chunks: Vec::new(), firsts: Vec::new(), len: 0, header, counted }
    }

    pub(super) fn count(&self, load: &Arc<Load>) -> Option<Counted> {
        Some(Counted::new(self.counted.clone()?, load.clone()))
    }

    pub(super) fn insert(&mut self, endpoint: &Arc<Endpoint<C>>) {
        let point = point(endpoint);
        if self.chunks.is_empty() {
            self.chunks.push(Arc::default());
            self.firsts.push(point);
        }
        let at = self.chunk_of(point);
        let chunk = Arc::make_mut(&mut self.chunks[at]);
        let entry = (point.0, endpoint.clone());
        match chunk.binary_search_by_key(&point, |(at, it)| (*at, it.id)) {
            Ok(known) => chunk[known] = entry,
            Err(place) => {
                chunk.insert(place, entry);
                self.len += 1;
            }
        }
        let upper = (chunk.len() > CHUNK).then(|| chunk.split_off(CHUNK / 2));
        self.firsts[at] = first(chunk);
        if let Some(upper) = upper {
            self.firsts.insert(at + 1, first(&upper));
            self.chunks.insert(at + 1, Arc::new(upper));
        }
    }

    pub(super) fn remove(&mut self, endpoint: &Endpoint<C>) {
        let point = point(endpoint);
        if self.chunks.is_empty() {
            return;
        }
        let at = self.chunk_of(point);
        let chunk = Arc::make_mut(&mut self.chunks[at]);
        let Ok(place) = chunk.binary_search_by_key(&point, |(at, it)| (*at, it.id)) else {
            return;
        };
        chunk.remove(place);
        self.len -= 1;
        if chunk.is_empty() {
            self.chunks.remove(at);
            self.firsts.remove(at);
        } else {
            self.firsts[at] = first(chunk);
        }
    }

    /// The chunk that a point is in, or would be.
    fn chunk_of(&self, point: Point) -> usize {
        self.firsts.partition_point(|first| *first <= point).saturating_sub(1)
    }

    /// A call's key: its own, or the value of the header that the policy names.
    pub(super) fn key(&self, request: &crate::balance::Request<'_>) -> Option<u64> {
        let header = || request.metadata?.get(self.header.as_ref()?);
        request.hash.or_else(|| Some(hash_bytes(header()?.as_bytes())))
    }

    /// The key's node, or the next one on the ring that has room and is one for the call.
    pub(super) fn pick(&self, key: u64, asked: &Asked<'_>) -> Option<&Arc<Endpoint<C>>> {
        let (_, nearest) = self.nearest(key)?;
        let from_there = || self.from(nearest).filter(|endpoint| asked.admits(endpoint));
        let find = |room| from_there().find(|endpoint| endpoint.load.counted() < room);
        let Some(all) = &self.counted else {
            return from_there().next();
        };
        find(room(all.get(), self.len)).or_else(|| {
            // By the mean of all nodes, those that will do for this call are full: by their own, one is not.
            let (calls, nodes) = from_there().fold((0, 0), |(calls, nodes), endpoint| {
                (calls + endpoint.load.counted() as usize, nodes + 1)
            });
            find(room(calls, nodes)).or_else(|| from_there().next())
        })
    }

    /// Whether a key would be an endpoint's, were that on the ring.
    pub(super) fn would_give(&self, key: u64, endpoint: &Endpoint<C>) -> bool {
        let (point, _) = point(endpoint);
        let distance = probes(key).map(|from| point.wrapping_sub(from)).min();
        self.nearest(key).is_none_or(|(nearest, _)| distance <= Some(nearest))
    }

    /// Where the point is that one of a key's probes is the nearest before, and how far that is.
    fn nearest(&self, key: u64) -> Option<(u64, (usize, usize))> {
        let distances = probes(key).filter_map(|from| {
            let at = self.after(from)?;
            Some((self.chunks[at.0][at.1].0.wrapping_sub(from), at))
        });
        distances.min()
    }

    /// Where the first point at or after `from` is, around the end.
    fn after(&self, from: u64) -> Option<(usize, usize)> {
        let chunk = self.firsts.partition_point(|(first, _)| *first < from).saturating_sub(1);
        let entries = self.chunks.get(chunk)?;
        let entry = entries.partition_point(|(point, _)| *point < from);
        Some(if entry < entries.len() {
            (chunk, entry)
        } else if chunk + 1 < self.chunks.len() {
            (chunk + 1, 0)
        } else {
            (0, 0)
        })
    }

    /// All of them once, from that place on.
    fn from(&self, (chunk, entry): (usize, usize)) -> impl Iterator<Item = &Arc<Endpoint<C>>> {
        let (before, after) = self.chunks[chunk].split_at(entry);
        let others = self.chunks[chunk + 1..].iter().chain(&self.chunks[..chunk]);
        let others = others.flat_map(|chunk| chunk.iter());
        after.iter().chain(others).chain(before).map(|(_, endpoint)| endpoint)
    }
}

/// How many calls on a node are too many for one more, of so many on so many nodes.
fn room(calls: usize, nodes: usize) -> u32 {
    let mean = (calls + 1) as f64 / nodes as f64;
    (mean * BOUND).ceil() as u32
}

fn first<C>(chunk: &[Entry<C>]) -> Point {
    let (point, endpoint) = &chunk[0];
    (*point, endpoint.id)
}

fn point<C>(endpoint: &Endpoint<C>) -> Point {
    (hash_bytes(endpoint.node.id.as_bytes()), endpoint.id)
}

/// Where on the ring a key looks for the nearest point.
fn probes(key: u64) -> impl Iterator<Item = u64> {
    (0..PROBES).map(move |probe| mixed(key.wrapping_add(probe)))
}

/// The finalizer of SplitMix64: neighbours end up far apart.
fn mixed(value: u64) -> u64 {
    let value = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
