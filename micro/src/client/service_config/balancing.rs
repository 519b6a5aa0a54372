//! `loadBalancingConfig`: how a node is picked, and when one is left out.

use std::time::Duration;

use super::place::Place;
use crate::balance::{Balancing, ConsistentHash, EjectionRules, FailurePercentage, SuccessRate};

/// The first policy of the list that is known here.
#[derive(Debug, Clone)]
pub(crate) struct LoadBalancing {
    pub(crate) balancing: Balancing,
    /// What was said around it.
    pub(crate) ejection: Option<EjectionRules>,
    pub(super) unheeded: Unheeded,
}

/// What is said and does not hold, by its path, with what does.
pub(super) type Unheeded = Vec<String>;

/// Reads a policy's own fields, and checks them by its gRFC's rules.
type Read = fn(&Place<'_>, &mut Unheeded) -> Result<Balancing, String>;

/// The policies by their names in service configs: gRPC's own, and then those of [`Balancing`].
const POLICIES: [(&str, Read); 12] = [
    ("round_robin", |_, _| Ok(Balancing::round_robin())),
    ("pick_first", pick_first),
    ("least_request_experimental", least_request),
    ("weighted_round_robin", weighted_round_robin),
    ("ring_hash_experimental", ring_hash),
    ("random_experimental", |_, _| Ok(Balancing::random())),
    ("p2c", |_, _| Ok(Balancing::p2c())),
    ("random", |_, _| Ok(Balancing::random())),
    ("least_request", least_request),
    ("weighted", |_, _| Ok(Balancing::weighted())),
    ("consistent_hash", consistent_hash),
    ("zone_first", |config, _| Ok(Balancing::zone_first(config.required("zone")?.text()?))),
];

const OUTLIER_DETECTION: &str = "outlier_detection_experimental";

/// Of [`OUTLIER_DETECTION`]: every node is looked at each time.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

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
        let read = known(&name).ok_or_else(|| place.fault(unknown(&name)))?;
        let nothing = serde_json::Value::Object(serde_json::Map::new());
        Self::of(read, &Place::root(&nothing)).map(Some)
    }

    fn first_known(parent: &Place<'_>, key: &str) -> Result<Self, String> {
        let mut names = Vec::new();
        for place in parent.list(key)? {
            let (name, config) = place.only_key()?;
            if name == OUTLIER_DETECTION {
                let mut unheeded = Unheeded::new();
                let rules = outlier_detection(&config, &mut unheeded)?;
                let child = Self::first_known(&config, "childPolicy")?;
                unheeded.extend(child.unheeded);
                return Ok(Self { ejection: Some(rules), unheeded, ..child });
            }
            if let Some(read) = known(name) {
                config.get("")?; // an object, whatever is in it
                return Self::of(read, &config);
            }
            names.push(name);
        }
        Err(parent.required(key)?.fault(unknown(&names.join("`, `"))))
    }

    fn of(read: Read, config: &Place<'_>) -> Result<Self, String> {
        let mut unheeded = Unheeded::new();
        Ok(Self { balancing: read(config, &mut unheeded)?, ejection: None, unheeded })
    }
}

fn known(name: &str) -> Option<Read> {
    POLICIES.iter().find(|(known, _)| *known == name).map(|(_, read)| *read)
}

fn unknown(names: &str) -> String {
    let all: Vec<_> = POLICIES.iter().map(|(name, _)| *name).collect();
    format!("no policy of `{names}` is known; write one of {}", all.join(", "))
}

/// gRFC A62. A set of nodes has no order, as the list of a resolver has.
fn pick_first(config: &Place<'_>, unheeded: &mut Unheeded) -> Result<Balancing, String> {
    if let Some(place) = config.get("shuffleAddressList")?
        && !place.flag()?
    {
        unheeded.push(place.fault("nodes are in no order, and the first is any of them"));
    }
    Ok(Balancing::pick_first())
}

/// gRFC A48.
fn least_request(config: &Place<'_>, _: &mut Unheeded) -> Result<Balancing, String> {
    let Some(place) = config.get("choiceCount")? else {
        return Ok(Balancing::least_request());
    };
    match place.count()? {
        0..2 => Err(place.fault("is under 2; write 2 or more")),
        choices => Ok(Balancing::least_request_of(choices)),
    }
}

/// gRFC A58. The weights are those of the nodes' records: load reports are not read.
const WEIGHT_PERIODS: [&str; 4] =
    ["oobReportingPeriod", "blackoutPeriod", "weightExpirationPeriod", "weightUpdatePeriod"];

fn weighted_round_robin(config: &Place<'_>, unheeded: &mut Unheeded) -> Result<Balancing, String> {
    config.read("enableOobLoadReport", Place::flag)?;
    for key in WEIGHT_PERIODS {
        config.read(key, Place::duration)?;
    }
    if let Some(place) = config.get("errorUtilizationPenalty")?
        && place.number()? < 0.0
    {
        return Err(place.fault("is negative; write 0 or more"));
    }
    let others = ["enableOobLoadReport", "errorUtilizationPenalty"];
    for key in others.iter().chain(&WEIGHT_PERIODS) {
        let holds = "load reports are not read, and the weights are those of the nodes' records";
        unheeded.extend(config.get(key)?.map(|place| place.fault(holds)));
    }
    Ok(Balancing::weighted())
}

/// gRFC A42, with the header of A76.
fn ring_hash(config: &Place<'_>, unheeded: &mut Unheeded) -> Result<Balancing, String> {
    for key in ["minRingSize", "maxRingSize"] {
        let holds = "the ring has one point for each node";
        unheeded.extend(config.get(key)?.map(|place| place.fault(holds)));
    }
    let size = |key, default| Ok::<_, String>(config.read(key, ring_size)?.unwrap_or(default));
    if size("minRingSize", 1024)? > size("maxRingSize", 4096)? {
        return Err(config.fault("minRingSize is over maxRingSize; write them the other way round"));
    }
    hash_by(config, "requestHashHeader").map(|hash| hash.unbounded().into())
}

fn consistent_hash(config: &Place<'_>, _: &mut Unheeded) -> Result<Balancing, String> {
    let hash = hash_by(config, "header")?;
    let is_bounded = config.read("bounded", Place::flag)?.unwrap_or(true);
    Ok(if is_bounded { hash } else { hash.unbounded() }.into())
}

fn hash_by(config: &Place<'_>, key: &str) -> Result<ConsistentHash, String> {
    let Some(place) = config.get(key)? else {
        return Ok(ConsistentHash::by_key());
    };
    let hash = ConsistentHash::by_header(place.text()?);
    Balancing::from(hash.clone()).check().map_err(|error| place.fault(error))?;
    Ok(hash)
}

fn ring_size(place: &Place<'_>) -> Result<u32, String> {
    match place.count()? {
        size @ 1..=8_388_608 => Ok(size),
        size => Err(place.fault(format_args!("{size} is not in 1 up to 8388608"))),
    }
}

/// With the defaults of
/// [gRFC A50](https://github.com/grpc/proposal/blob/master/A50-xds-outlier-detection.md), which are not
/// all [ours](EjectionRules::default).
fn outlier_detection(place: &Place<'_>, unheeded: &mut Unheeded) -> Result<EjectionRules, String> {
    let time = |key, default| {
        let given = place.read(key, Place::duration)?;
        Ok::<_, String>(given.unwrap_or(Duration::from_secs(default)))
    };
    let interval = time("interval", 10)?;
    if interval < SHORTEST_INTERVAL {
        unheeded.push(place.required("interval")?.fault("less than 1s counts as that"));
    }
    let max_ejection_percent = place.read("maxEjectionPercent", Place::percent)?.unwrap_or(10);
    if max_ejection_percent > 50 {
        unheeded.push(place.required("maxEjectionPercent")?.fault("over 50 counts as that"));
    }
    Ok(EjectionRules {
        interval: interval.max(SHORTEST_INTERVAL),
        base_ejection_time: time("baseEjectionTime", 30)?,
        max_ejection_time: time("maxEjectionTime", 300)?,
        max_ejection_percent,
        success_rate: place.read("successRateEjection", success_rate)?,
        failure_percentage: place.read("failurePercentageEjection", failure_percentage)?,
        if_clear: false,
    })
}

fn success_rate(place: &Place<'_>) -> Result<SuccessRate, String> {
    Ok(SuccessRate {
        stdev_factor: count(place, "stdevFactor", 1900)?,
        enforcement_percentage: enforcement(place)?,
        minimum_hosts: count(place, "minimumHosts", 5)? as usize,
        request_volume: count(place, "requestVolume", 100)?,
    })
}

fn failure_percentage(place: &Place<'_>) -> Result<FailurePercentage, String> {
    Ok(FailurePercentage {
        threshold: place.read("threshold", Place::percent)?.unwrap_or(85),
        enforcement_percentage: enforcement(place)?,
        minimum_hosts: count(place, "minimumHosts", 5)? as usize,
        request_volume: count(place, "requestVolume", 50)?,
    })
}

fn count(place: &Place<'_>, key: &str, default: u32) -> Result<u32, String> {
    Ok(place.read(key, Place::count)?.unwrap_or(default))
}

fn enforcement(place: &Place<'_>) -> Result<u32, String> {
    Ok(place.read("enforcementPercentage", Place::percent)?.unwrap_or(100))
}
