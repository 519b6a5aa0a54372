//! Values that know where they came from.

use std::{collections::BTreeMap, fmt};

use super::Setting;
use crate::Error;

/// Where a value came from, as people call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Default,
    Code(Setting),
    Variable(Setting),
    #[cfg_attr(not(any(test, feature = "args")), allow(dead_code, reason = "there are no flags"))]
    Flag(Setting),
}

impl Source {
    /// The error for a value that cannot be read, with what to write instead.
    pub(super) fn refuse(self, setting: Setting, text: &str) -> Error {
        let text = text.escape_debug();
        Error::config(format!("{self} is '{text}': write {}", setting.entry().form))
    }

    /// The error with where the value at fault is from: nothing, if nobody chose it.
    pub(crate) fn note(self, error: Error) -> Error {
        if self == Self::Default { error } else { error.noting(format_args!("from {self}")) }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the default"),
            Self::Code(setting) => f.write_str(setting.entry().method),
            Self::Variable(setting) => f.write_str(setting.entry().variable),
            // Only what has a flag comes from one.
            Self::Flag(setting) => write!(f, "--{}", setting.entry().flag.unwrap_or_default()),
        }
    }
}

/// A value in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Value<T> {
    pub(crate) value: T,
    pub(crate) source: Source,
}

impl<T> Value<T> {
    pub(crate) fn by_default(value: T) -> Self {
        Self { value, source: Source::Default }
    }
}

/// Pairs in force, each of which may be from another source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pairs {
    pub(crate) pairs: BTreeMap<String, String>,
    /// In the order in which they were laid over one another.
    pub(super) sources: Vec<Source>,
}

impl Pairs {
    /// Where they are from, as people call it.
    pub(crate) fn sources(&self) -> String {
        let sources: Vec<_> = self.sources.iter().map(ToString::to_string).collect();
        if sources.is_empty() { Source::Default.to_string() } else { sources.join(" and ") }
    }
}

/// `key=value` pairs, comma separated, as go-micro reads `MICRO_SERVER_METADATA`; but a key alone,
/// which it takes for one with an empty value, is more likely what followed a comma in a value.
pub(super) fn pairs(text: &str) -> Option<BTreeMap<String, String>> {
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=')?;
        let key = key.trim();
        (!key.is_empty()).then(|| (key.to_owned(), value.to_owned()))
    };
    text.split(',').map(pair).collect()
}
