//! What the registries have in place of a service that they have no node of.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::time::timeout;

use super::Discovery;
use crate::{
    near::{self, clip},
    registry::Registry,
};

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

    /// Whose neighbours they are.
    pub(crate) fn service(&self) -> &str {
        &self.service
    }

    /// Why the registry may have no node of the service, for people who know nothing more.
    pub(crate) fn no_idea(&self) -> String {
        let hint = self.discovery.registries().iter().find_map(|registry| registry.hint());
        let hint = hint.map(|hint| format!(" {hint}")).unwrap_or_default();
        let service = clip(&self.service);
        format!("is '{service}' running, and on the same registry?{hint}")
    }

    /// Why, as far as what is registered there tells it, near names first, and which of several
    /// registries do not say; `None` when none does in time, or the service itself has come
    /// meanwhile.
    pub(crate) async fn ask(self) -> Option<String> {
        let mut names = BTreeSet::new();
        let mut silent = String::new();
        let mut is_told = false;
        for list in join_all(self.discovery.registries().iter().map(|it| list(&**it))).await {
            match list {
                Ok(services) => {
                    is_told = true;
                    names.extend(services);
                }
                Err(Some(why)) => {
                    silent.extend(["; not known is what else there is: ", clip(&why)])
                }
                Err(None) => {}
            }
        }
        if !is_told || names.iter().any(|name| **name == *self.service) {
            return None;
        }
        let names = || names.iter().map(String::as_str);
        let Some(list) = near::list(&self.service, names()) else {
            return Some(format!(
                "no service at all is registered there{silent}; {}",
                self.no_idea()
            ));
        };
        Some(match near::meant(&self.service, names()) {
            Some(name) => format!("did you mean {name}? registered there: {list}{silent}"),
            None => format!("registered there: {list}{silent}; {}", self.no_idea()),
        })
    }
}

/// The services of one registry, or why it does not say, unless it never does.
async fn list(registry: &dyn Registry) -> Result<Vec<String>, Option<String>> {
    match timeout(LIST_TIMEOUT, registry.list()).await {
        Ok(Ok(services)) => Ok(services),
        Ok(Err(error)) if error.is_unsupported() => Err(None),
        Ok(Err(error)) => Err(Some(error.to_string())),
        Err(_) => Err(Some(format!("{}: no answer within {LIST_TIMEOUT:?}", registry.name()))),
    }
}
