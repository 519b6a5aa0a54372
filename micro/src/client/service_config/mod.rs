//! gRPC's service config: how a service wants to be called, as JSON.

use std::{fmt, str::FromStr, sync::Arc};

use super::throttle::Throttle;
use crate::Error;

mod balancing;
mod method;
mod place;
#[cfg(test)]
mod tests;

pub(crate) use balancing::LoadBalancing;
pub(super) use method::MethodConfig;
use method::Methods;
use place::Place;

/// How a service wants to be called: [gRPC's service config][JSON] as it is.
///
/// ```
/// # fn main() -> Result<(), micro::Error> {
/// use micro::{ChannelOptions, Client, client::ServiceConfig};
///
/// let config: ServiceConfig = r#"{
///     "methodConfig": [{
///         "name": [{"service": "greeter.v1.Greeter", "method": "Hello"}],
///         "timeout": "0.3s",
///         "retryPolicy": {
///             "maxAttempts": 3,
///             "initialBackoff": "0.01s",
///             "maxBackoff": "0.1s",
///             "backoffMultiplier": 2,
///             "retryableStatusCodes": ["UNAVAILABLE", "ABORTED"]
///         }
///     }]
/// }"#
/// .parse()?;
/// let client = Client::builder()
///     .for_service("greeter", ChannelOptions::new().service_config(config))
/// #   .without_env().registry("memory://service-config-docs")
///     .build()?;
/// # Ok(())
/// # }
/// ```
///
/// | key | says |
/// |---|---|
/// | `methodConfig` | for some methods: `timeout`, `waitForReady`, `retryPolicy`, `hedgingPolicy`, `maxRequestMessageBytes`, `maxResponseMessageBytes` |
/// | `retryThrottling` | when retries and hedges are held back, in place of the budget |
/// | `loadBalancingConfig` | how a node is picked: the first policy of the list that is known |
/// | `healthCheckConfig` | by which name the nodes are asked for their health, also those that are connected by then; under every policy, where gRFC [A17] leaves `pick_first` out |
///
/// Other keys are ignored, as gRPC does. The rules are those of gRFC [A6] and of the gRFC of each
/// balancing policy; but a stream with a `retryPolicy` is made again until its first message, where A6 has
/// its response's headers.
///
/// Of gRPC's policies in `loadBalancingConfig`:
///
/// | policy | is |
/// |---|---|
/// | `round_robin`, `random_experimental` | [`Balancing::round_robin`], [`random`](crate::balance::Balancing::random) |
/// | `pick_first` | [`Balancing::pick_first`]: nodes are in no order, so that `shuffleAddressList` holds also as `false` |
/// | `least_request_experimental` | [`Balancing::least_request`], of `choiceCount` nodes, over 10 as 10 |
/// | `weighted_round_robin` | [`Balancing::weighted`], by the nodes' records: load reports are not read, and the keys about them do nothing |
/// | `ring_hash_experimental` | [`ConsistentHash`] without a bound, by `requestHashHeader`; the ring has one point for each node, whatever `minRingSize` and `maxRingSize` say |
/// | `outlier_detection_experimental` | [ejection](crate::guide::failing_nodes), around its `childPolicy`; an `interval` under 1s counts as that, a `maxEjectionPercent` over 50 as 50 |
///
/// The others are those of [`Balancing`] by their names. What is said and does not hold is a line of the log, at
/// the level of a warning, when a channel begins to go by the config.
///
/// The most special `methodConfig` of a method holds, and no other with it: that of its name, else of
/// its service, else the one whose name is empty. What a call says itself goes before it; of two
/// deadlines and of two limits on messages the lesser counts. A `retryPolicy` or `hedgingPolicy`
/// declares that the method may be called again, whatever its `.proto` says.
///
/// [`Balancing`]: crate::balance::Balancing
/// [`Balancing::round_robin`]: crate::balance::Balancing::round_robin
/// [`Balancing::pick_first`]: crate::balance::Balancing::pick_first
/// [`Balancing::least_request`]: crate::balance::Balancing::least_request
/// [`Balancing::weighted`]: crate::balance::Balancing::weighted
/// [`ConsistentHash`]: crate::balance::ConsistentHash
/// [JSON]: https://github.com/grpc/grpc/blob/master/doc/service_config.md
/// [A17]: https://github.com/grpc/proposal/blob/master/A17-client-side-health-checking.md
/// [A6]: https://github.com/grpc/proposal/blob/master/A6-client-retries.md
#[derive(Clone)]
pub struct ServiceConfig(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    methods: Methods,
    throttling: Option<Throttling>,
    balancing: Option<LoadBalancing>,
    health: Option<String>,
}

/// `retryThrottling`, in thousandths of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Throttling {
    max: u32,
    ratio: u32,
}

impl ServiceConfig {
    /// How the calls of the method with this path go, if the config says it.
    pub(super) fn method(&self, path: &str) -> Option<&MethodConfig> {
        self.0.methods.of(path)
    }

    /// What holds retries back, if the config says it; begun where `earlier` stands.
    pub(super) fn throttle(&self, earlier: Option<&Throttle>) -> Option<Throttle> {
        self.0.throttling.map(|Throttling { max, ratio }| Throttle::new(max, ratio, earlier))
    }

    /// How a node is to be picked, if the config says it.
    pub(crate) fn load_balancing(&self) -> Option<&LoadBalancing> {
        self.0.balancing.as_ref()
    }

    /// The name by which a node is asked for its health
    /// ([gRFC A17](https://github.com/grpc/proposal/blob/master/A17-client-side-health-checking.md)).
    pub(crate) fn health_check(&self) -> Option<&str> {
        self.0.health.as_deref()
    }

    /// What it says and does not hold, by its path, with what does.
    pub(super) fn unheeded(&self) -> &[String] {
        self.0.balancing.as_ref().map_or(&[], |balancing| &balancing.unheeded)
    }

    /// What is wrong is named by its path.
    pub(super) fn read(json: &str) -> Result<Self, String> {
        let json = serde_json::from_str(json).map_err(|error| format!("is no JSON: {error}"))?;
        let root = Place::root(&json);
        let inner = Inner {
            methods: Methods::read(&root)?,
            throttling: root.read("retryThrottling", Throttling::read)?,
            balancing: LoadBalancing::read(&root)?,
            health: root
                .read("healthCheckConfig", |place| place.read("serviceName", Place::text))?
                .flatten()
                .map(str::to_owned),
        };
        Ok(Self(Arc::new(inner)))
    }
}

impl Throttling {
    fn read(place: &Place<'_>) -> Result<Self, String> {
        let (max, ratio) = (place.required("maxTokens")?, place.required("tokenRatio")?);
        let tokens = max.count()?;
        if !(1..=1000).contains(&tokens) {
            return Err(max.fault(format_args!(
                "{tokens} is not over 0 and up to 1000; write a number such as 10"
            )));
        }
        let share = ratio.number()?;
        // Further decimals are cut off. Not by `floor` alone, which has 1.001 a thousandth short.
        let nearest = (share * 1000.0).round();
        let thousandths = if nearest / 1000.0 > share { nearest - 1.0 } else { nearest };
        if thousandths < 1.0 {
            return Err(
                ratio.fault(format_args!("{share} is under 0.001; write a number such as 0.1"))
            );
        }
        // More than there is room for is as good as all.
        Ok(Self { max: tokens * 1000, ratio: thousandths.min(1e6) as u32 })
    }
}

impl FromStr for ServiceConfig {
    type Err = Error;

    /// Reads and checks the JSON.
    ///
    /// # Errors
    /// `Config`, with the path of what breaks a rule, and the rule:
    /// `$.methodConfig[0].retryPolicy.maxAttempts: 1 is too few; write 2 or more`.
    fn from_str(json: &str) -> Result<Self, Error> {
        Self::read(json).map_err(|fault| Error::config(format!("the service config: {fault}")))
    }
}

impl fmt::Debug for ServiceConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
