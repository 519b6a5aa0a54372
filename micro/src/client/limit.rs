//! How large a message may be.

use std::fmt;

/// The most bytes of a message, and whose word that is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pub(super) bytes: usize,
    is_configured: bool,
}

impl Limit {
    pub(super) fn of_channel(bytes: usize) -> Self {
        Self { bytes, is_configured: false }
    }

    /// The lesser of what there is.
    pub(super) fn lesser(limit: Option<Self>, configured: Option<usize>) -> Option<Self> {
        let configured = configured.map(|bytes| Self { bytes, is_configured: true });
        match (limit, configured) {
            (Some(limit), Some(configured)) if limit.bytes <= configured.bytes => Some(limit),
            (limit, configured) => configured.or(limit),
        }
    }

    /// Whose it is and what to do about it.
    pub(super) fn remedy(self) -> &'static str {
        if self.is_configured {
            "raise it in the service config's `methodConfig`"
        } else {
            "raise ClientBuilder::max_message_size"
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = if self.is_configured { "method's" } else { "channel's" };
        write!(f, "the {whose} limit of {} bytes", self.bytes)
    }
}
