//! The service config in force on a channel.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use tokio::sync::SetOnce;

use super::{ServiceConfig, throttle::Throttle};

/// The service config that calls go by, out of what each source says.
#[derive(Debug, Default)]
pub(super) struct LiveConfig {
    /// Nothing to load where no source says anything.
    live: ArcSwapOption<Live>,
    heard: SetOnce<()>,
    said: Mutex<Said>,
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
        self.live.store(live);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
