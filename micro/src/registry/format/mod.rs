//! How records are written: go-micro's way, which is ours, and those of other fleets. A value's
//! codec is here, without IO; where it goes in a registry, its key or path, is the backend's.

#![cfg_attr(
    not(feature = "etcd"),
    allow(dead_code, unused_imports, reason = "etcd:// alone has all of these formats")
)]

pub(super) mod etcd_naming;
#[cfg(test)]
pub(super) mod fuzz;
pub(super) mod go_zero;
pub(super) mod gomicro;
mod json;
pub(super) mod kitex;
pub(super) mod kratos;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;

use std::fmt;

pub(super) use self::json::shorten;

use super::{Node, url::Url};
use crate::Error;

/// What a record looks like, and to whom it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::registry) enum Format {
    /// go-micro's, and our own.
    Micro,
    /// go-zero's.
    GoZero,
    /// Kratos's.
    Kratos,
    /// Kitex's.
    Kitex,
    /// That of etcd's own naming library, which grpc-go's users have.
    Etcd,
}

impl Format {
    /// The formats that the URL's option `format` names, in its order: all of them are written and
    /// read, and where one node's record is there in several, the first is in force. Without the
    /// option it is [`Micro`](Self::Micro) alone.
    ///
    /// # Errors
    /// `Config` for a word that none of the `supported` has, for one that is there twice, and for
    /// none at all; the text names it, and those that there are.
    pub(in crate::registry) fn of(url: &Url, supported: &[Self]) -> Result<Vec<Self>, Error> {
        let Some(option) = url.option("format") else {
            return Ok(vec![Self::Micro]);
        };
        let known = || {
            let names: Vec<_> = supported.iter().map(|format| format.name()).collect();
            format!("{}:// has {}", url.scheme, names.join(", "))
        };
        if option.is_empty() {
            return Err(url.error(format_args!("option `format` names none; {}", known())));
        }
        let mut formats = Vec::new();
        for word in option.split(',') {
            let Some(&format) = supported.iter().find(|format| format.name() == word) else {
                let word = word.escape_debug();
                return Err(
                    url.error(format_args!("option `format`: unknown `{word}`; {}", known()))
                );
            };
            if formats.contains(&format) {
                return Err(url.error(format_args!("option `format` names {format} twice")));
            }
            formats.push(format);
        }
        Ok(formats)
    }

    /// As the option spells it.
    pub(in crate::registry) fn name(self) -> &'static str {
        match self {
            Self::Micro => "micro",
            Self::GoZero => "go-zero",
            Self::Kratos => "kratos",
            Self::Kitex => "kitex",
            Self::Etcd => "etcd",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What our nodes say of themselves in go-micro's words. The other formats have no place for it: who
/// is in them speaks gRPC.
const GRPC: [&str; 3] = ["protocol", "server", "transport"];

/// The node's metadata, but for what goes without saying in other formats.
fn facts(node: &Node) -> impl Iterator<Item = (&str, &str)> {
    let facts = node.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    facts.filter(|(key, value)| !(GRPC.contains(key) && *value == "grpc"))
}

/// Adds what goes without saying in another format.
fn says_grpc(node: &mut Node) {
    node.metadata.extend(GRPC.map(|key| (key.to_owned(), "grpc".to_owned())));
}
