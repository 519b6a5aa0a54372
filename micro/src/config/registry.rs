//! Which registry is meant.

use std::sync::Arc;

use super::{Given, Setting, Source, Value};
use crate::{
    Error,
    registry::{self, Registry},
};

/// go-micro's words that stand for a registry at an address, each with the address that go-micro
/// takes if none is given.
const WITH_ADDRESS: [(&str, &str); 1] = [("etcd", "127.0.0.1:2379")];

/// The registry of those who name none, or nothing, which is an error that says what there is.
const DEFAULT: &str = if cfg!(feature = "mdns") { "mdns://" } else { "" };

impl Given {
    /// Opens the registry in force.
    ///
    /// # Errors
    /// `Config` as [`registry::open`], with where the URL came from.
    pub(crate) fn registry(&self, code: Option<String>) -> Result<Value<Arc<dyn Registry>>, Error> {
        let Value { value: url, source } = self.registry_url(code)?;
        let value = registry::open(&url).map_err(|error| source.note(error))?;
        Ok(Value { value, source })
    }

    pub(super) fn registry_url(&self, code: Option<String>) -> Result<Value<String>, Error> {
        let address = self.variable(Setting::RegistryAddress)?;
        let registry = self.string(Setting::Registry, code)?;
        let Some(Value { value: registry, source }) = registry.filter(|it| !it.value.is_empty())
        else {
            return match address {
                None => Ok(Value::by_default(DEFAULT.to_owned())),
                Some(address) => Err(misplaced(&address, "no registry", "etcd")),
            };
        };
        if !is_word(&registry) {
            // A flag takes the place of all that the environment says of the registry.
            if let (Some(address), Source::Variable(_) | Source::Code(_)) = (address, source) {
                let scheme = registry.split_once("://").map_or("etcd", |(scheme, _)| scheme);
                return Err(misplaced(&address, &format!("a URL, by {source}"), scheme));
            }
            return Ok(Value { value: registry, source });
        }
        let by_default = WITH_ADDRESS.iter().find(|(word, _)| *word == registry);
        let value = match (address, by_default) {
            (Some(address), Some(_)) => format!("{registry}://{}", address.value),
            (Some(address), None) => {
                let registry = format!("{registry}, by {source}, which takes no address,");
                return Err(misplaced(&address, &registry, "etcd"));
            }
            (None, by_default) => {
                format!("{registry}://{}", by_default.map_or("", |(_, address)| address))
            }
        };
        Ok(Value { value, source })
    }
}

/// Whether it names a kind of registry and no more, as go-micro's `MICRO_REGISTRY` does.
fn is_word(registry: &str) -> bool {
    registry.starts_with(|c: char| c.is_ascii_alphabetic())
        && registry.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// The error for addresses beside what has no use for them.
fn misplaced(address: &Value<&str>, beside: &str, scheme: &str) -> Error {
    let Value { value: addresses, source } = address;
    let variable = Setting::Registry.entry().variable;
    let url = registry::redacted(&format!("{scheme}://{addresses}"));
    Error::config(format!(
        "{source} is set beside {beside}: it only completes a registry named by a word, as in \
         {variable}=etcd; write {variable}={url} and leave {source} out"
    ))
}
