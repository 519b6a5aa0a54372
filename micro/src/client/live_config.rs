//! The service config in force on a channel.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use tokio::sync::{SetOnce, watch};

use super::{ServiceConfig, throttle::Throttle};
use crate::balance::Tuning;

/// The service config that calls go by, out of what each source says.
#[derive(Debug, Default)]
pub(super) struct LiveConfig {
    service: Arc<str>,
    /// Nothing to load where no source says anything.
    live: ArcSwapOption<Live>,
    heard: SetOnce<()>,
    said: Mutex<Said>,
    /// What holds of balancing where no service config says anything.
    code: Tuning,
    tuning: watch::Sender<Tuning>,
}

#[derive(Debug)]
pub(super) struct Live {
    pub(super) config: ServiceConfig,
    pub(super) throttle: Option<Arc<Throttle>>,
}

/// Who has a word in it: the first of these that says anything is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// A file is a decision of whoever runs the client.
    File,
    /// As in gRPC, what the resolver finds goes before the program's default.
    Registry,
    Code,
}

/// By source.
type Said = [Option<ServiceConfig>; 3];

impl LiveConfig {
    /// Nothing said, but for what the code says of balancing.
    pub(super) fn new(service: Arc<str>, code: Tuning) -> Self {
        let tuning = watch::Sender::new(code.clone());
        Self { service, code, tuning, ..Self::default() }
    }

    /// How the balancer is to go, as it changes.
    pub(super) fn tuning(&self) -> watch::Receiver<Tuning> {
        self.tuning.subscribe()
    }

    /// What holds for the calls that begin now.
    pub(super) fn load(&self) -> arc_swap::Guard<Option<Arc<Live>>> {
        self.live.load()
    }

    /// Set once the registry has answered, and its word is said.
    pub(super) fn heard(&self) -> &SetOnce<()> {
        &self.heard
    }

    /// What a source says from now on, if anything.
    pub(super) fn say(&self, source: Source, config: Option<ServiceConfig>) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said[source as usize] = config;
        let earlier = self.live.load();
        let live = said.iter().flatten().next().map(|config| {
            let earlier = earlier.as_ref().and_then(|live| live.throttle.as_deref());
            let throttle = config.throttle(earlier).map(Arc::new);
            Arc::new(Live { config: config.clone(), throttle })
        });
        let config = said.iter().flatten().next();
        self.tell(config, earlier.as_ref().map(|live| &live.config));
        if said.iter().any(Option::is_some) || earlier.is_some() {
            let tuned = tuned(&self.code, config);
            self.tuning.send_if_modified(|known| {
                let before = std::mem::replace(known, tuned);
                before != *known
            });
        }
        self.live.store(live);
    }

    /// Tells what of a config does not hold, unless it was so before.
    fn tell(&self, config: Option<&ServiceConfig>, earlier: Option<&ServiceConfig>) {
        let known = earlier.map_or(&[][..], ServiceConfig::unheeded);
        let unheeded = config.map_or(&[][..], ServiceConfig::unheeded);
        for it in unheeded.iter().filter(|it| !known.contains(it)) {
            let service = &*self.service;
            tracing::warn!(service, "not all of the service config holds: {it}");
        }
    }
}

/// What a service config says of balancing, and else the code.
fn tuned(code: &Tuning, config: Option<&ServiceConfig>) -> Tuning {
    let mut tuning = code.clone();
    if let Some(said) = config.and_then(ServiceConfig::load_balancing) {
        tuning.balancing = said.balancing.clone();
        tuning.ejection = said.ejection.clone().unwrap_or_default();
    }
    if let Some(service) = config.and_then(ServiceConfig::health_check) {
        tuning.health_check = Some(service.into());
    }
    tuning
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;
    use crate::fixture::Log;

    #[test]
    fn the_file_goes_before_the_registry_and_that_before_the_code() {
        let config = |seconds: u32| -> ServiceConfig {
            let json =
                format!(r#"{{"methodConfig": [{{"name": [{{}}], "timeout": "{seconds}s"}}]}}"#);
            json.parse().expect("a config")
        };
        let live = LiveConfig::default();
        let timeout = || {
            let live = live.load();
            let method = live.as_ref()?.config.method("/a.B/C")?.timeout;
            method.map(|timeout| timeout.as_secs())
        };
        assert_eq!(timeout(), None);
        live.say(Source::Code, Some(config(3)));
        assert_eq!(timeout(), Some(3));
        live.say(Source::File, Some(config(1)));
        assert_eq!(timeout(), Some(1));
        live.say(Source::Registry, Some(config(2)));
        assert_eq!(timeout(), Some(1));
        live.say(Source::File, None);
        assert_eq!(timeout(), Some(2));
        live.say(Source::Registry, None);
        assert_eq!(timeout(), Some(3));
    }

    #[test]
    fn a_config_that_comes_anew_does_not_forget_failures() {
        let config: ServiceConfig =
            r#"{"retryThrottling": {"maxTokens": 2, "tokenRatio": 0.1}}"#.parse().expect("one");
        let live = LiveConfig::default();
        let throttle = || live.load().as_ref().and_then(|live| live.throttle.clone());
        live.say(Source::Code, Some(config.clone()));
        throttle().expect("one").failed();
        live.say(Source::Registry, Some(config));
        assert!(!throttle().expect("one").permits());
    }

    #[test]
    fn what_of_a_config_does_not_hold_is_told_once_when_calls_go_by_it() {
        let log = Log::down_to(Level::WARN);
        let config = |policy: &str| -> ServiceConfig {
            format!(r#"{{"loadBalancingConfig": [{policy}]}}"#).parse().expect("one")
        };
        let ring = |size: u32| {
            config(&format!(r#"{{"ring_hash_experimental": {{"minRingSize": {size}}}}}"#))
        };
        let live = LiveConfig::new("greeter".into(), Tuning::default());
        live.say(Source::File, Some(config(r#"{"round_robin": {}}"#)));
        live.say(Source::Code, Some(ring(7)));
        assert!(log.lines().is_empty(), "no call goes by it: {:?}", log.lines());
        live.say(Source::File, None);
        let told = "WARN not all of the service config holds: \
                    $.loadBalancingConfig[0].ring_hash_experimental.minRingSize: the ring has one \
                    point for each node service=\"greeter\"";
        assert_eq!(log.lines(), [told]);
        live.say(Source::Registry, Some(ring(8)));
        assert_eq!(log.lines().len(), 1, "nothing else: {:?}", log.lines());
        live.say(Source::File, Some(config(r#"{"pick_first": {"shuffleAddressList": false}}"#)));
        assert_eq!(log.lines().len(), 2, "{:?}", log.lines());
    }

    #[test]
    fn a_service_config_goes_before_the_code_in_balancing_too() {
        let code = Tuning { health_check: Some("code".into()), ..Tuning::default() };
        let live = LiveConfig::new("a".into(), code);
        let tuning = live.tuning();
        let told = || {
            let Tuning { balancing, ejection, health_check } = tuning.borrow().clone();
            (format!("{balancing:?}"), ejection.max_ejection_percent, health_check)
        };
        let begun = told();
        let config = r#"{
            "loadBalancingConfig": [{"outlier_detection_experimental": {
                "maxEjectionPercent": 20, "childPolicy": [{"random": {}}]
            }}],
            "healthCheckConfig": {"serviceName": "file"}
        }"#;
        live.say(Source::File, Some(config.parse().expect("one")));
        assert_eq!(told(), ("Balancing(Random)".to_owned(), 20, Some("file".into())));
        live.say(Source::File, None);
        assert_eq!(told(), begun);
    }
}
