//! A trace's context in a call's metadata, by whichever propagator the program has installed.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::{
    Context, global,
    propagation::{Extractor, Injector},
};

/// Writes the context into a request's headers, in place of what they may have of another.
pub(super) fn inject(context: &Context, headers: &mut HeaderMap) {
    global::get_text_map_propagator(|propagator| {
        propagator.inject_context(context, &mut Outgoing(headers));
    });
}

/// The context that a request's headers have: an empty one where they have none.
pub(super) fn extract(headers: &HeaderMap) -> Context {
    // Not on top of what is current: a connection's task belongs to no trace.
    global::get_text_map_propagator(|propagator| {
        propagator.extract_with_context(&Context::new(), &Incoming(headers))
    })
}

struct Outgoing<'a>(&'a mut HeaderMap);

impl Injector for Outgoing<'_> {
    fn set(&mut self, key: &str, value: String) {
        // What no header can carry is left out: the call is worth more than its trace.
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(key.as_bytes()), HeaderValue::try_from(value))
        {
            self.0.insert(name, value);
        }
    }
}

struct Incoming<'a>(&'a HeaderMap);

impl Extractor for Incoming<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}
