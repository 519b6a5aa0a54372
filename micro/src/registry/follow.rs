//! What a registry's URL says of those who follow it, whichever registry it is.

use std::{path::PathBuf, time::Duration};

use super::url::Url;
use crate::{Error, duration};

/// How the nodes of a registry are followed.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Follow {
    /// How old the registry's last word may be. There is no end to it unless set.
    pub(crate) max_stale: Option<Duration>,
    /// The file that keeps what was known last.
    pub(crate) cache: Option<PathBuf>,
}

impl Follow {
    /// Takes the options out of the URL: the registry itself knows nothing of them.
    ///
    /// # Errors
    /// `Config` for one that is there twice, or whose value cannot be used.
    pub(super) fn taken_from(url: &mut Url) -> Result<Self, Error> {
        let max_stale = match url.take("max_stale")? {
            None => None,
            Some(text) => match duration::parse(&text).filter(|it| !it.is_zero()) {
                None => {
                    let text = text.escape_debug();
                    return Err(url.error(format_args!(
                        "option `max_stale`: `{text}` is no duration; write it as in `90s` or `10m`"
                    )));
                }
                duration => duration,
            },
        };
        let cache = match url.take("cache")? {
            Some(file) if file.is_empty() => {
                return Err(url.error("option `cache` names no file"));
            }
            file => file.map(PathBuf::from),
        };
        Ok(Self { max_stale, cache })
    }
}
