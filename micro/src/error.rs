//! The one error type of this crate.

use std::{error::Error as StdError, fmt};

/// What kind of failure an [`Error`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An option, a URL, a name or an environment variable that cannot be used as given.
    Config,
    /// The listener could not be bound or failed.
    Bind,
    /// The registry could not be reached, did not answer in time, or refused.
    Registry,
    /// The registry cannot do this by its nature, as `static://` cannot register.
    Unsupported,
    /// A connection to a node could not be made.
    Connect,
    /// A hook of the user's failed, panicked, or took too long.
    Hook,
}

/// An error of this crate: opaque, with a [kind](Self::kind), a text that names the hop and the
/// remedy, and the full chain of [sources](StdError::source).
///
/// Its `Debug` is the text for people, sources included, since `main` prints that.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of a [registry](crate::registry::Registry) of your own. The text is for people, in lower
    /// case and without a full stop: it names what failed and where, and the remedy.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), source: None }))
    }

    pub(crate) fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    pub(crate) fn registry(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Registry, message)
    }

    /// The same with what it follows from, which its text need not repeat.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The same with a word more, such as where a value at fault came from.
    pub(crate) fn noting(mut self, note: impl fmt::Display) -> Self {
        self.0.message = format!("{} ({note})", self.0.message);
        self
    }

    /// The kind of failure.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether an option, URL or name was at fault: nothing will change until it does.
    pub fn is_config(&self) -> bool {
        self.0.kind == ErrorKind::Config
    }

    /// Whether the registry was at fault: trying again may help.
    pub fn is_registry(&self) -> bool {
        self.0.kind == ErrorKind::Registry
    }

    /// Whether the registry cannot do this by its nature.
    pub fn is_unsupported(&self) -> bool {
        self.0.kind == ErrorKind::Unsupported
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        let mut source = self.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
