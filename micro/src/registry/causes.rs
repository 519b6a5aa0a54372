//! An error's whole text, since a client's own names its hop and leaves the reason to what is beneath.

use std::{error::Error as StdError, fmt::Write};

/// The error and all that it came from.
pub(super) fn with_causes(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Wrappers often repeat what they wrap.
        if !text.ends_with(&next) {
            let _ = write!(text, ": {next}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn each_cause_is_told_once() {
        let refused = || Error::registry("connection refused");
        let repeats = Error::registry("connect: connection refused").with_source(refused());
        let all = Error::registry("cannot ask").with_source(repeats);
        assert_eq!(with_causes(&all), "cannot ask: connect: connection refused");
        let other = Error::registry("connect").with_source(refused());
        assert_eq!(with_causes(&other), "connect: connection refused");
    }
}
