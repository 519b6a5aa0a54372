//! Which registry is meant.

use super::{Given, Setting, Source, Value};
use crate::{Error, discovery::Discovery, registry};

/// go-micro's words that stand for a registry at an address, each with the address that go-micro
/// takes if none is given.
const WITH_ADDRESS: [(&str, &str); 5] = [
    ("consul", "127.0.0.1:8500"),
    ("etcd", "127.0.0.1:2379"),
    ("nacos", "127.0.0.1:8848"),
    ("nats", "127.0.0.1:4222"),
    ("zookeeper", "127.0.0.1:2181"),
];

/// The words of registries that have none. All others are unknown.
const WITHOUT_ADDRESS: [&str; 3] = ["kubernetes", "mdns", "memory"];

/// The registry of those who name none, or nothing, which is an error that says what there is.
const DEFAULT: &str = if cfg!(feature = "mdns") { "mdns://" } else { "" };

impl Given {
    /// Opens the registry in force, or those, if the URL names several.
    ///
    /// # Errors
    /// `Config` as [`Discovery::open`], with where the URL came from.
    pub(crate) fn discovery(&self, code: Option<String>) -> Result<Value<Discovery>, Error> {
        let written = self.string(Setting::Registry, code.clone())?;
        let Value { value: url, source } = self.registry_url(code)?;
        let value = Discovery::open(&url).map_err(|error| match written {
            // The URL in the error is none that the user knows of.
            Some(Value { value: word, .. }) if is_word(&word) => {
                error.noting(format_args!("which is what `{word}` from {source} stands for"))
            }
            _ => source.note(error),
        })?;
        Ok(Value { value, source })
    }

    pub(super) fn registry_url(&self, code: Option<String>) -> Result<Value<String>, Error> {
        let registry = self.string(Setting::Registry, code)?;
        // Not read where it is of no use: a flag takes the place of all that the environment says
        // of the registry, and completes only a word that wants an address.
        let address = || self.variable(Setting::RegistryAddress);
        let Some(Value { value: registry, source }) = registry.filter(|it| !it.value.is_empty())
        else {
            return match address()? {
                None => Ok(Value::by_default(DEFAULT.to_owned())),
                Some(address) => Err(misplaced(&address, "no registry")),
            };
        };
        let is_flag = matches!(source, Source::Flag(_));
        if !is_word(&registry) {
            if !is_flag && let Some(address) = address()? {
                return Err(misplaced(&address, &format!("a URL, by {source}")));
            }
            return Ok(Value { value: registry, source });
        }
        let by_default = WITH_ADDRESS.iter().find(|(word, _)| *word == registry);
        let hosts = match by_default {
            Some((_, by_default)) => address()?.map_or(*by_default, |it| it.value),
            None => {
                if !is_flag
                    && WITHOUT_ADDRESS.contains(&registry.as_str())
                    && let Some(address) = address()?
                {
                    let registry = format!("{registry}, by {source}, which takes no address");
                    return Err(misplaced(&address, &registry));
                }
                ""
            }
        };
        Ok(Value { value: format!("{registry}://{hosts}"), source })
    }
}

/// Whether it names a kind of registry and no more, as go-micro's `MICRO_REGISTRY` does.
fn is_word(registry: &str) -> bool {
    registry.starts_with(|c: char| c.is_ascii_alphabetic())
        && registry.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// The error for addresses beside what has no use for them. They are most likely etcd's.
fn misplaced(address: &Value<&str>, beside: &str) -> Error {
    let Value { value: addresses, source } = address;
    let variable = Setting::Registry.entry().variable;
    let url = registry::redacted(&format!("etcd://{addresses}"));
    Error::config(format!(
        "{source} is set beside {beside}: it only completes a registry named by a word, as in \
         {variable}=etcd; write {variable}={url} and leave {source} out"
    ))
}
