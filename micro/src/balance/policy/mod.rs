//! How a node is chosen for a call: one file a policy, and [`Rule`], which is all of them as a
//! balancer keeps them.

use std::{str::FromStr, sync::Arc};

use fastrand::Rng;
use tokio::time::Instant;

use super::{
    ewma::Load,
    request::{Asked, Request},
    set::Set,
    snapshot::Endpoint,
};
use crate::{Error, discovery::Update, near, registry::Node};

mod consistent_hash;
mod custom;
mod held;
mod in_flight;
mod listed;
mod p2c;
mod pick_first;
mod round_robin;
#[cfg(test)]
mod tests;
mod turn;
mod weighted;
mod zone_first;

pub use consistent_hash::ConsistentHash;
pub(crate) use consistent_hash::hash_text;
pub use custom::{CallInfo, Candidate, Candidates, Policy};
pub(super) use in_flight::InFlight;

/// How a channel spreads its calls over the nodes that are connected.
///
/// ```
/// use micro::{ChannelOptions, Client, balance::{Balancing, ConsistentHash}};
///
/// # fn main() -> Result<(), micro::Error> {
/// let client = Client::builder()
/// #   .without_env()
///     .registry("memory://balancing")
///     .for_all(ChannelOptions::new().balancing(Balancing::zone_first("eu-west-1a")))
///     .for_service("carts", ChannelOptions::new().balancing(ConsistentHash::by_key()))
///     .build()?;
/// # Ok(())
/// # }
/// ```
///
/// Whatever the policy, a call's further attempts avoid the nodes that it has tried while there is
/// another, and a call that [is pinned](crate::client::Call::node) goes where it is pinned to.
///
/// A policy without parameters can be read from its name, that of its constructor:
/// `"round_robin".parse::<Balancing>()`.
#[derive(Debug, Clone, Default)]
pub struct Balancing(Kind);

#[derive(Debug, Clone, Default)]
enum Kind {
    #[default]
    P2c,
    RoundRobin,
    Random,
    /// Of so many.
    LeastRequest(u32),
    Weighted,
    ConsistentHash(ConsistentHash),
    PickFirst,
    ZoneFirst(Arc<str>),
    Custom(Arc<dyn Policy>),
}

/// Those that a name is enough for.
const NAMED: [(&str, Kind); 7] = [
    ("p2c", Kind::P2c),
    ("round_robin", Kind::RoundRobin),
    ("random", Kind::Random),
    ("least_request", Kind::LeastRequest(2)),
    ("weighted", Kind::Weighted),
    ("consistent_hash", Kind::ConsistentHash(ConsistentHash::by_key())),
    ("pick_first", Kind::PickFirst),
];

impl Balancing {
    /// The cheaper of two nodes drawn at random, by latency (peak-EWMA), calls in flight and recent
    /// failures. The default.
    pub fn p2c() -> Self {
        Self(Kind::P2c)
    }

    /// One after the other, from a random one on.
    pub fn round_robin() -> Self {
        Self(Kind::RoundRobin)
    }

    /// Any.
    pub fn random() -> Self {
        Self(Kind::Random)
    }

    /// Of two nodes drawn at random the one with fewer of this channel's calls in flight
    /// ([gRFC A48](https://github.com/grpc/proposal/blob/master/A48-xds-least-request-lb-policy.md)
    /// with its default of two choices; a [service config](crate::client::ServiceConfig) may say more).
    pub fn least_request() -> Self {
        Self::least_request_of(2)
    }

    /// The same of so many nodes, at least two: of more than ten, ten, as gRPC has it.
    pub(crate) fn least_request_of(choices: u32) -> Self {
        Self(Kind::LeastRequest(choices.min(10)))
    }

    /// By weights: the `weight` in a node's metadata, a number from 0 to 65 535, 1 where there is none.
    /// A record that is written with another weight counts from then on.
    ///
    /// Shares are exact to about a call, and as even in time as can be. A node of weight 0 gets no
    /// calls unless all others are 0 too, or were tried, or have no stream free. A larger number counts as
    /// the largest, and what is none as 1, with a line in the log. For 10 s from when calls go to it a node
    /// gets less, from a tenth up (Envoy's slow start): it may have caches to fill. So does one that is well
    /// again, let in again, or back on another connection, but for one that was away for no more than a
    /// second.
    pub fn weighted() -> Self {
        Self(Kind::Weighted)
    }

    /// Calls of one key to one node. See [`ConsistentHash`].
    pub fn consistent_hash(hash: ConsistentHash) -> Self {
        Self(Kind::ConsistentHash(hash))
    }

    /// All calls to one node, a random one, for as long as it is connected; then to another. Those for
    /// which it has no stream free go to others.
    pub fn pick_first() -> Self {
        Self(Kind::PickFirst)
    }

    /// The nodes of one zone, by the `zone` in their metadata, while they are well; beyond that the
    /// others. Within either as [`p2c`](Self::p2c).
    ///
    /// Calls leave the zone by the share of its listed nodes that is not connected: none while 5 of 7
    /// are, from there on in proportion (Envoy's overprovisioning factor of 1.4), and all when none is. Of a
    /// [subset](crate::ChannelOptions::subset), which is chosen without a look at zones, only those
    /// nodes count that are in it, and calls leave a zone that has none there.
    pub fn zone_first(zone: &str) -> Self {
        Self(Kind::ZoneFirst(zone.into()))
    }

    /// A policy of your own.
    pub fn custom(policy: impl Policy) -> Self {
        Self(Kind::Custom(Arc::new(policy)))
    }

    /// Whether all that was given can be used.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match &self.0 {
            Kind::ConsistentHash(hash) => hash.check(),
            _ => Ok(()),
        }
    }
}

impl PartialEq for Balancing {
    /// Whether both choose alike, and have the same policy of one's own.
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Kind::Custom(one), Kind::Custom(other)) => Arc::ptr_eq(one, other),
            (Kind::ConsistentHash(one), Kind::ConsistentHash(other)) => one == other,
            (Kind::ZoneFirst(one), Kind::ZoneFirst(other)) => one == other,
            (Kind::LeastRequest(one), Kind::LeastRequest(other)) => one == other,
            (one, other) => std::mem::discriminant(one) == std::mem::discriminant(other),
        }
    }
}

impl From<ConsistentHash> for Balancing {
    fn from(hash: ConsistentHash) -> Self {
        Self::consistent_hash(hash)
    }
}

impl FromStr for Balancing {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        if let Some((_, kind)) = NAMED.into_iter().find(|(known, _)| *known == name) {
            return Ok(Self(kind));
        }
        let known = NAMED.into_iter().map(|(known, _)| known);
        let meant = near::meant(name, known.clone()).map_or_else(
            || format!("take one of {}", known.collect::<Vec<_>>().join(", ")),
            |meant| format!("did you mean {meant}?"),
        );
        Err(Error::config(format!("'{name}' is no balancing policy that a name makes; {meant}")))
    }
}

/// A policy with what it keeps, cheap to clone: under change beside the set, and as of then in each
/// snapshot of it. What calls write in it, the clones share.
#[derive(Debug, Clone)]
pub(super) enum Rule<C> {
    P2c,
    RoundRobin(Arc<round_robin::Turns>),
    Random,
    LeastRequest(u32),
    Weighted(weighted::Weights),
    ConsistentHash(consistent_hash::Ring<C>),
    PickFirst(Arc<held::Held>),
    ZoneFirst(zone_first::Zone),
    Custom(Arc<dyn Policy>),
}

impl<C> Rule<C> {
    /// `counted`: what counts in flight on the whole set, by whichever rule.
    pub(super) fn new(balancing: &Balancing, counted: &Arc<InFlight>) -> Self {
        match &balancing.0 {
            Kind::P2c => Self::P2c,
            Kind::RoundRobin => Self::RoundRobin(Arc::new(round_robin::Turns::new())),
            Kind::Random => Self::Random,
            Kind::LeastRequest(choices) => Self::LeastRequest(*choices),
            Kind::Weighted => Self::Weighted(weighted::Weights::new()),
            Kind::ConsistentHash(hash) => {
                Self::ConsistentHash(consistent_hash::Ring::new(hash, counted))
            }
            Kind::PickFirst => Self::PickFirst(Arc::default()),
            Kind::ZoneFirst(zone) => Self::ZoneFirst(zone_first::Zone::new(zone.clone())),
            Kind::Custom(policy) => Self::Custom(policy.clone()),
        }
    }

    /// One of the set that `asked` admits, if the rule finds one.
    pub(super) fn pick<'a>(
        &'a self,
        set: &'a Set<C>,
        asked: &Asked<'_>,
        now: Instant,
        rng: &mut Rng,
    ) -> Option<&'a Arc<Endpoint<C>>> {
        match self {
            Self::P2c => p2c::pick(set, set.all(), asked, now, rng),
            Self::RoundRobin(turns) => turns.pick(set, asked, rng),
            Self::Random => p2c::draw(set, set.all(), asked, None, rng),
            Self::LeastRequest(choices) => p2c::least_request(set, *choices, asked, now, rng),
            Self::Weighted(weights) => weights.pick(set, asked, now, rng),
            Self::ConsistentHash(ring) => match ring.key(asked.request) {
                Some(hash) => ring.pick(hash, asked),
                None => p2c::pick(set, set.all(), asked, now, rng),
            },
            Self::PickFirst(held) => held.pick(set, asked, rng),
            Self::ZoneFirst(zone) => zone.pick(set, asked, now, rng),
            Self::Custom(policy) => custom::pick(&**policy, set, asked, now),
        }
    }

    /// Whether it may choose none of those that a call may go to.
    pub(super) fn is_choosy(&self) -> bool {
        matches!(self, Self::Custom(_))
    }

    /// Whether it might choose an endpoint for some call, were that in the set: not one without a weight,
    /// or of another zone, while no call goes to such.
    pub(super) fn is_called(&self, set: &Set<C>, endpoint: &Endpoint<C>) -> bool {
        match self {
            Self::Weighted(weights) => weights.are_none() || !weighted::is_zero(&endpoint.node),
            Self::ZoneFirst(zone) => zone.is_own(&endpoint.node) || zone.share(set) < 1.0,
            _ => true,
        }
    }

    /// Whether it might for this one: not if the call's key is another's.
    pub(super) fn is_for(&self, request: &Request<'_>, endpoint: &Endpoint<C>) -> bool {
        match self {
            Self::ConsistentHash(ring) => {
                ring.key(request).is_none_or(|key| ring.would_give(key, endpoint))
            }
            _ => true,
        }
    }

    /// Hears what the registry lists.
    pub(super) fn listed(&mut self, update: &Update) {
        if let Self::ZoneFirst(zone) = self {
            zone.listed(update);
        }
    }

    /// Whether a node is to be among the own ones of the set.
    pub(super) fn is_own(&self, node: &Node) -> bool {
        matches!(self, Self::ZoneFirst(zone) if zone.is_own(node))
    }

    /// A node's share of the calls, of which there may be an older record.
    pub(super) fn weight(&self, node: &Node, before: Option<&Node>) -> u32 {
        match self {
            Self::Weighted(_) => weighted::weight(node, before),
            _ => 1,
        }
    }

    /// An endpoint came, or one with the same id is replaced by it.
    pub(super) fn insert(&mut self, endpoint: &Arc<Endpoint<C>>) {
        if let Self::ConsistentHash(ring) = self {
            ring.insert(endpoint);
        }
    }

    /// An endpoint goes.
    pub(super) fn remove(&mut self, endpoint: &Endpoint<C>) {
        if let Self::ConsistentHash(ring) = self {
            ring.remove(endpoint);
        }
    }

    /// All changes have been made that the next snapshot is to show.
    pub(super) fn seal(&mut self, set: &Set<C>) {
        if let Self::Weighted(weights) = self {
            weights.sum(set);
        }
    }

    /// Counts a call in flight on a node, where that is asked about the set as a whole.
    pub(super) fn count(&self, load: &Arc<Load>) -> Option<Counted> {
        match self {
            Self::ConsistentHash(ring) => ring.count(load),
            _ => None,
        }
    }
}

/// A call that counts among those in flight on the whole set, and on its node.
#[derive(Debug)]
pub(super) struct Counted {
    _all: in_flight::Counted,
    load: Arc<Load>,
}

impl Counted {
    fn new(all: Arc<InFlight>, load: Arc<Load>) -> Self {
        load.count();
        Self { _all: in_flight::Counted::new(all), load }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.load.discount();
    }
}
