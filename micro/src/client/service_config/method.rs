//! `methodConfig`: how the calls of some methods go.

use std::{collections::HashMap, time::Duration};

use super::place::Place;
use crate::client::{
    hedge::{Delay, Hedging},
    policy::{Backoff, RetryPolicy},
};

/// How the calls of a method go, as far as the service config says it.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::client) struct MethodConfig {
    pub(in crate::client) timeout: Option<Duration>,
    pub(in crate::client) wait_for_ready: Option<bool>,
    pub(in crate::client) max_request: Option<usize>,
    pub(in crate::client) max_response: Option<usize>,
    pub(in crate::client) retry: Option<RetryPolicy>,
    pub(in crate::client) hedging: Option<Hedging>,
}

/// By a call's path, by the path up to a service's name (`/greeter.v1.Greeter/`), or by nothing for
/// what holds for all: the more special ones win whole, not field by field.
#[derive(Debug, Default)]
pub(super) struct Methods(HashMap<String, MethodConfig>);

impl Methods {
    pub(super) fn of(&self, path: &str) -> Option<&MethodConfig> {
        let service = || self.0.get(&path[..=path.rfind('/')?]);
        self.0.get(path).or_else(service).or_else(|| self.0.get(""))
    }

    pub(super) fn read(root: &Place<'_>) -> Result<Self, String> {
        let mut methods = HashMap::new();
        for place in root.list("methodConfig")? {
            let config = MethodConfig::read(&place)?;
            for name in place.list("name")? {
                let path = path(&name)?;
                if methods.contains_key(&path) {
                    return Err(name.fault("has a methodConfig already; leave one out"));
                }
                methods.insert(path, config);
            }
        }
        Ok(Self(methods))
    }
}

fn path(name: &Place<'_>) -> Result<String, String> {
    let part = |key| Ok::<_, String>(name.read(key, Place::text)?.unwrap_or_default());
    match (part("service")?, part("method")?) {
        ("", "") => Ok(String::new()),
        ("", _) => Err(name.fault("names a method and no service; add `service`")),
        (service, method) => Ok(format!("/{service}/{method}")),
    }
}

impl MethodConfig {
    fn read(place: &Place<'_>) -> Result<Self, String> {
        let bytes = |key| Ok::<_, String>(place.read(key, Place::count)?.map(|it| it as usize));
        let config = Self {
            timeout: place.read("timeout", Place::duration)?,
            wait_for_ready: place.read("waitForReady", Place::flag)?,
            max_request: bytes("maxRequestMessageBytes")?,
            max_response: bytes("maxResponseMessageBytes")?,
            retry: place.read("retryPolicy", retry)?,
            hedging: place.read("hedgingPolicy", hedging)?,
        };
        if config.retry.is_some() && config.hedging.is_some() {
            return Err(place.fault("has both a retryPolicy and a hedgingPolicy; leave one out"));
        }
        Ok(config)
    }
}

fn retry(place: &Place<'_>) -> Result<RetryPolicy, String> {
    let attempts = attempts(place)?;
    let initial = place.required("initialBackoff")?.positive_duration()?;
    let max = place.required("maxBackoff")?.positive_duration()?;
    let multiplier = place.required("backoffMultiplier")?;
    let backoff = Backoff { initial, max, multiplier: multiplier.number()? };
    if backoff.multiplier <= 0.0 {
        return Err(multiplier.fault("is not over zero; write a number such as 2"));
    }
    let listed = place.required("retryableStatusCodes")?;
    let codes = listed.codes()?;
    if codes.is_empty() {
        return Err(listed.fault("is empty; name a status such as \"UNAVAILABLE\""));
    }
    Ok(RetryPolicy { backoff: Some(backoff), ..RetryPolicy::on(codes).max_attempts(attempts) })
}

fn hedging(place: &Place<'_>) -> Result<Hedging, String> {
    let attempts = attempts(place)?;
    let delay = place.read("hedgingDelay", Place::duration)?.unwrap_or_default();
    let codes = place.read("nonFatalStatusCodes", Place::codes)?.unwrap_or_default();
    let at_once = Backoff { initial: Duration::ZERO, max: Duration::ZERO, multiplier: 1.0 };
    let others = RetryPolicy { backoff: Some(at_once), ..RetryPolicy::on(codes) };
    let others = others.max_attempts(attempts);
    let timed = others.max_attempts - 1;
    Ok(Hedging { delay: Delay::Fixed(delay), timed, others, is_strict: true })
}

fn attempts(place: &Place<'_>) -> Result<u32, String> {
    let attempts = place.required("maxAttempts")?;
    match attempts.count()? {
        count @ 0..2 => Err(attempts.fault(format_args!("{count} is too few; write 2 or more"))),
        count => Ok(count),
    }
}
