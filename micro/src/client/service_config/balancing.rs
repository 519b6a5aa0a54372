//! `loadBalancingConfig`: how a node is picked, and when one is left out.

use std::time::Duration;

use serde_json::Value;

use super::place::Place;

/// The first policy of the list that is known here.
#[derive(Debug, Clone)]
#[cfg_attr(not(test), expect(dead_code, reason = "the policies are to read it"))]
pub(crate) struct LoadBalancing {
    pub(crate) policy: Policy,
    /// The policy's own fields, checked as far as their gRFCs have rules.
    pub(crate) config: Value,
    /// What was said around it.
    pub(crate) outlier_detection: Option<OutlierDetection>,
}

macro_rules! policies {
    ($($(#[$doc:meta])* $policy:ident $name:literal)*) => {
        /// A policy by its name in service configs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Policy { $($(#[$doc])* $policy),* }

        impl Policy {
            const ALL: &[(&'static str, Self)] = &[$(($name, Self::$policy)),*];
        }
    };
}

policies! {
    RoundRobin "round_robin"
    PickFirst "pick_first"
    /// gRFC A48.
    LeastRequest "least_request_experimental"
    /// gRFC A58.
    WeightedRoundRobin "weighted_round_robin"
    /// gRFC A42.
    RingHash "ring_hash_experimental"
    P2cEwma "p2c_ewma"
    Random "random"
    Weighted "weighted"
    ConsistentHash "consistent_hash"
    ZoneFirst "zone_first"
}

const OUTLIER_DETECTION: &str = "outlier_detection_experimental";

/// When a node is left out for its failures, with the defaults of
/// [gRFC A50](https://github.com/grpc/proposal/blob/master/A50-xds-outlier-detection.md).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutlierDetection {
    pub(crate) interval: Duration,
    pub(crate) base_ejection_time: Duration,
    pub(crate) max_ejection_time: Duration,
    pub(crate) max_ejection_percent: u32,
    pub(crate) success_rate: Option<SuccessRate>,
    pub(crate) failure_percentage: Option<FailurePercentage>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SuccessRate {
    /// In thousandths of a standard deviation.
    pub(crate) stdev_factor: u32,
    pub(crate) enforcement_percentage: u32,
    pub(crate) minimum_hosts: u32,
    pub(crate) request_volume: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FailurePercentage {
    pub(crate) threshold: u32,
    pub(crate) enforcement_percentage: u32,
    pub(crate) minimum_hosts: u32,
    pub(crate) request_volume: u32,
}

impl LoadBalancing {
    pub(super) fn read(root: &Place<'_>) -> Result<Option<Self>, String> {
        if root.get("loadBalancingConfig")?.is_some() {
            return Self::first_known(root, "loadBalancingConfig").map(Some);
        }
        // The older form, which knows names alone.
        let Some(place) = root.get("loadBalancingPolicy")? else {
            return Ok(None);
        };
        let name = place.text()?.to_ascii_lowercase();
        let policy = known(&name).ok_or_else(|| place.fault(unknown(&name)))?;
        Ok(Some(Self { policy, config: Value::Null, outlier_detection: None }))
    }

    fn first_known(parent: &Place<'_>, key: &str) -> Result<Self, String> {
        let mut names = Vec::new();
        for place in parent.list(key)? {
            let (name, config) = place.only_key()?;
            if name == OUTLIER_DETECTION {
                let detection = OutlierDetection::read(&config)?;
                let child = Self::first_known(&config, "childPolicy")?;
                return Ok(Self { outlier_detection: Some(detection), ..child });
            }
            if let Some(policy) = known(name) {
                check(policy, &config)?;
                let config = config.value().clone();
                return Ok(Self { policy, config, outlier_detection: None });
            }
            names.push(name);
        }
        Err(parent.required(key)?.fault(unknown(&names.join("`, `"))))
    }
}

fn known(name: &str) -> Option<Policy> {
    Policy::ALL.iter().find(|(known, _)| *known == name).map(|(_, policy)| *policy)
}

fn unknown(names: &str) -> String {
    let all: Vec<_> = Policy::ALL.iter().map(|(name, _)| *name).collect();
    format!("no policy of `{names}` is known; write one of {}", all.join(", "))
}

/// The rules of the policies' own gRFCs.
fn check(policy: Policy, config: &Place<'_>) -> Result<(), String> {
    match policy {
        Policy::LeastRequest => {
            if let Some(place) = config.get("choiceCount")?
                && place.count()? < 2
            {
                return Err(place.fault("is under 2; write 2 or more"));
            }
        }
        Policy::RingHash => {
            let size =
                |key, default| Ok::<_, String>(config.read(key, ring_size)?.unwrap_or(default));
            if size("minRingSize", 1024)? > size("maxRingSize", 4096)? {
                return Err(
                    config.fault("minRingSize is over maxRingSize; write them the other way round")
                );
            }
        }
        Policy::WeightedRoundRobin => {
            if let Some(place) = config.get("errorUtilizationPenalty")?
                && place.number()? < 0.0
            {
                return Err(place.fault("is negative; write 0 or more"));
            }
        }
        _ => {
            config.get("")?; // an object, whatever is in it
        }
    }
    Ok(())
}

fn ring_size(place: &Place<'_>) -> Result<u32, String> {
    match place.count()? {
        size @ 1..=8_388_608 => Ok(size),
        size => Err(place.fault(format_args!("{size} is not in 1 up to 8388608"))),
    }
}

impl OutlierDetection {
    fn read(place: &Place<'_>) -> Result<Self, String> {
        let time = |key, default| {
            let given = place.read(key, Place::duration)?;
            Ok::<_, String>(given.unwrap_or(Duration::from_secs(default)))
        };
        let base = time("baseEjectionTime", 30)?;
        Ok(Self {
            interval: time("interval", 10)?,
            base_ejection_time: base,
            max_ejection_time: time("maxEjectionTime", 300)?.max(base),
            max_ejection_percent: place.read("maxEjectionPercent", Place::percent)?.unwrap_or(10),
            success_rate: place.read("successRateEjection", SuccessRate::read)?,
            failure_percentage: place.read("failurePercentageEjection", FailurePercentage::read)?,
        })
    }
}

impl SuccessRate {
    fn read(place: &Place<'_>) -> Result<Self, String> {
        let count =
            |key, default| Ok::<_, String>(place.read(key, Place::count)?.unwrap_or(default));
        Ok(Self {
            stdev_factor: count("stdevFactor", 1900)?,
            enforcement_percentage: enforcement(place)?,
            minimum_hosts: count("minimumHosts", 5)?,
            request_volume: count("requestVolume", 100)?,
        })
    }
}

impl FailurePercentage {
    fn read(place: &Place<'_>) -> Result<Self, String> {
        let count =
            |key, default| Ok::<_, String>(place.read(key, Place::count)?.unwrap_or(default));
        Ok(Self {
            threshold: place.read("threshold", Place::percent)?.unwrap_or(85),
            enforcement_percentage: enforcement(place)?,
            minimum_hosts: count("minimumHosts", 5)?,
            request_volume: count("requestVolume", 50)?,
        })
    }
}

fn enforcement(place: &Place<'_>) -> Result<u32, String> {
    Ok(place.read("enforcementPercentage", Place::percent)?.unwrap_or(100))
}
