//! How records are written: go-micro's way, which is ours, and those of other fleets. A value's
//! codec is here, without IO; where it goes in a registry, its key or path, is the backend's.

pub(super) mod gomicro;

use std::fmt;

use super::url::Url;
use crate::Error;

/// What a record looks like, and to whom it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(not(feature = "etcd"), allow(dead_code, reason = "etcd:// alone has a choice so far"))]
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

#[cfg_attr(not(feature = "etcd"), allow(dead_code, reason = "etcd:// alone has a choice so far"))]
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

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: &[Format] = &[Format::Micro, Format::Kratos];

    fn formats(query: &str, supported: &[Format]) -> Result<Vec<Format>, String> {
        let url = Url::parse(&format!("consul://127.0.0.1{query}")).unwrap();
        Format::of(&url, supported).map_err(|error| error.to_string())
    }

    #[test]
    fn the_formats_of_a_url_are_those_it_names_in_its_order() {
        use Format::{Etcd, GoZero, Kitex, Kratos, Micro};
        let all = [Micro, GoZero, Kratos, Kitex, Etcd];
        for (query, expected) in [
            ("", vec![Micro]),
            ("?tls=true", vec![Micro]),
            ("?format=kratos", vec![Kratos]),
            ("?format=kratos,micro", vec![Kratos, Micro]),
            ("?format=micro%2Ckratos", vec![Micro, Kratos]),
            ("?format=etcd,kitex,kratos,go-zero,micro", vec![Etcd, Kitex, Kratos, GoZero, Micro]),
        ] {
            assert_eq!(formats(query, &all), Ok(expected), "{query}");
        }
    }

    #[test]
    fn what_is_no_format_here_is_refused_with_those_that_are() {
        for (query, named) in [
            ("?format=", "option `format` names none; consul:// has micro, kratos"),
            ("?format=dubbo", "option `format`: unknown `dubbo`; consul:// has micro, kratos"),
            ("?format=micro,kitex", "unknown `kitex`; consul:// has micro, kratos"),
            ("?format=Micro", "unknown `Micro`"),
            ("?format=micro,", "unknown ``"),
            ("?format=micro,+kratos", "unknown ` kratos`"),
            ("?format=micro%0A", "unknown `micro\\n`"),
            ("?format=kratos,kratos", "option `format` names kratos twice"),
        ] {
            let error = formats(query, SOME).unwrap_err();
            assert!(error.contains(named), "{query}: {error}");
        }
    }
}
