//! The same names without the feature: nobody is told anything.

use http::HeaderMap;
use tonic::Code;

use crate::registry::Node;

pub(crate) struct CallSpan;

impl CallSpan {
    pub(crate) fn start(_path: &str, _is_detached: bool) -> Self {
        Self
    }

    pub(crate) fn attempt(&self, _previous: u32, _is_transparent: bool) -> AttemptSpan {
        AttemptSpan
    }

    pub(crate) fn ended(self, _: Code, _message: &str) {}
}

pub(crate) struct AttemptSpan;

impl AttemptSpan {
    pub(crate) fn goes_to(&self, _: &Node, _: &mut HeaderMap) {}

    pub(crate) fn ended(self, _: Code, _message: &str) {}
}

#[derive(Debug)]
pub(crate) struct HandlerSpan;

impl HandlerSpan {
    pub(crate) fn start(_path: &str, _: &HeaderMap) -> Self {
        Self
    }

    pub(crate) fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        work()
    }

    pub(crate) fn ended(self, _: Code, _message: &str) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_feature_spans_take_no_room() {
        assert_eq!(size_of::<(CallSpan, AttemptSpan, HandlerSpan)>(), 0);
    }
}
