//! What the registries have in place of a service that they have no node of.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::time::timeout;

use super::Discovery;
use crate::near::{self, clip};

/// The bound of one question, for a call that waits for its node meanwhile.
const LIST_TIMEOUT: Duration = Duration::from_secs(2);

/// Asks for the services that are registered beside one that is not, for the text of an error.
#[derive(Debug, Clone)]
pub(crate) struct Neighbours {
    discovery: Discovery,
    registry: Arc<str>,
    service: Arc<str>,
}

impl Neighbours {
    pub(crate) fn new(discovery: Discovery, service: &str) -> Self {
        let registry = discovery.name().into();
        Self { discovery, registry, service: service.into() }
    }

    /// The registry, or registries, for people.
    pub(crate) fn registry(&self) -> &str {
        clip(&self.registry)
    }

    /// Why the registry may have no node of the service, for people who know nothing more.
    pub(crate) fn no_idea(&self) -> String {
        let hint = self.discovery.registries().iter().find_map(|registry| registry.hint());
        let hint = hint.map(|hint| format!(" {hint}")).unwrap_or_default();
        let service = clip(&self.service);
        format!("is '{service}' running, and on the same registry?{hint}")
    }

    /// Why, as far as what is registered there tells it, near names first; `None` when the registry
    /// does not say in time, or the service itself has come meanwhile.
    pub(crate) async fn ask(self) -> Option<String> {
        let lists = self
            .discovery
            .registries()
            .iter()
            .map(|registry| async { timeout(LIST_TIMEOUT, registry.list()).await.ok()?.ok() });
        let lists: Vec<_> = join_all(lists).await.into_iter().flatten().collect();
        if lists.is_empty() {
            return None;
        }
        let names: BTreeSet<_> = lists.into_iter().flatten().collect();
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
