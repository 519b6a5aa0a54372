//! What a registry has in place of a service that it has no node of.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use crate::{
    near::{self, clip},
    registry::Registry,
};

/// The bound of one question, for a call that waits for its node meanwhile.
const LIST_TIMEOUT: Duration = Duration::from_secs(2);

/// Asks for the services that are registered beside one that is not, for the text of an error.
#[derive(Debug, Clone)]
pub(crate) struct Neighbours {
    registry: Arc<dyn Registry>,
    service: Arc<str>,
}

impl Neighbours {
    pub(crate) fn new(registry: Arc<dyn Registry>, service: &str) -> Self {
        Self { registry, service: service.into() }
    }

    /// The registry, for people.
    pub(crate) fn registry(&self) -> &str {
        clip(self.registry.name())
    }

    /// Why the registry may have no node of the service, for people who know nothing more.
    pub(crate) fn no_idea(&self) -> String {
        let hint = self.registry.hint().map(|hint| format!(" {hint}")).unwrap_or_default();
        let service = clip(&self.service);
        format!("is '{service}' running, and on the same registry?{hint}")
    }

    /// Why, as far as what is registered there tells it, near names first; `None` when the registry
    /// does not say in time, or the service itself has come meanwhile.
    pub(crate) async fn ask(self) -> Option<String> {
        let names = timeout(LIST_TIMEOUT, self.registry.list()).await.ok()?.ok()?;
        if names.iter().any(|name| **name == *self.service) {
            return None;
        }
        let names = || names.iter().map(String::as_str);
        let Some(list) = near::list(&self.service, names()) else {
            return Some(format!("no service at all is registered there; {}", self.no_idea()));
        };
        Some(match near::meant(&self.service, names()) {
            Some(name) => format!("did you mean {name}? registered there: {list}"),
            None => format!("registered there: {list}; {}", self.no_idea()),
        })
    }
}
