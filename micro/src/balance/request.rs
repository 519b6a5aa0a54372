//! What a call says of itself to be given a node.

use http::HeaderMap;

use super::{EndpointId, snapshot::Endpoint};
use crate::registry::Node;

/// A call as far as the choice of its node goes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Request<'a> {
    /// Where its earlier attempts went: avoided while there is another node.
    pub(crate) tried: &'a [EndpointId],
    /// The path of its method: `/greeter.v1.Greeter/Hello`.
    pub(crate) method: &'a str,
    /// Its metadata.
    pub(crate) metadata: Option<&'a HeaderMap>,
    /// Its key, hashed: calls of one key go to one node where the policy says so.
    pub(crate) hash: Option<u64>,
    /// The id of the only node that it may go to.
    pub(crate) node: Option<&'a str>,
    /// Whether it may be made again elsewhere after it has reached a handler.
    pub(crate) can_move: bool,
    /// How many calls under way on a node are too many for one more: the balancer says it.
    pub(crate) limit: Option<u32>,
}

impl Request<'_> {
    pub(super) fn has_room<C>(&self, endpoint: &Endpoint<C>) -> bool {
        self.limit.is_none_or(|limit| endpoint.load.in_flight() < limit)
    }
}

/// A request and what it may go to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) request: &'a Request<'a>,
    /// What to avoid.
    pub(super) tried: &'a [EndpointId],
    /// Whether a node must list the method.
    pub(super) serving: bool,
}

impl Asked<'_> {
    /// Whether every endpoint will do.
    pub(super) fn is_any(&self) -> bool {
        self.tried.is_empty() && !self.serving && self.request.limit.is_none()
    }

    pub(super) fn admits<C>(&self, endpoint: &Endpoint<C>) -> bool {
        let Self { request, tried, serving } = self;
        !tried.contains(&endpoint.id)
            && (!serving || serves(&endpoint.node, request.method))
            && request.has_room(endpoint)
    }
}

/// Whether the record has the method, or no methods at all: then it is not one that lists them.
pub(super) fn serves(node: &Node, method: &str) -> bool {
    node.endpoints.is_empty()
        || node.endpoints.iter().any(|endpoint| is_same(&endpoint.name, method))
}

/// Whether `Greeter.Hello` of a record is the method of a path, `/greeter.v1.Greeter/Hello`.
fn is_same(endpoint: &str, method: &str) -> bool {
    let Some((service, name)) = method.trim_start_matches('/').split_once('/') else {
        return false;
    };
    let short = service.rsplit_once('.').map_or(service, |(_, short)| short);
    endpoint.split_once('.') == Some((short, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Endpoint;

    #[test]
    fn a_record_serves_the_methods_that_it_lists_or_all_if_it_lists_none() {
        let mut node = Node::new("greeter", "1", "host:1");
        assert!(serves(&node, "/greeter.v1.Greeter/Hello"), "it lists none");
        let named = |name: &str| Endpoint { name: name.to_owned(), ..Endpoint::default() };
        node.endpoints = vec![named("Greeter.Hello"), named("Greeter.Wave")];
        for (method, expected) in [
            ("/greeter.v1.Greeter/Hello", true),
            ("/Greeter/Wave", true),
            ("/greeter.v1.Greeter/Bow", false),
            ("/greeter.v1.Other/Hello", false),
            ("/greeter.v1.Greeter/Hello/", false),
            ("Hello", false),
        ] {
            assert_eq!(serves(&node, method), expected, "{method}");
        }
    }
}
