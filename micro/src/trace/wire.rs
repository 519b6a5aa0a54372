//! A trace's context in a call's metadata, by whichever propagator the program has installed.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::{
    Context, global,
    propagation::{Extractor, Injector, TextMapPropagator},
};

/// Writes the context into a request's headers, in place of what they may have of another.
pub(super) fn inject(context: &Context, headers: &mut HeaderMap) {
    global::get_text_map_propagator(|propagator| {
        propagator.inject_context(context, &mut Outgoing(headers));
    });
}

/// The context that a request's headers have: an empty one where they have none.
pub(super) fn extract(headers: &HeaderMap) -> Context {
    global::get_text_map_propagator(|propagator| extract_by(propagator, headers))
}

fn extract_by(propagator: &dyn TextMapPropagator, headers: &HeaderMap) -> Context {
    // Not on top of what is current: a connection's task belongs to no trace.
    propagator.extract_with_context(&Context::new(), &Incoming::new(headers))
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

struct Incoming<'a> {
    headers: &'a HeaderMap,
    /// What came in several fields, which are one list (RFC 9110, section 5.3): W3C's `tracestate` is
    /// one, and two `traceparent`s are none.
    lists: Vec<(&'a HeaderName, String)>,
}

impl<'a> Incoming<'a> {
    fn new(headers: &'a HeaderMap) -> Self {
        let list = |name| {
            let values = headers.get_all(name).iter().map(HeaderValue::to_str);
            let values: Vec<_> = values.collect::<Result<_, _>>().unwrap_or_default();
            (name, values.join(","))
        };
        let is_list = |name: &&HeaderName| headers.get_all(*name).iter().nth(1).is_some();
        // Nearly always there is none.
        let is_plain = headers.keys_len() == headers.len();
        let names = (!is_plain).then(|| headers.keys()).into_iter().flatten();
        Self { headers, lists: names.filter(is_list).map(list).collect() }
    }
}

impl Extractor for Incoming<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match self.lists.iter().find(|(name, _)| *name == key) {
            Some((_, list)) => Some(list),
            None => self.headers.get(key)?.to_str().ok(),
        }
    }

    fn keys(&self) -> Vec<&str> {
        self.headers.keys().map(HeaderName::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, TraceContextExt as _};
    use opentelemetry_sdk::propagation::TraceContextPropagator;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    /// What W3C's propagator finds in a request with these headers.
    fn found(fields: &[(&'static str, &[u8])]) -> SpanContext {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_bytes(value).expect("a value"));
        }
        let context = extract_by(&TraceContextPropagator::new(), &headers);
        context.span().span_context().clone()
    }

    #[test]
    fn several_tracestates_are_one_list() {
        let parent = ("traceparent", PARENT.as_bytes());
        let found = found(&[parent, ("tracestate", b"a=1"), ("tracestate", b"b=2,c=3")]);
        assert_eq!(found.trace_state().header(), "a=1,b=2,c=3");
    }

    #[test]
    fn two_parents_are_none() {
        let other = b"00-11111111111111111111111111111111-2222222222222222-01";
        let parent = ("traceparent", PARENT.as_bytes());
        assert!(!found(&[parent, ("traceparent", other)]).is_valid());
    }

    #[test]
    fn what_is_malformed_is_no_parent() {
        assert!(found(&[("traceparent", PARENT.as_bytes())]).is_valid());
        for parent in [
            &b""[..],
            b"00",
            b"\xff\xfe",
            b"zz-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            b"ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            b"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            b"00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        ] {
            let text = String::from_utf8_lossy(parent);
            assert!(!found(&[("traceparent", parent)]).is_valid(), "{text}");
        }
        let parent = ("traceparent", PARENT.as_bytes());
        for state in [&b"=,,,;bad"[..], b"\xff"] {
            let found = found(&[parent, ("tracestate", state)]);
            assert!(found.is_valid(), "the parent holds without its state");
            assert_eq!(found.trace_state().header(), "");
        }
    }
}
