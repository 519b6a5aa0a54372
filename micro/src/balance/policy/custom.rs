//! A policy of the user's.

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::super::{ewma::Load, request::Asked, set::Set, snapshot::Endpoint};
use crate::registry::Node;

/// A balancing policy of your own, for [`Balancing::custom`](super::Balancing::custom).
///
/// It is asked at each attempt of each call, on the caller's task, and must not block. What it
/// remembers from call to call it keeps in atomics.
///
/// Here calls go to the nodes of the newest version, the least busy of them:
///
/// ```
/// use micro::{ChannelOptions, Client};
/// use micro::balance::{Balancing, CallInfo, Candidates, Policy};
/// # use micro::{Request, Response, Service, Status};
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doc/greeter.v1.rs"));
///
/// #[derive(Debug)]
/// struct Newest;
///
/// impl Policy for Newest {
///     fn pick(&self, candidates: &Candidates<'_>, _: &CallInfo<'_>) -> Option<usize> {
///         let newest = candidates.iter().map(|it| &it.node().version).max()?;
///         let of_it = |place: &usize| candidates.get(*place).node().version == *newest;
///         let places = 0..candidates.len();
///         places.filter(of_it).min_by_key(|place| candidates.get(*place).in_flight())
///     }
/// }
///
/// # struct Greeter(&'static str);
/// # impl GreeterHandler for Greeter {
/// #     async fn hello(&self, _: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
/// #         Ok(Response::new(HelloReply { node: self.0.to_owned(), ..Default::default() }))
/// #     }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::builder()
/// #   .without_env()
///     .registry("memory://policy-docs")
///     .for_service("greeter", ChannelOptions::new().balancing(Balancing::custom(Newest)))
///     .build()?;
/// # let mut nodes = Vec::new();
/// # for version in ["1.0.0", "1.1.0", "1.1.0"] {
/// #     let service = Service::builder("greeter").version(version).registry("memory://policy-docs");
/// #     let mut service = service.without_env().build().await?;
/// #     register_greeter_handler(service.server(), Greeter(version));
/// #     nodes.push(service.start().await?);
/// # }
/// # let greeter = GreeterClient::new("greeter", &client);
/// # for node in &nodes { // each is connected
/// #     greeter.hello(HelloRequest::default()).node(node.id()).await?;
/// # }
/// # for _ in 0..50 {
/// #     let reply = greeter.hello(HelloRequest::default()).await?;
/// #     assert_eq!(reply.into_inner().node, "1.1.0");
/// # }
/// # Ok(())
/// # }
/// ```
pub trait Policy: fmt::Debug + Send + Sync + 'static {
    /// The place of the node for this attempt. `None` has the call wait until the nodes have
    /// changed, within its deadline; so does a place past the end.
    ///
    /// Where [each node is limited](crate::ChannelOptions::max_in_flight_per_node), those without room are
    /// not among the candidates. A call that gets none of the others waits for room beside the line, and
    /// may be overtaken.
    ///
    /// Nodes that the call has tried are not among the candidates while there is another; the call is
    /// then asked about once more with all of them when nothing was picked.
    fn pick(&self, candidates: &Candidates<'_>, call: &CallInfo<'_>) -> Option<usize>;
}

/// The nodes that a call may go to.
pub struct Candidates<'a> {
    len: usize,
    get: &'a (dyn Fn(usize) -> Candidate<'a> + 'a),
}

impl<'a> Candidates<'a> {
    /// How many there are: at least one.
    pub fn len(&self) -> usize {
        self.len
    }

    /// False: a policy is not asked about nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The one in a place. Between two calls nodes may have other places.
    ///
    /// # Panics
    /// When the place is past the end.
    pub fn get(&self, place: usize) -> Candidate<'a> {
        assert!(place < self.len, "candidate {place} of {}", self.len);
        (self.get)(place)
    }

    /// All of them, in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = Candidate<'a>> {
        (0..self.len).map(|place| (self.get)(place))
    }
}

impl fmt::Debug for Candidates<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A connected node.
#[derive(Clone, Copy)]
pub struct Candidate<'a> {
    node: &'a Node,
    load: &'a Load,
    age: Duration,
    now: Instant,
}

impl<'a> Candidate<'a> {
    /// Its record.
    pub fn node(&self) -> &'a Node {
        self.node
    }

    /// How many calls of this channel it has.
    pub fn in_flight(&self) -> u32 {
        self.load.in_flight()
    }

    /// Its latency as estimated from the calls so far (peak-EWMA), or the median of the others where
    /// it came later and had none. `None` while nothing is known.
    pub fn latency(&self) -> Option<Duration> {
        self.load.latency(self.now)
    }

    /// 1 while its calls succeed; each failure halves it, and it comes back with time and successes.
    pub fn health(&self) -> f32 {
        self.load.health(self.now)
    }

    /// How long calls have gone to it: of one that was away for more than a second, or ejected, since it
    /// is back.
    pub fn age(&self) -> Duration {
        self.age
    }
}

impl fmt::Debug for Candidate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Candidate")
            .field("node", &self.node.id)
            .field("in_flight", &self.in_flight())
            .field("latency", &self.latency())
            .field("health", &self.health())
            .finish_non_exhaustive()
    }
}

/// The call that a node is picked for.
#[derive(Debug, Clone, Copy)]
pub struct CallInfo<'a> {
    method: &'a str,
    hash: Option<u64>,
    attempts: usize,
    can_move: bool,
}

impl<'a> CallInfo<'a> {
    /// The path of its method: `/greeter.v1.Greeter/Hello`.
    pub fn method(&self) -> &'a str {
        self.method
    }

    /// The hash of its [key](crate::client::Call::hash_key), if it was given one.
    pub fn hash_key(&self) -> Option<u64> {
        self.hash
    }

    /// Whether it may be made again elsewhere after it has reached a handler: its method is declared
    /// idempotent.
    pub fn can_move(&self) -> bool {
        self.can_move
    }

    /// How many nodes it was given before: one for each attempt, and those that it stands in line at for a
    /// stream.
    pub fn previous_attempts(&self) -> usize {
        self.attempts
    }
}

/// What the policy says, of what the call may go to. Only where that is not all of the set are the
/// places listed.
pub(super) fn pick<'a, C>(
    policy: &dyn Policy,
    set: &'a Set<C>,
    asked: &Asked<'_>,
    now: Instant,
) -> Option<&'a Arc<Endpoint<C>>> {
    let admitted: Option<Vec<usize>> = (!asked.is_any())
        .then(|| set.all().filter(|place| asked.admits(set.get(*place))).collect());
    let len = admitted.as_ref().map_or(set.len(), Vec::len);
    if len == 0 {
        return None;
    }
    let at = |place: usize| set.get(admitted.as_ref().map_or(place, |places| places[place]));
    let get = |place| {
        let endpoint = at(place);
        Candidate { node: &endpoint.node, load: &endpoint.load, age: endpoint.age(now), now }
    };
    let request = &asked.request;
    let call = CallInfo {
        method: request.method,
        hash: request.hash,
        attempts: request.tried.len(),
        can_move: request.can_move,
    };
    let place = policy.pick(&Candidates { len, get: &get }, &call)?;
    (place < len).then(|| at(place))
}
